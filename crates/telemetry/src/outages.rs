//! Logs failures: one line when a kind of failure begins, with its count and its cause; one when it has ended; and one from time to time
//! while it continues.
//!
//! A kind has ended when a call was served after it, or when it did not occur for minutes. So an outage of a service that is called once a
//! minute is one outage, and not a new one each minute.
//!
//! Clients that leave before there is a response are a kind as soon as two of them had waited, if no more calls than that were served
//! meanwhile. A single client may have had its own reason.
//!
//! The task sleeps until a kind begins, so it costs nothing without failures. While there are failures, it reads the workers' tables once a
//! second.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    Reason,
    metrics::{Metrics, ServedCalls},
    watch::{FailureGroup, FailureKind, QUIET, StateChange, Watch},
};

/// How long the first line is delayed, so that its count is useful.
const GATHER_TIME: Duration = Duration::from_millis(200);
/// The time between two checks while there are failures.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A kind of failure that continues is logged again after this long.
const REPEAT_AFTER: Duration = Duration::from_mins(5);

/// So many clients that waited without a result are not chance.
const MIN_HANGING_CLIENTS: u64 = 2;
/// If a client was the only one for so long, it was chance.
const DOUBT: Duration = Duration::from_mins(1);

/// What was logged about one kind of failure.
#[derive(Debug)]
struct ReportedFailure {
    /// How many failures there have been.
    count: u64,
    /// How many there had been when this kind began.
    before: u64,
    /// When the last one was seen.
    seen: Instant,
    /// How many calls of the same upstream or listener had been served by then.
    served: u64,
    /// When it began; `None` if it has ended.
    since: Option<Instant>,
    /// When the last line was written.
    line: Instant,
    /// There were failures that may be chance.
    doubt: Option<UnclearSince>,
}

/// Since when it is unclear whether clients leave because of the upstream.
#[derive(Clone, Copy, Debug)]
struct UnclearSince {
    since: Instant,
    /// How many calls had been served by then.
    served: u64,
}

impl ReportedFailure {
    /// Whether too few of these clients left, or more calls than that were served meanwhile.
    fn may_be_chance(&mut self, left: u64, served: u64, now: Instant) -> bool {
        let doubt = *self.doubt.get_or_insert(UnclearSince { since: now, served });
        left < MIN_HANGING_CLIENTS || served.saturating_sub(doubt.served) > left
    }
}

/// One line for the log.
#[derive(Debug, PartialEq, Eq)]
enum OutageLogLine {
    Begins(u64),
    GoesOn(u64, Duration),
    /// The number of failures, how long they lasted, and how long there has been none.
    Ended(u64, Duration, Duration),
}

/// Writes the lines, as long as it is polled.
pub async fn log_outages(metrics: Metrics) {
    let watch = metrics.watch().clone();
    let mut told: HashMap<FailureKind, ReportedFailure> = HashMap::new();
    loop {
        if told.values().all(|told| told.since.is_none() && told.doubt.is_none()) {
            watch.begins().await;
            sleep(GATHER_TIME).await;
        } else {
            sleep(CHECK_INTERVAL).await;
        }
        let groups = watch.groups();
        let served = ServedCalls::new(&metrics);
        let served = |kind: &FailureKind| served.of(kind.upstream.as_ref(), kind.listener.as_ref());
        for (group, line) in look(&mut told, groups, served, Instant::now()) {
            write(&watch, &group, &line);
        }
    }
}

