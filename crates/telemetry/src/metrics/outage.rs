//! Decides whether the callers of a row (a listener, a route, an upstream) have an outage now.
//!
//! Rule: of the calls of the last seconds, such a share has failed that callers notice it; if there were no calls, those of the last
//! minutes count. An upstream with little traffic could hide behind its past: one call a minute fails after thousands succeeded. So the
//! last calls are also an outage if none of them succeeded, and if there are [`IN_A_ROW`] of them or the last success is [`LONG_AGO`]. A
//! client that waited and left without a response has seen a failure too ([`MIN_CLIENT_WAIT`](super::counts::MIN_CLIENT_WAIT)). It may also
//! have had its own reason to leave. So such clients are an outage only if there are [`MIN_HANGING_CLIENTS`] of them (one, if no call was
//! served), and if they and the failed calls are half of all calls. If responses often take that long (long polls), clients leave often,
//! and only the last minutes count. There is also an outage, although the service does not fail, if the upstream answers every call with a
//! 4xx ([`client_errors`](super::client_errors)), if attache refuses every call, or if every client leaves before there is a response.

use std::time::Duration;

use serde_json::{Value, json};

use super::counts::{RowCounts, longer_waits};

/// So many failures without a success between them are not chance.
const IN_A_ROW: u64 = 3;
/// A success that is older than this says nothing about the later failure.
const LONG_AGO: Duration = Duration::from_secs(30);
/// So many clients that waited without a result are not chance, if they are half of all.
const MIN_HANGING_CLIENTS: u64 = 2;
/// At least so many calls must all have been refused or given up. Fewer may be the mistake of one client.
const ALL_OF: u64 = 5;

/// What a row counted in a period: how long ago the period ended, and how long it lasted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period {
    pub(super) counts: RowCounts,
    pub(super) ended: Duration,
    pub(super) took: Duration,
}

/// An outage, and the calls that show it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outage {
    requests: u64,
    failed: u64,
    refused: u64,
    given_up: u64,
    waited: u64,
    /// How many responses were 4xx of the upstream itself, if all responses were.
    client_errors: u64,
    /// The period of these calls, as a text for people.
    window: String,
}

impl Outage {
    fn new(counts: &RowCounts, window: impl Into<String>) -> Self {
        let &RowCounts { failed, refused, given_up, waited, .. } = counts;
        let window = window.into();
        Self { requests: counts.seen(), failed, refused, given_up, waited, client_errors: 0, window }
    }

    /// An outage because every response since then is a 4xx of the upstream itself.
    pub(super) fn of_client_errors(count: u64, since: Duration) -> Self {
        Self { requests: count, client_errors: count, ..Self::new(&RowCounts::default(), shown(since)) }
    }

    /// Decides from the last seconds, the last minutes, and their periods, the newest first.
    pub(super) fn of(
        short: &RowCounts,
        long: &RowCounts,
        newest: impl Iterator<Item = Period>,
    ) -> Option<Self> {
        let (counts, window) = if short.seen() > 0 { (short, "10 s") } else { (long, "5 min") };
        if is_noticed(counts) {
            return Some(Self::new(counts, window));
        }
        let is_slow = is_usually_slow(long);
        let (counts, window) = if is_slow { (long, "5 min") } else { (counts, window) };
        let is_chance = counts.waited < MIN_HANGING_CLIENTS && long.served() > 0;
        if counts.waited > 0 && !is_chance && unanswered(counts) * 2 >= counts.seen() {
            return Some(Self::new(counts, window));
        }
        in_a_row(newest, is_slow).or_else(|| is_no_call_served(long).then(|| Self::new(long, "5 min")))
    }

    pub(super) fn json(&self) -> Value {
        let Self { requests, failed, refused, given_up, waited, client_errors, window } = self;
        json!({
            "requests": requests, "failed": failed, "refused": refused, "given_up": given_up, "waited": waited,
            "client_errors": client_errors, "window": window
        })
    }
}

/// Whether so large a share failed that callers notice it, with enough calls to be sure.
fn is_noticed(counts: &RowCounts) -> bool {
    let (requests, failed) = (counts.requests(), counts.failed);
    failed > 0 && (failed * 20 >= requests || (failed >= 10 && failed * 100 >= requests))
}

/// Whether a quarter of the responses took longer than the time after which a client that leaves counts as waiting.
fn is_usually_slow(counts: &RowCounts) -> bool {
    let slow = longer_waits(&counts.durations).saturating_sub(counts.waited + counts.failed);
    slow > 0 && slow * 4 >= counts.served()
}

/// Calls whose caller got nothing.
fn unanswered(counts: &RowCounts) -> u64 {
    counts.failed + counts.waited
}

fn is_no_call_served(counts: &RowCounts) -> bool {
    counts.requests() >= ALL_OF && counts.served() == 0
}

/// An outage because none of the last calls succeeded.
fn in_a_row(newest: impl Iterator<Item = Period>, is_slow: bool) -> Option<Outage> {
    let unanswered = |counts: &RowCounts| if is_slow { counts.failed } else { unanswered(counts) };
    let (mut calls, mut began) = (RowCounts::default(), Duration::ZERO);
    let mut success = None;
    for stretch in newest.filter(|stretch| stretch.counts.seen() > 0) {
        if unanswered(&stretch.counts) < stretch.counts.requests() {
            success = Some(stretch.ended);
            break;
        }
        calls.add(&stretch.counts);
        began = stretch.ended + stretch.took;
    }
    let is_long_ago = success.is_none_or(|ago| ago >= LONG_AGO);
    let told = unanswered(&calls) >= IN_A_ROW
        || ((calls.failed > 0 || unanswered(&calls) >= MIN_HANGING_CLIENTS) && is_long_ago);
    told.then(|| Outage::new(&calls, shown(began)))
}

