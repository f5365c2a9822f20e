//! A waker that shows why a task was woken.
//!
//! A tunnel's task is woken for each message. It also waits for rare events: its timeout, the end of its endpoint, the
//! drain. Polling each of these again for each message cost more than moving the message. So these futures get the
//! waker of a bell, and are polled only when it has rung. The bell passes each ring on to the task.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use pin_project_lite::pin_project;

#[derive(Debug, Default)]
struct BellState {
    rung: AtomicBool,
    /// Locked only when the bell rings or its task changes, never for a message.
    task: Mutex<Option<Waker>>,
}

impl Wake for BellState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Wakes its task, and remembers that it did.
#[derive(Debug)]
pub(super) struct WakeFlag {
    shared: Arc<BellState>,
    waker: Waker,
    /// A copy of the waker in `shared`, to compare without the lock.
    task: Option<Waker>,
}

impl WakeFlag {
    /// A bell that has already rung, so that everything is polled for the first time.
    pub(super) fn new() -> Self {
        // One allocation for each tunnel.
        let shared = Arc::<BellState>::default();
        Self { waker: shared.clone().into(), shared, task: None }
    }

    /// Whether it has rung since the last call. Also true if the task is another one than before, because no polled
    /// future knows the new task.
    pub(super) fn has_rung(&mut self, cx: &Context<'_>) -> bool {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            *self.shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
            self.shared.rung.store(false, Ordering::Relaxed);
            return true;
        }
        self.shared.rung.load(Ordering::Relaxed) && self.shared.rung.swap(false, Ordering::Acquire)
    }

    /// The context for polling the futures that ring it.
    pub(super) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

pin_project! {
    /// A future that is polled only after its own wake-up, however often its task is woken for something else.
    #[derive(Debug)]
    pub struct PollOnWake<F> {
        bell: WakeFlag,
        #[pin]
        future: F,
    }
}

impl<F> PollOnWake<F> {
    /// Polls `future` only after its own wake-ups.
    pub fn new(future: F) -> Self {
        Self { bell: WakeFlag::new(), future }
    }
}

impl<F: Future> Future for PollOnWake<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.bell.has_rung(cx) { this.future.poll(&mut this.bell.context()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, pin::pin, sync::atomic::AtomicUsize};

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct WakeUps(AtomicUsize);

    impl Wake for WakeUps {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_future_is_polled_again_only_after_its_own_wake_up_or_in_another_task() {
        let polls = Cell::new(0);
        let (end, mut ended) = oneshot::channel::<()>();
        let mut seldom = pin!(PollOnWake::new(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            Pin::new(&mut ended).poll(cx)
        })));
        let tasks = [Arc::new(WakeUps::default()), Arc::new(WakeUps::default())];
        let wakers = tasks.clone().map(Waker::from);
        for (waker, polled) in [(0, 1), (0, 1), (0, 1), (1, 2), (1, 2)] {
            assert!(seldom.as_mut().poll(&mut Context::from_waker(&wakers[waker])).is_pending());
            assert_eq!(polls.get(), polled);
        }
        end.send(()).unwrap();
        assert_eq!(tasks.map(|task| task.0.load(Ordering::Relaxed)), [0, 1], "the present task is woken");
        assert!(seldom.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_ready());
        assert_eq!(polls.get(), 3);
    }
}
