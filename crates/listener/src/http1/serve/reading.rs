//! Reads the requests of a connection: each one after the request before it was answered. It gives them to the service.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    task::{self, Poll, ready},
};

use attache_http::{Body, time::sleep};
use attache_wire::{HeadLimits, Request, buffers};
use http::Method;
use tokio::sync::oneshot;

use super::{DRAIN_BYTES, Http1Connection, Http1State, PendingRequest};
use crate::{
    HttpRequest,
    exchange::ExchangeReporter,
    http1::{body::Http1RequestBody, client::refusal, encode::RequestTraits},
    registry::ConnectionOrder,
    request::{EarlyRefusal, HEADER_TIMEOUT},
    respond::HttpService,
    upgrade::OnUpgrade,
};

impl<H: HttpService> Http1Connection<H> {
    /// Writes the rest of the last response, then waits for a request. `None` at the end of the connection.
    pub(super) fn poll_between(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Http1State<H::Future>>> {
        if let Err(error) = ready!(self.shared.client.borrow_mut().poll_write(cx)) {
            self.note(&error);
            return Poll::Ready(None);
        }
        if self.closing {
            return Poll::Ready(Some(Http1State::Shutdown));
        }
        if let Some(refusal) = self.deny.take() {
            return Poll::Ready(Some(self.refuse(*refusal)));
        }
        if !self.shared.client.borrow().reader.at_start() && !ready!(self.poll_rest(cx)) {
            self.lingering = true;
            return Poll::Ready(Some(Http1State::Shutdown));
        }
        let limits = &self.shared.context.settings().listener.http.limits;
        let limits =
            HeadLimits { line: limits.request_line, size: limits.headers_size, count: limits.headers_count };
        let mut client = self.shared.client.borrow_mut();
        loop {
            let looked = self.looked as usize;
            let fresh = client.buf.len() > looked;
            if fresh && (looked == 0 || client.reader.is_worth_a_look(&client.buf, looked, &limits)) {
                let state = &mut *client;
                match state.reader.head(&mut state.buf, &limits) {
                    Ok(Some((head, parts))) => {
                        self.looked = 0;
                        self.timer = None;
                        drop(client);
                        return Poll::Ready(Some(self.call(parts, &head)));
                    }
                    Ok(None) => self.looked = u32::try_from(client.buf.len()).unwrap_or(u32::MAX),
                    Err(fault) => {
                        drop(client);
                        return Poll::Ready(Some(self.refuse(refusal(fault))));
                    }
                }
            }
            match client.poll_fill(cx) {
                Poll::Ready(Ok(0)) if client.buf.is_empty() => {
                    return Poll::Ready(Some(Http1State::Shutdown));
                }
                // The client left before the end of a head.
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if client.buf.is_empty() => {
                    // While the connection waits for a request, it holds no buffer.
                    buffers::put(&mut client.buf);
                    // This comes before the order to finish, so that a request that has just arrived is still answered.
                    if self.shared.live().order() >= ConnectionOrder::Finish {
                        return Poll::Ready(Some(Http1State::Shutdown));
                    }
                    return Poll::Pending;
                }
                Poll::Pending => {
                    let timeout = self.shared.context.settings().listener.http.header_timeout;
                    let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
                    ready!(timer.as_mut().poll(cx));
                    drop(client);
                    return Poll::Ready(Some(self.refuse(HEADER_TIMEOUT)));
                }
            }
        }
    }

    /// The last request's body has not ended. Waits for its reader, or drops the rest if that is short. Returns whether another request can
    /// follow.
    fn poll_rest(&mut self, cx: &mut task::Context<'_>) -> Poll<bool> {
        let mut client = self.shared.client.borrow_mut();
        let client = &mut *client;
        if client.reader.is_switching() {
            client.reader.resume();
            return Poll::Ready(true);
        }
        if client.body_held {
            client.woken_by(cx);
            return Poll::Pending;
        }
        if client.expects {
            // The client was never told to send the body, and may not send it.
            return Poll::Ready(false);
        }
        let mut thrown = 0;
        while !client.reader.at_start() {
            match client.reader.piece(&mut client.buf) {
                Ok(attache_wire::body::BodyPiece::More) => match client.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    _ => return Poll::Ready(false),
                },
                Ok(attache_wire::body::BodyPiece::Data(data)) => thrown += data.len(),
                Ok(_) => {}
                Err(_) => return Poll::Ready(false),
            }
            if thrown > DRAIN_BYTES {
                return Poll::Ready(false);
            }
            if client.reader.is_switching() {
                client.reader.resume();
            }
        }
        Poll::Ready(true)
    }

    /// Answers a refused request, or a refused connection.
    #[cold]
    fn refuse(&mut self, refusal: EarlyRefusal) -> Http1State<H::Future> {
        self.timer = None;
        self.lingering = true;
        self.live().ends_by(refusal.reason);
        let asked = RequestTraits {
            head: false,
            connect: false,
            http11: true,
            takes_trailers: false,
            persists: false,
            may_switch: false,
        };
        self.run(Request::new(Body::empty()), asked, Some(refusal))
    }

    fn call(
        &mut self,
        parts: Rc<attache_wire::RequestHead>,
        head: &attache_wire::request::ParsedRequest,
    ) -> Http1State<H::Future> {
        {
            let mut client = self.shared.client.borrow_mut();
            client.expects = head.expects;
            client.wanted = false;
            client.broken = None;
        }
        let asked = RequestTraits {
            head: parts.method == Method::HEAD,
            connect: parts.method == Method::CONNECT,
            http11: head.http11,
            takes_trailers: head.takes_trailers,
            persists: head.persists,
            may_switch: head.may_switch,
        };
        self.run(Request::from_parts(parts, Body::empty()), asked, None)
    }

    /// Gives a request to the service.
    fn run(
        &mut self,
        mut request: Request<Body>,
        asked: RequestTraits,
        refused: Option<EarlyRefusal>,
    ) -> Http1State<H::Future> {
        let context = &self.shared.context;
        let ordinal = context.begin();
        {
            let mut client = self.shared.client.borrow_mut();
            client.request = ordinal;
            client.body_held = false;
        }
        let exchange = context.record(&request, refused.is_some());
        let finish = ExchangeReporter::new(
            exchange.clone(),
            context.reader().settings.clone(),
            context.live().clone(),
        );
        // RFC 9110 section 15.2: a 1xx response is never sent to an HTTP/1.0 client.
        let on_informational = asked.http11.then(|| self.shared.hints_of(ordinal));
        let (mut tunnel, mut upgrade) = (None, None);
        if refused.is_none() {
            *request.body_mut() = Http1RequestBody::body(&self.shared, &exchange);
            if asked.may_switch {
                let (give, take) = oneshot::channel();
                (tunnel, upgrade) = (Some(give), Some(OnUpgrade::http1(take)));
            }
        }
        let (closes, refused) = (refused.is_some(), refused.map(|refusal| context.explained(refusal)));
        let client = context.reader().client.clone();
        let request =
            HttpRequest { request, client, exchange, on_informational, refused, upgrade, hold: None };
        let future = catch_unwind(AssertUnwindSafe(|| self.http.call(request))).ok();
        Http1State::Called(PendingRequest { future, answer: None, finish, asked, tunnel, refused: closes })
    }
}
