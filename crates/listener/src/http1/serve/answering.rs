//! Writes the responses of a connection: head, body and trailers, or the tunnel that a response opens.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use attache_http::Body;
use attache_wire::{Response, header::TRAILER, outbox::BodyEncoder};
use http::StatusCode;
use http_body::Body as _;

use attache_config::model::HalfClose;

use super::{Http1Connection, Http1End, Http1State, PendingRequest, ResponseBodyWriter};
use crate::{
    exchange::CountedBody,
    http1::{
        encode,
        tunnel::{Http1Tunnel, TunnelSignals},
    },
    registry::ConnectionOrder,
    respond::HttpService,
    stream::ClientStream,
};

impl<H: HttpService> Http1Connection<H> {
    /// Writes the head of a response.
    pub(super) fn answer(&mut self, mut answer: Response<Body>) -> Option<Http1State<H::Future>> {
        let Http1State::Called(call) = std::mem::replace(&mut self.state, Http1State::Between) else {
            return None;
        };
        let PendingRequest { mut finish, asked, tunnel, refused, .. } = call;
        let mut status = answer.status();
        let switched = asked.may_switch
            && (status == StatusCode::SWITCHING_PROTOCOLS || (asked.connect && status.is_success()));
        if status.is_informational() && !switched {
            answer = self.shared.context.unexpected_interim(&finish.exchange);
            status = answer.status();
        }
        if finish.exchange.status.get() == 0 {
            finish.exchange.status.set(status.as_u16());
        }
        if http_body::Body::is_end_stream(answer.body()) {
            finish.exchange.ended_by_head(answer.headers());
        }
        let mut client = self.shared.client.borrow_mut();
        // 1xx responses that arrived together with the final response.
        if let Some(hints) = self.shared.take_hints() {
            client.head().extend_from_slice(&hints);
        }
        let client = &mut *client;
        let unread = client.expects && !client.reader.at_start() && !client.reader.is_switching();
        let ends =
            self.shared.context.is_used_up() || self.shared.live().order() >= ConnectionOrder::EndWithAnswer;
        let broken = client.broken.is_some();
        let persists = asked.persists && !refused && !ends && !unread && !broken;
        // Requests that the client sent before it closed its side are still answered.
        let persists = persists && (!client.ended || !client.buf.is_empty());
        let plan = encode::head(client.head(), &mut answer, asked, switched, persists);
        self.closing |= plan.closes;
        self.end_completes_body = plan.encoder == BodyEncoder::UntilEnd;
        if switched && let Some(tunnel) = tunnel {
            return Some(Http1State::Switching(Some((tunnel, finish))));
        }
        let (parts, body) = answer.into_parts();
        let announced = (plan.encoder == BodyEncoder::Chunked
            && asked.takes_trailers
            && parts.headers.contains_key(TRAILER))
        .then(|| Box::new(parts.headers));
        if plan.encoder == BodyEncoder::None {
            // RFC 9112 section 6.3 rule 1: this response has no body, whatever its headers say.
            finish.complete();
            return Some(Http1State::Between);
        }
        let body = CountedBody::new(body, finish, asked.head, status);
        Some(Http1State::Answering(ResponseBodyWriter { body, encoder: plan.encoder, announced }))
    }

    /// Writes a response's body as it arrives.
    pub(super) fn poll_answering(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Http1State<H::Future>>> {
        let Http1State::Answering(answer) = &mut self.state else { return Poll::Ready(None) };
        loop {
            let mut pending = false;
            while self.shared.client.borrow().out.has_room() {
                // The client must not be borrowed here: a response may read the request's body.
                let frame = match Pin::new(&mut answer.body).poll_frame(cx) {
                    Poll::Pending => {
                        pending = true;
                        break;
                    }
                    Poll::Ready(frame) => frame,
                };
                let mut client = self.shared.client.borrow_mut();
                let ended = match frame {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            let added = client.out.body(&mut answer.encoder, data).map(|()| false);
                            // The end of the body is written together with its last piece.
                            if added.is_ok() && answer.body.is_end_stream() {
                                client.out.end(answer.encoder, None).map(|()| true)
                            } else {
                                added
                            }
                        }
                        Err(frame) => {
                            let trailers = frame.into_trailers().ok().zip(answer.announced.as_deref());
                            let trailers = trailers.and_then(|(new, all)| encode::trailers(new, all));
                            client.out.end(answer.encoder, trailers.as_ref()).map(|()| true)
                        }
                    },
                    None => client.out.end(answer.encoder, None).map(|()| true),
                    Some(Err(_)) => Err(attache_wire::outbox::WrongLength),
                };
                match ended {
                    Ok(false) => {}
                    Ok(true) => return Poll::Ready(Some(Http1State::Between)),
                    Err(_) => {
                        // What arrived of the body is written. The end of the connection shows that the rest is missing.
                        answer.body.has_wrong_length();
                        if self.end_completes_body {
                            let _ = client.poll_write(cx);
                            return Poll::Ready(None);
                        }
                        self.closing = true;
                        drop(client);
                        return Poll::Ready(Some(Http1State::Between));
                    }
                }
            }
            let mut client = self.shared.client.borrow_mut();
            if let Err(error) = ready!(client.poll_write(cx)) {
                self.shared.live().note_stalled(&error);
                return Poll::Ready(None);
            }
            if pending {
                let client = &mut *client;
                client.woken_by(cx);
                let through = client.reader.at_start() || client.reader.is_switching();
                if through && client.poll_left(cx).is_ready() {
                    return Poll::Ready(None);
                }
                let cut = self.shared.context.settings().listener.http.half_close == HalfClose::Cut;
                return if cut && client.ended { Poll::Ready(None) } else { Poll::Pending };
            }
        }
    }

    /// Writes the response that opens a tunnel, and hands the stream over.
    pub(super) fn poll_switching(&mut self, cx: &mut task::Context<'_>) -> Poll<Http1End> {
        let Http1State::Switching(switching) = &mut self.state else { return Poll::Ready(None) };
        let mut client = self.shared.client.borrow_mut();
        if let Err(error) = ready!(client.poll_write(cx)) {
            drop(client);
            self.note(&error);
            return Poll::Ready(None);
        }
        let Some((offer, finish)) = switching.take() else { return Poll::Ready(None) };
        let mut stream = std::mem::replace(&mut client.stream, ClientStream::gone());
        let early = std::mem::take(&mut client.buf).freeze();
        if !early.is_empty() {
            stream.unread(bytes::Bytes::copy_from_slice(&early));
        }
        // The tunnel has its own idle timeout.
        stream.limit_writes(Duration::ZERO);
        let signals = Arc::new(TunnelSignals::default());
        // If no code waits for it, the tunnel ends here.
        let _ = offer.send(Http1Tunnel::new(stream, signals.clone(), self.place.take()));
        Poll::Ready(Some((signals, finish)))
    }
}
