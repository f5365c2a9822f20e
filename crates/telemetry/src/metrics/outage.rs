//! Whether the callers of a row (a listener, a route, an upstream) see an outage now.
//!
//! Rule: a share of the last seconds' calls failed that callers notice; where none came in them, of the last minutes' calls.
//! A quiet upstream can hide behind what it did before: one call a minute fails after thousands were answered. So the last calls
//! without one that succeeded are an outage, too, if they are [`IN_A_ROW`] or the last success is [`LONG_AGO`].
//! A client that waited and left without an answer has seen a failure, too ([`PATIENT`](super::counts::PATIENT)).
//! It may also have had its own reason to leave.
//! So such clients are an outage only if there are [`MIN_HANGING_CLIENTS`] of them (one, where nobody was served), and if they and the failed calls
//! are half of all calls.
//! Where answers often take as long (long polls), clients leave often, and only the last minutes count.
//! And where the upstream answers every call with a 4xx ([`client_errors`](super::client_errors)), attache refuses every call, or every client gives up before there is an answer, nobody is served, although none of
//! them is a failure of the service.

use std::time::Duration;

use serde_json::{Value, json};

use super::counts::{Counts, patient};

/// Failures without a success between them that are no chance.
const IN_A_ROW: u64 = 3;
/// A success that is older says nothing of the failure that came since.
const LONG_AGO: Duration = Duration::from_secs(30);
/// Clients that waited in vain and are no chance, where they are half of all.
const MIN_HANGING_CLIENTS: u64 = 2;
/// So many calls must all have been refused or given up. Fewer may be one client's mistake.
const ALL_OF: u64 = 5;

/// What a row counted in a time that ended so long ago and took so long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period {
    pub(super) counts: Counts,
    pub(super) ended: Duration,
    pub(super) took: Duration,
}

/// An outage, and by which calls it is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outage {
    requests: u64,
    failed: u64,
    refused: u64,
    given_up: u64,
    waited: u64,
    /// Answers with 4xx that are the upstream's own, where every answer is one.
    client_errors: u64,
    /// The time in which they came, for people.
    window: String,
}

impl Outage {
    fn new(counts: &Counts, window: impl Into<String>) -> Self {
        let &Counts { failed, refused, given_up, waited, .. } = counts;
        let window = window.into();
        Self { requests: counts.seen(), failed, refused, given_up, waited, client_errors: 0, window }
    }

    /// Every answer since then is a 4xx of the upstream's own.
    pub(super) fn of_client_errors(count: u64, since: Duration) -> Self {
        Self { requests: count, client_errors: count, ..Self::new(&Counts::default(), shown(since)) }
    }

    /// By the last seconds, the last minutes, and their parts, the newest of which comes first.
    pub(super) fn of(short: &Counts, long: &Counts, newest: impl Iterator<Item = Period>) -> Option<Self> {
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
        in_a_row(newest, is_slow).or_else(|| is_nobody_served(long).then(|| Self::new(long, "5 min")))
    }

    pub(super) fn json(&self) -> Value {
        let Self { requests, failed, refused, given_up, waited, client_errors, window } = self;
        json!({
            "requests": requests, "failed": failed, "refused": refused, "given_up": given_up, "waited": waited,
            "client_errors": client_errors, "window": window
        })
    }
}

/// So large a share failed that callers notice, with enough of them to tell.
fn is_noticed(counts: &Counts) -> bool {
    let (requests, failed) = (counts.requests(), counts.failed);
    failed > 0 && (failed * 20 >= requests || (failed >= 10 && failed * 100 >= requests))
}

/// A quarter of the answers took longer than a client waits before its leaving says something.
fn is_usually_slow(counts: &Counts) -> bool {
    let slow = patient(&counts.durations).saturating_sub(counts.waited + counts.failed);
    slow > 0 && slow * 4 >= counts.served()
}

/// Calls that brought their caller nothing.
fn unanswered(counts: &Counts) -> u64 {
    counts.failed + counts.waited
}

fn is_nobody_served(counts: &Counts) -> bool {
    counts.requests() >= ALL_OF && counts.served() == 0
}

