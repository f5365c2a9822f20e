//! What changed lately: breakers, ejections, health, reloads, certificates, and kinds of failures that began and ended.
//!
//! Rule: the last [`KEPT`] are kept. The same change, seen again within [`AGAIN`] of the last time, is counted and takes no place of its
//! own, so an endpoint that comes and goes every second does not push a reload out.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::rfc3339;

/// Changes that are kept.
const KEPT: usize = 500;
/// The same change within this time is one entry.
const AGAIN: Duration = Duration::from_secs(60);
/// So many of the newest entries are looked at for the same change.
const LOOKED_AT: usize = 64;

/// One change, or the same change several times in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it was seen first.
    pub first: SystemTime,
    /// When it was seen last.
    pub last: SystemTime,
    /// How often.
    pub count: u64,
    /// `circuit`, `endpoint-circuit`, `ejection`, `health`, `connection`, `failures`, `config`, `certificates`.
    pub kind: &'static str,
    /// `upstream orders`; empty for the process.
    pub whose: String,
    /// What it is now, in words.
    pub what: String,
}

impl Event {
    /// For the admin API.
    pub fn json(&self) -> Value {
        json!({
            "first": rfc3339(self.first),
            "last": rfc3339(self.last),
            "count": self.count,
            "kind": self.kind,
            "whose": self.whose,
            "what": self.what,
        })
    }
}

/// The last changes, the newest last.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<Event>);

impl Events {
    pub(super) fn add(&mut self, kind: &'static str, whose: String, what: String, now: SystemTime) {
        let known = self.0.iter_mut().rev().take(LOOKED_AT).find(|event| {
            event.kind == kind
                && event.whose == whose
                && event.what == what
                && now.duration_since(event.last).unwrap_or_default() <= AGAIN
        });
        if let Some(event) = known {
            (event.count, event.last) = (event.count + 1, now);
            return;
        }
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Event { first: now, last: now, count: 1, kind, whose, what });
    }

    /// The newest first.
    pub(super) fn all(&self) -> Vec<Event> {
        let mut all: Vec<_> = self.0.iter().cloned().collect();
        all.sort_by_key(|event| std::cmp::Reverse(event.last));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flaps_is_counted_and_pushes_nothing_out() {
        let (mut events, start) = (Events::default(), SystemTime::UNIX_EPOCH);
        let at = |seconds| start + Duration::from_secs(seconds);
        events.add("config", String::new(), "loaded".into(), at(0));
        for second in 1..2000 {
            let what = if second % 2 == 0 { "ejected" } else { "back" };
            events.add("ejection", "upstream orders".into(), what.into(), at(second));
        }
        let all = events.all();
        assert_eq!(all.iter().map(|event| event.count).collect::<Vec<_>>(), [1000, 999, 1]);
        assert_eq!(all.last().map(|event| event.kind), Some("config"));
        // After a quiet minute it is an entry of its own.
        events.add("ejection", "upstream orders".into(), "back".into(), at(3000));
        assert_eq!(events.all().len(), 4);
    }

    #[test]
    fn they_are_bounded() {
        let mut events = Events::default();
        for number in 0..KEPT + 100 {
            events.add("config", number.to_string(), String::new(), SystemTime::UNIX_EPOCH);
        }
        assert_eq!(events.0.len(), KEPT);
        assert_eq!(events.0.back().map(|event| event.whose.clone()), Some((KEPT + 99).to_string()));
    }
}
