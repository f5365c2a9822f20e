//! A sleep that a busy task can't starve.
//!
//! Tokio gives each poll of a task a budget of operations. Once it is used up, every further resource of the runtime says that it is
//! not ready, [`tokio::time::Sleep`] too. A task that first moves bytes and then looks at its deadline would never see the deadline
//! of a peer that sends faster than the task reads. So limits of time that are polled behind anything else use these.

#![expect(clippy::disallowed_types, reason = "the one place that may name it")]

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{task::unconstrained, time::Instant};

pin_project! {
    /// [`tokio::time::Sleep`] outside of the task's budget.
    #[derive(Debug)]
    pub struct Sleep {
        #[pin]
        inner: tokio::time::Sleep,
    }
}

/// Waits for a duration. As [`tokio::time::sleep`] it ends at the millisecond behind it.
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
    /// When it ends.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.inner.deadline()
    }

    /// Makes it end at another instant, also if it has ended.
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

    /// Polls a sleep in a task that has used up its budget.
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
        assert!(!is_seen(tokios.as_mut()).await, "the reason for this module is gone");
        ours.as_mut().reset(Instant::now() + second);
        assert!(!is_seen(ours.as_mut()).await);
        tokio::time::advance(second).await;
        assert!(is_seen(ours.as_mut()).await);
    }
}
