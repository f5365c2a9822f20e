//! Any body of an AdmissionReview gets an answer for its `uid`, or is refused. A patch can be applied, and the patched
//! pod gets no further patch.

use attache_kubernetes::{inject::InjectionSettings, review};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use json_patch::Patch;
use serde_json::Value;

/// The patch of an answer, if it has one.
fn patch(answer: &Value) -> Option<Patch> {
    let response = &answer["response"];
    let text = response.get("patch")?.as_str().unwrap();
    assert_eq!(response["patchType"], "JSONPatch");
    assert_eq!(response["allowed"], true);
    Some(serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap())
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let settings = InjectionSettings::default();
    let Ok(answer) = review::respond(data, &settings) else { return };
    let mut review: Value = serde_json::from_slice(data).unwrap();
    assert_eq!(answer.review["response"]["uid"], review["request"]["uid"]);
    assert!(answer.review["response"]["allowed"].is_boolean());
    assert_eq!(
        (&answer.review["kind"], &answer.review["apiVersion"]),
        (&review["kind"], &review["apiVersion"])
    );
    let Some(patch) = patch(&answer.review) else { return };
    json_patch::patch(&mut review["request"]["object"], &patch)
        .unwrap_or_else(|error| panic!("{error}: {patch:?}"));
    let again = review::respond(review.to_string().as_bytes(), &settings).unwrap();
    assert_eq!(again.outcome, review::ReviewOutcome::Present, "{}: {review}", again.summary);
}
