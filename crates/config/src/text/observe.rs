//! Templates of the access log, and where logs, traces and metrics come from and go to.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{HeaderText, Text, Wrong, header::template_parts, host_name, split_port, wrong};
use crate::{
    model::{AppUrl, LogField, LogFile, LogPart, LogTarget, LogTemplate, Name, StatusRange, SyslogTo},
    suggest,
};

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogPath(pub(crate) LogTarget);

impl Text for LogPath {
    const FORMAT: &'static str = "attache-log-target";
    const WHAT: &'static str = "`stdout`, `off`, `syslog`, or the path of a file";
    const EXAMPLES: &'static [&'static str] = &["stdout", "off", "syslog", "/var/log/attache/access.log"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(Self(match text {
            "off" => LogTarget::Off,
            "stdout" => LogTarget::Stdout,
            "syslog" => LogTarget::Syslog(crate::model::Syslog {
                to: SyslogTo::Unix("/dev/log".into()),
                facility: crate::model::Facility::default(),
                app: crate::model::Syslog::APP.into(),
            }),
            path if path.contains("://") => {
                return wrong("{} isn't a path", "a syslog server is `to: { syslog: udp://HOST:514 }`");
            }
            path if path.contains('/') => LogTarget::File(LogFile::at(path.into())),
            _ => {
                return wrong(
                    "{} is neither a word known here nor a path",
                    "`stdout`, `off`, `syslog`, or a path such as `./access.log`",
                );
            }
        }))
    }
}

/// Where a syslog server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyslogAddress(pub(crate) SyslogTo);

impl Text for SyslogAddress {
    const FORMAT: &'static str = "attache-syslog";
    const WHAT: &'static str = "where a syslog server listens";
    const EXAMPLES: &'static [&'static str] =
        &["unix:/dev/log", "udp://logs.internal:514", "tcp://logs.internal:601"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains('\0') || path.len() > 103 {
                return wrong("{} has no path of a socket", "such as `unix:/dev/log`");
            }
            return Ok(Self(SyslogTo::Unix(PathBuf::from(path))));
        }
        // Ports: RFC 5426 section 3.3; syslog-conn of the IANA registry.
        let (server, port): (fn(Name) -> SyslogTo, u16) = if text.starts_with("udp://") {
            (SyslogTo::Udp, 514)
        } else if text.starts_with("tcp://") {
            (SyslogTo::Tcp, 601)
        } else {
            return wrong(
                "{} isn't a syslog server",
                "`unix:/dev/log`, `udp://HOST:514` or `tcp://HOST:601`",
            );
        };
        let (host, given) = split_port(text.get(6..).unwrap_or_default())?;
        Ok(Self(server(host_and_port(&host_name(host)?, given.unwrap_or(port)).into())))
    }
}

fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Statuses: one, a class, or from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusRangeText(pub(crate) StatusRange);

impl Text for StatusRangeText {
    const FORMAT: &'static str = "attache-statuses";
    const WHAT: &'static str = "a status, a class of statuses, or a range";
    const EXAMPLES: &'static [&'static str] = &["404", "5xx", "500-504"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let code = |text: &str| text.parse().ok().filter(|code| (100..=599).contains(code));
        let range = match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(class), _) => class
                .parse::<u16>()
                .ok()
                .filter(|class| (1..=5).contains(class))
                .map(|class| (class * 100, class * 100 + 99)),
            (None, Some((from, to))) => code(from).zip(code(to)).filter(|(from, to)| from <= to),
            (None, None) => code(text).map(|code| (code, code)),
        };
        match range {
            Some((from, to)) => Ok(Self(StatusRange { from, to })),
            None => {
                wrong("{} isn't a status", "a number from 100 to 599, a class such as `5xx`, or `500-504`")
            }
        }
    }
}

/// A line of the access log with `%{field}` parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogTemplateText(pub(crate) LogTemplate);

