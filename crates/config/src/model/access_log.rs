//! The access log: its destination, the content of a line, and which lines are written.

use super::prelude::*;

section! {
    "`access_log`"
    /// The access log.
    pub struct AccessLog {
        /// Where it goes: `stdout`, `off`, `syslog` (`/dev/log`), the path of a file that is appended to, or a mapping.
        to(LogTo): LogTarget = LogTarget::Off,
        /// What a line says: `text`, `json`, or a mapping with your own template.
        format(LogFormatForm): LogFormat = LogFormat::Text,
        /// Which lines are written: those that meet every condition here; of a list, those that meet one item.
        #[schema(examples = [json!([{ "errors": true }, { "slower_than": "1s" }, { "sample": "1%" }])])]
        filter(OneOrMany<Spanned<ParsedSection<LogFilter>>>): Vec<LogFilter> = Vec::new(),
    }
    requires to
    or to
}

/// A target: a word or path, a file with its rotation, a syslog server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum LogTo {
    Path(Text<LogPath>),
    Mapping(Spanned<ParsedSection<LogOutput>>),
}

section! {
    "`to` of the access log"
    /// A target with its options: a file or a syslog server.
    pub struct LogOutput: Eq {
        /// The keys of a file.
        ..file: LogFile,
        /// The keys of a syslog server.
        ..syslog: Syslog,
    }
    rules {
        any_of [file, syslog]
            "this log has no destination"
            "`to: { file: /var/log/access.log }` or `to: { syslog: unix:/dev/log }`";
        excludes [syslog] [file] "both `file` and `{}`" "keep one of them";
        needs [facility, app] [syslog] "`{}` belongs to `syslog`" "remove it, or use `syslog`";
        needs [max_size, max_age, keep] [file] "`{}` belongs to `file`" "remove it, or use `file`";
        needs [keep] [max_size, max_age]
            "`{}` without `max_size` or `max_age`: the file is never rotated"
            "add `max_size: 100MiB` or `max_age: 24h`, or remove `keep`";
    }
}

section! {
    "a log file"
    /// A file that is appended to.
    pub struct LogFile: Eq {
        /// The path of a file that is appended to.
        #[schema(default = (), examples = ["/var/log/attache/access.log"])]
        file in path: PathBuf as File = PathBuf::new(),
        /// A file that would grow beyond this size is renamed to `FILE.1`, the old `FILE.1` to `FILE.2`, and so on. By
        /// default another program rotates the file: it renames the file and sends SIGUSR1.
        #[schema(examples = ["100MiB"])]
        max_size: Option<usize> as Optional<Size> = None,
        /// A file older than this is renamed in the same way.
        #[schema(examples = ["24h"])]
        max_age: Option<Duration> as Optional<Positive> = None,
        /// How many renamed files are kept; `.1` is the youngest.
        #[schema(minimum = 1, maximum = 1000)]
        keep: u32 = 5,
    }
}

section! {
    "a syslog server"
    /// A syslog server (RFC 5424).
    pub struct Syslog: Eq {
        /// A syslog server, in place of `file`: messages by RFC 5424 over a Unix datagram socket, UDP, or TCP with octet counting
        /// (RFC 6587).
        #[schema(default = ())]
        syslog in to: SyslogTo as SyslogAddress = SyslogTo::Unix("/dev/log".into()),
        /// Facility of the messages (RFC 5424 section 6.2.1).
        facility: Facility = Facility::default(),
        /// `APP-NAME` of the messages.
        app: Name as Label = "attache".into(),
    }
}

/// As the file writes it.
impl Serialize for LogTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => "off".serialize(serializer),
            Self::Stdout => "stdout".serialize(serializer),
            Self::File(file) => file.show().serialize(serializer),
            Self::Syslog(server) => server.show().serialize(serializer),
        }
    }
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

impl LogFile {
    /// A file that is never rotated.
    pub fn at(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }
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

/// As the file writes it.
impl fmt::Display for SyslogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(at) => write!(f, "udp://{at}"),
            Self::Tcp(at) => write!(f, "tcp://{at}"),
        }
    }
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

/// A format: a word or a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum LogFormatForm {
    Word(LogFormatWord),
    Own(Spanned<OwnFormat>),
}

/// Formats that attache has.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormatWord {
    /// One readable line.
    Text,
    /// One JSON object a line, with every field.
    Json,
}

