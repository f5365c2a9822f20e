//! A sleep that also ends in a busy task.
//!
//! Tokio gives each poll of a task a budget of operations. When the budget is used up, every other resource of the runtime reports that it
//! is not ready, and so does [`tokio::time::Sleep`]. A task that first moves bytes and then checks its deadline would never see the
//! deadline if its peer sends faster than the task reads. So timeouts that are polled after other work use these types.

#![expect(clippy::disallowed_types, reason = "this module wraps it")]

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{task::unconstrained, time::Instant};

pin_project! {
    /// A [`tokio::time::Sleep`] that ignores the task's budget.
    #[derive(Debug)]
    pub struct Sleep {
        #[pin]
        inner: tokio::time::Sleep,
    }
}

/// Waits for a duration. Like [`tokio::time::sleep`], it ends at the next full millisecond.
#[must_use]
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { inner: tokio::time::sleep(duration) }
}

/// Waits until an instant.
#[must_use]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { inner: tokio::time::sleep_until(deadline) }
}

impl Sleep {
    /// The instant at which it ends.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.inner.deadline()
    }

    /// Makes it end at another instant, even if it has ended already.
    pub fn reset(self: Pin<&mut Self>, deadline: Instant) {
        self.project().inner.reset(deadline);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut unconstrained(self.project().inner)).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::{Pin, pin},
        task::Poll,
        time::Duration,
    };

    use super::*;

    /// Polls a sleep in a task that has used up its budget. Returns whether the sleep ended.
    async fn is_seen(mut sleep: Pin<&mut impl Future<Output = ()>>) -> bool {
        poll_fn(|cx| {
            while pin!(tokio::task::consume_budget()).poll(cx).is_ready() {}
            Poll::Ready(sleep.as_mut().poll(cx).is_ready())
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_in_a_task_that_has_used_up_its_budget() {
        let second = Duration::from_secs(1);
        let (mut ours, mut tokios) = (pin!(sleep(second)), pin!(tokio::time::sleep(second)));
        assert!(!is_seen(ours.as_mut()).await);
        tokio::time::advance(2 * second).await;
        assert!(is_seen(ours.as_mut()).await);
        assert!(
            !is_seen(tokios.as_mut()).await,
            "tokio's own sleep ends too: this module is no longer needed"
        );
        ours.as_mut().reset(Instant::now() + second);
        assert!(!is_seen(ours.as_mut()).await);
        tokio::time::advance(second).await;
        assert!(is_seen(ours.as_mut()).await);
    }
}