impl Text for LogTemplateText {
    const FORMAT: &'static str = "attache-log-template";
    const WHAT: &'static str = "text with fields of the access log";
    const EXAMPLES: &'static [&'static str] =
        &["%{time} %{status} %{method} %{path}", "%{request.header.user-agent}"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.contains(['\n', '\r']) {
            return wrong("{} has more than one line", "one exchange is one line");
        }
        let parts = template_parts(text, LogPart::Text, |name| field(name).map(LogPart::Field))?;
        Ok(Self(LogTemplate(parts)))
    }
}

fn field(name: &str) -> Result<LogField, Wrong> {
    if let Some(field) = LogField::of(name) {
        return Ok(field);
    }
    for (start, of) in [
        ("request.header.", LogField::RequestHeader as fn(_) -> _),
        ("response.header.", LogField::ResponseHeader as fn(_) -> _),
    ] {
        if let Some(header) = name.strip_prefix(start) {
            return HeaderText::parse(header).map(|header| of(header.0)).map_err(|wrong| Wrong {
                what: wrong.what.replace("{}", &format!("`{header}`")),
                help: wrong.help,
            });
        }
    }
    let known: Vec<&str> = LogField::WORDS
        .iter()
        .map(|(word, _)| *word)
        .chain(["request.header.NAME", "response.header.NAME"])
        .collect();
    let help = match suggest::nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `%{{{near}}}`?"),
        None => format!("one of {}; a `%` itself is `%%`", known.join(", ")),
    };
    wrong(format!("`%{{{name}}}` isn't a field of the access log"), help)
}

/// Where spans are sent; `off` is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Otlp(pub(crate) Option<OtlpUrl>);

/// A collector's URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtlpUrl {
    pub(crate) tls: bool,
    pub(crate) host: Name,
    pub(crate) port: Option<u16>,
    /// Without its final slash.
    pub(crate) path: Name,
}

impl Text for Otlp {
    const FORMAT: &'static str = "attache-otlp";
    const WHAT: &'static str = "the URL of an OpenTelemetry collector, or `off`";
    const EXAMPLES: &'static [&'static str] =
        &["http://collector:4318", "https://collector.internal:4317", "off"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "off" {
            return Ok(Self(None));
        }
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return wrong("{} isn't a URL of http or https", "such as `http://collector:4318`"),
        };
        let (authority, path) =
            rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        if path.contains(['?', '#']) || authority.contains('@') {
            return wrong("{} has a query, a fragment or a user", "keys stand in `headers`");
        }
        let (host, port) = split_port(authority)?;
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Self(Some(OtlpUrl { tls, host: host_name(host)?, port, path: path.into() })))
    }
}

/// A URL of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppUrlText(pub(crate) AppUrl);

impl Text for AppUrlText {
    const FORMAT: &'static str = "attache-app-url";
    const WHAT: &'static str = "a plain http URL of the application, by its IP address or `localhost`";
    const EXAMPLES: &'static [&'static str] =
        &["http://127.0.0.1:8080/status", "http://localhost:8080/metrics"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        let Some(rest) = text.strip_prefix("http://") else {
            return wrong("{} isn't a plain http URL", "such as `http://127.0.0.1:8080/status`");
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (host, port) = split_port(authority)?;
        let address: IpAddr = match host {
            "localhost" => Ipv4Addr::LOCALHOST.into(),
            host => match host.parse() {
                Ok(address) => address,
                Err(_) => {
                    return wrong(
                        format!("`{host}` is no IP address"),
                        "the application runs beside attache: use `localhost` or an IP address",
                    );
                }
            },
        };
        if path.parse::<http::uri::PathAndQuery>().is_err() || path.contains('#') {
            return wrong("{} has a path that can't be asked for", "percent-encode what isn't plain in it");
        }
        let address = SocketAddr::new(address, port.unwrap_or(80));
        Ok(Self(AppUrl { address, authority: authority.into(), path: path.into() }))
    }
}

/// A path on the port of the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppPath(pub(crate) Name);

