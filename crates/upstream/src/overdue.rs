//! When an attempt without an answer was too slow.

use std::{cell::Cell, rc::Rc};

use attache_telemetry::Reason;
use tokio::time::Instant;

/// From when on an attempt without an answer was too slow.
#[derive(Clone, Debug)]
pub struct Overdue {
    /// Which timeout ended it: `request-timeout` or `per-try-timeout`.
    pub reason: Reason,
    pub(crate) due: Due,
}

/// When it is. As small as an instant: every call that waits keeps some.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    At(Instant),
    /// The wait begins with the end of the request's body.
    AfterUpload(Rc<Progress>),
}

impl Overdue {
    /// The instant, or the earliest that it can be.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        match &self.due {
            Due::At(at) => Some(*at),
            Due::AfterUpload(upload) => upload.due.get().or(upload.earliest),
        }
    }

    /// Whether an attempt that ends now was too slow.
    pub fn is_over(&self) -> bool {
        let at = match &self.due {
            Due::At(at) => Some(*at),
            Due::AfterUpload(upload) => upload.due.get(),
        };
        at.is_some_and(|at| at <= Instant::now())
    }
}

/// What a request's body says of itself to those who wait for the answer.
#[derive(Debug, Default)]
pub struct Progress {
    /// A frame went by since this was taken.
    pub active: Cell<bool>,
    /// It has ended, or its reader has dropped it.
    pub over: Cell<bool>,
    /// Until when the answer is waited for; `None` where that is not known before the body has ended.
    pub due: Cell<Option<Instant>>,
    /// The earliest that [`Self::due`] can be.
    pub earliest: Option<Instant>,
}
