//! A response's body at a limited rate.
//!
//! **Rule.** A token is a byte. The bucket begins with a slice of 1/20 s, holds no more than that, and is filled
//! evenly. A frame is passed on in pieces as tokens come, and the next frame is polled only afterwards, so that
//! back-pressure reaches the upstream. Heads and trailers cost nothing.
//!
//! **Source.** Envoy's stream rate limiter, whose slice is 50 ms too.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_http::time::{Sleep, sleep_until};
use attache_http::{Body, BodyError};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

/// Slices in a second.
const SLICES: f64 = 20.0;

pin_project! {
    /// A body that gives `limit` bytes a second.
    pub(super) struct PacedBody {
        inner: Body,
        limit: f64,
        tokens: f64,
        filled: Option<Instant>,
        held: Bytes,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl PacedBody {
    /// `limit` is at least 1.
    pub(super) fn new(inner: Body, limit: usize) -> Self {
        let limit = (limit as f64).max(1.0);
        Self { inner, limit, tokens: slice(limit), filled: None, held: Bytes::new(), sleep: None }
    }
}

fn slice(limit: f64) -> f64 {
    (limit / SLICES).max(1.0)
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut this = self.project();
        while this.held.is_empty() {
            let frame = match ready!(Pin::new(&mut *this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => *this.held = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        loop {
            if let Some(sleep) = this.sleep.as_mut().as_pin_mut() {
                ready!(sleep.poll(cx));
                this.sleep.set(None);
            }
            let now = Instant::now();
            let since = this.filled.replace(now).map_or(Duration::ZERO, |filled| now - filled);
            *this.tokens = (*this.tokens + since.as_secs_f64() * *this.limit).min(slice(*this.limit));
            // A little more, so that rounding doesn't make a whole slice one byte too short.
            let whole = ((*this.tokens + 1e-6) as usize).min(this.held.len());
            // Only whole slices and the last piece are passed on, not one frame for each byte.
            let wanted = slice(*this.limit).min(this.held.len() as f64);
            if whole as f64 + 1.0 > wanted {
                *this.tokens -= whole as f64;
                return Poll::Ready(Some(Ok(Frame::data(this.held.split_to(whole)))));
            }
            let wait = Duration::from_secs_f64((wanted - *this.tokens) / *this.limit);
            this.sleep.set(Some(sleep_until(now + wait)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.len() as u64;
        let rest = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(held));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{channel, next};

    const MS: Duration = Duration::from_millis(1);

    /// When each piece came, and how long it was.
    async fn pieces(mut body: Body) -> Vec<(u128, usize)> {
        let start = Instant::now();
        let mut pieces = Vec::new();
        while let Some(frame) = next(&mut body).await {
            let data = frame.unwrap().into_data().unwrap();
            pieces.push((start.elapsed().as_millis(), data.len()));
        }
        pieces
    }

    fn paced(bytes: usize, limit: usize) -> Body {
        Body::stream(PacedBody::new(Body::full(vec![0; bytes]), limit))
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_come_at_the_rate_and_not_before() {
        let pieces = pieces(paced(1000, 1000)).await;
        assert_eq!(pieces.len(), 20);
        for (n, (at, bytes)) in pieces.iter().enumerate() {
            // Timers are late by up to a millisecond, never early.
            assert!((n as u128 * 50..=n as u128 * 51).contains(at), "{n}: {at}");
            assert_eq!(*bytes, 50);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn even_a_byte_a_second_ends() {
        let pieces = pieces(paced(3, 1)).await;
        assert_eq!(pieces.iter().map(|(_, bytes)| bytes).sum::<usize>(), 3);
        assert!((2000..=2004).contains(&pieces[2].0), "{pieces:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_the_upstream_saves_up_no_more_than_a_slice() {
        let (sender, body) = channel();
        let mut body = Body::stream(PacedBody::new(body, 1000));
        sender.send(Ok(vec![0; 1].into())).unwrap();
        next(&mut body).await.unwrap().unwrap();
        tokio::time::sleep(10_000 * MS).await;
        sender.send(Ok(vec![0; 100].into())).unwrap();
        drop(sender);
        let start = Instant::now();
        let first = next(&mut body).await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.len(), start.elapsed()), (50, Duration::ZERO));
        next(&mut body).await.unwrap().unwrap();
        assert!(start.elapsed() >= 50 * MS);
        assert!(next(&mut body).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_upstream_is_not_asked_for_more_than_is_handed_on() {
        struct PacedSource(usize, std::rc::Rc<std::cell::Cell<usize>>);
        impl HttpBody for PacedSource {
            type Data = Bytes;
            type Error = BodyError;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
                self.0 -= 1;
                self.1.set(self.1.get() + 1);
                Poll::Ready((self.0 > 0).then(|| Ok(Frame::data(vec![0; 100].into()))))
            }
        }
        let asked = std::rc::Rc::new(std::cell::Cell::new(0));
        let mut body = Body::stream(PacedBody::new(Body::stream(PacedSource(10, asked.clone())), 1000));
        for frames in [1, 1, 2, 2, 3] {
            next(&mut body).await.unwrap().unwrap();
            assert_eq!(asked.get(), frames);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_a_slice_shortens_the_next_wait() {
        let (sender, body) = channel();
        let mut body = Body::stream(PacedBody::new(body, 1000));
        sender.send(Ok(vec![0; 40].into())).unwrap();
        next(&mut body).await.unwrap().unwrap();
        let start = Instant::now();
        sender.send(Ok(vec![0; 50].into())).unwrap();
        next(&mut body).await.unwrap().unwrap();
        assert!((40..=41).contains(&start.elapsed().as_millis()), "ten bytes were left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_paced_body_says_what_remains_and_when_it_has_ended() {
        let mut body = paced(100, 1000);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(100), false));
        next(&mut body).await.unwrap().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(50), false));
        next(&mut body).await.unwrap().unwrap();
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
    }

    proptest! {
        #[test]
        fn never_more_than_a_slice_above_the_rate(limit in 1..100_000usize, bytes in 0..20_000usize) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let pieces = runtime.block_on(pieces(paced(bytes, limit)));
            let mut sum = 0;
            for (at, bytes) in pieces {
                sum += bytes;
                let most = limit as f64 * (at as f64 + 1.0) / 1000.0 + slice(limit as f64) + 1.0;
                prop_assert!(sum as f64 <= most, "{sum} at {at} ms, at most {most}");
            }
            prop_assert_eq!(sum, bytes);
        }
    }
}
