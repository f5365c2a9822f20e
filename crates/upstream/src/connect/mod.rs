//! From an endpoint to a connection that is ready for use.
//!
//! In this order: socket with its options, connect, PROXY protocol header, TLS handshake. One endpoint is one address;
//! racing two of them (RFC 8305) is the business of [`crate::service`]. Each step has its own time limit and its own
//! [`Reason`], and nothing of the request has been written when any of them fails.

mod connection;
mod tls;

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use attache_config::model::{self, ProxyProtocolOut};
use attache_http::Client;
use attache_telemetry::Reason;
use attache_wire::proxy_protocol::{self, Version};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
    time::{Instant, timeout},
};

pub use connection::EndpointConnection;
pub use tls::{AlpnOffer, Tls};

use crate::{Endpoint, EndpointAddress, Error, SentPart};

/// How long the steps of a connection took; a step that was not reached has no time.
#[derive(Debug)]
pub struct ConnectTimes {
    since: Cell<Instant>,
    /// Until TCP, or the Unix socket, was connected.
    pub connected: Cell<Option<Duration>>,
    /// From there until TLS was established.
    pub secured: Cell<Option<Duration>>,
}

impl ConnectTimes {
    /// Begins now.
    pub fn begin() -> Self {
        Self { since: Cell::new(Instant::now()), connected: Cell::default(), secured: Cell::default() }
    }

    fn reached(&self, step: &Cell<Option<Duration>>) {
        let now = Instant::now();
        step.set(Some(now.duration_since(self.since.replace(now))));
    }
}

/// Connects to an endpoint by its upstream's settings. `times` records when each step is done.
///
/// `tls` and `offer` say what TLS is spoken, if any, and `host` the name that the certificate must be for where the
/// settings and the endpoint name none.
///
/// # Errors
/// The reason says which step failed; `sent` is always [`SentPart::Nothing`].
pub async fn connect(
    endpoint: &Endpoint,
    config: &model::Upstream,
    tls: Option<&Tls>,
    offer: AlpnOffer,
    host: Option<&str>,
    client: &Client,
    times: &ConnectTimes,
) -> Result<EndpointConnection, Error> {
    let header = proxy_header(config.proxy_protocol, addresses(client));
    let name = || match (&endpoint.host, host, &endpoint.address) {
        (Some(name), _, _) => name.to_string(),
        (None, Some(name), _) => name.to_owned(),
        (None, None, EndpointAddress::Tcp(address)) => address.ip().to_string(),
        (None, None, EndpointAddress::Unix(_)) => "localhost".to_owned(),
    };
    match &endpoint.address {
        EndpointAddress::Tcp(address) => {
            let tcp = connect_tcp(*address, config.source_address, config.pool.tcp_keepalive);
            let mut io = within(config.connect_timeout, tcp).await?;
            times.reached(&times.connected);
            greet(&mut io, &header).await?;
            let mut io = match tls {
                None => EndpointConnection::from(io),
                Some(tls) => {
                    let io = tls.handshake(config, offer, &name(), io).await?;
                    times.reached(&times.secured);
                    EndpointConnection::from(io)
                }
            };
            if !config.pool.tcp_keepalive.is_zero() {
                // Keepalive sends no probes while sent bytes wait for an acknowledgement; this timeout covers that
                // case.
                io.judge_silence();
            }
            Ok(io)
        }
        EndpointAddress::Unix(path) => {
            let mut io = within(config.connect_timeout, UnixStream::connect(path)).await?;
            times.reached(&times.connected);
            greet(&mut io, &header).await?;
            match tls {
                None => Ok(EndpointConnection::from(io)),
                Some(tls) => {
                    let io = tls.handshake(config, offer, &name(), io).await?;
                    times.reached(&times.secured);
                    Ok(EndpointConnection::from(io))
                }
            }
        }
    }
}

/// The PROXY protocol header that the config asks for, sent before the first byte; empty if it asks for none.
pub(crate) fn proxy_header(wanted: ProxyProtocolOut, addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    match wanted {
        ProxyProtocolOut::Off => Vec::new(),
        ProxyProtocolOut::V1 => proxy_protocol::write(Version::V1, addresses),
        ProxyProtocolOut::V2 => proxy_protocol::write(Version::V2, addresses),
    }
}

/// Where the client came from and where it went. An IPv4 address of a dual-stack socket (`::ffff:a.b.c.d`) becomes a
/// plain IPv4 address.
fn addresses(client: &Client) -> Option<(SocketAddr, SocketAddr)> {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    Some((plain(client.address?), plain(client.destination()?)))
}

/// Connects from `source`, if it has the address's family. Zero switches keepalive off.
pub(crate) async fn connect_tcp(
    address: SocketAddr,
    source: Option<IpAddr>,
    keepalive: Duration,
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Messages are written whole, so waiting to fill a segment (RFC 896) only delays them.
    socket.set_nodelay(true)?;
    if !keepalive.is_zero() {
        // The connection to a dead peer is closed after five more probes, each after a quarter of the first wait.
        let interval = (keepalive / 4).max(Duration::from_secs(1));
        let settings = TcpKeepalive::new().with_time(keepalive).with_interval(interval).with_retries(5);
        SockRef::from(&socket).set_tcp_keepalive(&settings)?;
    }
    if let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(address).await
}

async fn within<T>(limit: Duration, connect: impl Future<Output = io::Result<T>>) -> Result<T, Error> {
    match timeout(limit, connect).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(error)) => {
            let reason = match error.kind() {
                io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
                // The kernel's own timeout (tcp_syn_retries) ended first.
                io::ErrorKind::TimedOut => Reason::ConnectTimeout,
                _ => Reason::ConnectFailed,
            };
            Err(Error::with_source(reason, SentPart::Nothing, error))
        }
        Err(_) => Err(Error::with_source(
            Reason::ConnectTimeout,
            SentPart::Nothing,
            format!("no connection within connect_timeout ({limit:?})"),
        )),
    }
}

/// Writes the PROXY header. A new socket's send buffer holds it many times over, so this does not wait for the peer.
async fn greet(io: &mut (impl AsyncWrite + Unpin), header: &[u8]) -> Result<(), Error> {
    if header.is_empty() {
        return Ok(());
    }
    io.write_all(header)
        .await
        .map_err(|error| Error::with_source(Reason::ConnectFailed, SentPart::Nothing, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_written_as_the_ipv4_that_it_is() {
        let client = Client {
            address: "[::ffff:192.0.2.1]:9".parse().ok(),
            local: "198.51.100.7:443".parse().ok(),
            ..Client::default()
        };
        let header = proxy_header(ProxyProtocolOut::V1, addresses(&client));
        assert_eq!(header, b"PROXY TCP4 192.0.2.1 198.51.100.7 9 443\r\n");
        assert_eq!(proxy_header(ProxyProtocolOut::V1, addresses(&Client::default())), b"PROXY UNKNOWN\r\n");
        assert_eq!(proxy_header(ProxyProtocolOut::Off, addresses(&client)), b"");
    }
}
