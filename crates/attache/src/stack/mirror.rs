//! Request mirroring: a copy of the request is sent to a second upstream, and its response is dropped.
//!
//! The rule: a mirror costs the real request nothing but the copy. The pieces of the body are shared, not copied. A mirror that is too slow
//! is cut as soon as more than [`MAX_BUFFERED_BYTES`] bytes wait for it, or more than [`MAX_BUFFERED_BYTES_OF_ALL`] for all mirrors. Nothing is retried, and nothing
//! waits for it. It has the deadlines of its own upstream, and its result is counted. Upgrades and CONNECT are not mirrored: there is no
//! request to repeat.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use attache_config::model::{HostRewrite, Mirror, Name};
use attache_http::{Body, BodyError};
use attache_resilience::deadline::Deadline;
use attache_telemetry::{Exchange, Reason, metrics};
use attache_upstream::{Call, CallContext};
use attache_wire::{Request, header::HOST};
use bytes::Bytes;
use http::{HeaderValue, Method};
use http_body::{Body as _, Frame, SizeHint};
use tokio::task::spawn_local;
use tower::Service as _;

use super::Upstreams;

/// How many bytes may wait for a mirror before it is cut.
const MAX_BUFFERED_BYTES: usize = 1 << 20;
/// How many bytes may wait for all mirrors of the process: if memory is short, copies are the first thing to drop.
const MAX_BUFFERED_BYTES_OF_ALL: usize = 16 << 20;

/// How many bytes wait for all mirrors.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Sends a copy of `request` to `mirror`, and returns the request to send on.
pub(super) fn split(
    request: Request<Body>,
    upstreams: &Rc<Upstreams>,
    mirror: &Mirror,
    context: &CallContext,
) -> Request<Body> {
    let Some((state, upstream)) = upstreams.named(mirror.upstream) else { return request };
    if request.method() == Method::CONNECT || request.headers().contains_key(attache_wire::header::UPGRADE) {
        return request;
    }
    let upstream = upstream.clone();
    let (parts, body) = request.into_parts();
    let mut copy = Request::new(Body::empty());
    copy.method_mut().clone_from(&parts.method);
    copy.uri_mut().clone_from(&parts.uri);
    copy.head_mut().raw_query.clone_from(&parts.raw_query);
    copy.headers_mut().clone_from(&parts.headers);
    let config = Arc::clone(&upstream.shared().config);
    match config.host {
        HostRewrite::Auto | HostRewrite::Preserve => mark(&mut copy),
        HostRewrite::Upstream | HostRewrite::To(_) => rename(&mut copy, &config.own_host()),
    }
    let exchange =
        Rc::new(Exchange::new(context.exchange.listener.clone(), "mirror", context.client.address));
    if let Some(wanted) = config.credential.as_deref() {
        // The copy gets only its own secret. If that is missing, the copy isn't sent.
        let given = upstreams.credential(Some(wanted)).map(|own| own.apply(copy.headers_mut()));
        if !matches!(given, Some(Ok(()))) {
            failed(&config.name, &exchange, Reason::NoCredential, "");
            return Request::from_parts(parts, body);
        }
    }
    let body = if body.is_end_stream() {
        body
    } else {
        let pipe = Rc::new(RefCell::new(MirrorPipe::of(body.size_hint().exact())));
        *copy.body_mut() = Body::stream(MirroredBody(pipe.clone()));
        Body::stream(CopiedBody { body, pipe })
    };
    let context = CallContext::new(context.client.clone(), exchange.clone());
    let mut timed = Deadline::new(upstream, mirror.timeouts, Arc::clone(state));
    let name = config.name.clone();
    spawn_local(async move {
        match timed.call(Call::new(copy, context)).await {
            Err(error) => failed(&name, &exchange, error.reason, &error.detail()),
            Ok(response) => {
                let mut body = response.into_body();
                // The response is read to its end, so that the connection can be reused.
                let end = loop {
                    match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                        Some(Ok(_)) => {}
                        Some(Err(error)) => break Err(error),
                        None => break Ok(()),
                    }
                };
                match end {
                    Ok(()) => metrics().mirrored(&name, Ok(())),
                    Err(error) => {
                        failed(
                            &name,
                            &exchange,
                            error.reason.unwrap_or(Reason::UpstreamClosedMidBody),
                            &error.to_string(),
                        );
                    }
                }
            }
        }
    });
    Request::from_parts(parts, body)
}

fn failed(upstream: &Name, exchange: &Exchange, reason: Reason, detail: &str) {
    exchange.fail(reason, detail);
    metrics().mirror_failed(upstream, exchange);
    tracing::debug!(%upstream, %reason, detail, "mirror failed");
}

