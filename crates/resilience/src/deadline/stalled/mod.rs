//! Answers whose client doesn't read them.
//!
//! A body is polled only as fast as the client reads it, so no code in `poll_frame` can end an answer whose client
//! reads nothing: neither its deadline nor a limit. Until `http.write_timeout` it would keep a permit of `max_requests`
//! and the connection to the upstream.
//!
//! **Rule.** Each worker checks its responses four times a second ([`keep`]), and ends the exchange with the upstream,
//! independently of the client:
//! - at the deadline of the exchange: `request-timeout`;
//! - while more than three quarters of the upstream's `max_requests` are in use, if the client has read nothing for
//!   [`STALLED`], the longest first: `client-stalled`. So clients that don't read don't block others;
//! - while the process is short of memory ([`press`]): the longest-stalled eighth, `client-stalled`.
//!
//! For this an answer costs one allocation and an entry in a list, and each of its frames two writes. A client is
//! stalled if its last poll returned a frame and no poll followed. An answer that waits for the upstream is not
//! stalled.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use attache_http::{Body, BodyError};
use attache_telemetry::Reason;
use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::UpstreamState;

/// Time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a client reads nothing before its answer may be ended for others.
const STALLED: Duration = Duration::from_secs(1);
/// The same time as a number of checks.
const LOOKS: u32 = (STALLED.as_millis() / CHECK_INTERVAL.as_millis()) as u32;

thread_local! {
    static LIST: StalledAnswers = StalledAnswers::default();
}

#[derive(Default)]
struct StalledAnswers {
    answers: RefCell<Vec<Rc<WatchedAnswer>>>,
    added: Rc<Notify>,
}

/// The body of one answer, shared by its reader and the check.
pub(super) struct WatchedAnswer {
    body: RefCell<Body>,
    cut: Cell<Option<Reason>>,
    deadline: Option<Instant>,
    /// The next frame has to come from the upstream.
    waits: Cell<bool>,
    /// Checks since the last poll.
    quiet: Cell<u32>,
    index: Cell<usize>,
    pub(super) state: Arc<UpstreamState>,
}

/// The reader's side. When it is dropped, the answer leaves the list.
pub(super) struct WatchedBody(Rc<WatchedAnswer>);

impl WatchedBody {
    pub(super) fn new(body: Body, deadline: Option<Instant>, state: Arc<UpstreamState>) -> Self {
        let held = Rc::new(WatchedAnswer {
            body: RefCell::new(body),
            cut: Cell::new(None),
            deadline,
            waits: Cell::new(false),
            quiet: Cell::new(0),
            index: Cell::new(0),
            state,
        });
        LIST.with(|list| {
            let mut answers = list.answers.borrow_mut();
            held.index.set(answers.len());
            answers.push(Rc::clone(&held));
            if answers.len() == 1 {
                list.added.notify_one();
            }
        });
        Self(held)
    }

    /// Why it was cut.
    pub(super) fn is_cut(&self) -> Option<Reason> {
        self.0.cut.get()
    }

    /// Ends the exchange with the upstream.
    pub(super) fn cut(&self, reason: Reason) {
        self.0.cut(reason);
    }

    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut *self.0.body.borrow_mut()).poll_frame(cx);
        self.0.waits.set(frame.is_pending());
        self.0.quiet.set(0);
        frame
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&Body) -> T) -> T {
        look(&self.0.body.borrow())
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        // At the thread's end the list may be dropped before the last answer.
        let _ = LIST.try_with(|list| {
            let mut answers = list.answers.borrow_mut();
            let at = self.0.index.get();
            if at < answers.len() {
                answers.swap_remove(at);
                if let Some(moved) = answers.get(at) {
                    moved.index.set(at);
                }
            }
        });
    }
}

impl WatchedAnswer {
    fn cut(&self, reason: Reason) {
        if self.cut.get().is_none() {
            self.cut.set(Some(reason));
            // Dropping the body ends the connection to the upstream, and releases its permits.
            let body = self.body.take();
            drop(body);
            super::note(&self.state, reason);
        }
    }

    /// How long the client has read nothing, in checks.
    fn stalled(&self) -> Option<u32> {
        let quiet = self.quiet.get();
        (quiet >= LOOKS && self.cut.get().is_none()).then_some(quiet)
    }

    fn is_crowded(&self) -> bool {
        let shared = &self.state.shared;
        let most = shared.config.circuit_breaker.max_requests;
        shared.active_requests.load(Relaxed) > most - most / 4
    }
}

/// Checks this worker's answers until the worker ends.
pub async fn keep() {
    let added = LIST.with(|list| Rc::clone(&list.added));
    loop {
        if LIST.with(|list| list.answers.borrow().is_empty()) {
            added.notified().await;
        }
        sleep(CHECK_INTERVAL).await;
        look();
    }
}

/// The process is short of memory: ends an eighth of the answers whose client reads nothing, at least one.
pub fn press() {
    let stalled = stalled(|_| true);
    let most = stalled.len().div_ceil(8);
    for held in stalled.iter().take(most) {
        held.cut(Reason::ClientStalled);
    }
}

fn look() {
    let now = Instant::now();
    let over = |held: &&Rc<WatchedAnswer>| {
        if !held.waits.get() {
            held.quiet.set(held.quiet.get() + 1);
        }
        held.deadline.is_some_and(|deadline| deadline <= now)
    };
    // Cutting an answer may drop other bodies, which leave the list: so the list must not be borrowed then.
    let over: Vec<_> = LIST.with(|list| list.answers.borrow().iter().filter(over).cloned().collect());
    for held in &over {
        held.cut(Reason::RequestTimeout);
    }
    for held in stalled(WatchedAnswer::is_crowded) {
        // Each cut answer makes room, so the next one is checked again.
        if held.is_crowded() {
            held.cut(Reason::ClientStalled);
        }
    }
}

/// Answers whose client reads nothing, the longest stalled first.
fn stalled(which: impl Fn(&WatchedAnswer) -> bool) -> Vec<Rc<WatchedAnswer>> {
    let of = |held: &&Rc<WatchedAnswer>| held.stalled().is_some() && which(held);
    let mut stalled: Vec<_> = LIST.with(|list| list.answers.borrow().iter().filter(of).cloned().collect());
    stalled.sort_by_key(|held| std::cmp::Reverse(held.quiet.get()));
    stalled
}

#[cfg(test)]
mod tests;
