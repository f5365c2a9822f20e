//! A waker that belongs to a connection and points at whoever drives it just now.
//!
//! hyper's connection and its handles wake each other through the waker that the connection was last polled with. When
//! one task holds both ends, such a wake only schedules the task that is running; when a pooled connection moves to
//! another task, it wakes the one that used it before. Both cost a poll of a whole task per request. So a connection is
//! always polled with its own waker, which is mute while its holder touches the other end (and will poll the
//! connection next anyway), and otherwise passes the wake on.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Wake, Waker},
};

#[derive(Debug, Default)]
struct Forward {
    muted: AtomicBool,
    /// It was woken since it was last asked.
    woken: AtomicBool,
    /// `Waker` asks for `Sync`, hence the mutex. It is only ever taken on the worker's own thread, never contended, and
    /// held for one clone or compare.
    target: Mutex<Option<Waker>>,
}

impl Wake for Forward {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.muted.load(Relaxed) {
            return;
        }
        self.woken.store(true, Relaxed);
        if let Some(waker) = &*self.target.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
}

/// See the module's words.
#[derive(Debug)]
pub(super) struct OwnWaker {
    forward: Arc<Forward>,
    waker: Waker,
}

impl OwnWaker {
    pub(super) fn new() -> Self {
        let forward = Arc::new(Forward::default());
        Self { waker: Waker::from(Arc::clone(&forward)), forward }
    }

    /// From here on, wakes go to the task of `cx`. Returns the waker to poll the connection with.
    pub(super) fn point_at(&self, cx: &Context<'_>) -> &Waker {
        let old = {
            let mut target = self.forward.target.lock().unwrap_or_else(PoisonError::into_inner);
            if target.as_ref().is_some_and(|old| old.will_wake(cx.waker())) {
                None
            } else {
                target.replace(cx.waker().clone())
            }
        };
        drop(old); // outside of the lock: the last waker of a task drops the task
        &self.waker
    }

    /// From here on, wakes go nowhere, and no task is kept in memory.
    pub(super) fn point_nowhere(&self) {
        let old = self.forward.target.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(old);
    }

    /// Whether there was a wake since the last time this was asked.
    pub(super) fn was_woken(&self) -> bool {
        self.forward.woken.swap(false, Relaxed)
    }

    /// Does something to the connection's other end without waking its holder.
    pub(super) fn muted<T>(&self, touch: impl FnOnce() -> T) -> T {
        self.forward.muted.store(true, Relaxed);
        let result = touch();
        self.forward.muted.store(false, Relaxed);
        result
    }
}