fn look(
    told: &mut HashMap<FailureKind, ReportedFailure>,
    groups: Vec<FailureGroup>,
    served: impl Fn(&FailureKind) -> u64,
    now: Instant,
) -> Vec<(FailureGroup, OutageLogLine)> {
    let mut lines = Vec::new();
    // If a worker has dropped a kind, it counts as new when it comes back.
    told.retain(|kind, _| groups.iter().any(|group| group.kind == *kind));
    for group in groups {
        let told = told.entry(group.kind.clone()).or_insert(ReportedFailure {
            count: 0,
            before: 0,
            seen: now,
            served: 0,
            since: None,
            line: now,
            doubt: None,
        });
        let more = group.count > told.count;
        let served = served(&group.kind);
        if more {
            (told.count, told.seen, told.served) = (group.count, now, served);
        }
        let quiet = now.duration_since(told.seen);
        let line = match told.since {
            None if more => {
                let news = told.count.saturating_sub(told.before);
                if group.kind.reason == Some(Reason::ClientClosed) && told.may_be_chance(news, served, now) {
                    None
                } else {
                    (told.since, told.doubt) = (Some(now), None);
                    Some(OutageLogLine::Begins(news))
                }
            }
            None if told.doubt.is_some_and(|doubt| now.duration_since(doubt.since) >= DOUBT) => {
                (told.doubt, told.before) = (None, told.count);
                None
            }
            Some(since) if quiet >= REPEAT_AFTER || (quiet >= QUIET && served > told.served) => {
                let count = told.count.saturating_sub(told.before);
                (told.since, told.before) = (None, told.count);
                Some(OutageLogLine::Ended(count, told.seen.duration_since(since), quiet))
            }
            Some(since) if now.duration_since(told.line) >= REPEAT_AFTER => {
                Some(OutageLogLine::GoesOn(told.count.saturating_sub(told.before), now.duration_since(since)))
            }
            _ => None,
        };
        if let Some(line) = line {
            told.line = now;
            lines.push((group, line));
        }
    }
    lines
}

fn write(watch: &Watch, group: &FailureGroup, line: &OutageLogLine) {
    let (whose, cause, sample) = (group.kind.whose(), group.kind.cause(), &group.sample);
    let change = |what: String, because: String| StateChange {
        kind: "failures",
        whose: whose.clone(),
        endpoint: sample.endpoint.as_deref().map(ToOwned::to_owned),
        what,
        because,
    };
    match line {
        OutageLogLine::Begins(_) => {
            watch.event(change(format!("calls fail: {cause}"), sample.detail.clone()));
        }
        OutageLogLine::Ended(count, ..) => {
            watch.event(change(format!("no longer {cause}"), format!("it was {count} calls")));
        }
        OutageLogLine::GoesOn(..) => {}
    }
    let plural = |count: u64| if count == 1 { "call" } else { "calls" };
    match line {
        OutageLogLine::Begins(count) | OutageLogLine::GoesOn(count, _) => {
            let since = match line {
                OutageLogLine::GoesOn(_, time) => format!(" {}, and it goes on", within(*time)),
                _ => String::new(),
            };
            // The text of a peer must not start a new line.
            let detail = sample.detail.replace(['\n', '\r'], " ");
            let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
            let endpoint = sample.endpoint.as_deref().unwrap_or("-");
            let example = match sample.method.as_str() {
                "" => format!("{} connection", sample.protocol),
                method => format!("{method} {}{}", sample.host, sample.path),
            };
            tracing::warn!(
                endpoint,
                example,
                see = group.kind.reason.map(|reason| format!("docs/reasons.md#{}", reason.as_str())),
                "{whose}: {count} {} failed with {cause}{since}{detail}",
                plural(*count)
            );
        }
        OutageLogLine::Ended(count, lasted, quiet) => {
            let quiet = Duration::from_secs(quiet.as_secs());
            tracing::warn!(
                "{whose}: no call failed with {cause} for {quiet:?}; {count} {} failed with it {}",
                plural(*count),
                within(*lasted)
            );
        }
    }
}

