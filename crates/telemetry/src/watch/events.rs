//! Recent changes: breakers, ejections, health, reloads, certificates, and kinds of failures that began or ended.
//!
//! Rule: the last [`MAX_EVENTS`] are kept. If the same change is seen again within [`SAME_WITHIN`] of the last time, it is counted and gets
//! no entry of its own. So an endpoint that changes every second does not displace a reload.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::rfc3339;

/// How many changes are kept. All of them are searched for the same change; changes are rare enough for that.
const MAX_EVENTS: usize = 500;
/// The same change within this time is one entry.
const SAME_WITHIN: Duration = Duration::from_secs(60);

/// What changed, and its new state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateChange {
    /// `circuit`, `endpoint-circuit`, `ejection`, `health`, `connection`, `failures`, `config`, `certificates`.
    pub kind: &'static str,
    /// Whose state it is, such as `upstream orders`; empty for the process.
    pub whose: String,
    /// The endpoint, if it is the state of one, or if the failure was there.
    pub endpoint: Option<String>,
    /// The new state, in words.
    pub what: String,
    /// The reason; empty if there is nothing to say.
    pub because: String,
}

impl StateChange {
    /// Whether it is the same change. The reason may contain a different number each time.
    fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.whose == other.whose
            && self.endpoint == other.endpoint
            && self.what == other.what
    }
}

/// One change, or the same change several times in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEvent {
    /// When it was seen first.
    pub first: SystemTime,
    /// When it was seen last.
    pub last: SystemTime,
    /// How often it was seen.
    pub count: u64,
    /// The change, with the reason of the last time.
    pub change: StateChange,
}

impl ChangeEvent {
    /// For the admin API.
    pub fn json(&self, now: SystemTime) -> Value {
        json!({
            "first": rfc3339(self.first),
            "last": rfc3339(self.last),
            "last_ago_seconds": now.duration_since(self.last).unwrap_or_default().as_secs(),
            "count": self.count,
            "kind": self.change.kind,
            "whose": self.change.whose,
            "endpoint": self.change.endpoint,
            "what": self.change.what,
            "because": self.change.because,
        })
    }
}

/// The last changes, the newest last.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<ChangeEvent>);

impl Events {
    pub(super) fn add(&mut self, change: StateChange, now: SystemTime) {
        let known = self.0.iter_mut().rev().find(|event| {
            event.change.is_like(&change) && now.duration_since(event.last).unwrap_or_default() <= SAME_WITHIN
        });
        if let Some(event) = known {
            (event.count, event.last) = (event.count + 1, now);
            event.change.because = change.because;
            return;
        }
        if self.0.len() >= MAX_EVENTS {
            self.0.pop_front();
        }
        self.0.push_back(ChangeEvent { first: now, last: now, count: 1, change });
    }

    /// The newest first.
    pub(super) fn all(&self) -> Vec<ChangeEvent> {
        let mut all: Vec<_> = self.0.iter().cloned().collect();
        all.sort_by_key(|event| std::cmp::Reverse(event.last));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_repeats_is_counted_and_displaces_nothing() {
        let (mut events, start) = (Events::default(), SystemTime::UNIX_EPOCH);
        let at = |seconds| start + Duration::from_secs(seconds);
        let ejection = |what: &str, because: u64| StateChange {
            kind: "ejection",
            whose: "upstream orders".into(),
            endpoint: Some("10.0.0.9:80".into()),
            what: what.into(),
            because: because.to_string(),
        };
        events.add(StateChange { kind: "config", what: "loaded".into(), ..StateChange::default() }, at(0));
        for second in 1..2000 {
            events.add(ejection(if second % 2 == 0 { "ejected" } else { "back" }, second), at(second));
        }
        let all = events.all();
        assert_eq!(all.iter().map(|event| event.count).collect::<Vec<_>>(), [1000, 999, 1]);
        assert_eq!(all.last().map(|event| event.change.kind), Some("config"));
        let newest = all.first().map(|event| event.json(at(2001))).unwrap_or_default();
        assert_eq!((&newest["endpoint"], &newest["because"]), (&json!("10.0.0.9:80"), &json!("1999")));
        assert_eq!(newest["last_ago_seconds"], 2);
        // The change of another endpoint is another change.
        events.add(StateChange { endpoint: Some("10.0.0.8:80".into()), ..ejection("back", 0) }, at(2000));
        assert_eq!(events.all().first().map(|event| event.count), Some(1));
        // After a minute without a repetition it gets a new entry.
        events.add(ejection("back", 0), at(3000));
        assert_eq!(events.all().len(), 5);
    }

    #[test]
    fn they_are_bounded() {
        let mut events = Events::default();
        for number in 0..MAX_EVENTS + 100 {
            let change = StateChange { kind: "config", whose: number.to_string(), ..StateChange::default() };
            events.add(change, SystemTime::UNIX_EPOCH);
        }
        assert_eq!(events.0.len(), MAX_EVENTS);
        assert_eq!(
            events.0.back().map(|event| event.change.whose.clone()),
            Some((MAX_EVENTS + 99).to_string())
        );
    }
}
