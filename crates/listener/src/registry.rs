//! The open connections of this worker, and the orders that they get.
//!
//! A connection polls no timer and no shared signal of its own. The drain and the sweep of idle connections set the order here and wake the
//! connection's task. A running request pays one load of a cell for this.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use attache_telemetry::Reason;
use tokio::{sync::Notify, time::Interval};

use crate::stall::stalled;

/// What a connection was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum ConnectionOrder {
    /// Continue.
    #[default]
    Serve,
    /// Tell the client with the next answer that the connection ends.
    EndWithAnswer,
    /// Finish what runs, then close; an idle connection closes at once.
    Finish,
    /// It was idle for too long; otherwise like [`ConnectionOrder::Finish`].
    Idle,
    /// Close now.
    Cut,
}

/// One connection, as the rest of the worker sees it. Counts are 32 bits wide, because memory per idle connection counts. They are only
/// compared for equality, and two checks are never 2^32 exchanges apart.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    order: Cell<ConnectionOrder>,
    waker: RefCell<Option<Waker>>,
    /// Exchanges that run now.
    running: Cell<u32>,
    /// It changes whenever an exchange begins or ends.
    activity: Cell<u32>,
    /// HTTP/2: how many responses' heads were sent.
    pub(crate) answered: Cell<u64>,
    /// Why the connection ends; `None` for an orderly end.
    pub(crate) ended_by: Cell<Option<Reason>>,
    /// Whether it is closed when idle; only HTTP connections are.
    pub(crate) sweepable: Cell<bool>,
    /// The reason for the log, if the connection ended because the client stopped reading.
    stalled: OnceCell<Box<str>>,
    swept: Cell<(u32, u8)>,
    /// The value of `activity` when the process was last short of something.
    relieved: Cell<u32>,
    /// The value of `activity` at the last [`Registry::rest`].
    rested: Cell<u32>,
    /// How many calls of [`Registry::age`] are left until it must end.
    left: Cell<u8>,
}

impl Default for OpenConnection {
    fn default() -> Self {
        Self {
            order: Cell::default(),
            waker: RefCell::default(),
            running: Cell::default(),
            activity: Cell::default(),
            answered: Cell::default(),
            ended_by: Cell::default(),
            sweepable: Cell::default(),
            stalled: OnceCell::default(),
            // This differs from any activity, so the first sweep starts the count.
            swept: Cell::new((u32::MAX, 0)),
            relieved: Cell::new(u32::MAX),
            rested: Cell::new(u32::MAX),
            left: Cell::new(AGE_LOOKS - 1 - fastrand::u8(..3)),
        }
    }
}

impl OpenConnection {
    pub(crate) fn begin(&self) {
        self.running.set(self.running.get() + 1);
        self.activity.set(self.activity.get().wrapping_add(1));
    }

    pub(crate) fn end(&self) {
        self.running.set(self.running.get().saturating_sub(1));
        self.activity.set(self.activity.get().wrapping_add(1));
    }

    /// Notes why the connection's server ended, for the exchanges that end with it.
    pub(crate) fn note_stalled(&self, error: &(dyn std::error::Error + 'static)) {
        if let Some(stalled) = stalled(error) {
            // The first reason is kept, because the connection ends with it.
            let _ = self.stalled.set(stalled.to_string().into());
        }
    }

    /// The reason, if the connection ended because the client stopped reading.
    pub(crate) fn stalled(&self) -> Option<String> {
        self.stalled.get().map(ToString::to_string)
    }

    /// Whether no exchange runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.get() == 0
    }

    /// Notes why the connection ends; the first reason is the one that counts.
    pub(crate) fn ends_by(&self, reason: Reason) {
        if self.ended_by.get().is_none() {
            self.ended_by.set(Some(reason));
        }
    }

    pub(crate) fn order(&self) -> ConnectionOrder {
        self.order.get()
    }