/// How long a kind lasted, in full seconds, because the tables are read once a second.
fn within(lasted: Duration) -> String {
    match lasted.as_secs() {
        0 => "within a second".to_owned(),
        seconds if seconds < 120 => format!("in {seconds} s"),
        seconds => format!("in {} min", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{Exchange, watch::ExchangeRecord};

    fn group(reason: Reason, count: u64) -> FailureGroup {
        let exchange = Exchange::new("outbound".into(), "http1", None);
        *exchange.upstream.borrow_mut() = Some("orders".into());
        exchange.fail(reason, "refused");
        let now = SystemTime::now();
        let kind =
            FailureKind { upstream: Some("orders".into()), listener: None, reason: Some(reason), status: 0 };
        FailureGroup {
            kind,
            count,
            first: now,
            last: now,
            sample: ExchangeRecord::of(&exchange, Duration::ZERO),
        }
    }

    #[test]
    fn the_duration_of_a_kind_is_never_shown_as_zero() {
        let said = [0, 999, 1_000, 61_000, 300_000].map(|millis| within(Duration::from_millis(millis)));
        assert_eq!(said, ["within a second", "within a second", "in 1 s", "in 61 s", "in 5 min"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_logged_when_it_begins_from_time_to_time_and_when_it_has_ended() {
        let (mut told, refused) = (HashMap::new(), |count| vec![group(Reason::ConnectRefused, count)]);
        let begun = Instant::now();
        let served = std::cell::Cell::new(7);
        let mut at = |seconds: u64, groups: Vec<FailureGroup>| {
            let lines = look(&mut told, groups, |_| served.get(), begun + Duration::from_secs(seconds));
            lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>()
        };
        assert_eq!(at(0, refused(50)), [OutageLogLine::Begins(50)]);
        assert_eq!(at(1, refused(90)), []);
        for second in 2..300 {
            assert_eq!(at(second, refused(100 + second)), []);
        }
        assert_eq!(at(300, refused(900)), [OutageLogLine::GoesOn(900, Duration::from_secs(300))]);
        served.set(8);
        assert_eq!(at(314, refused(900)), []);
        let (lasted, quiet) = (Duration::from_secs(300), Duration::from_secs(15));
        assert_eq!(at(315, refused(900)), [OutageLogLine::Ended(900, lasted, quiet)]);
        assert_eq!(at(316, refused(900)), []);
        // The kind begins again, beside another kind.
        let both = vec![group(Reason::ConnectRefused, 901), group(Reason::ConnectTimeout, 2)];
        assert_eq!(at(400, both), [OutageLogLine::Begins(1), OutageLogLine::Begins(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_a_minute_that_fails_is_one_outage_until_one_is_served() {
        let (mut told, begun) = (HashMap::new(), Instant::now());
        let served = std::cell::Cell::new(9);
        let mut at = |seconds: u64, count: u64| {
            let groups = vec![group(Reason::ConnectRefused, count)];
            let lines = look(&mut told, groups, |_| served.get(), begun + Duration::from_secs(seconds));
            lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>()
        };
        assert_eq!(at(0, 1), [OutageLogLine::Begins(1)]);
        for second in 1..300 {
            assert_eq!(at(second, 1 + second / 60), [], "{second}");
        }
        assert_eq!(at(300, 6), [OutageLogLine::GoesOn(6, Duration::from_secs(300))]);
        served.set(10);
        assert_eq!(at(360, 6), [OutageLogLine::Ended(6, Duration::from_secs(300), Duration::from_secs(60))]);
        // The callers have given up.
        assert_eq!(at(400, 7), [OutageLogLine::Begins(1)]);
        assert_eq!(at(699, 7), []);
        assert_eq!(at(700, 7), [OutageLogLine::Ended(1, Duration::ZERO, Duration::from_secs(300))]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_that_leaves_is_no_outage_and_two_are_if_no_call_is_served() {
        let (mut told, begun) = (HashMap::new(), Instant::now());
        let mut at = |seconds: u64, left: u64, served: u64| {
            let groups = vec![group(Reason::ClientClosed, left)];
            let lines = look(&mut told, groups, |_| served, begun + Duration::from_secs(seconds));
            (
                lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>(),
                told.values().any(|told| told.doubt.is_some()),
            )
        };
        assert_eq!(at(0, 1, 7), (vec![], true));
        assert_eq!(at(30, 1, 7), (vec![], true));
        assert_eq!(at(60, 1, 7), (vec![], false));
        // Ten minutes later another client leaves, while other calls are served.
        assert_eq!(at(700, 2, 400), (vec![], true));
        assert_eq!(at(701, 3, 500), (vec![], true));
        assert_eq!(at(760, 3, 900), (vec![], false));
        assert_eq!(at(800, 4, 950), (vec![], true));
        assert_eq!(at(802, 5, 951), (vec![OutageLogLine::Begins(2)], false));
        assert_eq!(
            at(830, 5, 952),
            (vec![OutageLogLine::Ended(2, Duration::ZERO, Duration::from_secs(28))], false)
        );
    }
}
