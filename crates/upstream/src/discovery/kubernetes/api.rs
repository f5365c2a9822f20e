//! Requests to the API server, as a pod makes them.
//!
//! Its address is in `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`. The trusted authority and the client's
//! token are in the folder of the service account (`ca.crt`, `token`), or in the folder that `ATTACHE_SERVICE_ACCOUNT`
//! names. Both files are read for each request: the kubelet renews the token about every hour. A token is never logged.
//!
//! Each request has a connection of its own, since a watch takes one for minutes and a list comes before each first watch only. The client
//! is hyper's, as for health checks; `attache-rpc` stands above this crate and runs on workers.

use std::{
    env, fmt,
    fs::File,
    future::poll_fn,
    io::{self, Read},
    net::IpAddr,
    path::PathBuf,
    pin::Pin,
    time::Duration,
};

use attache_config::model::{TlsClient, Trust};
use attache_tls::Connector;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// The folder that the kubelet mounts into every container of a pod with a service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Time for connection, handshake and head.
const HEAD: Duration = Duration::from_secs(10);
/// The API server's silence is noticed after this long and three more of a third.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A token has about 1 KiB.
const LONGEST_TOKEN: u64 = 64 << 10;
/// Bytes of an answer that says what is wrong.
const LONGEST_STATUS: usize = 16 << 10;

/// How the API server is reached.
#[derive(Clone, Debug)]
pub(super) struct Api {
    host: String,
    port: u16,
    account: PathBuf,
}

/// Why there was no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// What was known is too old: everything has to be listed again.
    Gone,
    /// The API server can't be asked, or can't answer now. A watch may go on where it was.
    Away {
        /// In words.
        detail: String,
        /// How long the API server wants to be left alone.
        after: Option<Duration>,
    },
    /// The API server answered, and not as expected: everything has to be listed again.
    Refused(String),
}

impl Problem {
    pub(super) fn away(detail: impl Into<String>) -> Self {
        Self::Away { detail: detail.into(), after: None }
    }
}

/// An answer with 200, and the connection that it comes on, which ends with it.
#[derive(Debug)]
pub(super) struct Answered {
    body: Pin<Box<Incoming>>,
    // Aborted on drop.
    _connection: JoinSet<()>,
}

impl Api {
    /// The API server of the cluster that this pod is in.
    pub(super) fn of_this_pod() -> Result<Self, Problem> {
        let text = |name: &str| {
            env::var(name)
                .map_err(|_| Problem::away(format!("{name} isn't set: attache runs in no pod of a cluster")))
        };
        let (host, port) = (text("KUBERNETES_SERVICE_HOST")?, text("KUBERNETES_SERVICE_PORT")?);
        let port = port.parse().map_err(|_| {
            Problem::away(format!("KUBERNETES_SERVICE_PORT is `{}`, no port", port.escape_debug()))
        })?;
        let account = env::var_os("ATTACHE_SERVICE_ACCOUNT").map_or_else(|| ACCOUNT.into(), PathBuf::from);
        Ok(Self { host, port, account })
    }

    #[cfg(test)]
    pub(super) fn at(port: u16, account: &std::path::Path) -> Self {
        Self { host: "127.0.0.1".to_owned(), port, account: account.to_owned() }
    }

