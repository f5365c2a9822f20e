//! Templates of the access log, and where logs, traces and metrics come from and go to.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    NotationError,
    address::{host_name, split_port},
    header::{name_in, template_parts},
    wrong,
};
use crate::{
    model::{
        AppUrl, LogField, LogFile, LogPart, LogTarget, LogTemplate, Name, StatusRange, Syslog, SyslogTo,
    },
    suggest,
};

pub(super) fn log_target(text: &str) -> Result<LogTarget, NotationError> {
    Ok(match text {
        "off" => LogTarget::Off,
        "stdout" => LogTarget::Stdout,
        "syslog" => LogTarget::Syslog(Syslog::default()),
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
    })
}

pub(super) fn syslog(text: &str) -> Result<SyslogTo, NotationError> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains('\0') || path.len() > 103 {
            return wrong("{} has no path of a socket", "such as `unix:/dev/log`");
        }
        return Ok(SyslogTo::Unix(PathBuf::from(path)));
    }
    // Ports: RFC 5426 section 3.3; syslog-conn of the IANA registry.
    let (server, port): (fn(Name) -> SyslogTo, u16) = if text.starts_with("udp://") {
        (SyslogTo::Udp, 514)
    } else if text.starts_with("tcp://") {
        (SyslogTo::Tcp, 601)
    } else {
        return wrong("{} isn't a syslog server", "`unix:/dev/log`, `udp://HOST:514` or `tcp://HOST:601`");
    };
    let (host, given) = split_port(text.get(6..).unwrap_or_default())?;
    Ok(server(host_and_port(&host_name(host)?, given.unwrap_or(port)).into()))
}

fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(super) fn statuses(text: &str) -> Result<StatusRange, NotationError> {
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
        Some((from, to)) => Ok(StatusRange { from, to }),
        None => wrong("{} isn't a status", "a number from 100 to 599, a class such as `5xx`, or `500-504`"),
    }
}

pub(super) fn log_template(text: &str) -> Result<LogTemplate, NotationError> {
    if text.contains(['\n', '\r']) {
        return wrong("{} has more than one line", "each request is logged as one line");
    }
    let parts = template_parts(text, LogPart::Text, |name| field(name).map(LogPart::Field))?;
    Ok(LogTemplate(parts))
}

fn field(name: &str) -> Result<LogField, NotationError> {
    if let Some(field) = LogField::of(name) {
        return Ok(field);
    }
    for (start, of) in [
        ("request.header.", LogField::RequestHeader as fn(_) -> _),
        ("response.header.", LogField::ResponseHeader as fn(_) -> _),
    ] {
        if let Some(header) = name.strip_prefix(start) {
            return name_in(header).map(of);
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

/// A collector's URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtlpUrl {
    pub(crate) tls: bool,
    pub(crate) host: Name,
    pub(crate) port: Option<u16>,
    /// Without its final slash.
    pub(crate) path: Name,
}

pub(super) fn otlp(text: &str) -> Result<Option<OtlpUrl>, NotationError> {
    if text == "off" {
        return Ok(None);
    }
    let (tls, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => return wrong("{} isn't a URL of http or https", "such as `http://collector:4318`"),
    };
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    if path.contains(['?', '#']) || authority.contains('@') {
        return wrong("{} has a query, a fragment or a user", "put keys into `headers`");
    }
    let (host, port) = split_port(authority)?;
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    Ok(Some(OtlpUrl { tls, host: host_name(host)?, port, path: path.into() }))
}

pub(super) fn app_url(text: &str) -> Result<AppUrl, NotationError> {
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
                    format!("`{host}` isn't an IP address"),
                    "the application runs beside attache: use `localhost` or an IP address",
                );
            }
        },
    };
    if path.parse::<http::uri::PathAndQuery>().is_err() || path.contains('#') {
        return wrong(
            "{} has a path that isn't valid in a URL",
            "percent-encode spaces and special characters, such as `%20` for a space",
        );
    }
    let address = SocketAddr::new(address, port.unwrap_or(80));
    Ok(AppUrl { address, authority: authority.into(), path: path.into() })
}

pub(super) fn app_path(text: &str) -> Result<Name, NotationError> {
    if matches!(text, "/" | "/metrics" | "/healthz" | "/readyz") {
        return wrong("{} is attache's own", "another path, such as `/app/health`");
    }
    let right = text.starts_with('/')
        && text.parse::<http::uri::PathAndQuery>().is_ok_and(|path| path.query().is_none())
        && !text.contains('#');
    if right { Ok(text.into()) } else { wrong("{} isn't a path", "such as `/app/health`, without a query") }
}

pub(super) fn json_pointer(text: &str) -> Result<Name, NotationError> {
    if text.is_empty() || text.starts_with('/') {
        Ok(text.into())
    } else {
        wrong("{} isn't a JSON pointer", format!("`/{}`?", text.replace('.', "/")))
    }
}

pub(super) fn metric_name(text: &str) -> Result<Name, NotationError> {
    let right = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !right {
        return wrong("{} isn't a metric's name", "letters, digits and `_`, the first no digit");
    }
    if text.starts_with("attache_") || text.starts_with("process_") {
        return wrong("{} begins like one of attache's own", "such as `app_queue_depth`");
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_template_mixes_text_and_fields() {
        let parsed = log_template("%{status} 100%% %{request.header.X-Tenant}").unwrap().0;
        assert_eq!(
            parsed,
            [
                LogPart::Field(LogField::Status),
                LogPart::Text(" 100% ".into()),
                LogPart::Field(LogField::RequestHeader(http::HeaderName::from_static("x-tenant"))),
            ]
        );
        assert!(log_template("%{staus}").unwrap_err().help.contains("`%{status}`"));
        assert!(log_template("%{request.header.a b}").is_err());
        assert!(log_template("%{status").is_err());
        assert!(log_template("a\nb").is_err());
    }

    #[test]
    fn statuses_are_one_a_class_or_a_range() {
        let range = |text| statuses(text).map(|range| (range.from, range.to)).ok();
        assert_eq!(range("404"), Some((404, 404)));
        assert_eq!(range("5xx"), Some((500, 599)));
        assert_eq!(range("400-403"), Some((400, 403)));
        for bad in ["6xx", "99", "600", "403-400", "x", "-", "5x"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_of_collectors_and_syslog_have_default_ports() {
        let parse = |text| otlp(text).unwrap().unwrap();
        let url = parse("https://[fd00::1]:4317/v1/traces/");
        assert_eq!((url.tls, &*url.host, url.port, &*url.path), (true, "fd00::1", Some(4317), "/v1/traces"));
        assert_eq!((parse("http://c").port, &*parse("http://c").path), (None, ""));
        for bad in ["collector:4317", "ftp://c", "http://u@c", "http://c/?k=v"] {
            assert!(otlp(bad).is_err(), "{bad}");
        }
        assert_eq!(syslog("udp://logs").unwrap(), SyslogTo::Udp("logs:514".into()));
        assert_eq!(syslog("tcp://[::1]:6").unwrap(), SyslogTo::Tcp("[::1]:6".into()));
    }

    #[test]
    fn the_application_is_found_without_a_look_up() {
        let url = app_url("http://localhost:8080/a?b=c").unwrap();
        assert_eq!((url.address.to_string().as_str(), &*url.path), ("127.0.0.1:8080", "/a?b=c"));
        assert_eq!(&*app_url("http://[::1]").unwrap().path, "/");
        for bad in ["https://127.0.0.1", "http://app:80/", "http://127.0.0.1/a b"] {
            assert!(app_url(bad).is_err(), "{bad}");
        }
    }
}
