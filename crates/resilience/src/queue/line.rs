//! The calls of one worker that wait for a permit at one upstream.
//!
//! Only this worker uses them; the [`UpstreamPermits`] has the state that workers share. A permit that this worker releases goes
//! to its own line at once. Permits that other workers release are found by a check once a millisecond. A worker leaves
//! its permits to others while it holds more than its share: the limit divided by the number of workers that have a
//! line.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{gate::UpstreamPermits, urgency::CLASSES};

/// How often a line looks for permits that other workers have released. tokio's timers have no shorter interval.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

thread_local! {
    /// Lines of this worker that are in use: all routes to an upstream wait in the same one.
    static LINES: RefCell<Vec<Weak<WorkerQueue>>> = const { RefCell::new(Vec::new()) };
}

/// One worker's part of an upstream's queue.
pub(super) struct WorkerQueue {
    pub(super) gate: Arc<UpstreamPermits>,
    /// Permits that calls of this worker hold.
    held: Cell<u32>,
    waiting: RefCell<WaitingCalls>,
    looking: Cell<bool>,
    this: Weak<WorkerQueue>,
}

#[derive(Default)]
struct WaitingCalls {
    classes: [VecDeque<Rc<Waiter>>; CLASSES],
    count: usize,
    /// The instant since which it has not been empty.
    busy_since: Option<Instant>,
}

/// One call that waits.
pub(super) struct Waiter {
    class: usize,
    state: Cell<WaiterState>,
    waker: RefCell<Option<Waker>>,
    /// `None` if its caller's deadline, which the layer above enforces, comes first.
    pub(super) expires: Option<Instant>,
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaiterState {
    Waiting,
    /// A permit was taken for it.
    Called,
    Shed,
}

/// What happens to a new call.
pub(super) enum ArrivalResult {
    Enters(QueuePermit),
    Waits(QueueWait),
    Refused,
}

impl WorkerQueue {
    /// This worker's line at the gate.
    pub(super) fn of(gate: &Arc<UpstreamPermits>) -> Rc<Self> {
        LINES.with_borrow_mut(|lines| {
            lines.retain(|line| line.strong_count() > 0);
            let known = lines.iter().filter_map(Weak::upgrade).find(|line| Arc::ptr_eq(&line.gate, gate));
            known.unwrap_or_else(|| {
                let line = Rc::new_cyclic(|this| Self {
                    gate: gate.clone(),
                    held: Cell::new(0),
                    waiting: RefCell::default(),
                    looking: Cell::new(false),
                    this: this.clone(),
                });
                lines.push(Rc::downgrade(&line));
                line
            })
        })
    }

    /// Handles a new call.
    pub(super) fn arrive(
        self: &Rc<Self>,
        class: u8,
        deadline: Option<Instant>,
        now: Instant,
    ) -> ArrivalResult {
        if self.waiting.borrow().count == 0
            && let Some(permit) = self.enter(now)
        {
            return ArrivalResult::Enters(permit);
        }
        let Some(queue) = &self.gate.queue else { return ArrivalResult::Refused };
        let class = usize::from(class).min(CLASSES - 1);
        if self.gate.waiting.fetch_add(1, Relaxed) >= queue.max {
            // A less urgent call makes room; if there is none, the new call is refused.
            let less_urgent = self.waiting.borrow_mut().least_urgent_below(class, now, queue.interval);
            let Some(waiter) = less_urgent else {
                self.gate.waiting.fetch_sub(1, Relaxed);
                return ArrivalResult::Refused;
            };
            self.end(&waiter, WaiterState::Shed);
        }
        let mut waiting = self.waiting.borrow_mut();
        if waiting.busy_since.is_none() {
            waiting.busy_since = Some(now);
            self.gate.hungry.fetch_add(1, Relaxed);
        }
        let longest = if waiting.overloaded(now, queue.interval) { queue.target } else { queue.interval };
        let waiter = Rc::new(Waiter {
            class,
            state: Cell::new(WaiterState::Waiting),
            waker: RefCell::default(),
            expires: now
                .checked_add(longest)
                .filter(|expires| deadline.is_none_or(|deadline| *expires < deadline)),
            deadline,
        });
        waiting.count += 1;
        if let Some(queue) = waiting.classes.get_mut(class) {
            queue.push_back(waiter.clone());
        }
        drop(waiting);
        self.keep_looking();
        // It may be the most urgent call, and this worker may now be allowed to take a free permit.
        self.serve(now);
        ArrivalResult::Waits(QueueWait { line: self.clone(), waiter })
    }

    fn enter(self: &Rc<Self>, now: Instant) -> Option<QueuePermit> {
        if !self.may_take() {
            return None;
        }
        let running = self.gate.enter()?;
        Some(self.permit(running, now))
    }

    fn permit(self: &Rc<Self>, running: u32, now: Instant) -> QueuePermit {
        self.held.set(self.held.get() + 1);
        let phase = self.gate.begun(running, now);
        QueuePermit { line: self.clone(), since: now, phase }
    }

    /// Whether this worker may take a permit, so that other workers' lines get their share.
    fn may_take(&self) -> bool {
        let own = u32::from(self.waiting.borrow().busy_since.is_some());
        let others = self.gate.hungry.load(Relaxed).saturating_sub(own);
        others == 0 || self.held.get() < self.gate.limit().div_ceil(others + 1)
    }

