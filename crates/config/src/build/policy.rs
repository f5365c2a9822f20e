//! Deadlines and retries: the route's, and where it has none the upstream's, and then the defaults, key by key.

use std::sync::Arc;

use crate::{
    diagnostic::{Place, Problems},
    model::{Credential, Policy, PolicyKeys, Retry, RetryForm, RetryOn},
    section::Section,
    shapes::Spanned,
};

/// Every request, as a share.
pub(crate) const WHOLE: f64 = 1.0;

/// The deadlines and retries of one level of the file.
#[derive(Debug, Default)]
pub(crate) struct PolicyLevel {
    keys: <PolicyKeys as Section>::Rest,
    /// The credential and its place; `None` beside a place is `off`.
    credential: Option<(Option<Arc<Credential>>, Place)>,
    at: Place,
}

impl PolicyLevel {
    pub(crate) fn new(given: &Spanned<()>, keys: <PolicyKeys as Section>::Rest) -> Self {
        let at = given.key("retry").or(given.key("timeout")).unwrap_or_default();
        Self { keys, credential: None, at }
    }

    /// The same with the secret that this level names, `None` for `off`.
    pub(crate) fn with_credential(mut self, credential: Option<Arc<Credential>>, at: Place) -> Self {
        self.credential = Some((credential, at));
        self
    }

    /// The secret that this level names, and where.
    pub(crate) fn credential(&self) -> Option<(&Credential, Place)> {
        let (credential, at) = self.credential.as_ref()?;
        Some((credential.as_deref()?, *at))
    }

    /// The place of a retry condition about the response, which opaque bytes don't have.
    pub(crate) fn retries_by_answer(&self) -> Option<Place> {
        let Some(RetryForm::Full(raw)) = &self.keys.retry else { return None };
        let none = Retry { on: Vec::new(), ..Retry::default() };
        let by_answer = raw.clone().over(none).on.iter().any(|on| *on != RetryOn::ConnectFailure);
        by_answer.then_some(self.at)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.timeout.is_none() && self.keys.idle_timeout.is_none() && self.keys.retry.is_none()
    }

    fn apply(&self, policy: &mut Policy) {
        if let Some(timeout) = &self.keys.timeout {
            policy.timeouts.request = timeout.0;
            policy.timeouts.whole = true;
        }
        if let Some(idle) = &self.keys.idle_timeout {
            policy.timeouts.idle = idle.0;
        }
        if let Some(header) = &self.keys.deadline_header {
            policy.deadline_header = Some(header.0.clone());
        }
        if let Some((credential, _)) = &self.credential {
            policy.credential.clone_from(credential);
        }
        match self.keys.retry.clone() {
            None => {}
            Some(RetryForm::Off(_)) => policy.retry.attempts = 0,
            Some(RetryForm::Attempts(attempts)) => policy.retry.attempts = attempts,
            Some(RetryForm::Full(raw)) => {
                // Keys about retries switch retries on, even if the upstream has switched them off.
                if policy.retry.attempts == 0 {
                    policy.retry.attempts = Retry::default().attempts;
                }
                let bounded = raw.gives("backoff", "max");
                let before = policy.retry.backoff.max;
                policy.retry = raw.over(std::mem::take(&mut policy.retry));
                // If the file gives only a longer first wait, the longest wait becomes as long.
                if !bounded {
                    policy.retry.backoff.max = before.max(policy.retry.backoff.base);
                }
            }
        }
    }
}

pub(crate) fn resolve(
    upstream: Option<&PolicyLevel>,
    route: Option<&PolicyLevel>,
    problems: &mut Problems,
) -> Policy {
    let mut policy = Policy::default();
    for level in [upstream, route].into_iter().flatten() {
        level.apply(&mut policy);
    }
    let at =
        route.filter(|level| !level.is_empty()).or(upstream).map_or_else(Place::default, |level| level.at);
    let (per_try, request) = (policy.retry.per_try_timeout, policy.timeouts.request);
    if !per_try.is_zero() && !request.is_zero() && per_try > request {
        problems.warn(
            at,
            "a single attempt may take longer than all attempts together",
            format!("`per_try_timeout` is {per_try:?}, `timeout` is {request:?}"),
        );
    }
    if policy.retry.backoff.base > policy.retry.backoff.max {
        problems.error(at, "the first wait of `backoff` is longer than the longest");
    }
    policy
}
