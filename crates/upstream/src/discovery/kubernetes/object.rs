//! The parts of the API server's objects that attache reads (`discovery.k8s.io/v1`, `meta/v1`).
//!
//! A field that is absent, null or unknown has the meaning that the API defines; a field of a wrong type makes its
//! slice unreadable, but no other slice.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Slice {
    pub(super) metadata: Metadata,
    ports: Option<Vec<SlicePort>>,
    endpoints: Option<Vec<SliceEndpoint>>,
}

/// An object's metadata.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) resource_version: String,
}

/// The meaning of an endpoint's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndpointReadiness {
    /// It accepts new work.
    Ready,
    /// It is terminating and still serves.
    Ending,
    /// It accepts no work.
    Out,
}

/// A port of all endpoints of a slice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SlicePort {
    pub(super) name: Option<String>,
    #[serde(rename = "port")]
    pub(super) number: Option<u16>,
    protocol: Option<String>,
}

/// A pod, or another owner of the address.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SliceEndpoint {
    #[serde(deserialize_with = "or_default")]
    addresses: Vec<String>,
    conditions: Option<EndpointConditions>,
    zone: Option<String>,
    hints: Option<Hints>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hints {
    for_zones: Option<Vec<ForZone>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ForZone {
    name: String,
}

/// A list of EndpointSlices.
#[derive(Debug, Default)]
pub(super) struct SliceList {
    pub(super) version: String,
    pub(super) slices: Vec<Slice>,
    /// Names of slices that can't be read.
    pub(super) unreadable: Vec<String>,
    /// The mistake in the first of them.
    pub(super) wrong: Option<String>,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct WatchEvent {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) object: Value,
}

impl SliceList {
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct RawList {
            kind: String,
            metadata: Metadata,
            items: Option<Vec<Value>>,
        }
        let raw: RawList =
            serde_json::from_slice(text).map_err(|error| format!("the list can't be read: {error}"))?;
        if raw.kind != "EndpointSliceList" {
            return Err(format!("the answer is a `{}` and no EndpointSliceList", raw.kind.escape_debug()));
        }
        let mut list = Self { version: version(raw.metadata.resource_version)?, ..Self::default() };
        for item in raw.items.unwrap_or_default() {
            let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
            match serde_json::from_value::<Slice>(item) {
                Ok(slice) => list.slices.push(slice),
                Err(error) => {
                    list.wrong.get_or_insert_with(|| format!("the slice `{name}` can't be read: {error}"));
                    list.unreadable.push(name);
                }
            }
        }
        Ok(list)
    }
}

/// A resource version that may be put into a query.
pub(super) fn version(text: String) -> Result<String, String> {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !text.is_empty() && text.len() <= 128 && text.bytes().all(right) {
        return Ok(text);
    }
    let shown: String = text.chars().take(40).collect();
    Err(format!("the answer has no resource version that can be used (`{}`)", shown.escape_debug()))
}

impl Slice {
    pub(super) fn ports(&self) -> &[SlicePort] {
        self.ports.as_deref().unwrap_or_default()
    }

    pub(super) fn endpoints(&self) -> &[SliceEndpoint] {
        self.endpoints.as_deref().unwrap_or_default()
    }
}

impl SlicePort {
    pub(super) fn is_tcp(&self) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    }

    /// For people.
    pub(super) fn describe(&self) -> Option<String> {
        let port = self.number?;
        Some(match self.name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => format!("{} ({port})", name.escape_debug()),
            None => port.to_string(),
        })
    }
}

impl SliceEndpoint {
    /// The API says that unknown means ready, and that a missing `serving` is the same as `ready`.
    pub(super) fn state(&self) -> EndpointReadiness {
        let conditions = self.conditions.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let ending = conditions.serving.unwrap_or(ready) && conditions.terminating.unwrap_or(false);
        match (ready, ending) {
            (true, _) => EndpointReadiness::Ready,
            (false, true) => EndpointReadiness::Ending,
            (false, false) => EndpointReadiness::Out,
        }
    }

    /// All addresses of one endpoint belong to the same pod; the first is used. `None` for names (`addressType: FQDN`).
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.addresses.first()?.parse().ok()
    }

    /// The zone that it should serve by the Service's hints; without hints, its own zone. If there are several hints,
    /// attache's own zone goes first.
    pub(super) fn zone_for(&self, own: Option<&str>) -> Option<&str> {
        let hints = self.hints.as_ref().and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
        let ours = hints.iter().find(|zone| own == Some(zone.name.as_str()));
        let hinted = ours.or(hints.first()).map(|zone| zone.name.as_str());
        hinted.or(self.zone.as_deref()).filter(|zone| !zone.is_empty())
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_that_cannot_be_read_affects_no_other() {
        let text = r#"{"kind":"EndpointSliceList","metadata":{"resourceVersion":"7"},"items":[
            {"metadata":{"name":"a"}},{"metadata":{"name":"b"},"ports":[{"port":"x"}]},7]}"#;
        let list = SliceList::parse(text.as_bytes()).unwrap();
        assert_eq!((list.version.as_str(), list.slices.len()), ("7", 1));
        assert_eq!(list.unreadable, ["b", ""]);
        assert!(list.wrong.unwrap().contains("`b`"));
    }

    #[test]
    fn an_answer_that_is_no_list_is_refused() {
        for (text, why) in [
            ("", "can't be read"),
            ("{}", "no EndpointSliceList"),
            (r#"{"kind":"PodList","metadata":{"resourceVersion":"1"}}"#, "PodList"),
            (r#"{"kind":"EndpointSliceList","metadata":{}}"#, "resource version"),
            (
                r#"{"kind":"EndpointSliceList","metadata":{"resourceVersion":"1&watch=0"}}"#,
                "resource version",
            ),
            (
                r#"{"kind":"EndpointSliceList","metadata":{"resourceVersion":"1"},"items":{}}"#,
                "can't be read",
            ),
        ] {
            let error = SliceList::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(text: Vec<u8>) {
            let _ = SliceList::parse(&text);
            let _ = serde_json::from_slice::<WatchEvent>(&text);
        }
    }
}
