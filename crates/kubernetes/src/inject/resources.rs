//! Resources of a whole pod (`spec.resources`, Kubernetes 1.34): attache's own requests and limits are added to them.
//!
//! The API server refuses a pod whose containers together request more than the pod does, or of which one has a higher
//! limit than the pod ("Pod-level resources", `ValidatePodResourceRequirements`). The pod's owner chose the numbers for
//! the app, so attache's are added. attache asks only for CPU and memory.

use serde_json::Value;

use super::{
    quantity::Quantity,
    settings::{ContainerMode, InjectionSettings, TrafficMode},
};

/// A number of `spec.resources` that changes.
pub(crate) struct ResourceChange {
    /// `requests` or `limits`.
    pub(crate) part: &'static str,
    /// `cpu` or `memory`.
    pub(crate) resource: &'static str,
    pub(crate) value: Value,
}

/// The changes of a pod's own resources.
///
/// # Errors
/// A number of the pod isn't a quantity.
pub(crate) fn grown(spec: &Value, settings: &InjectionSettings) -> Result<Vec<ResourceChange>, String> {
    let mut grown = Vec::new();
    let Some(own) = spec.get("resources").filter(|own| own.is_object()) else { return Ok(grown) };
    let quantity = |text: &Option<String>| text.as_deref().and_then(Quantity::parse);
    for (resource, request, limit) in [
        ("cpu", &settings.cpu_request, &settings.cpu_limit),
        ("memory", &settings.memory_request, &settings.memory_limit),
    ] {
        let (request, limit) = (quantity(request), quantity(limit));
        let of_pod = |part: &str| match own.get(part).and_then(|part| part.get(resource)) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Quantity::parse(&text)
                    .map(Some)
                    .ok_or_else(|| format!("its resources.{part}.{resource} `{text}` isn't a quantity"))
            }
        };
        // A container without its own request requests its limit.
        let asked = request.or(limit);
        let requests = match (of_pod("requests")?, asked) {
            (Some(pod), Some(own)) => {
                // The init container that redirects runs beside attache, and requests as much.
                let twice =
                    settings.mode == ContainerMode::Native && settings.traffic == TrafficMode::Transparent;
                Some(if twice { pod.plus(own).max(own.plus(own)) } else { pod.plus(own) })
            }
            _ => None,
        };
        let limits = match (of_pod("limits")?, limit.or(request)) {
            (Some(pod), Some(own)) => {
                let sum = pod.plus(own);
                Some(requests.map_or(sum, |requests| sum.max(requests)))
            }
            _ => None,
        };
        for (part, new) in [("requests", requests), ("limits", limits)] {
            if let Some(new) = new {
                let cpu = resource == "cpu";
                grown.push(ResourceChange {
                    part,
                    resource,
                    value: if cpu { new.cpu() } else { new.memory() }.into(),
                });
            }
        }
    }
    Ok(grown)
}
