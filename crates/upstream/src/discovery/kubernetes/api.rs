//! Requests to the API server, as a pod makes them.
//!
//! Its address is in `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`. The trusted authority and the client's
//! token are in the folder of the service account (`ca.crt`, `token`), or in the folder that `ATTACHE_SERVICE_ACCOUNT`
//! names. Both files are read for each request: the kubelet renews the token about every hour. A token is never logged.
//!
//! Each request opens its own connection: a watch uses one for minutes, and a list is only sent before a first watch.

use std::{
    env, fmt,
    fs::File,
    io::{self, Read},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use attache_config::model::{TlsClient, Trust};
use attache_rpc::client::{self, CallLimits, CallProtocol, DialError, OpenedConnection, ResponseStream};
use attache_tls::Connector;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

/// The folder that the kubelet mounts into every container of a pod with a service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Time for connection, handshake and head.
const HEAD: Duration = Duration::from_secs(10);
/// A silent API server is noticed after this long and three more probes, each after a third of it.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A token has about 1 KiB.
const MAX_TOKEN_BYTES: u64 = 64 << 10;
/// The most bytes of an answer with an error.
const MAX_STATUS_BYTES: usize = 16 << 10;

/// How the API server is reached.
#[derive(Clone, Debug)]
pub(super) struct KubernetesApi {
    host: String,
    port: u16,
    account: PathBuf,
}

/// Why there was no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// The known version is too old: everything must be listed again.
    Gone,
    /// The API server can't be reached, or can't answer now. A watch may continue where it was.
    Away {
        /// The cause in words.
        detail: String,
        /// How long to wait, if the API server says so.
        after: Option<Duration>,
    },
    /// The API server gave an unexpected answer: everything must be listed again.
    Refused(String),
}

impl ApiError {
    pub(super) fn away(detail: impl Into<String>) -> Self {
        Self::Away { detail: detail.into(), after: None }
    }
}

/// An answer with the status 200, and its connection, which ends with it.
#[derive(Debug)]
pub(super) struct ApiResponse(ResponseStream);

impl KubernetesApi {
    /// The API server of the cluster that this pod is in.
    pub(super) fn of_this_pod() -> Result<Self, ApiError> {
        let text = |name: &str| {
            env::var(name).map_err(|_| {
                ApiError::away(format!("{name} isn't set: attache doesn't run in a pod of a cluster"))
            })
        };
        let (host, port) = (text("KUBERNETES_SERVICE_HOST")?, text("KUBERNETES_SERVICE_PORT")?);
        let port = port.parse().map_err(|_| {
            ApiError::away(format!("KUBERNETES_SERVICE_PORT is `{}`, no port", port.escape_debug()))
        })?;
        let account = env::var_os("ATTACHE_SERVICE_ACCOUNT").map_or_else(|| ACCOUNT.into(), PathBuf::from);
        Ok(Self { host, port, account })
    }

    #[cfg(test)]
    pub(super) fn at(port: u16, account: &std::path::Path) -> Self {
        Self { host: "127.0.0.1".to_owned(), port, account: account.to_owned() }
    }

    /// Asks for a path with its query.
    pub(super) async fn get(&self, path: &str) -> Result<ApiResponse, ApiError> {
        let response = self.ask(path).await?;
        match response.status {
            StatusCode::OK => Ok(ApiResponse(response)),
            StatusCode::GONE => Err(ApiError::Gone),
            status => {
                let headers = response.headers.clone();
                // The message of a `Status` object says what is wrong, most of all for 403.
                let text = timeout(HEAD, ApiResponse(response).text(MAX_STATUS_BYTES)).await;
                let text = text.ok().and_then(Result::ok).unwrap_or_default();
                Err(self.refused(status, &headers, &text))
            }
        }
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap, text: &[u8]) -> ApiError {
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
            | StatusCode::FORBIDDEN => ApiError::Away { detail, after: retry_after(headers) },
            _ => ApiError::Refused(detail),
        }
    }

    async fn ask(&self, path: &str) -> Result<ResponseStream, ApiError> {
        let failed =
            |what: &str, error: &dyn fmt::Display| ApiError::away(format!("{self}: {what}: {error}"));
        let token = self.token()?;
        let connector = Connector::new(&self.trust(), &[b"http/1.1"]).map_err(|e| failed("TLS", &e))?;
        let request = Request::get(path)
            .header(header::HOST, self.authority())
            .header(header::AUTHORIZATION, token)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("attache/", env!("CARGO_PKG_VERSION")))
            .body(Full::default())
            .map_err(|e| failed("the request", &e))?;
        let bounds = CallLimits { connect: HEAD, total: HEAD, ..CallLimits::default() };
        client::stream(self.dial(&connector), request, bounds).await.map_err(|error| match error {
            client::Error::Timeout(_) | client::Error::ConnectTimeout(_) => {
                ApiError::away(format!("{self} gave no answer within {HEAD:?}"))
            }
            client::Error::Connect(error) => ApiError::away(format!("{self}: {error}")),
            error => failed("no answer", &error),
        })
    }

    async fn dial(&self, connector: &Connector) -> Result<OpenedConnection, DialError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
        let tcp = tcp.map_err(|error| format!("connect: {error}"))?;
        let keepalive =
            socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3).with_retries(3);
        let set = socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive);
        set.map_err(|error| format!("keepalive: {error}"))?;
        let tls = connector.connect(&self.host, tcp).await.map_err(|error| format!("TLS: {error}"))?;
        Ok(OpenedConnection::new(tls, CallProtocol::Http1))
    }

    fn token(&self) -> Result<HeaderValue, ApiError> {
        let file = self.account.join("token");
        let mut text = String::new();
        let read =
            File::open(&file).and_then(|opened| opened.take(MAX_TOKEN_BYTES).read_to_string(&mut text));
        read.map_err(|error: io::Error| {
            ApiError::away(format!(
                "{}: {error}; the service account's token must be mounted into attache's container",
                file.display()
            ))
        })?;
        let none = || ApiError::away(format!("{} holds no token", file.display()));
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

impl fmt::Display for KubernetesApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the API server {}", self.authority())
    }
}

impl ApiResponse {
    /// The next bytes of the body; `None` at its end. The future may be dropped while it waits.
    pub(super) async fn data(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.0.data().await.map_err(|error| ApiError::away(format!("the answer broke off: {error}")))
    }

    /// The whole body.
    pub(super) async fn text(&mut self, longest: usize) -> Result<Vec<u8>, ApiError> {
        let mut text = Vec::new();
        while let Some(data) = self.data().await? {
            text.extend_from_slice(&data);
            if text.len() > longest {
                return Err(ApiError::Refused(format!("the answer is larger than {longest} bytes")));
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
