//! The client's side of an upgrade or CONNECT, in either version of HTTP.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use crate::http1::{self, Tunnel};

/// Waits for a request's answer to open a tunnel.
#[derive(Debug)]
pub struct OnUpgrade(Waiting);

#[derive(Debug)]
enum Waiting {
    Http1(oneshot::Receiver<Tunnel>),
    Http2(hyper::upgrade::OnUpgrade),
}

/// The client's side of a tunnel.
#[derive(Debug)]
pub struct Upgraded(Io);

#[derive(Debug)]
enum Io {
    Http1(Tunnel),
    Http2(TokioIo<hyper::upgrade::Upgraded>),
}

/// The request was answered without a tunnel, or its client left before.
#[derive(Debug)]
pub struct NotUpgraded;

impl fmt::Display for NotUpgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client left before its tunnel was open")
    }
}

impl std::error::Error for NotUpgraded {}

/// What becomes of the client's connection, or stream, once the request is answered with 101, or a CONNECT with a success.
pub fn upgrade<B>(request: &mut http::Request<B>) -> OnUpgrade {
    OnUpgrade(match http1::offered(request.extensions_mut()) {
        Some(offered) => Waiting::Http1(offered),
        None => Waiting::Http2(hyper::upgrade::on(request)),
    })
}

impl Future for OnUpgrade {
    type Output = Result<Upgraded, NotUpgraded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Waiting::Http1(offered) => Pin::new(offered)
                .poll(cx)
                .map(|tunnel| tunnel.map(|tunnel| Upgraded(Io::Http1(tunnel))).map_err(|_| NotUpgraded)),
            Waiting::Http2(upgrade) => Pin::new(upgrade).poll(cx).map(|upgraded| {
                upgraded.map(|io| Upgraded(Io::Http2(TokioIo::new(io)))).map_err(|_| NotUpgraded)
            }),
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Io::Http1(io) => Pin::new(io).poll_read(cx, buf),
            Io::Http2(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Io::Http1(io) => Pin::new(io).poll_write(cx, buf),
            Io::Http2(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Io::Http1(io) => Pin::new(io).poll_flush(cx),
            Io::Http2(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Io::Http1(io) => Pin::new(io).poll_shutdown(cx),
            Io::Http2(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
