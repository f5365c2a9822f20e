//! Handshakes between attache's two sides, and with OpenSSL.

#[allow(dead_code, unreachable_pub, reason = "each crate that includes the file uses a part of it")]
#[path = "../../../../tests/authority.rs"]
mod authority;
mod credential;
mod files;
mod late;
mod matrix;
mod openssl;
mod pki;
mod rotation;
mod sessions;
mod spiffe;

use attache_config::model::{Identity, TlsClient, TlsServer, Trust};
use attache_telemetry::Reason;
use pki::PkiFiles;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{AcceptedConnection, Acceptor, Connector, reason_of};

/// A client that trusts the CA in `ca.pem` of the folder.
fn client(files: &PkiFiles) -> TlsClient {
    TlsClient { trust: Trust::Files(vec![files.path("ca.pem")]), ..TlsClient::default() }
}

/// A server that shows `NAME.pem` of the folder.
fn server(files: &PkiFiles, name: &str) -> TlsServer {
    TlsServer { identities: vec![identity(files, name)], ..TlsServer::default() }
}

fn identity(files: &PkiFiles, name: &str) -> Identity {
    Identity {
        certificate: files.path(&format!("{name}.pem")),
        key: files.path(&format!("{name}.key")),
        ocsp: None,
    }
}

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// Sends one request and reads the whole answer, like an upstream pool. The error is the reason of an early or late
/// failure.
async fn ask<T>(connector: &Connector, name: &str, io: T) -> Result<Vec<u8>, Option<Reason>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = connector.connect(name, io).await.map_err(|error| Some(error.reason))?;
    let late = |error: std::io::Error| reason_of(&error);
    stream.write_all(REQUEST).await.map_err(late)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(late)?;
    Ok(answer)
}

/// Answers one request, and closes cleanly.
async fn answer<T>(acceptor: &Acceptor, io: T) -> Result<AcceptedConnection<T>, Reason>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut accepted = acceptor.accept(io).await.map_err(|error| error.reason)?;
    let mut request = [0; REQUEST.len()];
    accepted.stream.read_exact(&mut request).await.map_err(|_| Reason::ClientClosed)?;
    accepted.stream.write_all(b"hello").await.map_err(|_| Reason::ClientClosed)?;
    accepted.stream.shutdown().await.map_err(|_| Reason::ClientClosed)?;
    Ok(accepted)
}

/// The result of each side.
async fn meet(
    connector: &Connector,
    name: &str,
    acceptor: &Acceptor,
) -> (Result<Vec<u8>, Option<Reason>>, Result<AcceptedConnection<tokio::io::DuplexStream>, Reason>) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    tokio::join!(ask(connector, name, ours), answer(acceptor, theirs))
}
