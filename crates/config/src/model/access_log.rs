//! The access log: where it goes, what stands in a line, which lines are written.

use std::{path::PathBuf, time::Duration};

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Name;

/// Where finished requests and connections are written, and how.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct AccessLog {
    /// Destination; `Off` by default.
    pub to: LogTarget,
    /// Line format. Default text.
    pub format: LogFormat,
    /// What is written: a line that one of these lets through; empty lets everything through.
    pub filter: Vec<LogFilter>,
}

/// Destination of the access log.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LogTarget {
    /// Nothing is written.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(LogFile),
    /// A syslog server (RFC 5424).
    Syslog(Syslog),
}

/// A file that is appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its path.
    pub path: PathBuf,
    /// A file that would grow beyond this many bytes is put aside; `None`, the default, leaves that to others.
    pub max_size: Option<u64>,
    /// A file older than this is put aside; `None`, the default, leaves that to others.
    pub max_age: Option<Duration>,
    /// Files put aside that are kept, `.1` being the youngest. Default 5.
    pub keep: u32,
}

impl LogFile {
    /// Files put aside that are kept by default.
    pub const KEEP: u32 = 5;

    /// Appended to for ever.
    pub const fn at(path: PathBuf) -> Self {
        Self { path, max_size: None, max_age: None, keep: Self::KEEP }
    }
}

/// A syslog server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// Where it listens.
    pub to: SyslogTo,
    /// What kind of program it is from (RFC 5424 section 6.2.1). Default `local0`.
    pub facility: Facility,
    /// `APP-NAME` of the messages. Default `attache`.
    pub app: Name,
}

impl Syslog {
    /// `APP-NAME` by default.
    pub const APP: &str = "attache";
}

/// Where a syslog server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTo {
    /// A Unix datagram socket, such as `/dev/log`.
    Unix(PathBuf),
    /// `HOST:PORT` over UDP (RFC 5426), a datagram a message.
    Udp(Name),
    /// `HOST:PORT` over TCP, octet counting (RFC 6587 section 3.4.1).
    Tcp(Name),
}

/// Facilities of syslog that a proxy may have (RFC 5424 table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "these names are syslog's")]
#[repr(u8)]
pub enum Facility {
    User = 1,
    Daemon = 3,
    #[default]
    Local0 = 16,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

/// Line format of the access log.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One readable line.
    #[default]
    Text,
    /// One JSON object a line, with every field.
    Json,
    /// One line, as the template says.
    Template(LogTemplate),
    /// One JSON object a line, with these keys.
    Fields(Vec<(Name, LogTemplate)>),
}

impl LogFormat {
    /// Every template in it.
    pub fn templates(&self) -> impl Iterator<Item = &LogTemplate> {
        let (one, many) = match self {
            Self::Text | Self::Json => (None, &[][..]),
            Self::Template(template) => (Some(template), &[][..]),
            Self::Fields(fields) => (None, &fields[..]),
        };
        one.into_iter().chain(many.iter().map(|(_, template)| template))
    }
}

/// Text with fields of the finished exchange in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTemplate(pub Vec<LogPart>);

/// A piece of a [`LogTemplate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// Stands as it is.
    Text(Name),
    /// What the exchange has there.
    Field(LogField),
}

macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal;)+) => {
        /// What an access log line may say.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum LogField {
            $($(#[doc = $doc])+ $name,)+
            /// `request.header.NAME`: a header of the request as the client sent it; only named ones are ever logged.
            RequestHeader(HeaderName),
            /// `response.header.NAME`: a header of the response as the client gets it.
            ResponseHeader(HeaderName),
        }

        impl LogField {
            /// Every field that has no name of a header in it: its word and what it says.
            pub const WORDS: &[(&str, &str)] = &[$(($word, concat!($($doc),+)),)+];

            /// The field of a word.
            pub fn of(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

fields! {
    /// When the first byte came: RFC 3339, UTC.
    Time = "time";
    /// What the client was sent; `-` for opaque connections, and where the client got none.
    Status = "status";
    /// Envoy's response flag for the reason.
    EnvoyFlag = "envoy_flag";
    /// Why attache failed it, one of the list in reasons.md.
    Reason = "reason";
    /// Request method.
    Method = "method";
    /// Host or server name (SNI).
    Host = "host";
    /// Path without the query.
    Path = "path";
    /// `http1`, `http2`, `tcp` or `tls`.
    Protocol = "protocol";
    /// The listener.
    Listener = "listener";
    /// The route that matched.
    Route = "route";
    /// The upstream that was chosen.
    Upstream = "upstream";
    /// The endpoint of the last try.
    Endpoint = "endpoint";
    /// Tries that were begun; 0 where attache answered by itself.
    Tries = "tries";
    /// Hedges among them: tries that were begun beside a slow one.
    Hedges = "hedges";
    /// From the first byte to the last, milliseconds.
    TotalMs = "total_ms";
    /// To the head of the upstream's response, all tries included, milliseconds.
    HeadMs = "head_ms";
    /// Body bytes from the client.
    Received = "received_bytes";
    /// Body bytes to the client.
    Sent = "sent_bytes";
    /// Address and port of the client.
    Client = "client";
    /// Who the client proved to be by its certificate.
    Identity = "identity";
    /// Who the upstream's endpoint proved to be by its certificate.
    Peer = "peer";
    /// `X-Request-Id`.
    RequestId = "request_id";
    /// The trace's id (W3C, 32 hex digits), also where the trace isn't sampled.
    TraceId = "trace_id";
    /// The id of attache's own span, 16 hex digits; only where it is sampled.
    SpanId = "span_id";
    /// The cause, in the words of the system or the peer.
    Detail = "detail";
}

/// Which lines are written: those for which everything that is said here holds.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LogFilter {
    /// attache failed it (there is a reason), or it was answered with 5xx.
    pub errors: bool,
    /// The status is within one of these; empty says nothing.
    pub status: Vec<StatusRange>,
    /// It took at least this long; `None` says nothing.
    pub slower_than: Option<Duration>,
    /// It went by one of these routes; empty says nothing.
    pub routes: Vec<Name>,
    /// This share of what is left, at random; `None` is all.
    pub sample: Option<f64>,
}

/// Statuses from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl StatusRange {
    /// Whether a status is in it.
    pub const fn contains(self, status: u16) -> bool {
        self.from <= status && status <= self.to
    }
}
