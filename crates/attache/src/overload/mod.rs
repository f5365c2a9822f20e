//! Overload protection: before memory or file descriptors run out, attache does less work; when there is room again, it does more.
//!
//! **What is measured.** Each value is a share of its limit; the highest one counts:
//! - `memory`: of the innermost control group with a limit, without the page cache that the kernel can reclaim (as in Kubernetes' working
//!   set);
//! - `memory-stall`: the share of the last 10 s in which every task of the group waited for memory (PSI, "full");
//! - `file-descriptors`: of `ulimit -n`.
//!
//! **What is done.** The names are Envoy's. Each action ends when the share is 5 points below its start:
//! 1. `disable-keepalive` (85 %): connections end with their next answer, and idle ones end at once; those to upstreams too.
//! 2. `shed-requests` (90 %): new requests are refused with 503 `overloaded`. First those with `u=7`; then, evenly up to the next step,
//!    more urgent ones.
//! 3. `stop-accepting` (95 %): connections wait in the kernel's queue, and further requests are refused.
//!
//! The control thread measures four times a second, or once a second if every resource is far from its limit: each measurement wakes a
//! processor that requests could use. Workers count their connections between two measurements, so descriptors can't run out before the
//! next one. Readiness doesn't change: an orchestrator that moves the load away from one overloaded pod overloads the next.
//!
//! **Source.** Envoy's overload manager (`envoy.resource_monitors.cgroup_memory`, `.downstream_connections`; actions
//! `disable_http_keepalive`, `stop_accepting_requests`, `stop_accepting_connections`, with scaled triggers).

mod resources;

use std::{sync::Arc, time::Duration};

use attache_config::model;
use attache_telemetry::OverloadGauges;
use tokio::time::Instant;

use self::resources::Resources;
use crate::{process::ProcessState, ticks::tick};

/// The time between two measurements.
const MEASURE_INTERVAL: Duration = Duration::from_millis(250);
/// The same, while every resource is far from its limit.
const IDLE_MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// The share below which a resource is far from its limit.
const FAR: f64 = 0.4;
/// If a share rises by this much between two measurements, the next measurement comes soon.
const RISES: f64 = 0.05;
/// The shortest time between two log lines about the same level of overload.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The lowest urgency of a request (RFC 9218).
const LEAST_URGENT: i8 = 7;

/// Measures, always by the config that is in use.
pub(crate) struct OverloadWatch {
    process: Arc<ProcessState>,
    watched: Option<(model::Overload, Resources)>,
    steps: Steps,
    told: ReportedStep,
    /// The highest share of the last measurement.
    share: f64,
    next: Duration,
}

impl OverloadWatch {
    /// Makes the first measurement, before connections are accepted: without a free descriptor the limit can't be read.
    pub(crate) fn begin(process: Arc<ProcessState>) -> Self {
        let (steps, told) = (Steps::default(), ReportedStep::default());
        let mut watch = Self { process, watched: None, steps, told, share: 0.0, next: MEASURE_INTERVAL };
        watch.look();
        watch
    }

    /// Measures until the program ends.
    pub(crate) async fn run(mut self) {
        loop {
            tick(self.next).await;
            self.look();
        }
    }

    fn look(&mut self) {
        let Self { process, watched, steps, told, .. } = self;
        let wanted = process.generation().config.overload.clone();
        if watched.as_ref().map(|(config, _)| config) != wanted.as_ref() {
            *watched = wanted.map(|config| (config.clone(), Resources::new(&config)));
        }
        let share = match watched {
            Some((config, resources)) => look(process, config, resources, steps, told),
            None if *steps == Steps::default() => 0.0,
            None => {
                *steps = Steps::default();
                process.overload.set(steps.keeps, false, i64::MAX);
                process.note_refusals(None);
                process.metrics.set_overload(OverloadGauges::default());
                0.0
            }
        };
        self.next = next(self.share, share);
        self.share = share;
    }
}

/// The time until the next measurement, from the highest share of the last measurement and of this one.
fn next(before: f64, now: f64) -> Duration {
    if now < FAR && now - before < RISES { IDLE_MEASURE_INTERVAL } else { MEASURE_INTERVAL }
}

/// Measures and returns the highest share.
fn look(
    process: &ProcessState,
    config: &model::Overload,
    resources: &mut Resources,
    steps: &mut Steps,
    told: &mut ReportedStep,
) -> f64 {
    let usage = resources.look();
    let highest = usage.shares.iter().copied().max_by(|(_, a), (_, b)| a.total_cmp(b));
    let (resource, share) = highest.unwrap_or(("memory", 0.0));
    steps.step(config, share);
    if told.is_news(steps.level(), Instant::now()) {
        steps.say(resource, share);
    }
    process.overload.set(steps.keeps, steps.stop, usage.descriptors_below(config.stop_accepting));
    process.note_refusals(steps.refusals(resource, share));
    if steps.close {
        process.overload.press();
    }
    process.metrics.set_overload(OverloadGauges {
        pressure: usage.shares,
        actions: vec![
            ("disable-keepalive", steps.close),
            ("shed-requests", steps.keeps < LEAST_URGENT),
            ("stop-accepting", steps.stop),
        ],
    });
    share
}

/// The last step that was logged. If a process moves around a threshold, it is logged once in [`REPORT_INTERVAL`]; if it gets worse, at once.
#[derive(Debug, Default)]
struct ReportedStep {
    level: u8,
    worst: u8,
    at: Option<Instant>,
}

impl ReportedStep {
    fn is_news(&mut self, level: u8, now: Instant) -> bool {
        let quiet = self.at.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_INTERVAL);
        let news = if quiet { level != self.level } else { level > self.worst };
        if news {
            self.worst = if quiet { level } else { self.worst.max(level) };
            (self.level, self.at) = (level, Some(now));
        }
        news
    }
}

