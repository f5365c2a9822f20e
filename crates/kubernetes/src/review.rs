//! The answers of the mutating admission webhook: `AdmissionReview` in, `AdmissionReview` out.
//!
//! Source: the Kubernetes documentation's "Dynamic Admission Control" (`admission.k8s.io/v1`). It is a pure function
//! that writes nothing, so a dry run (`dryRun: true`) gets the same answer (`sideEffects: None`). The same review
//! always gets the same answer, and a pod that has attache already gets no patch, so that the API server may ask again
//! (`reinvocationPolicy`).
//!
//! A pod that can't have attache is admitted without it, with a warning that says why. If it asks for attache itself
//! (`attache.dev/inject: "true"`), it is denied, since its owner relies on attache.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    edit::json_patch,
    inject::{
        InjectionSettings, PREFIX,
        plan::{self, InjectionDecision, decide},
    },
    object::{self, ObjectKind},
};

/// A review larger than this isn't read; the API server's own limit for an object is 3 MiB.
pub const MAX_REVIEW_BYTES: usize = 8 << 20;

/// kubectl shows warnings up to this length whole.
const WARNING: usize = 256;

/// The answer, and one line about it for the log.
#[derive(Debug)]
pub struct ReviewAnswer {
    /// The `AdmissionReview` to send.
    pub review: Value,
    /// The decision.
    pub summary: String,
    /// The same as a word, for metrics.
    pub outcome: ReviewOutcome,
}

/// The decision about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewOutcome {
    /// It gets attache.
    Injected,
    /// It has attache already.
    Present,
    /// It isn't meant to have attache.
    Skipped,
    /// It can't have attache, and is admitted without it.
    Refused,
    /// It can't have attache, but asks for it, and is denied.
    Denied,
    /// There is nothing to decide, since no pod is created.
    Nothing,
}

impl ReviewOutcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Injected, Self::Present, Self::Skipped, Self::Refused, Self::Denied, Self::Nothing];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Present => "present",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Denied => "denied",
            Self::Nothing => "nothing",
        }
    }
}

/// Answers a review.
///
/// # Errors The body isn't a review: the problem, for a 400.
pub fn respond(body: &[u8], defaults: &InjectionSettings) -> Result<ReviewAnswer, String> {
    let review: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body isn't JSON: {error}"))?;
    let version = review.get("apiVersion").and_then(Value::as_str);
    if version != Some("admission.k8s.io/v1")
        || review.get("kind").and_then(Value::as_str) != Some("AdmissionReview")
    {
        return Err("the body isn't an AdmissionReview of admission.k8s.io/v1".to_owned());
    }
    let request = review.get("request").ok_or("the review has no request")?;
    let uid = request.get("uid").and_then(Value::as_str).filter(|uid| !uid.is_empty());
    let uid = uid.ok_or("the review's request has no uid")?;

    let mut response = Map::new();
    response.insert("uid".to_owned(), uid.into());
    response.insert("allowed".to_owned(), true.into());
    let mut outcome = ReviewOutcome::Nothing;
    let summary = match looked_at(request) {
        Err(why) => why,
        Ok(object) => {
            let name = name(&object, request);
            let mut warnings = Vec::new();
            let kind = ObjectKind::of(&object, None);
            let pod = (kind.group.is_empty() && kind.kind == "Pod").then_some([].as_slice());
            let asks = matches!(plan::asks(&object, &object), Ok(Some((true, _))));
            let summary = match decide(&object, &kind, pod, defaults, &|_| None) {
                InjectionDecision::Inject { edits, warnings: more, .. } => {
                    let patch = Value::from(json_patch(&edits)).to_string();
                    response.insert("patchType".to_owned(), "JSONPatch".into());
                    response.insert("patch".to_owned(), STANDARD.encode(patch).into());
                    warnings = more;
                    outcome = ReviewOutcome::Injected;
                    "injected".to_owned()
                }
                InjectionDecision::Present => {
                    outcome = ReviewOutcome::Present;
                    "it has attache".to_owned()
                }
                InjectionDecision::Skip(why) => {
                    outcome = ReviewOutcome::Skipped;
                    warnings.push(format!("not injected: {why}"));
                    format!("skipped: {why}")
                }
                InjectionDecision::Refuse(why) if asks => {
                    outcome = ReviewOutcome::Denied;
                    response.insert("allowed".to_owned(), false.into());
                    let message = format!("attache can't be injected, and {PREFIX}inject asks for it: {why}");
                    response.insert(
                        "status".to_owned(),
                        json!({"code": 422, "reason": "Invalid", "message": message}),
                    );
                    format!("denied: {why}")
                }
                InjectionDecision::Refuse(why) => {
                    outcome = ReviewOutcome::Refused;
                    warnings.push(format!("NOT injected: {why}"));
                    format!("refused: {why}")
                }
            };
            if !warnings.is_empty() {
                let warnings: Vec<Value> = warnings
                    .iter()
                    .map(|warning| shortened(&format!("attache: {name}: {warning}")).into())
                    .collect();
                response.insert("warnings".to_owned(), warnings.into());
            }
            format!("{name}: {summary}")
        }
    };
    let review =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Ok(ReviewAnswer { review, summary, outcome })
}

