//! One timer for a deadline and for the idle timeout.
//!
//! **Rule.** An idle time of `idle` is found by counting: the timer ticks four times in it, a byte only sets a flag,
//! and the fourth tick in a row that finds no flag ends the stream. It is cut between 1 and 1.25 times `idle` after its
//! last byte, and exactly after `idle` if no byte ever came. A frame costs no clock read, no timer reset and no
//! allocation; Envoy re-arms its timer with every frame.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_http::time::{Sleep, sleep_until};
use attache_telemetry::Reason;
use attache_upstream::BodyProgress;
use pin_project_lite::pin_project;
use tokio::time::Instant;

/// Ticks in one idle time.
const TICKS: u8 = 4;

/// Shared by the request's body and the timer.
pub(super) type Activity = Rc<BodyProgress>;

/// What ends a stream.
#[derive(Clone, Debug)]
pub(super) struct StreamLimits {
    pub(super) deadline: Option<Instant>,
    /// Another deadline, this long after the end of `upload`.
    pub(super) after_upload: Option<Duration>,
    /// Zero is off.
    pub(super) idle: Duration,
    pub(super) upload: Option<Activity>,
}

impl StreamLimits {
    pub(super) fn none(&self) -> bool {
        self.deadline.is_none() && self.after_upload.is_none() && self.idle.is_zero()
    }
}

/// A deadline as messages show it.
#[derive(Debug)]
pub(super) struct ShownDeadline {
    pub(super) time: Duration,
    /// The caller sent it with the request; otherwise it is the route's `timeout`.
    pub(super) is_callers: bool,
}

pin_project! {
    pub(super) struct Timer {
        limits: StreamLimits,
        start: Option<Instant>,
        polled: bool,
        active: bool,
        quiet: u8,
        next_tick: Option<Instant>,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Timer {
    /// Begins at `start`, or when it is first waited for.
    pub(super) fn new(limits: StreamLimits, start: Option<Instant>) -> Self {
        Self { limits, start, polled: false, active: false, quiet: 0, next_tick: None, sleep: None }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.limits.deadline
    }

    pub(super) const fn start(&self) -> Option<Instant> {
        self.start
    }

    /// The limit that ended it, for people: its key and its value. `missing` says what had not come before the
    /// deadline.
    pub(super) fn cause(&self, reason: Reason, missing: &str, limit: Option<&ShownDeadline>) -> String {
        match limit {
            _ if reason == Reason::IdleTimeout => {
                format!("no byte either way for `idle_timeout` ({:?})", self.limits.idle)
            }
            Some(ShownDeadline { time, is_callers: true }) => {
                format!("{missing} within the caller's deadline ({time:?})")
            }
            Some(ShownDeadline { time, is_callers: false }) => {
                format!("{missing} within `timeout` ({time:?})")
            }
            None => format!("{missing} at the deadline"),
        }
    }

    /// The same limits with another deadline.
    pub(super) fn limits(&self, deadline: Option<Instant>) -> StreamLimits {
        StreamLimits { deadline, after_upload: None, ..self.limits.clone() }
    }

    /// Ready with the reason once a limit has passed. `active`: bytes passed since the last call.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>, active: bool) -> Poll<Reason> {
        let mut this = self.project();
        if this.limits.none() {
            return Poll::Pending;
        }
        let is_first = !std::mem::replace(this.polled, true);
        *this.active |= active;
        let over = this.limits.upload.as_ref().is_none_or(|upload| upload.over.get());
        if let Some(timeout) = this.limits.after_upload.take_if(|_| over) {
            // At the first poll the request has already ended, at its begin, and that instant is known.
            let begun = this.start.filter(|_| is_first);
            let due = begun.unwrap_or_else(Instant::now).checked_add(timeout);
            if let Some(upload) = &this.limits.upload {
                upload.due.set(due);
            }
            this.limits.deadline = earlier(this.limits.deadline, due);
            let next = earlier(this.limits.deadline, *this.next_tick);
            if let (Some(sleep), Some(next)) = (this.sleep.as_mut().as_pin_mut(), next) {
                sleep.reset(next);
            }
        }
        let tick = this.limits.idle / u32::from(TICKS);
        if this.sleep.is_none() {
            let start = this.start.unwrap_or_else(Instant::now);
            *this.next_tick = (!this.limits.idle.is_zero()).then(|| start.checked_add(tick)).flatten();
            this.sleep.set(earlier(this.limits.deadline, *this.next_tick).map(sleep_until));
        }
        loop {
            let Some(mut sleep) = this.sleep.as_mut().as_pin_mut() else {
                return Poll::Pending;
            };
            ready!(sleep.as_mut().poll(cx));
            let now = sleep.deadline();
            if this.limits.deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Reason::RequestTimeout);
            }
            let uploaded = this.limits.upload.as_ref().is_some_and(|upload| upload.active.replace(false));
            if std::mem::take(this.active) || uploaded {
                *this.quiet = 0;
            } else {
                *this.quiet += 1;
                if *this.quiet >= TICKS {
                    return Poll::Ready(Reason::IdleTimeout);
                }
            }
            // From now, not from the missed tick: a body that was not polled for an hour must not count an hour of
            // ticks in one step.
            *this.next_tick = now.max(Instant::now()).checked_add(tick);
            match earlier(this.limits.deadline, *this.next_tick) {
                Some(next) => sleep.reset(next),
                None => return Poll::Pending,
            }
        }
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}
