//! A waker that says what a task was woken for.
//!
//! A tunnel's task is woken for each message, and waits beside the bytes for what seldom comes: its timeout, its endpoint's end, the
//! drain's. To poll each of these again for each message took more than to move it. So they get the waker of a bell, and are polled once
//! it has rung. It passes each ring on to the task.

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
struct Shared {
    rung: AtomicBool,
    /// Locked when the bell rings and when its task changes: never for a message.
    task: Mutex<Option<Waker>>,
}

impl Wake for Shared {
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
pub(super) struct Bell {
    shared: Arc<Shared>,
    waker: Waker,
    /// What `shared` has, to be compared without its lock.
    task: Option<Waker>,
}

impl Bell {
    /// It has rung already, so that everything is polled for the first time.
    pub(super) fn new() -> Self {
        // One allocation for each tunnel.
        let shared = Arc::<Shared>::default();
        Self { waker: shared.clone().into(), shared, task: None }
    }

    /// Whether it has rung since the last call. It also says so when the task is another one than before: nothing that was polled knows it.
    pub(super) fn has_rung(&mut self, cx: &Context<'_>) -> bool {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
            *self.shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
            self.shared.rung.store(false, Ordering::Relaxed);
            return true;
        }
        self.shared.rung.load(Ordering::Relaxed) && self.shared.rung.swap(false, Ordering::Acquire)
    }

    /// What is to ring it is polled with this.
    pub(super) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

pin_project! {
    /// A future that is polled only when it has asked for it, however often its task is woken for something else.
    #[derive(Debug)]
    pub struct Seldom<F> {
        bell: Bell,
        #[pin]
        future: F,
    }
}

impl<F> Seldom<F> {
    /// Polls `future` seldom.
    pub fn new(future: F) -> Self {
        Self { bell: Bell::new(), future }
    }
}

impl<F: Future> Future for Seldom<F> {
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
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_waits_is_polled_again_only_when_it_has_asked_for_it_or_its_task_is_another_one() {
        let polls = Cell::new(0);
        let (end, mut ended) = oneshot::channel::<()>();
        let mut seldom = pin!(Seldom::new(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            Pin::new(&mut ended).poll(cx)
        })));
        let tasks = [Arc::new(Count::default()), Arc::new(Count::default())];
        let wakers = tasks.clone().map(Waker::from);
        for (waker, polled) in [(0, 1), (0, 1), (0, 1), (1, 2), (1, 2)] {
            assert!(seldom.as_mut().poll(&mut Context::from_waker(&wakers[waker])).is_pending());
            assert_eq!(polls.get(), polled);
        }
        end.send(()).unwrap();
        assert_eq!(
            tasks.map(|task| task.0.load(Ordering::Relaxed)),
            [0, 1],
            "the task that waits now is woken"
        );
        assert!(seldom.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_ready());
        assert_eq!(polls.get(), 3);
    }
}
