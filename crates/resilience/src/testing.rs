//! Upstreams, calls and services for tests.

use std::{cell::RefCell, collections::VecDeque, future::Future, pin::Pin, rc::Rc, sync::Arc, task::Poll};

use attache_config::model;
use attache_http::{Body, BodyError, Client};
use attache_telemetry::Exchange;
use attache_upstream::{
    Attempt, Call, CallContext, EndpointAddress, EndpointSpec, Error, RequestPermit, SharedUpstream,
};
use attache_wire::{Request, Response};
use bytes::Bytes;

use tokio::time::Instant;

use crate::{CallResult, UpstreamState};

pub(crate) fn upstream() -> model::Upstream {
    model::Upstream::new("orders", model::Address::OriginalDestination)
}

pub(crate) fn address(port: u16) -> EndpointAddress {
    EndpointAddress::Tcp(std::net::SocketAddr::from(([10, 0, 0, 1], port)))
}

pub(crate) fn state() -> Arc<UpstreamState> {
    state_of(upstream())
}

thread_local! {
    /// The upstream that scripts of this thread simulate: the last one that was made.
    static SCRIPTED: RefCell<Option<Arc<SharedUpstream>>> = const { RefCell::new(None) };
}

pub(crate) fn state_of(config: model::Upstream) -> Arc<UpstreamState> {
    let shared = SharedUpstream::new(Arc::new(config));
    shared.replace_endpoints((1..=3).map(|port| EndpointSpec::new(address(port))).collect(), None);
    let shared = Arc::new(shared);
    SCRIPTED.set(Some(shared.clone()));
    UpstreamState::new(shared)
}

pub(crate) fn call(request: impl Into<Request<Body>>) -> Call {
    let exchange = Rc::new(Exchange::new("outbound".into(), "http1", None));
    Call::new(request.into(), CallContext::new(Rc::new(Client::default()), exchange))
}

pub(crate) fn get() -> Call {
    call(http::Request::get("http://orders/").body(Body::empty()).unwrap())
}

pub(crate) fn post(body: impl Into<Body>) -> Call {
    call(http::Request::post("http://orders/").body(body.into()).unwrap())
}

pub(crate) fn respond(status: u16) -> Response<Body> {
    http::Response::builder().status(status).body(Body::empty()).unwrap().into()
}

type ScriptedAnswer = (u16, Box<dyn FnOnce(Call) -> Pin<Box<dyn Future<Output = CallResult>>>>);

/// An upstream that follows a script with one entry for each attempt, and records each attempt and its time.
#[derive(Clone, Default)]
pub(crate) struct FakeUpstream {
    answers: Rc<RefCell<VecDeque<ScriptedAnswer>>>,
    pub(crate) seen: Rc<RefCell<Vec<RecordedAttempt>>>,
}

/// One attempt as the script saw it.
#[derive(Clone, Debug)]
pub(crate) struct RecordedAttempt {
    pub(crate) at: Instant,
    pub(crate) headers: attache_wire::Fields,
    pub(crate) tried: Vec<String>,
    pub(crate) fresh: bool,
    pub(crate) deadline: Option<Instant>,
}

impl FakeUpstream {
    /// Answers the next attempt, at the endpoint of port 1, with the future's result.
    pub(crate) fn then<F>(self, answer: impl FnOnce(Call) -> F + 'static) -> Self
    where
        F: Future<Output = CallResult> + 'static,
    {
        self.at(1, answer)
    }

    /// The same at the endpoint of that port.
    pub(crate) fn at<F>(self, port: u16, answer: impl FnOnce(Call) -> F + 'static) -> Self
    where
        F: Future<Output = CallResult> + 'static,
    {
        self.answers.borrow_mut().push_back((port, Box::new(|call| Box::pin(answer(call)))));
        self
    }

    /// Reads the body to its end, then answers; the attempt goes to the endpoint of that port.
    pub(crate) fn answer(self, port: u16, outcome: impl FnOnce() -> CallResult + 'static) -> Self {
        self.at(port, |mut call| async move {
            let _ = read(call.request.body_mut()).await;
            outcome()
        })
    }

    pub(crate) fn attempts(&self) -> usize {
        self.seen.borrow().len()
    }
}

impl tower::Service<Call> for FakeUpstream {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = CallResult>>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        self.seen.borrow_mut().push(RecordedAttempt {
            at: Instant::now(),
            headers: call.request.headers().clone(),
            tried: call.context.tried.to_vec().iter().map(|e| e.label.to_string()).collect(),
            fresh: call.fresh,
            deadline: call.context.deadline,
        });
        let (port, answer) =
            self.answers.borrow_mut().pop_front().expect("an attempt that the script doesn't know");
        let mut attempt = attempt(port, &mut call);
        let answer = answer(call);
        Box::pin(async move {
            let outcome = answer.await;
            if let Some(attempt) = &mut attempt {
                match &outcome {
                    Ok(response) => attempt.answered(response.status(), response.headers()),
                    Err(error) => attempt.failed(error),
                }
            }
            outcome
        })
    }
}

/// The attempt that an upstream would begin for the call.
pub(crate) fn attempt(port: u16, call: &mut Call) -> Option<Attempt> {
    let shared = SCRIPTED.with_borrow(Clone::clone)?;
    let set = shared.endpoints.load_full();
    let endpoint = set.endpoints.iter().find(|endpoint| endpoint.address == address(port))?;
    let permit = RequestPermit::take(&shared).ok()?;
    Some(Attempt::begin(permit, endpoint.clone(), &call.context, std::mem::take(&mut call.judges)))
}

/// Reads a body to its end.
pub(crate) async fn read(body: &mut Body) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    while let Some(frame) = next(body).await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

pub(crate) async fn next(body: &mut Body) -> Option<Result<http_body::Frame<Bytes>, BodyError>> {
    std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(body), cx)).await
}

/// A body whose frames a test sends; it ends cleanly when the sender is dropped.
pub(crate) fn channel() -> (tokio::sync::mpsc::UnboundedSender<Result<Bytes, BodyError>>, Body) {
    struct Channel(tokio::sync::mpsc::UnboundedReceiver<Result<Bytes, BodyError>>);
    impl http_body::Body for Channel {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
            self.0.poll_recv(cx).map(|item| item.map(|bytes| bytes.map(http_body::Frame::data)))
        }
    }
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    (sender, Body::stream(Channel(receiver)))
}
