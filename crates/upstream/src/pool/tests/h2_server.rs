//! An HTTP/2 server made with the h2 crate's frames, so that a test can send what hyper's server would not.

use std::rc::Rc;

use bytes::Bytes;
use h2::{RecvStream, server};
use http::{Request, Response};
use tokio::{net::TcpStream, task::spawn_local};

use crate::testing::{CountingServer, serve};

pub(super) type H2ServerConnection = server::Connection<TcpStream, Bytes>;
pub(super) type H2SendResponse = server::SendResponse<Bytes>;

/// Runs `handle` for every stream of every connection, with the connection's number from 1.
pub(super) async fn streams<F, Fut>(settings: server::Builder, handle: F) -> CountingServer
where
    F: Fn(Request<RecvStream>, H2SendResponse, usize) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let handle = Rc::new(handle);
    connections(settings, move |mut connection, number| {
        let handle = Rc::clone(&handle);
        async move {
            while let Some(Ok((request, respond))) = connection.accept().await {
                spawn_local(handle(request, respond, number));
            }
        }
    })
    .await
}

/// Runs `handle` for every connection, with its number from 1.
pub(super) async fn connections<F, Fut>(settings: server::Builder, handle: F) -> CountingServer
where
    F: Fn(H2ServerConnection, usize) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let handle = Rc::new(handle);
    serve(move |stream, number| {
        let settings = settings.clone();
        let handle = Rc::clone(&handle);
        async move {
            let connection = settings.handshake(stream).await.unwrap();
            handle(connection, number).await;
        }
    })
    .await
}

/// Answers with the whole of a text.
pub(super) fn answer(respond: &mut H2SendResponse, text: &'static str) {
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from_static(text.as_bytes()), true).unwrap();
}

/// Reads a request's body to its end.
pub(super) async fn body(request: Request<RecvStream>) -> (Vec<u8>, Option<http::HeaderMap>) {
    let mut stream = request.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(data)) = stream.data().await {
        let _ = stream.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    (bytes, stream.trailers().await.unwrap_or_default())
}