fn shown(time: Duration) -> String {
    let seconds = (time.as_secs_f64().ceil() as u64).max(1);
    if seconds < 100 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) }
}

#[cfg(test)]
mod tests {
    use super::{super::counts::BUCKETS, *};

    fn counts(good: u64, failed: u64) -> RowCounts {
        RowCounts { classes: [0, good, 0, 0, failed, 0], failed, ..RowCounts::default() }
    }

    fn at(ended: u64, good: u64, failed: u64) -> Period {
        Period {
            counts: counts(good, failed),
            ended: Duration::from_secs(ended),
            took: Duration::from_secs(5),
        }
    }

    /// The periods, newest first. The first ten seconds are the short window.
    fn outage(stretches: &[Period]) -> Option<Outage> {
        let (mut short, mut long) = (RowCounts::default(), RowCounts::default());
        for stretch in stretches {
            long.add(&stretch.counts);
            if stretch.ended < Duration::from_secs(10) {
                short.add(&stretch.counts);
            }
        }
        Outage::of(&short, &long, stretches.iter().copied())
    }

    #[test]
    fn a_share_that_callers_notice_is_an_outage_and_a_single_failure_is_not() {
        assert!(outage(&[at(0, 9_991, 9)]).is_none());
        assert!(outage(&[at(0, 9_901, 99)]).is_none());
        assert!(outage(&[at(0, 9_900, 100)]).is_some());
        assert!(outage(&[at(0, 0, 1)]).is_some());
        assert!(outage(&[]).is_none() && outage(&[at(0, 1, 0)]).is_none());
    }

    #[test]
    fn no_calls_after_an_outage_do_not_end_it_and_a_success_does() {
        assert_eq!(outage(&[at(60, 0, 7)]).unwrap().window, "5 min");
        assert!(outage(&[at(0, 5, 0), at(60, 0, 7)]).is_none());
    }

    #[test]
    fn one_call_a_minute_that_fails_is_an_outage_whatever_was_answered_before() {
        let before = at(250, 30_000, 0);
        // The success was long before the failure.
        let first = outage(&[at(15, 0, 1), before]).unwrap();
        assert_eq!((first.requests, first.failed, &*first.window), (1, 1, "20 s"));
        let later = outage(&[at(15, 0, 1), at(75, 0, 1), at(135, 0, 1), before]).unwrap();
        assert_eq!((later.requests, later.failed, &*later.window), (3, 3, "3 min"));
        // A failure among calls that succeed is not an outage.
        assert!(outage(&[at(15, 0, 1), at(20, 400, 0), before]).is_none());
        assert!(outage(&[at(15, 0, 3), at(20, 400, 0), before]).is_some());
        assert!(outage(&[at(15, 1, 1), at(135, 0, 9), before]).is_none());
    }

    #[test]
    fn clients_that_wait_without_a_response_are_an_outage_and_those_that_change_their_mind_are_not() {
        let hang = |ended: u64, good: u64, waited: u64, quick: u64| {
            let given_up = waited + quick;
            let counts =
                RowCounts { classes: [0, good, 0, 0, 0, given_up], given_up, waited, ..RowCounts::default() };
            Period { counts, ended: Duration::from_secs(ended), took: Duration::from_secs(5) }
        };
        assert_eq!(outage(&[hang(0, 0, 2, 0)]).map(|outage| outage.waited), Some(2));
        assert!(outage(&[hang(0, 3, 3, 0)]).is_some());
        assert!(outage(&[hang(0, 0, 1, 0)]).is_some(), "the only call");
        assert!(outage(&[hang(0, 1, 1, 0)]).is_none(), "one person who lost patience");
        assert!(outage(&[hang(0, 5, 4, 0)]).is_none(), "long polls that are ended");
        assert!(outage(&[hang(0, 1, 0, 4)]).is_none(), "hedges that were not needed");
        // As far as attache knows these calls still run: their clients have left, and the upstream has sent nothing.
        let mut runs = hang(0, 0, 2, 0);
        runs.counts.classes = [0; 6];
        assert_eq!(outage(&[runs]).map(|outage| outage.requests), Some(2));
        assert!(outage(&[hang(0, 9, 0, 0), runs]).is_none());
        // A service with long polls: two of its clients leave while no other call ends.
        let mut polls = hang(20, 40, 0, 0);
        polls.counts.durations[BUCKETS - 1] = 40;
        assert!(outage(&[hang(0, 0, 2, 0), polls]).is_none());
        assert!(outage(&[hang(0, 0, 60, 0), polls]).is_some());
        // These calls began to hang just now.
        assert!(outage(&[hang(0, 0, 3, 0), hang(20, 400, 0, 0)]).is_some());
        assert!(outage(&[hang(15, 0, 1, 0), hang(20, 400, 0, 0)]).is_none());
        assert!(outage(&[hang(15, 0, 3, 0), hang(20, 400, 0, 0)]).is_some());
    }

    #[test]
    fn it_is_an_outage_if_every_call_is_refused_or_given_up() {
        let all = |refused, given_up, good| RowCounts {
            classes: [0, good, 0, refused, 0, given_up],
            refused,
            given_up,
            ..RowCounts::default()
        };
        let of = |counts: RowCounts| Outage::of(&counts, &counts, std::iter::empty());
        assert_eq!(of(all(5, 0, 0)).map(|outage| outage.refused), Some(5));
        assert_eq!(of(all(0, 5, 0)).map(|outage| outage.given_up), Some(5));
        assert!(of(all(4, 0, 0)).is_none() && of(all(50, 50, 1)).is_none());
    }
}