    /// Lets waiting calls continue, as long as there are permits.
    fn serve(&self, now: Instant) {
        let Some(queue) = &self.gate.queue else { return };
        while self.waiting.borrow().count > 0 && self.may_take() {
            if self.gate.enter().is_none() {
                return;
            }
            let next = self.waiting.borrow_mut().next(now, queue.interval);
            match next {
                // Its caller no longer waits: the call is not sent, and the permit goes to the next one.
                Some(waiter) if waiter.deadline.is_some_and(|deadline| deadline <= now) => {
                    self.gate.leave();
                    self.end(&waiter, WaiterState::Shed);
                }
                Some(waiter) => {
                    self.held.set(self.held.get() + 1);
                    self.end(&waiter, WaiterState::Called);
                }
                None => {
                    self.gate.leave();
                    return;
                }
            }
        }
    }

    /// Tells a call that left the line its result.
    fn end(&self, waiter: &Waiter, state: WaiterState) {
        waiter.state.set(state);
        self.left(1);
        if let Some(waker) = waiter.waker.take() {
            waker.wake();
        }
    }

    /// `count` calls have left the line.
    fn left(&self, count: u32) {
        self.gate.waiting.fetch_sub(count, Relaxed);
        let mut waiting = self.waiting.borrow_mut();
        waiting.count = waiting.count.saturating_sub(count as usize);
        if waiting.count == 0 && waiting.busy_since.take().is_some() {
            self.gate.hungry.fetch_sub(1, Relaxed);
        }
    }

    /// A call has waited too long. Calls with less of a chance are refused before it.
    fn expire(&self, waiter: &Rc<Waiter>) {
        self.remove(waiter);
        waiter.state.set(WaiterState::Shed);
        let behind = self.waiting.borrow_mut().take_below(waiter.class);
        for waiter in behind {
            self.end(&waiter, WaiterState::Shed);
        }
    }

    fn remove(&self, waiter: &Rc<Waiter>) {
        let removed = self.waiting.borrow_mut().remove(waiter);
        if removed {
            self.left(1);
        }
    }

    fn leave(&self) {
        self.held.set(self.held.get().saturating_sub(1));
        self.gate.leave();
        if self.waiting.borrow().count > 0 {
            self.serve(Instant::now());
        }
    }

    fn keep_looking(&self) {
        if self.looking.replace(true) {
            return;
        }
        let line = self.this.clone();
        spawn_local(async move {
            loop {
                sleep(CHECK_INTERVAL).await;
                let Some(line) = line.upgrade() else { return };
                line.serve(Instant::now());
                if line.waiting.borrow().count == 0 {
                    line.looking.set(false);
                    return;
                }
            }
        });
    }
}

impl WaitingCalls {
    fn overloaded(&self, now: Instant, interval: Duration) -> bool {
        self.busy_since.is_some_and(|since| now.saturating_duration_since(since) >= interval)
    }

    /// The most urgent call. Among equals it is the first; if the queue doesn't become empty, it is the last, which has
    /// the most time left.
    fn next(&mut self, now: Instant, interval: Duration) -> Option<Rc<Waiter>> {
        let newest = self.overloaded(now, interval);
        let class = self.classes.iter_mut().find(|class| !class.is_empty())?;
        if newest { class.pop_back() } else { class.pop_front() }
    }

    /// The call with the least chance among those that are less urgent than `class`.
    fn least_urgent_below(&mut self, class: usize, now: Instant, interval: Duration) -> Option<Rc<Waiter>> {
        let newest_first = self.overloaded(now, interval);
        let below = self.classes.get_mut(class + 1..)?;
        let last = below.iter_mut().rev().find(|class| !class.is_empty())?;
        if newest_first { last.pop_front() } else { last.pop_back() }
    }

    fn take_below(&mut self, class: usize) -> Vec<Rc<Waiter>> {
        let below = self.classes.get_mut(class + 1..).unwrap_or_default();
        below.iter_mut().flat_map(std::mem::take).collect()
    }

    fn remove(&mut self, waiter: &Rc<Waiter>) -> bool {
        let Some(class) = self.classes.get_mut(waiter.class) else { return false };
        let at = class.iter().position(|other| Rc::ptr_eq(other, waiter));
        at.and_then(|at| class.remove(at)).is_some()
    }
}

/// A call's wait. Dropping it removes the call from the line.
pub(super) struct QueueWait {
    line: Rc<WorkerQueue>,
    pub(super) waiter: Rc<Waiter>,
}

impl QueueWait {
    /// A permit, or `None` for a call that is not sent. `expired`: it has waited too long.
    pub(super) fn poll(&self, cx: &Context<'_>, expired: bool) -> Poll<Option<QueuePermit>> {
        if expired && self.waiter.state.get() == WaiterState::Waiting {
            self.line.expire(&self.waiter);
        }
        match self.waiter.state.get() {
            WaiterState::Waiting => {
                *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            WaiterState::Called => {
                // From now on the permit holds what the wait held.
                self.waiter.state.set(WaiterState::Shed);
                self.line.held.set(self.line.held.get().saturating_sub(1));
                let running = self.line.gate.running();
                Poll::Ready(Some(self.line.permit(running, Instant::now())))
            }
            WaiterState::Shed => Poll::Ready(None),
        }
    }
}

impl Drop for QueueWait {
    fn drop(&mut self) {
        match self.waiter.state.get() {
            WaiterState::Waiting => self.line.remove(&self.waiter),
            WaiterState::Called => self.line.leave(),
            WaiterState::Shed => {}
        }
    }
}

/// A call's permit at the upstream, released when it is dropped.
pub(super) struct QueuePermit {
    line: Rc<WorkerQueue>,
    since: Instant,
    phase: u32,
}

impl QueuePermit {
    /// Reports the duration of the call as a sample.
    pub(super) fn sample(&self) {
        let now = Instant::now();
        self.line.gate.sample(self.phase, now.saturating_duration_since(self.since), now);
    }

    pub(super) fn adaptive(&self) -> bool {
        self.line.gate.adaptive.is_some()
    }
}

impl fmt::Debug for QueuePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePermit").finish_non_exhaustive()
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.line.leave();
    }
}