    /// Notes the task that orders wake. A task's waker doesn't change, so this is usually only a comparison.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
    }

    /// Gives an order. An order that is weaker than the one before is ignored.
    pub(crate) fn give(&self, order: ConnectionOrder) {
        if order > self.order.get() {
            self.order.set(order);
            self.wake();
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// After how many sweeps without an exchange a connection is idle.
pub(crate) const IDLE_SWEEPS: u8 = 4;

/// How often connections are checked within a maximum age.
pub(crate) const AGE_LOOKS: u8 = 20;

/// After how many calls of [`Registry::rest`] the memory that connections returned has also left the allocator's own caches.
const FREE_CHECKS: u8 = 3;

/// All connections of one listener on one worker.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    all: RefCell<ConnectionSlab>,
    empty: Notify,
    /// Notified when the first connection arrives.
    entered: Notify,
    /// How many calls are left until the memory that connections returned is surely free.
    free_checks: Cell<u8>,
}

impl Registry {
    /// Adds a new connection. Dropping the entry removes it.
    pub(crate) fn enter(self: &Rc<Self>) -> RegistryEntry {
        let live = Rc::new(OpenConnection::default());
        let mut all = self.all.borrow_mut();
        if all.taken == 0 {
            self.entered.notify_one();
        }
        let seat = all.take(live.clone());
        drop(all);
        RegistryEntry { seat, live, registry: self.clone() }
    }

    /// Gives every connection an order.
    pub(crate) fn give_all(&self, order: ConnectionOrder) {
        for live in self.all.borrow().open() {
            live.give(order);
        }
    }

    /// Called four times in an idle timeout. A connection without an exchange from one call to the fourth call after it is told to close.
    /// So it closes after between one and one and a quarter of the timeout, and no clock is read.
    pub(crate) fn sweep(&self) {
        for live in self.all.borrow().open().filter(|live| live.sweepable.get()) {
            let activity = live.activity.get();
            let (before, times) = live.swept.get();
            let times =
                if live.running.get() > 0 || activity != before { 0 } else { times.saturating_add(1) };
            live.swept.set((activity, times));
            if times >= IDLE_SWEEPS {
                live.give(ConnectionOrder::Idle);
            }
        }
    }

    /// The process is short of something: clients are told with the next answer that the connection ends, and connections that were idle
    /// since the last call are closed.
    pub(crate) fn relieve(&self) {
        for live in self.all.borrow().open().filter(|live| live.sweepable.get()) {
            let activity = live.activity.get();
            let idle = live.is_idle() && live.relieved.replace(activity) == activity;
            live.give(if idle { ConnectionOrder::Idle } else { ConnectionOrder::EndWithAnswer });
        }
    }

    /// Waits for the next time to call [`Self::rest`]. If there is no connection, it waits until one arrives.
    pub(crate) async fn look(&self, every: &mut Interval) {
        while self.is_empty() && self.free_checks.get() == 0 {
            self.entered.notified().await;
        }
        every.tick().await;
    }

    /// Notes which connections have become idle since the last call: the memory of their requests is free.
    pub(crate) fn rest(&self) {
        for live in self.all.borrow().open().filter(|live| live.sweepable.get()) {
            let activity = live.activity.get();
            if live.is_idle() && activity > 0 && live.rested.replace(activity) != activity {
                self.free_checks.set(FREE_CHECKS);
            }
        }
    }

    /// Whether connections returned memory lately that the allocator may still hold.
    pub(crate) fn freed_memory(&self) -> bool {
        let left = self.free_checks.get();
        self.free_checks.set(left.saturating_sub(1));
        left > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.borrow().taken == 0
    }

    /// Called twenty times in a maximum age. A connection is told to end at 80 to 100 % of that age, at random, so that clients that
    /// connected together don't leave together. It is first told to end with its next answer, so that no request meets the closing; one
    /// call later it is also closed if it is idle.
    pub(crate) fn age(&self) {
        for live in self.all.borrow().open().filter(|live| live.sweepable.get()) {
            match live.left.get() {
                0 => live.give(ConnectionOrder::Finish),
                left => {
                    live.left.set(left - 1);
                    if left == 1 {
                        live.give(ConnectionOrder::EndWithAnswer);
                    }
                }
            }
        }
    }

    /// Waits until no connection is left.
    pub(crate) async fn emptied(&self) {
        while !self.is_empty() {
            self.empty.notified().await;
        }
    }
}

/// The connections by number. A free number is used again, so a connection takes only one pointer here: memory per idle connection counts.
#[derive(Debug, Default)]
struct ConnectionSlab {
    all: Vec<Option<Rc<OpenConnection>>>,
    free: Vec<u32>,
    taken: usize,
}

impl ConnectionSlab {
    fn take(&mut self, live: Rc<OpenConnection>) -> usize {
        self.taken += 1;
        let free = self.free.pop().map(|seat| seat as usize);
        if let Some(seat) = free
            && let Some(place) = self.all.get_mut(seat)
        {
            *place = Some(live);
            return seat;
        }
        self.all.push(Some(live));
        self.all.len() - 1
    }

    fn free(&mut self, seat: usize) {
        if let Some(place) = self.all.get_mut(seat)
            && place.take().is_some()
        {
            self.taken -= 1;
            self.free.extend(u32::try_from(seat));
        }
        // The list is released, because it may have been very long.
        if self.taken == 0 {
            *self = Self::default();
        }
    }

    fn open(&self) -> impl Iterator<Item = &Rc<OpenConnection>> {
        self.all.iter().flatten()
    }
}

/// A connection's entry in the [`Registry`]. Dropping it removes the connection.
#[derive(Debug)]
pub(crate) struct RegistryEntry {
    seat: usize,
    pub(crate) live: Rc<OpenConnection>,
    registry: Rc<Registry>,
}

impl Drop for RegistryEntry {
    fn drop(&mut self) {
        let mut all = self.registry.all.borrow_mut();
        all.free(self.seat);
        self.registry.free_checks.set(FREE_CHECKS);
        if all.taken == 0 {
            self.registry.empty.notify_waiters();
            self.registry.empty.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_closed_after_a_full_timeout_without_an_exchange_and_not_earlier() {
        let registry = Rc::new(Registry::default());
        let (idle, busy) = (registry.enter(), registry.enter());
        idle.live.sweepable.set(true);
        busy.live.sweepable.set(true);
        busy.live.begin();
        registry.sweep();
        // This is just before the second sweep; the sixth sweep is a full timeout later.
        idle.live.begin();
        idle.live.end();
        for _ in 0..IDLE_SWEEPS {
            registry.sweep();
            assert_eq!(idle.live.order(), ConnectionOrder::Serve);
        }
        registry.sweep();
        assert_eq!((idle.live.order(), busy.live.order()), (ConnectionOrder::Idle, ConnectionOrder::Serve));
    }

    #[test]
    fn memory_is_released_for_some_checks_after_the_last_activity_and_not_for_ever() {
        let registry = Rc::new(Registry::default());
        let (idle, silent) = (registry.enter(), registry.enter());
        idle.live.sweepable.set(true);
        silent.live.sweepable.set(true);
        registry.rest();
        assert!(!registry.freed_memory(), "no connection had a request");
        idle.live.begin();
        idle.live.end();
        let looks = (0..10).map(|_| {
            registry.rest();
            registry.freed_memory()
        });
        assert_eq!(looks.filter(|free_checks| *free_checks).count(), usize::from(FREE_CHECKS));
    }

    #[test]
    fn relief_closes_connections_that_stay_idle_and_ends_the_others_with_their_answer() {
        let registry = Rc::new(Registry::default());
        let (idle, busy, tcp) = (registry.enter(), registry.enter(), registry.enter());
        idle.live.sweepable.set(true);
        busy.live.sweepable.set(true);
        busy.live.begin();
        let orders = || [&idle, &busy, &tcp].map(|entry| entry.live.order());
        registry.relieve();
        assert_eq!(
            orders(),
            [ConnectionOrder::EndWithAnswer, ConnectionOrder::EndWithAnswer, ConnectionOrder::Serve]
        );
        registry.relieve();
        assert_eq!(orders(), [ConnectionOrder::Idle, ConnectionOrder::EndWithAnswer, ConnectionOrder::Serve]);
    }

    #[test]
    fn an_old_connection_is_told_with_its_next_answer_and_then_ended_before_its_maximum_age() {
        for _ in 0..50 {
            let registry = Rc::new(Registry::default());
            let (old, tunnel) = (registry.enter(), registry.enter());
            old.live.sweepable.set(true);
            let mut orders = Vec::new();
            for _ in 0..AGE_LOOKS {
                registry.age();
                orders.push(old.live.order());
            }
            let at = |order| orders.iter().position(|given| *given == order).unwrap();
            let (told, ended) = (at(ConnectionOrder::EndWithAnswer), at(ConnectionOrder::Finish));
            assert_eq!(ended, told + 1);
            // The first check is number 0, and comes up to one twentieth of the age after the connection.
            assert!((16..=18).contains(&told), "{told}");
            assert_eq!(
                tunnel.live.order(),
                ConnectionOrder::Serve,
                "a connection with its own timeouts is not changed"
            );
        }
    }

    #[test]
    fn a_free_number_is_used_again_by_one_connection_at_a_time() {
        let registry = Rc::new(Registry::default());
        let mut open: Vec<RegistryEntry> = (0..3).map(|_| registry.enter()).collect();
        let left = open.remove(1);
        let seat = left.seat;
        drop(left);
        open.push(registry.enter());
        assert_eq!(open[2].seat, seat);
        open.push(registry.enter());
        assert_eq!(registry.all.borrow().all.len(), 4);
        registry.give_all(ConnectionOrder::Finish);
        assert!(open.iter().all(|entry| entry.live.order() == ConnectionOrder::Finish));
        drop(open);
        assert!(registry.is_empty());
        assert_eq!(registry.all.borrow().all.capacity(), 0);
    }

    #[test]
    fn a_weaker_order_never_replaces_a_stronger() {
        let live = OpenConnection::default();
        live.give(ConnectionOrder::Cut);
        live.give(ConnectionOrder::Finish);
        assert_eq!(live.order(), ConnectionOrder::Cut);
    }
}
