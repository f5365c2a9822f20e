//! Notations of amounts, names, files and secrets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    model::{HedgeAfter, LogTarget, LogTemplate, Name},
    redaction::HIDDEN,
    text::{
        Authority, NotationError, NumberTexts, RequestRate, SplitWeight, Syntax, TextNotation, Unit, observe,
        retry, show_duration, show_ratio, show_size, show_timeout, units, web, words,
    },
};

notations! {
    /// A duration.
    Length: Duration = "attache-duration", "a duration", ["250ms", "1m30s"] {
        read: units::duration, show: |time| show_duration(*time),
        pattern: "0|{DURATION}", numbers: NumberTexts::From(0, 0)
    }

    /// A duration that isn't zero.
    Positive: Duration = "attache-positive-duration", "a duration above zero", ["250ms", "1m30s"] {
        read: units::positive, show: |time| show_duration(*time), pattern: "{POSITIVE}"
    }

    /// A duration that is long enough to be divided into steps.
    Window: Duration = "attache-window", "a duration of at least 10 ms", ["10s"] {
        read: units::window, show: |time| show_duration(*time), pattern: "{POSITIVE}"
    }

    /// A duration, or `off`; zero is off.
    Timeout: Duration = "attache-duration-or-off", "a duration or `off`", ["2s", "off"] {
        read: units::timeout, show: |time| show_timeout(*time),
        pattern: "0|off|{DURATION}", numbers: NumberTexts::From(0, 0)
    }

    /// A number of bytes.
    Size: usize = "attache-size", "a size", ["64KiB", "1MB"] {
        read: |text| units::size(text, 0, 1 << 30), show: |bytes| show_size(*bytes as u64),
        pattern: "{SIZE}", numbers: NumberTexts::From(0, 1 << 30)
    }

    /// Bytes of a message head: below 8 KiB HTTP parsers have no room to read into.
    HeadSize: usize = "attache-head-size", "a size from 8KiB to 16MiB", ["64KiB"] {
        read: |text| units::size(text, 8 << 10, 16 << 20), show: |bytes| show_size(*bytes as u64),
        pattern: "{HEAD_SIZE}", numbers: NumberTexts::From(8 << 10, 16 << 20)
    }

    /// An HTTP/2 window (RFC 9113 section 6.9): at least the 65,535 bytes every connection begins with.
    WindowSize: u32 = "attache-window-size", "a size from 65535 to 2147483647 bytes", ["256KiB"] {
        read: units::window_size, show: |bytes| show_size((*bytes).into()),
        pattern: "{WINDOW_SIZE}", numbers: NumberTexts::From(65_535, (1 << 31) - 1)
    }

    /// A share, 0 to 1.
    Ratio: f64 = "attache-ratio", "a ratio", ["20%", "0.2"] {
        read: units::ratio, show: |ratio| show_ratio(*ratio),
        pattern: r"{PERCENT}|0*(1(\.0*)?|0(\.[0-9]*)?|\.[0-9]+)", numbers: NumberTexts::From(0, 1)
    }

    /// A weight in a split.
    WeightText: SplitWeight = "attache-weight", "a percentage or a weight", ["95%", "3"] {
        read: units::weight,
        pattern: r"{PERCENT}|\+?0*([0-9]{1,6}|1000000)", numbers: NumberTexts::From(0, 1_000_000)
    }

    /// Requests in a time.
    RateText: RequestRate = "attache-rate", "a rate", ["100/s", "5000/m"] {
        read: units::rate, pattern: r"\+?0*[1-9][0-9]{0,9}/[smh]"
    }

    /// `*`.
    Star: () = "attache-star", "`*`", ["*"] {
        read: web::star, pattern: r"\*"
    }

    /// When another attempt is sent beside a slow one; `None` is never.
    HedgeWhen: Option<HedgeAfter> = "attache-hedge", "a percentile, a duration, or `off`", [
        "p95", "50ms", "off"
    ] {
        read: retry::hedge, pattern: r"off|p0*[5-9][0-9](\.[0-9]*)?|{POSITIVE}"
    }

    /// Where the access log goes.
    LogPath: LogTarget = "attache-log-target", "`stdout`, `off`, `syslog`, or the path of a file", [
        "stdout", "off", "syslog", "/var/log/attache/access.log"
    ] {
        read: observe::log_target, pattern: r"off|stdout|syslog|[^:]*/{ANY}|[^/]*:/?([^/]{ANY})?"
    }

    /// A line of the access log with `%{field}` parts.
    LogTemplateText: LogTemplate = "attache-log-template", "text with fields of the access log", [
        "%{time} %{status} %{method} %{path}", "%{request.header.user-agent}"
    ] {
        read: observe::log_template, show: ToString::to_string,
        pattern: r"([^%\n\r]|%%|%[^%{\n\r]|%\{{LOG_FIELD}\})*%?", numbers: NumberTexts::Any
    }

    /// A JSON pointer (RFC 6901).
    JsonPointer: Name = "attache-json-pointer", "a JSON pointer (RFC 6901)", ["/status", "/queues/0/depth"] {
        read: observe::json_pointer, show: ToString::to_string, pattern: "(/{ANY})?"
    }

    /// The name of a metric.
    MetricName: Name = "attache-metric-name", "the name of a metric", ["app_queue_depth"] {
        read: observe::metric_name, show: ToString::to_string, pattern: "[A-Za-z_][A-Za-z0-9_]*"
    }

    /// The name of a listener, route or upstream; it becomes a label.
    Label: Name = "attache-name", "a name", ["orders"] {
        read: words::label, show: ToString::to_string,
        pattern: "[0-9A-Za-z][0-9A-Za-z_./-]{0,99}", numbers: NumberTexts::Any
    }

    /// Any text that isn't empty.
    Word: Name = "attache-text", "a text", [] {
        read: words::word, show: ToString::to_string, pattern: "{ANY_CHARACTER}+", numbers: NumberTexts::Any
    }

    /// A user of HTTP's Basic scheme.
    UserName: Name = "attache-user", "a user", ["shop"] {
        read: words::user, show: ToString::to_string,
        pattern: r"[^:\x00-\x1f\x7f]+", numbers: NumberTexts::Any
    }

    /// A secret that others are derived from.
    SecretText: Name = "attache-secret", "a secret of 32 characters or more", [] {
        read: words::secret, show: |_| HIDDEN.to_owned(),
        pattern: r"{ANY_CHARACTER}{32,}|{ANY}[^\x00-\x7f]{ANY}"
    }

    /// A path of a file.
    File: PathBuf = "attache-file", "a file", ["/certs/tls.crt"] {
        read: words::file, show: |path| path.display().to_string(), pattern: r"[^\x00]+"
    }

    /// Trusted authorities: a file, or one of two words.
    AuthorityText: Authority = "attache-ca", "a file, `system` or `spiffe`", [
        "/certs/ca.crt", "system", "spiffe"
    ] {
        read: words::authority, pattern: r"[^\x00]+"
    }

    /// PEM text.
    Pem: Name = "attache-pem", "PEM text", ["-----BEGIN CERTIFICATE-----"] {
        read: words::pem, pattern: "{ANY}-----BEGIN CERTIFICATE-----{ANY}"
    }

    /// SHA-256 of a SubjectPublicKeyInfo: 64 hexadecimal digits, or `sha256/` and base64 as curl and HPKP write it.
    Pin: [u8; 32] = "attache-spki-pin", "the SHA-256 of a public key", [
        "sha256/r/mIkG3eEpVdm+u/ko/cwxzOMo1bk4TyHIlByibiA5E="
    ] {
        // The hash of a public key: nothing to hide.
        read: words::pin, show: |pin| pin.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")),
        pattern: "sha256/+[0-9A-Za-z+/]{42,44}=*|(:*[0-9A-Fa-f]){64}:*"
    }

    /// Bytes to send or to expect: plain text, or `hex:` and digits.
    Octets: Arc<[u8]> = "attache-bytes", "text, or bytes as `hex:` and hexadecimal digits", [
        "\"PING\\r\\n\"", "hex:50494e470d0a"
    ] {
        // The bytes that are sent may be a password (Redis' AUTH).
        read: words::octets, show: |bytes| format!("{HIDDEN} {} bytes", bytes.len()),
        pattern: "hex:(:*[0-9A-Fa-f]:*[0-9A-Fa-f])+:*|h|he|hex|([^h]|h[^e]|he[^x]|hex[^:]){ANY}",
        numbers: NumberTexts::Any
    }

    /// Mode of a Unix socket, octal.
    SocketMode: u32 = "attache-file-mode", "an octal file mode", ["0660"] {
        read: words::socket_mode, pattern: r"(0o)?\+?0*[0-7]{1,3}",
        // `0660` is 432 for an editor that reads YAML 1.1, and 660 for one of YAML 1.2.
        numbers: NumberTexts::From(0, 777)
    }
}
