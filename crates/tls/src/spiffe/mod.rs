//! Identity and trust from the SPIFFE Workload API.
//!
//! One gRPC stream, `FetchX509SVID`, over the agent's Unix socket: the agent sends the SVID and the trust bundle at once,
//! and again whenever they change. When the stream ends it is opened anew after 1 s, doubled up to 30 s; what came last
//! stays in use. Sources: SPIFFE Workload Endpoint sections 2 to 5, Workload API section 5; gRPC over HTTP/2.
//!
//! Spoken with hyper directly: see `docs/decisions/0008-spiffe-without-tonic.md`.

mod protobuf;
mod svid;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::UnixStream, time::sleep};

pub(crate) use svid::{Svid, is_of};

use crate::{Certificate, Error};

/// The environment variable that names the agent's socket (Workload Endpoint section 4).
pub const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Larger than any bundle in use (gRPC's own default).
const LARGEST: usize = 4 << 20;

/// The workload's SVID and bundle as they are now. Clones are handles to the same.
#[derive(Clone)]
pub struct Workload {
    socket: Arc<PathBuf>,
    svid: Arc<ArcSwapOption<Svid>>,
}

impl Workload {
    /// For an endpoint in the form of [`ENDPOINT`]: `unix:/path` or `unix:///path`. Nothing is called yet.
    pub fn new(endpoint: &str) -> Result<Self, Error> {
        let path = endpoint.strip_prefix("unix:").map(|path| path.strip_prefix("//").unwrap_or(path));
        match path.filter(|path| path.starts_with('/')) {
            Some(path) => Ok(Self { socket: Arc::new(path.into()), svid: Arc::default() }),
            None => Err(Error::identity(format!(
                "{endpoint:?} is no SPIFFE endpoint: {ENDPOINT} must be unix:// with the absolute path of the agent's socket"
            ))),
        }
    }

    /// The agent's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits for the first SVID, for so long at most. The error says what the agent answered last.
    ///
    /// Call it before the connectors and acceptors are made that use it, and [`run`](Self::run) after.
    pub async fn first(&self, limit: Duration) -> Result<(), Error> {
        let mut last = format!("{}: no answer", self.socket.display());
        let waiting = async {
            let mut pause = Duration::from_millis(100);
            while self.svid.load().is_none() {
                if let Err(error) = self.stream(true).await {
                    last = error;
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        };
        match tokio::time::timeout(limit, waiting).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::identity(format!(
                "no SVID from the SPIFFE Workload API within {limit:?}: {last}: is the agent running, and this workload registered?"
            ))),
        }
    }

    /// Follows the agent for ever, on the control thread.
    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let before = self.digest();
            let error = self.stream(false).await.err().unwrap_or_else(|| "the agent ended the stream".into());
            if self.digest() != before {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(
                "SPIFFE Workload API: {error}; the last SVID stays in use, next attempt in {pause:?}"
            );
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
        }
    }

    /// The SVID in use.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.svid.load().as_ref().map(|svid| svid.identity.leaf.clone())
    }

    pub(crate) fn current(&self) -> Option<Arc<Svid>> {
        self.svid.load_full()
    }

    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        self.svid.load().as_ref().map(|svid| svid.digest)
    }

    /// Calls once, and takes what comes until the stream ends (or the first message, if `once`).
    async fn stream(&self, once: bool) -> Result<(), String> {
        let say = |error: &dyn std::fmt::Display| format!("{}: {error}", self.socket.display());
        let socket = UnixStream::connect(&*self.socket).await.map_err(|error| say(&error))?;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .map_err(|error| say(&error))?;
        let driver = tokio::spawn(connection);
        let response = match request() {
            Ok(request) => sender.send_request(request).await.map_err(|error| say(&error)),
            Err(error) => Err(say(&error)),
        };
        let outcome = match response {
            Ok(response) => self.take(response, once).await.map_err(|error| say(&error)),
            Err(error) => Err(error),
        };
        driver.abort();
        outcome
    }

    async fn take(&self, response: http::Response<Incoming>, once: bool) -> Result<(), String> {
        if response.status() != StatusCode::OK {
            return Err(format!("HTTP status {}", response.status()));
        }
        status(response.headers())?;
        let mut body = response.into_body();
        let mut gathered = BytesMut::new();
        while let Some(frame) = body.frame().await {
            match frame.map_err(|error| error.to_string())?.into_data() {
                Ok(data) => gathered.extend_from_slice(&data),
                Err(frame) => status(&frame.into_trailers().unwrap_or_default())?,
            }
            while let Some(message) = next_message(&mut gathered)? {
                self.put(&message)?;
                if once {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn put(&self, message: &[u8]) -> Result<(), String> {
        let svid = Svid::read(message)?;
        tracing::info!(id = svid.identity.leaf.name(), "SPIFFE Workload API: an SVID came");
        self.svid.store(Some(Arc::new(svid)));
        Ok(())
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);

fn request() -> Result<Request<Full<Bytes>>, http::Error> {
    Request::post("http://localhost/SpiffeWorkloadAPI/FetchX509SVID")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        // Proof that no page in a browser made this call (Workload Endpoint section 5).
        .header("workload.spiffe.io", "true")
        // One uncompressed, empty message.
        .body(Full::new(Bytes::from_static(&[0; 5])))
}

/// Fails on a `grpc-status` other than 0.
fn status(headers: &HeaderMap) -> Result<(), String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some("7") => Err(format!(
            "permission denied: no identity is registered for this workload ({})",
            text("grpc-message").unwrap_or("")
        )),
        Some(code) => Err(format!("grpc-status {code}: {}", text("grpc-message").unwrap_or(""))),
    }
}

/// The next whole message, if there is one: a flag, the length, the bytes.
fn next_message(gathered: &mut BytesMut) -> Result<Option<Bytes>, String> {
    let Some((head, _)) = gathered.split_first_chunk::<5>() else { return Ok(None) };
    let [compressed, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 || length > LARGEST {
        return Err("a compressed message, or one of more than 4 MiB".into());
    }
    if gathered.len() < 5 + length {
        return Ok(None);
    }
    gathered.advance(5);
    Ok(Some(gathered.split_to(length).freeze()))
}