/// The actions that are taken now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Steps {
    close: bool,
    shed: bool,
    stop: bool,
    /// Requests up to this urgency are served.
    keeps: i8,
}

impl Default for Steps {
    fn default() -> Self {
        Self { close: false, shed: false, stop: false, keeps: LEAST_URGENT }
    }
}

impl Steps {
    fn step(&mut self, config: &model::Overload, share: f64) {
        let on = |was: bool, from: f64| share >= from || (was && share > from - model::Overload::HYSTERESIS);
        self.close = on(self.close, config.disable_keepalive);
        self.shed = on(self.shed, config.shed_requests);
        self.stop = on(self.stop, config.stop_accepting);
        self.keeps = match (self.shed || self.stop, share >= config.stop_accepting) {
            (false, _) => LEAST_URGENT,
            (true, true) => -1,
            (true, false) => {
                let room = (config.stop_accepting - config.shed_requests).max(f64::EPSILON);
                let into = ((share - config.shed_requests) / room).clamp(0.0, 1.0);
                LEAST_URGENT - 1 - (into * f64::from(LEAST_URGENT - 1)) as i8
            }
        };
    }

    /// The level of overload; 0 means none.
    fn level(&self) -> u8 {
        match (self.stop, self.shed, self.close) {
            (true, ..) => 3,
            (_, true, _) => 2,
            (.., true) => 1,
            _ => 0,
        }
    }

    /// The most severe action, if any.
    fn done(&self) -> Option<&'static str> {
        match (self.stop, self.shed, self.close) {
            (true, ..) => Some("no connection is accepted and requests are refused"),
            (_, true, _) => Some("the least urgent requests are refused"),
            (.., true) => Some("connections are closed after their answer"),
            _ => None,
        }
    }

    fn say(&self, resource: &str, share: f64) {
        let percent = (share * 100.0).round();
        if let Some(done) = self.done() {
            tracing::warn!(resource, percent, "overload: {done}; {}", hint(resource));
        } else {
            tracing::info!(resource, percent, "overload is over");
        }
    }

    /// What overload means for callers, as a text for operators; `None` if every request is served.
    fn refusals(&self, resource: &str, share: f64) -> Option<String> {
        let done = self.done().filter(|_| self.shed || self.stop)?;
        Some(format!("overload: {done} ({resource} at {:.0} %); {}", share * 100.0, hint(resource)))
    }
}

fn hint(resource: &str) -> &'static str {
    if resource == "file-descriptors" {
        "is the limit of open files (ulimit -n) too low?"
    } else {
        "is the container's memory limit too low?"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(steps: &mut Steps, share: f64) -> (bool, i8, bool) {
        steps.step(&model::Overload::default(), share);
        (steps.close, steps.keeps, steps.stop)
    }

    #[test]
    fn each_step_starts_at_its_share_and_ends_five_points_below() {
        let mut steps = Steps::default();
        assert_eq!(at(&mut steps, 0.849), (false, 7, false));
        assert_eq!(at(&mut steps, 0.85), (true, 7, false));
        assert_eq!(at(&mut steps, 0.81), (true, 7, false));
        assert_eq!(at(&mut steps, 0.799), (false, 7, false));
        assert_eq!(at(&mut steps, 0.96), (true, -1, true));
        assert_eq!(
            at(&mut steps, 0.91),
            (true, 5, true),
            "running requests may end before more are accepted"
        );
        assert_eq!(at(&mut steps, 0.89), (true, 6, false));
        assert_eq!(at(&mut steps, 0.85), (true, 7, false));
        assert_eq!(at(&mut steps, 0.5), (false, 7, false));
    }

    #[test]
    fn moving_around_a_threshold_is_logged_once_in_ten_seconds_and_getting_worse_at_once() {
        let (mut told, begin) = (ReportedStep::default(), Instant::now());
        let mut at = |millis: u64, level| told.is_news(level, begin + Duration::from_millis(millis));
        assert!(!at(0, 0));
        assert!(at(250, 1));
        assert!(
            [0, 1, 0, 1, 0].into_iter().zip([500, 750, 1000, 1250, 1500]).all(|(level, ms)| !at(ms, level))
        );
        assert!(at(1750, 2) && !at(2000, 2) && !at(2250, 1));
        assert!(at(12_000, 0), "it is over");
        assert!(!at(30_000, 0));
    }

    #[test]
    fn a_resource_near_its_limit_or_approaching_it_quickly_is_measured_four_times_as_often() {
        assert_eq!(next(0.1, 0.1), IDLE_MEASURE_INTERVAL);
        assert_eq!(next(0.1, 0.14), IDLE_MEASURE_INTERVAL);
        assert_eq!(next(0.1, 0.16), MEASURE_INTERVAL, "it rises");
        assert_eq!(next(0.4, 0.39), IDLE_MEASURE_INTERVAL);
        assert_eq!(next(0.39, 0.41), MEASURE_INTERVAL);
        assert_eq!(next(0.9, 0.6), MEASURE_INTERVAL, "the share is still high");
    }

    #[test]
    fn the_higher_the_share_the_more_urgent_must_a_request_be() {
        let mut steps = Steps::default();
        let keeps: Vec<i8> = (0..=10).map(|n| at(&mut steps, 0.9 + 0.005 * f64::from(n)).1).collect();
        assert!(keeps.is_sorted_by(|a, b| a >= b), "{keeps:?}");
        assert_eq!((keeps[0], keeps[5], keeps[10]), (6, 3, -1));
    }
}