    /// Asks for a path with its query.
    pub(super) async fn get(&self, path: &str) -> Result<Answered, Problem> {
        let asked = timeout(HEAD, self.ask(path)).await;
        let (response, connection) =
            asked.map_err(|_| Problem::away(format!("{self} gave no answer within {HEAD:?}")))??;
        let (head, body) = response.into_parts();
        let mut answered = Answered { body: Box::pin(body), _connection: connection };
        match head.status {
            StatusCode::OK => Ok(answered),
            StatusCode::GONE => Err(Problem::Gone),
            status => {
                // The message of a `Status` object says what is wrong, most of all for 403.
                let text = timeout(HEAD, answered.text(LONGEST_STATUS)).await;
                let text = text.ok().and_then(Result::ok).unwrap_or_default();
                Err(self.refused(status, &head.headers, &text))
            }
        }
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap, text: &[u8]) -> Problem {
        let said = serde_json::from_slice::<Value>(text).ok();
        let said = said.as_ref().and_then(|said| said.get("message")?.as_str()).unwrap_or_default();
        let said: String = said.chars().take(512).collect();
        let help = match status {
            StatusCode::FORBIDDEN => {
                "; a Role of the namespace must allow `list` and `watch` of `endpointslices` in `discovery.k8s.io`"
            }
            StatusCode::UNAUTHORIZED => "; is the service account's token mounted into attache's container?",
            _ => "",
        };
        let colon = if said.is_empty() { "" } else { ": " };
        let detail = format!("{self} answered {}{colon}{}{help}", status.as_u16(), said.escape_debug());
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN => Problem::Away { detail, after: retry_after(headers) },
            _ => Problem::Refused(detail),
        }
    }

    async fn ask(&self, path: &str) -> Result<(Response<Incoming>, JoinSet<()>), Problem> {
        let failed = |what: &str, error: &dyn fmt::Display| Problem::away(format!("{self}: {what}: {error}"));
        let token = self.token()?;
        let connector = Connector::new(&self.trust(), &[b"http/1.1"]).map_err(|e| failed("TLS", &e))?;
        let tcp =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| failed("connect", &e))?;
        let keepalive =
            socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3).with_retries(3);
        socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive).map_err(|e| failed("keepalive", &e))?;
        let tls = connector.connect(&self.host, tcp).await.map_err(|e| failed("TLS", &e))?;
        let (mut sender, running) =
            http1::handshake(TokioIo::new(tls)).await.map_err(|e| failed("HTTP", &e))?;
        let mut connection = JoinSet::new();
        connection.spawn(async move { drop(running.await) });
        let request = Request::get(path)
            .header(header::HOST, self.authority())
            .header(header::AUTHORIZATION, token)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("attache/", env!("CARGO_PKG_VERSION")))
            .body(Nothing)
            .map_err(|e| failed("the request", &e))?;
        let response = sender.send_request(request).await.map_err(|e| failed("no answer", &e))?;
        Ok((response, connection))
    }

    fn token(&self) -> Result<HeaderValue, Problem> {
        let file = self.account.join("token");
        let mut text = String::new();
        let read = File::open(&file).and_then(|opened| opened.take(LONGEST_TOKEN).read_to_string(&mut text));
        read.map_err(|error: io::Error| {
            Problem::away(format!(
                "{}: {error}; the service account's token must be mounted into attache's container",
                file.display()
            ))
        })?;
        let none = || Problem::away(format!("{} holds no token", file.display()));
        if text.trim().is_empty() {
            return Err(none());
        }
        let mut token = HeaderValue::try_from(format!("Bearer {}", text.trim())).map_err(|_| none())?;
        token.set_sensitive(true);
        Ok(token)
    }

    fn trust(&self) -> TlsClient {
        TlsClient { trust: Trust::Files(vec![self.account.join("ca.crt")]), ..TlsClient::default() }
    }

    fn authority(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the API server {}", self.authority())
    }
}

impl Answered {
    /// The next piece of the body; `None` at its end. May be dropped while it waits.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = poll_fn(|cx| self.body.as_mut().poll_frame(cx)).await;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(Problem::away(format!("the answer broke off: {error}"))),
            }
        }
    }

    /// The whole body.
    pub(super) async fn text(&mut self, longest: usize) -> Result<Vec<u8>, Problem> {
        let mut text = Vec::new();
        while let Some(piece) = self.piece().await? {
            text.extend_from_slice(&piece);
            if text.len() > longest {
                return Err(Problem::Refused(format!("the answer is larger than {longest} bytes")));
            }
        }
        Ok(text)
    }
}

/// The wait in seconds (RFC 9110 section 10.2.3), a minute at most; the API server sends no dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds.min(60)))
}

/// The body of a GET.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}
