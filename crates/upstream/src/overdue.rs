//! When an attempt without an answer was too slow.

use std::{cell::Cell, rc::Rc};

use attache_telemetry::Reason;
use tokio::time::Instant;

/// The instant after which an attempt without an answer is too slow.
#[derive(Clone, Debug)]
pub struct Overdue {
    /// Which timeout ended it: `request-timeout` or `per-try-timeout`.
    pub reason: Reason,
    pub(crate) due: OverdueAt,
}

/// The instant, or how it is found. The type is as small as an instant, because every waiting call keeps several.
#[derive(Clone, Debug)]
pub(crate) enum OverdueAt {
    At(Instant),
    /// The wait begins with the end of the request's body.
    AfterUpload(Rc<BodyProgress>),
}

impl Overdue {
    /// The instant, or the earliest that it can be.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        match &self.due {
            OverdueAt::At(at) => Some(*at),
            OverdueAt::AfterUpload(upload) => upload.due.get().or(upload.earliest),
        }
    }

    /// Whether an attempt that ends now was too slow.
    pub fn is_over(&self) -> bool {
        let at = match &self.due {
            OverdueAt::At(at) => Some(*at),
            OverdueAt::AfterUpload(upload) => upload.due.get(),
        };
        at.is_some_and(|at| at <= Instant::now())
    }
}

/// The progress of a request's body, for the code that waits for the answer.
#[derive(Debug, Default)]
pub struct BodyProgress {
    /// A frame was sent since this flag was last taken.
    pub active: Cell<bool>,
    /// The body has ended, or its reader has dropped it.
    pub over: Cell<bool>,
    /// The end of the wait for the answer; `None` as long as it isn't known, before the body has ended.
    pub due: Cell<Option<Instant>>,
    /// The earliest that [`Self::due`] can be.
    pub earliest: Option<Instant>,
}