/// The last calls, where none of them succeeded.
fn in_a_row(newest: impl Iterator<Item = Period>, is_slow: bool) -> Option<Outage> {
    let unanswered = |counts: &Counts| if is_slow { counts.failed } else { unanswered(counts) };
    let (mut calls, mut began) = (Counts::default(), Duration::ZERO);
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

    fn counts(good: u64, failed: u64) -> Counts {
        Counts { classes: [0, good, 0, 0, failed, 0], failed, ..Counts::default() }
    }

    fn at(ended: u64, good: u64, failed: u64) -> Period {
        Period {
            counts: counts(good, failed),
            ended: Duration::from_secs(ended),
            took: Duration::from_secs(5),
        }
    }

    /// Newest first; the first ten seconds are the short window.
    fn outage(stretches: &[Period]) -> Option<Outage> {
        let (mut short, mut long) = (Counts::default(), Counts::default());
        for stretch in stretches {
            long.add(&stretch.counts);
            if stretch.ended < Duration::from_secs(10) {
                short.add(&stretch.counts);
            }
        }
        Outage::of(&short, &long, stretches.iter().copied())
    }

    #[test]
    fn a_share_that_callers_notice_is_an_outage_and_a_stray_failure_is_none() {
        assert!(outage(&[at(0, 9_991, 9)]).is_none());
        assert!(outage(&[at(0, 9_901, 99)]).is_none());
        assert!(outage(&[at(0, 9_900, 100)]).is_some());
        assert!(outage(&[at(0, 0, 1)]).is_some());
        assert!(outage(&[]).is_none() && outage(&[at(0, 1, 0)]).is_none());
    }

    #[test]
    fn quiet_after_an_outage_is_no_health_and_a_success_is() {
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
        // One among others that succeed is none.
        assert!(outage(&[at(15, 0, 1), at(20, 400, 0), before]).is_none());
        assert!(outage(&[at(15, 0, 3), at(20, 400, 0), before]).is_some());
        assert!(outage(&[at(15, 1, 1), at(135, 0, 9), before]).is_none());
    }

    #[test]
    fn clients_that_wait_in_vain_are_an_outage_and_those_that_change_their_mind_are_none() {
        let hang = |ended: u64, good: u64, waited: u64, quick: u64| {
            let given_up = waited + quick;
            let counts =
                Counts { classes: [0, good, 0, 0, 0, given_up], given_up, waited, ..Counts::default() };
            Period { counts, ended: Duration::from_secs(ended), took: Duration::from_secs(5) }
        };
        assert_eq!(outage(&[hang(0, 0, 2, 0)]).map(|outage| outage.waited), Some(2));
        assert!(outage(&[hang(0, 3, 3, 0)]).is_some());
        assert!(outage(&[hang(0, 0, 1, 0)]).is_some(), "the only call");
        assert!(outage(&[hang(0, 1, 1, 0)]).is_none(), "one person who lost patience");
        assert!(outage(&[hang(0, 5, 4, 0)]).is_none(), "long polls that are ended");
        assert!(outage(&[hang(0, 1, 0, 4)]).is_none(), "hedges that were not needed");
        // They wait still, as far as attache knows: their clients have left, and the upstream has said nothing.
        let mut runs = hang(0, 0, 2, 0);
        runs.counts.classes = [0; 6];
        assert_eq!(outage(&[runs]).map(|outage| outage.requests), Some(2));
        assert!(outage(&[hang(0, 9, 0, 0), runs]).is_none());
        // A service of long polls: two of its clients go away while nothing else ends.
        let mut polls = hang(20, 40, 0, 0);
        polls.counts.durations[BUCKETS - 1] = 40;
        assert!(outage(&[hang(0, 0, 2, 0), polls]).is_none());
        assert!(outage(&[hang(0, 0, 60, 0), polls]).is_some());
        // They began to hang just now.
        assert!(outage(&[hang(0, 0, 3, 0), hang(20, 400, 0, 0)]).is_some());
        assert!(outage(&[hang(15, 0, 1, 0), hang(20, 400, 0, 0)]).is_none());
        assert!(outage(&[hang(15, 0, 3, 0), hang(20, 400, 0, 0)]).is_some());
    }

    #[test]
    fn where_every_call_is_refused_or_given_up_nobody_is_served() {
        let all = |refused, given_up, good| Counts {
            classes: [0, good, 0, refused, 0, given_up],
            refused,
            given_up,
            ..Counts::default()
        };
        let of = |counts: Counts| Outage::of(&counts, &counts, std::iter::empty());
        assert_eq!(of(all(5, 0, 0)).map(|outage| outage.refused), Some(5));
        assert_eq!(of(all(0, 5, 0)).map(|outage| outage.given_up), Some(5));
        assert!(of(all(4, 0, 0)).is_none() && of(all(50, 50, 1)).is_none());
    }
}