section! {
    "`format` of the access log"
    /// A format that the config defines. The fields are those of [access-log.md](access-log.md).
    pub struct OwnFormat: Eq {
        /// A line of text.
        template: Option<LogTemplate> as Optional<LogTemplateText> = None,
        /// A JSON object: its keys, each with a template. One field and nothing else keeps its type, so that numbers are numbers.
        #[schema(examples = [json!({ "code": "%{status}", "took": "%{total_ms}" })])]
        json: Option<Vec<(Name, LogTemplate)>> as Optional<Pairs<Word, LogTemplateText>> = None,
    }
    rules {
        one_of [template, json]
            "a format is either `template` or `json`"
            "`{ template: \"%{status} %{path}\" }` or `{ json: { code: \"%{status}\" } }`";
    }
}

/// As the file writes it.
impl Serialize for LogFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (template, json) = match self.clone() {
            Self::Text => return LogFormatWord::Text.serialize(serializer),
            Self::Json => return LogFormatWord::Json.serialize(serializer),
            Self::Template(template) => (Some(template), None),
            Self::Fields(fields) => (None, Some(fields)),
        };
        let mut shown = OwnFormat { template, json }.show();
        only_given(&(), &mut shown);
        shown.serialize(serializer)
    }
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

/// As the file writes it.
impl fmt::Display for LogTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            LogPart::Text(text) => f.write_str(text),
            LogPart::Field(LogField::RequestHeader(name)) => write!(f, "%{{request.header.{name}}}"),
            LogPart::Field(LogField::ResponseHeader(name)) => write!(f, "%{{response.header.{name}}}"),
            LogPart::Field(field) => write!(f, "%{{{}}}", field.word().unwrap_or_default()),
        })
    }
}

/// A piece of a [`LogTemplate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// Plain text.
    Text(Name),
    /// A field of the exchange.
    Field(LogField),
}

words! {
/// What an access log line may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogField {
    /// When the first byte came: RFC 3339, UTC.
    Time = "time";
    /// The status that the client got; `-` for opaque connections, and if the client got none.
    Status = "status";
    /// Envoy's response flag for the reason.
    EnvoyFlag = "envoy_flag";
    /// Why attache failed the exchange: one of the reasons in reasons.md.
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
    /// The endpoint of the last attempt.
    Endpoint = "endpoint";
    /// Started attempts; 0 if attache answered by itself.
    Attempts = "attempts";
    /// Hedges among them: attempts that were started beside a slow one.
    Hedges = "hedges";
    /// From the first byte to the last, milliseconds.
    TotalMs = "total_ms";
    /// To the head of the upstream's response, all attempts included, milliseconds.
    HeadMs = "head_ms";
    /// Body bytes from the client.
    Received = "received_bytes";
    /// Body bytes to the client.
    Sent = "sent_bytes";
    /// Address and port of the client.
    Client = "client";
    /// The client's identity, from its certificate.
    Identity = "identity";
    /// The identity of the upstream's endpoint, from its certificate.
    Peer = "peer";
    /// `X-Request-Id`.
    RequestId = "request_id";
    /// The trace's id (W3C, 32 hex digits), also where the trace isn't sampled.
    TraceId = "trace_id";
    /// The id of attache's own span, 16 hex digits; only where it is sampled.
    SpanId = "span_id";
    /// The cause, in the words of the system or the peer.
    Detail = "detail";
    more {
        /// `request.header.NAME`: a header of the request as the client sent it; only named ones are ever logged.
        RequestHeader(HeaderName);
        /// `response.header.NAME`: a header of the response as the client gets it.
        ResponseHeader(HeaderName);
    }
}
}

section! {
    "`filter` of the access log"
    /// Which lines are written. A line must meet every given condition.
    pub struct LogFilter {
        /// Only requests that attache failed, or that got a 5xx.
        errors: bool = false,
        /// Only these statuses.
        #[schema(examples = [json!(["5xx", 404])])]
        status: Vec<StatusRange> as List<StatusRangeText> = Vec::new(),
        /// Only requests and connections that took at least this long.
        #[schema(examples = ["500ms"])]
        slower_than: Option<Duration> as Optional<Positive> = None,
        /// Only requests and connections of these routes.
        routes(OneOrMany<Spanned<Text<Label>>>): Vec<Name> as List<Label> = Vec::new(),
        /// Only this share, at random.
        #[schema(examples = ["1%"])]
        sample: Option<f64> as Optional<Ratio> = None,
    }
}

/// Statuses from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// The first status.
    pub from: u16,
    /// The last status.
    pub to: u16,
}

/// As the file writes it.
impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to { self.from.fmt(f) } else { write!(f, "{}-{}", self.from, self.to) }
    }
}

impl StatusRange {
    /// Whether a status is in it.
    pub const fn contains(self, status: u16) -> bool {
        self.from <= status && status <= self.to
    }
}
