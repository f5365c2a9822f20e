//! `uninject` removes everything that `inject` has added to a manifest, and a review of the webhook gets an answer.

use attache_kubernetes::{
    inject::{InjectionOutcome, InjectionSettings, inject, uninject},
    review,
};

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let settings = InjectionSettings::default();
    let object = serde_json::from_str::<serde_json::Value>(text).unwrap_or_else(|_| text.into());
    let review = serde_json::json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": { "uid": "1", "operation": "CREATE", "namespace": "n", "object": object }
    });
    review::respond(review.to_string().as_bytes(), &settings).unwrap();

    let Ok(with) = inject(text, &settings) else { return };
    let changed = with.reports.iter().any(|report| matches!(report.outcome, InjectionOutcome::Injected(_)));
    if !changed || text.contains("attache") {
        return;
    }
    let without = uninject(&with.text).unwrap();
    assert_eq!(without.text, text, "by way of\n{}", with.text);
}
