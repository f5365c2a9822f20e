//! The form that gRPC gives to HTTP/2: a request with a message, a response with one, and `grpc-status` in the trailers. The messages are
//! plain bytes.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    LoadArgs,
    tcp::{ended, listen},
};

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

pub(crate) async fn echo(port: u16) -> io::Result<()> {
    let listener = listen(port).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    let mut response = Response::new(());
                    let kind = HeaderValue::from_static("application/grpc");
                    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                    let Ok(sender) = respond.send_response(response, false) else { return };
                    let _ = send_back(request.into_body(), sender).await;
                });
            }
        });
    }
}

async fn send_back(mut body: RecvStream, mut sender: SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        sender.send_data(data, false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    sender.send_trailers(trailers)
}

/// A message with its prefix of five bytes.
fn message(size: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + size);
    message.put_u8(0);
    message.put_u32(size as u32);
    message.put_bytes(b'x', size);
    message.freeze()
}

async fn connect(address: SocketAddr) -> io::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(failed)?;
    tokio::spawn(connection);
    sender.ready().await.map_err(failed)
}

fn call(address: SocketAddr) -> io::Result<Request<()>> {
    Request::post(format!("http://{address}/bench.Echo/Send"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(failed)
}

/// Reads one message.
async fn read(body: &mut RecvStream, size: usize) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        let Some(data) = body.data().await else { return Err(failed("the response was cut")) };
        let data = data.map_err(failed)?;
        body.flow_control().release_capacity(data.len()).map_err(failed)?;
        left = left.saturating_sub(data.len());
    }
    Ok(())
}

pub(crate) async fn unary(load: LoadArgs) -> io::Result<u64> {
    let done = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..load.connections {
        let mut sender = connect(load.address).await?;
        let (address, done, message) = (load.address, done.clone(), message(load.size));
        clients.spawn(async move {
            loop {
                sender = sender.ready().await.map_err(failed)?;
                let (response, mut out) = sender.send_request(call(address)?, false).map_err(failed)?;
                out.send_data(message.clone(), true).map_err(failed)?;
                let mut body = response.await.map_err(failed)?.into_body();
                read(&mut body, message.len()).await?;
                let trailers = body.trailers().await.map_err(failed)?;
                if trailers.and_then(|trailers| trailers.get("grpc-status").cloned()).is_none() {
                    return Err(failed("the response has no grpc-status"));
                }
                done.fetch_add(1, Relaxed);
            }
        });
    }
    ended(load, clients).await?;
    Ok(done.load(Relaxed))
}

pub(crate) async fn stream(load: LoadArgs) -> io::Result<u64> {
    let done = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..load.connections {
        let mut sender = connect(load.address).await?;
        let (address, done, message) = (load.address, done.clone(), message(load.size));
        clients.spawn(async move {
            let (response, mut out) = sender.send_request(call(address)?, false).map_err(failed)?;
            out.send_data(message.clone(), false).map_err(failed)?;
            let mut body = response.await.map_err(failed)?.into_body();
            loop {
                read(&mut body, message.len()).await?;
                done.fetch_add(1, Relaxed);
                out.send_data(message.clone(), false).map_err(failed)?;
            }
        });
    }
    ended(load, clients).await?;
    Ok(done.load(Relaxed))
}