impl Text for AppPath {
    const FORMAT: &'static str = "attache-metrics-path";
    const WHAT: &'static str = "a path on the port of the metrics";
    const EXAMPLES: &'static [&'static str] = &["/app/health"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if matches!(text, "/" | "/metrics" | "/healthz" | "/readyz") {
            return wrong("{} is attache's own", "another path, such as `/app/health`");
        }
        let right = text.starts_with('/')
            && text.parse::<http::uri::PathAndQuery>().is_ok_and(|path| path.query().is_none())
            && !text.contains('#');
        if right {
            Ok(Self(text.into()))
        } else {
            wrong("{} isn't a path", "such as `/app/health`, without a query")
        }
    }
}

/// A JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonPointer(pub(crate) Name);

impl Text for JsonPointer {
    const FORMAT: &'static str = "attache-json-pointer";
    const WHAT: &'static str = "a JSON pointer (RFC 6901)";
    const EXAMPLES: &'static [&'static str] = &["/status", "/queues/0/depth"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() || text.starts_with('/') {
            Ok(Self(text.into()))
        } else {
            wrong("{} isn't a JSON pointer", format!("`/{}`?", text.replace('.', "/")))
        }
    }
}

/// The name of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetricName(pub(crate) Name);

impl Text for MetricName {
    const FORMAT: &'static str = "attache-metric-name";
    const WHAT: &'static str = "the name of a metric";
    const EXAMPLES: &'static [&'static str] = &["app_queue_depth"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        let right = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !right {
            return wrong("{} isn't a metric's name", "letters, digits and `_`, the first no digit");
        }
        if text.starts_with("attache_") || text.starts_with("process_") {
            return wrong("{} begins like one of attache's own", "such as `app_queue_depth`");
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_template_mixes_text_and_fields() {
        let parsed = LogTemplateText::parse("%{status} 100%% %{request.header.X-Tenant}").unwrap().0.0;
        assert_eq!(
            parsed,
            [
                LogPart::Field(LogField::Status),
                LogPart::Text(" 100% ".into()),
                LogPart::Field(LogField::RequestHeader(http::HeaderName::from_static("x-tenant"))),
            ]
        );
        assert!(LogTemplateText::parse("%{staus}").unwrap_err().help.contains("`%{status}`"));
        assert!(LogTemplateText::parse("%{request.header.a b}").is_err());
        assert!(LogTemplateText::parse("%{status").is_err());
        assert!(LogTemplateText::parse("a\nb").is_err());
    }

    #[test]
    fn statuses_are_one_a_class_or_a_range() {
        let range = |text| StatusRangeText::parse(text).map(|range| (range.0.from, range.0.to)).ok();
        assert_eq!(range("404"), Some((404, 404)));
        assert_eq!(range("5xx"), Some((500, 599)));
        assert_eq!(range("400-403"), Some((400, 403)));
        for bad in ["6xx", "99", "600", "403-400", "x", "-", "5x"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_of_collectors_and_syslog_have_default_ports() {
        let parse = |text| Otlp::parse(text).unwrap().0.unwrap();
        let url = parse("https://[fd00::1]:4317/v1/traces/");
        assert_eq!((url.tls, &*url.host, url.port, &*url.path), (true, "fd00::1", Some(4317), "/v1/traces"));
        assert_eq!((parse("http://c").port, &*parse("http://c").path), (None, ""));
        for bad in ["collector:4317", "ftp://c", "http://u@c", "http://c/?k=v"] {
            assert!(Otlp::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(SyslogAddress::parse("udp://logs").unwrap().0, SyslogTo::Udp("logs:514".into()));
        assert_eq!(SyslogAddress::parse("tcp://[::1]:6").unwrap().0, SyslogTo::Tcp("[::1]:6".into()));
    }

    #[test]
    fn the_application_is_found_without_a_look_up() {
        let url = AppUrlText::parse("http://localhost:8080/a?b=c").unwrap().0;
        assert_eq!((url.address.to_string().as_str(), &*url.path), ("127.0.0.1:8080", "/a?b=c"));
        assert_eq!(&*AppUrlText::parse("http://[::1]").unwrap().0.path, "/");
        for bad in ["https://127.0.0.1", "http://app:80/", "http://127.0.0.1/a b"] {
            assert!(AppUrlText::parse(bad).is_err(), "{bad}");
        }
    }
}
