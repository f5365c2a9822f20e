//! Finds upstreams that answer every call with a 4xx of their own. No call fails then, but no caller gets what it asked for: the service
//! may know another Host or path, may expect TLS, or may want a token that the callers don't send.
//!
//! Rule: there were [`ALL_OF`] such responses without another response between them, and no other response for [`LONG_AGO`] before them.
//! Fewer may be what their callers wanted to know, and so may a burst among good responses.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use attache_config::model::Name;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Metrics, ServedCalls};
use crate::watch::{StateChange, Watch};

/// How many responses must all have been a 4xx.
const ALL_OF: u64 = 5;
/// A response of another kind that is older than this doesn't count.
const LONG_AGO: Duration = Duration::from_secs(30);
/// After this time without calls, earlier responses no longer count.
const FORGET_AFTER: Duration = Duration::from_mins(5);
/// The time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The 4xx responses of one upstream since its last response of another kind.
#[derive(Debug)]
struct Streak {
    count: u64,
    since: Instant,
    last: Instant,
    /// The counts at the last check: all its 4xx responses, and all calls that were served otherwise.
    seen: (u64, u64),
    served_at: Option<Instant>,
    is_told: bool,
}

/// A line for the log.
#[derive(Debug, PartialEq, Eq)]
enum ClientErrorsLogLine {
    Begins(u64),
    Ended(u64, Duration),
}

/// The streaks of all upstreams.
#[derive(Debug, Default)]
pub(crate) struct ClientErrors(Mutex<HashMap<Name, Streak>>);

impl ClientErrors {
    /// Returns the upstreams that answer every call with a 4xx now: how many such responses there were, and since when. It checks, and logs
    /// what has changed.
    pub(crate) fn look(&self, served: &ServedCalls, watch: &Watch) -> HashMap<Name, (u64, Duration)> {
        let now = Instant::now();
        let mut streaks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (upstream, errors, others) in served.upstreams() {
            if let Some(line) = look(&mut streaks, upstream, (errors, others), now) {
                write(watch, upstream, &line);
            }
        }
        let told = streaks.iter().filter(|(_, streak)| streak.is_told);
        told.map(|(name, streak)| (name.clone(), (streak.count, now.duration_since(streak.since)))).collect()
    }
}

fn look(
    streaks: &mut HashMap<Name, Streak>,
    upstream: &Name,
    counted: (u64, u64),
    now: Instant,
) -> Option<ClientErrorsLogLine> {
    // Most upstreams have never answered with a 4xx.
    if counted.0 == 0 && !streaks.contains_key(upstream) {
        return None;
    }
    let streak = streaks.entry(upstream.clone()).or_insert_with(|| Streak {
        count: 0,
        since: now,
        last: now,
        seen: (0, 0),
        served_at: None,
        is_told: false,
    });
    let (errors, others) = (counted.0.saturating_sub(streak.seen.0), counted.1 > streak.seen.1);
    streak.seen = counted;
    if others {
        streak.served_at = Some(now);
    }
    if others || (streak.count > 0 && errors == 0 && now.duration_since(streak.last) >= FORGET_AFTER) {
        let (count, lasted) = (streak.count, streak.last.duration_since(streak.since));
        streak.count = 0;
        return std::mem::take(&mut streak.is_told).then_some(ClientErrorsLogLine::Ended(count, lasted));
    }
    if errors > 0 {
        if streak.count == 0 {
            streak.since = now;
        }
        streak.count += errors;
        streak.last = now;
    }
    let is_quiet = streak.served_at.is_none_or(|at| now.duration_since(at) >= LONG_AGO);
    if streak.is_told || streak.count < ALL_OF || !is_quiet {
        return None;
    }
    streak.is_told = true;
    Some(ClientErrorsLogLine::Begins(streak.count))
}

fn write(watch: &Watch, upstream: &Name, line: &ClientErrorsLogLine) {
    let change = |what: &str, because: String| StateChange {
        kind: "failures",
        whose: format!("upstream {upstream}"),
        endpoint: None,
        what: what.to_owned(),
        because,
    };
    match line {
        ClientErrorsLogLine::Begins(count) => {
            let groups = watch.client_errors();
            let group = groups.iter().find(|group| group.kind.upstream.as_ref() == Some(upstream));
            let (cause, todo, example) = group.map_or_else(Default::default, |group| {
                let sample = &group.sample;
                let example = format!("{} {}{}", sample.method, sample.host, sample.path);
                (group.kind.cause(), group.kind.what_to_do().unwrap_or_default(), example)
            });
            watch.event(change("every answer is a 4xx", format!("the last: {cause}")));
            tracing::warn!(
                example,
                see = "docs/guides/my-call-fails.md",
                "upstream {upstream}: each of its last {count} answers was the upstream's own 4xx, the last with {cause}. {todo}"
            );
        }
        ClientErrorsLogLine::Ended(count, lasted) => {
            watch.event(change("no longer answers with 4xx alone", format!("it was {count} calls")));
            tracing::warn!(
                "upstream {upstream}: not every answer is a 4xx any longer; {count} were, within {} s",
                lasted.as_secs().max(1)
            );
        }
    }
}

/// Checks periodically, for as long as it is polled.
pub async fn log_client_errors(metrics: Metrics) {
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.client_errors(&ServedCalls::new(&metrics));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn responses_that_are_all_4xx_are_logged_once_and_so_is_their_end() {
        let (mut streaks, begun) = (HashMap::new(), Instant::now());
        let mut at = |seconds: u64, errors: u64, others: u64| {
            look(&mut streaks, &"orders".into(), (errors, others), begun + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, 0, 0), None);
        assert_eq!(at(5, 4, 0), None, "four may be what their callers wanted to know");
        assert_eq!(at(10, 5, 0), Some(ClientErrorsLogLine::Begins(5)));
        assert_eq!(at(15, 50, 0), None);
        assert_eq!(at(20, 60, 1), Some(ClientErrorsLogLine::Ended(50, Duration::from_secs(10))));
        assert_eq!(at(25, 90, 1), None, "a burst after a good response");
        assert_eq!(at(50, 91, 1), Some(ClientErrorsLogLine::Begins(31)));
        assert_eq!(at(340, 91, 1), None);
        assert_eq!(
            at(350, 91, 1),
            Some(ClientErrorsLogLine::Ended(31, Duration::from_secs(25))),
            "there are no more calls"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn some_4xx_among_other_responses_are_never_logged() {
        let (mut streaks, begun) = (HashMap::new(), Instant::now());
        for step in 0..100 {
            let at = begun + Duration::from_secs(step * 5);
            assert_eq!(look(&mut streaks, &"orders".into(), (step * 1000, step), at), None);
        }
        assert_eq!(look(&mut streaks, &"users".into(), (0, 5), begun), None);
        assert_eq!(streaks.len(), 1, "an upstream without a 4xx costs nothing");
    }
}
