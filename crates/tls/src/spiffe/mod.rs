//! Identity and trust from the SPIFFE Workload API.
//!
//! One gRPC stream, `FetchX509SVID`, over the agent's Unix socket: the agent sends the SVID and the trust bundle at
//! once, and again whenever they change. When the stream ends it is opened again after 1 s, doubled up to 30 s; the
//! last SVID and bundle stay in use. Sources: SPIFFE Workload Endpoint sections 2 to 5, Workload API section 5; gRPC
//! over HTTP/2.
//!
//! attache uses its own small client: see `docs/decisions/0008-spiffe-without-tonic.md`.

mod messages;
mod svid;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use attache_rpc::{
    client::{self, CallLimits, CallProtocol, DialError, OpenedConnection, ResponseStream},
    grpc::{self, GrpcStatus, MessageDecoder},
};
use http::{HeaderValue, StatusCode};
use tokio::{net::UnixStream, time::sleep};

pub(crate) use svid::{Svid, is_of};

use crate::{Certificate, Error};

/// The environment variable that names the agent's socket (Workload Endpoint section 4).
pub const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Larger than any bundle in use (gRPC's own default).
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Time for the connection to the agent's socket.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for the head of the agent's answer. Agents send it with the first SVID, which they may first have to make.
const HEAD: Duration = Duration::from_mins(1);

/// The workload's present SVID and bundle. Clones share them.
#[derive(Clone)]
pub struct Workload {
    socket: Arc<PathBuf>,
    svid: Arc<ArcSwapOption<Svid>>,
}

impl Workload {
    /// For an endpoint in the form of [`ENDPOINT`]: `unix:/path` or `unix:///path`. This doesn't call the agent yet.
    pub fn new(endpoint: &str) -> Result<Self, Error> {
        let path = endpoint.strip_prefix("unix:").map(|path| path.strip_prefix("//").unwrap_or(path));
        match path.filter(|path| path.starts_with('/')) {
            Some(path) => Ok(Self { socket: Arc::new(path.into()), svid: Arc::default() }),
            None => Err(Error::identity(format!(
                "{endpoint:?} is not a SPIFFE endpoint: {ENDPOINT} must be unix:// with the absolute path of the agent's socket"
            ))),
        }
    }

    /// The agent's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits for the first SVID, at most for `limit`. The error contains the agent's last answer.
    ///
    /// Call it before the connectors and acceptors are made that use it, and [`run`](Self::run) after.
    pub async fn first(&self, limit: Duration) -> Result<(), Error> {
        let mut last = format!("{}: no answer", self.socket.display());
        let waiting = async {
            let mut pause = Duration::from_millis(100);
            while self.svid.load().is_none() {
                match self.stream(true).await {
                    Ok(()) if self.svid.load().is_some() => return,
                    Ok(()) => {
                        last =
                            format!("{}: the agent ended the stream without an SVID", self.socket.display());
                    }
                    Err(error) => last = error,
                }
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        };
        match tokio::time::timeout(limit, waiting).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::identity(format!(
                "no SVID from the SPIFFE Workload API within {limit:?}: {last}: is the agent running, and this workload registered?"
            ))),
        }
    }

    /// Follows the agent until the process ends, on the control thread.
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

    /// Calls the agent once, and uses its messages until the stream ends (only the first message if `once`).
    async fn stream(&self, once: bool) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.socket.display());
        let mut request = grpc::request("http://localhost", METHOD, &messages::X509SvidRequest {})
            .map_err(|error| failed(&error))?;
        // Proof that no page in a browser made this call (Workload Endpoint section 5).
        request.headers_mut().insert("workload.spiffe.io", HeaderValue::from_static("true"));
        let dial = async {
            let socket = UnixStream::connect(&*self.socket).await?;
            Ok::<_, DialError>(OpenedConnection::new(socket, CallProtocol::Http2))
        };
        let bounds = CallLimits { connect: CONNECT, total: HEAD, ..CallLimits::default() };
        let response = client::stream(dial, request, bounds).await.map_err(|error| failed(&error))?;
        self.receive(response, once).await.map_err(|error| failed(&error))
    }

    async fn receive(&self, mut response: ResponseStream, once: bool) -> Result<(), String> {
        if response.status != StatusCode::OK {
            return Err(format!("HTTP status {}", response.status));
        }
        let mut frames = MessageDecoder::new(MAX_MESSAGE_BYTES);
        while let Some(data) = response.data().await.map_err(|error| error.to_string())? {
            frames.push(&data);
            while let Some(message) = frames.next().map_err(|bad| bad.to_string())? {
                self.put(&message)?;
                if once {
                    return Ok(());
                }
            }
        }
        GrpcStatus::check(&response.headers, &response.trailers).map_err(|status| match status.code {
            Some(7) => {
                format!("permission denied: no identity is registered for this workload ({})", status.message)
            }
            _ => status.to_string(),
        })
    }

    fn put(&self, message: &[u8]) -> Result<(), String> {
        let svid = Svid::read(message)?;
        tracing::info!(id = svid.identity.leaf.name(), "SPIFFE Workload API: an SVID came");
        self.svid.store(Some(Arc::new(svid)));
        Ok(())
    }
}

const METHOD: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const FIRST_PAUSE: Duration = Duration::from_secs(1);