/// Adds `-shadow` to the host, as Envoy's mirrors do, so that logs can distinguish the copies.
fn mark(copy: &mut Request<Body>) {
    let Some(host) = copy.headers().get(HOST).and_then(|host| host.to_str().ok()) else { return };
    let marked = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{name}-shadow:{port}")
        }
        _ => format!("{host}-shadow"),
    };
    if let Ok(host) = HeaderValue::from_str(&marked) {
        copy.headers_mut().insert(HOST, host);
    }
}

/// Sets the Host for the mirror's upstream, if the config has one.
fn rename(copy: &mut Request<Body>, host: &str) {
    let Ok(value) = HeaderValue::from_str(host) else { return };
    let mut parts = std::mem::take(copy.uri_mut()).into_parts();
    parts.authority = host.parse().ok();
    parts.scheme.get_or_insert(http::uri::Scheme::HTTP);
    *copy.uri_mut() = http::Uri::from_parts(parts).unwrap_or_default();
    copy.headers_mut().insert(HOST, value);
}

/// The data that waits for the mirror.
#[derive(Default)]
struct MirrorPipe {
    frames: VecDeque<Frame<Bytes>>,
    waiting: usize,
    /// The real body has ended cleanly.
    ended: bool,
    /// The real body was cut, or the mirror was too slow.
    cut: bool,
    /// The mirror no longer reads.
    gone: bool,
    exact: Option<u64>,
    waker: Option<Waker>,
}

impl MirrorPipe {
    fn of(exact: Option<u64>) -> Self {
        let mut pipe = Self::default();
        pipe.exact = exact;
        pipe
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The mirror has taken so many bytes.
    fn took(&mut self, bytes: usize) {
        self.waiting -= bytes;
        WAITING.fetch_sub(bytes, Relaxed);
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.took(self.waiting);
    }

    fn push(&mut self, data: &Bytes) {
        if self.gone || self.cut {
            return;
        }
        self.waiting += data.len();
        let all = WAITING.fetch_add(data.len(), Relaxed) + data.len();
        if self.waiting > MAX_BUFFERED_BYTES || all > MAX_BUFFERED_BYTES_OF_ALL {
            self.cut = true;
            self.clear();
        } else {
            self.frames.push_back(Frame::data(data.clone()));
        }
        self.wake();
    }
}

impl Drop for MirrorPipe {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The real body. It copies its data to the pipe.
struct CopiedBody {
    body: Body,
    pipe: Rc<RefCell<MirrorPipe>>,
}

impl http_body::Body for CopiedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let mut pipe = self.pipe.borrow_mut();
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    pipe.push(data);
                }
                if self.body.is_end_stream() {
                    pipe.ended = true;
                    pipe.wake();
                }
            }
            Poll::Ready(None) => {
                pipe.ended = true;
                pipe.wake();
            }
            Poll::Ready(Some(Err(_))) => {
                pipe.cut = true;
                pipe.wake();
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CopiedBody {
    fn drop(&mut self) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.cut |= !pipe.ended;
        pipe.wake();
    }
}

/// The mirror's body.
struct MirroredBody(Rc<RefCell<MirrorPipe>>);

impl http_body::Body for MirroredBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.cut {
            return Poll::Ready(Some(Err(BodyError::new(Reason::ClientClosed))));
        }
        if let Some(frame) = pipe.frames.pop_front() {
            pipe.took(frame.data_ref().map_or(0, Bytes::len));
            return Poll::Ready(Some(Ok(frame)));
        }
        if pipe.ended {
            return Poll::Ready(None);
        }
        pipe.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().exact.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for MirroredBody {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        pipe.gone = true;
        pipe.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_copies_are_limited_for_each_mirror_and_for_all_together() {
        let piece = Bytes::from(vec![0; 256 << 10]);
        let mut pipes: Vec<MirrorPipe> = (0..100).map(|_| MirrorPipe::of(None)).collect();
        for _ in 0..3 {
            for pipe in &mut pipes {
                pipe.push(&piece);
                assert!(WAITING.load(Relaxed) <= MAX_BUFFERED_BYTES_OF_ALL + piece.len());
            }
        }
        let kept = pipes.iter().filter(|pipe| !pipe.cut).count();
        assert!((1..100).contains(&kept), "{kept} of 100: a copy without room is cut");
        let mut one = pipes.swap_remove(pipes.iter().position(|pipe| !pipe.cut).unwrap());
        drop(pipes);
        assert_eq!(WAITING.load(Relaxed), one.waiting, "the bytes of cut and dropped copies are released");
        for _ in 0..8 {
            one.push(&piece);
        }
        assert!(one.cut && one.waiting == 0);
        assert_eq!(WAITING.load(Relaxed), 0);
    }
}