/// The object that will be created, with its kind, which the object itself may lack.
fn looked_at(request: &Value) -> Result<Value, String> {
    let text = |path: &str| request.pointer(path).and_then(Value::as_str).unwrap_or_default();
    if text("/operation") != "CREATE" {
        return Err(format!("nothing to do for {}: containers of a pod don't change", text("/operation")));
    }
    if !text("/subResource").is_empty() {
        return Err(format!("nothing to do for the subresource {}", text("/subResource")));
    }
    let Some(Value::Object(object)) = request.get("object") else {
        return Err("the request has no object".to_owned());
    };
    let mut object = object.clone();
    let (group, version) = (text("/kind/group"), text("/kind/version"));
    let api = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    object.entry("apiVersion").or_insert(api.into());
    object.entry("kind").or_insert(text("/kind/kind").into());
    Ok(Value::Object(object))
}

/// A controller's pod has only the begin of a name, and its namespace is in the request.
fn name(object: &Value, request: &Value) -> String {
    let name = object::name(object, &ObjectKind::of(object, None));
    match request.get("namespace").and_then(Value::as_str) {
        Some(namespace) if object.pointer("/metadata/namespace").is_none() => {
            format!("{name} in {namespace}")
        }
        _ => name,
    }
}

/// One line of bounded length: the API server drops warnings with line breaks.
fn shortened(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WARNING) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_that_is_no_review_is_refused_with_its_problem() {
        for (body, wrong) in [
            ("", "isn't JSON"),
            ("[]", "isn't an AdmissionReview"),
            (
                r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#,
                "isn't an AdmissionReview",
            ),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "no request"),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}"#, "no uid"),
        ] {
            let error = respond(body.as_bytes(), &InjectionSettings::default()).unwrap_err();
            assert!(error.contains(wrong), "{body}: {error}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let key = "(metadata|spec|containers|name|annotations|attache.dev/inject|env|ports|containerPort|volumes|httpGet|port|livenessProbe|securityContext|runAsUser|x)";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(6, 60, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(mut object in json(), transparent: bool) {
            if let Some(object) = object.as_object_mut() {
                object.insert("kind".to_owned(), "Pod".into());
                object.insert("apiVersion".to_owned(), "v1".into());
            }
            let request = json!({"uid": "1", "operation": "CREATE", "object": object});
            let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
            let mut settings = InjectionSettings::default();
            settings.set("traffic", if transparent { "transparent" } else { "http-proxy" }).unwrap();
            settings.set("config-map", "c").unwrap();
            prop_assert!(respond(review.to_string().as_bytes(), &settings).is_ok());
        }
    }
}
