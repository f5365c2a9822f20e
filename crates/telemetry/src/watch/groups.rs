//! Failures by kind: how many there were of each, since when, and what the last one was.
//!
//! Rule: a kind is an upstream (or a listener, if no upstream was chosen) and a reason. Each worker counts in its own table, under the same
//! lock as its last failures. So a rare kind is kept, however often another one happens. Only a kind that did not happen for [`QUIET`]
//! wakes the task that logs it: many failures cost a few additions each, and a worker without failures pays nothing.

use std::time::{Duration, SystemTime};

use attache_config::model::Name;
use serde_json::{Value, json};

use super::ExchangeRecord;
use crate::{Exchange, Reason, rfc3339};

/// A kind that did not happen for this long has ended.
pub(crate) const QUIET: Duration = Duration::from_secs(15);
/// How many kinds each worker keeps. Names come from the config and reasons from a closed list. If there are more, the kind that ended the
/// longest time ago is removed.
const MAX_GROUPS: usize = 256;
/// A new sample of a kind is kept at most this often: copying its texts costs more than counting it.
const FRESH: Duration = Duration::from_millis(500);

/// One kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FailureKind {
    /// The upstream that was chosen; `None` if the request was refused before that.
    pub upstream: Option<Name>,
    /// The listener, if there is no upstream.
    pub listener: Option<Name>,
    /// The reason; `None` if the upstream itself answered with a 5xx.
    pub reason: Option<Reason>,
    /// The upstream's status, if there is no reason; otherwise 0.
    pub status: u16,
}

impl FailureKind {
    fn is(&self, exchange: &Exchange) -> bool {
        let reason = exchange.reason.get();
        let upstream = exchange.upstream.borrow();
        self.reason == reason
            && (reason.is_some() || self.status == exchange.outcome())
            && self.upstream == *upstream
            && (upstream.is_some() || self.listener.as_ref() == Some(&exchange.listener))
    }

    fn of(exchange: &Exchange) -> Self {
        let upstream = exchange.upstream.borrow().clone();
        let reason = exchange.reason.get();
        Self {
            listener: upstream.is_none().then(|| exchange.listener.clone()),
            upstream,
            status: if reason.is_none() { exchange.outcome() } else { 0 },
            reason,
        }
    }

    /// The cause, such as `connect-refused` or `status 503`.
    pub fn cause(&self) -> String {
        self.reason.map_or_else(|| format!("status {}", self.status), |reason| reason.as_str().to_owned())
    }

    /// The remedy, for the direction in which it failed.
    pub(crate) fn what_to_do(&self) -> Option<&'static str> {
        let Some(reason) = self.reason else { return of_own_answer(self.status) };
        Some(if self.upstream.is_some() { reason.what_to_do() } else { reason.what_to_do_for_clients() })
    }

    /// Whose failure it is, such as `upstream orders` or `listener outbound`.
    pub fn whose(&self) -> String {
        match (&self.upstream, &self.listener) {
            (Some(upstream), _) => format!("upstream {upstream}"),
            (None, Some(listener)) => format!("listener {listener}"),
            (None, None) => String::new(),
        }
    }
}

/// What to do about a 4xx of the upstream itself.
fn of_own_answer(status: u16) -> Option<&'static str> {
    Some(match status {
        401 | 407 => {
            "The service wants a credential: its callers send none, or one that it does not take; `credential` adds one to each request."
        }
        403 => {
            "The service knows who calls and forbids it: its log says which rule; `attache explain` shows the Host and the client certificate that it gets."
        }
        404 | 410 => {
            "Does the service know this Host and path? `attache explain METHOD URL` shows the Host that it is sent; `host` of the upstream changes it."
        }
        405 | 501 => "The service does not take this method on this path.",
        413 | 414 | 431 => {
            "The request is larger than the service takes: shorten its headers (cookies, most often) or its body, or raise the service's limit."
        }
        421 => {
            "The service is not the one of this Host: `host` of the upstream sets the Host, `tls.name` the name that TLS asks for."
        }
        429 => "The service limits how often it is called: call it less, or have its limit raised.",
        400..=499 => {
            "Does the service know this Host and path, does its port expect TLS, and do its callers send what it asks for? Its log says more."
        }
        _ => return None,
    })
}

/// All failures of one kind.
#[derive(Clone, Debug)]
pub struct FailureGroup {
    /// What they have in common.
    pub kind: FailureKind,
    /// How many there were.
    pub count: u64,
    /// When the first of them ended.
    pub first: SystemTime,
    /// When the last of them ended.
    pub last: SystemTime,
    /// One of the last failures.
    pub sample: ExchangeRecord,
}

impl FailureGroup {
    /// For the admin API.
    pub fn json(&self, now: SystemTime) -> Value {
        let ago = |at: SystemTime| now.duration_since(at).unwrap_or_default().as_secs();
        json!({
            "upstream": self.kind.upstream.as_deref(),
            "listener": self.kind.listener.as_deref(),
            "reason": self.kind.reason.map(Reason::as_str),
            "status": Some(self.kind.status).filter(|status| *status != 0),
            "cause": self.kind.cause(),
            "count": self.count,
            "first": rfc3339(self.first),
            "last": rfc3339(self.last),
            "last_ago_seconds": ago(self.last),
            "failing": now.duration_since(self.last).unwrap_or_default() < QUIET,
            "what_to_do": self.kind.what_to_do(),
            "sample": self.sample.json(),
        })
    }
}

/// The kinds of failures of one worker.
#[derive(Debug, Default)]
pub(super) struct Groups(Vec<FailureGroup>);

impl Groups {
    /// Counts a failure. Returns true if its kind begins, or begins again.
    pub(super) fn add(&mut self, exchange: &Exchange, total: Duration) -> bool {
        let now = SystemTime::now();
        if let Some(group) = self.0.iter_mut().find(|group| group.kind.is(exchange)) {
            let begins = now.duration_since(group.last).is_ok_and(|quiet| quiet >= QUIET);
            group.count += 1;
            group.last = now;
            if now.duration_since(group.sample.at).is_ok_and(|age| age >= FRESH) {
                group.sample.fill(exchange, total);
            }
            return begins;
        }
        if self.0.len() >= MAX_GROUPS
            && let Some(oldest) = (0..self.0.len()).min_by_key(|at| self.0.get(*at).map(|group| group.last))
        {
            self.0.swap_remove(oldest);
        }
        let sample = ExchangeRecord::of(exchange, total);
        self.0.push(FailureGroup {
            kind: FailureKind::of(exchange),
            count: 1,
            first: now,
            last: now,
            sample,
        });
        true
    }

    /// Adds this worker's counts to those of others.
    pub(super) fn merge_into(&self, all: &mut Vec<FailureGroup>) {
        for group in &self.0 {
            match all.iter_mut().find(|other| other.kind == group.kind) {
                None => all.push(group.clone()),
                Some(other) => {
                    other.count += group.count;
                    other.first = other.first.min(group.first);
                    if group.last > other.last {
                        other.last = group.last;
                    }
                    if group.sample.at > other.sample.at {
                        other.sample = group.sample.clone();
                    }
                }
            }
        }
    }
}
