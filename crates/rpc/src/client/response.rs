use std::{future::poll_fn, pin::Pin};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{ConnectionTasks, Error};

/// A response whose head has arrived. Dropping it ends its connection, unless an
/// [`RpcConnection`](super::RpcConnection) keeps the connection.
#[derive(Debug)]
pub struct ResponseStream {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its trailers; empty until the end of the body.
    pub trailers: HeaderMap,
    body: Incoming,
    longest: usize,
    _tasks: ConnectionTasks,
}

/// A response that was read completely.
#[derive(Debug)]
pub struct CollectedResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers; empty if there are none.
    pub trailers: HeaderMap,
}

impl ResponseStream {
    pub(super) fn new(response: http::Response<Incoming>, longest: usize, tasks: ConnectionTasks) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            trailers: HeaderMap::new(),
            body,
            longest,
            _tasks: tasks,
        }
    }

    /// The next bytes of the body; `None` at its end. The future may be dropped while it waits.
    ///
    /// # Errors
    /// The body broke off.
    pub async fn data(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
            match frame?.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(frame) => self.trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok(None)
    }

    /// Reads the rest of the body, at most [`CallLimits::body`](super::CallLimits::body) bytes.
    ///
    /// # Errors
    /// The body broke off, or it is longer than the limit.
    pub async fn collect(mut self) -> Result<CollectedResponse, Error> {
        let mut body = BytesMut::new();
        while let Some(data) = self.data().await? {
            if body.len() + data.len() > self.longest {
                return Err(Error::TooLong(self.longest));
            }
            body.extend_from_slice(&data);
        }
        Ok(CollectedResponse {
            status: self.status,
            headers: self.headers,
            body: body.freeze(),
            trailers: self.trailers,
        })
    }
}
