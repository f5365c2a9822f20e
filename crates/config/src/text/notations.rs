//! Every notation of one text, each declared once: its value, its name in the schema, what it is, examples; and how it is
//! read, how it is shown, which pattern an editor checks, and whether YAML's numbers are such texts, too.
//!
//! `pattern` refuses no text that `read` takes: a property test holds that. It may take what only `read` can judge. Names
//! in braces are [`grammar`](super::grammar)'s. A notation without `show` is one that `build` makes something else of.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method};

use super::{
    Authority, Numbers, OtlpUrl, Rate, Source, Syntax, Text, Unit, Weight, Wrong, access, address, header,
    observe, pattern, retry, show_duration, show_ratio, show_size, show_timeout, source, units, web, words,
};
use crate::{
    model::{
        AddressMatch, AppUrl, Bind, HashKey, HeaderMatch, HedgeAfter, HostPattern, HostRewrite,
        IdentityMatch, LimitKey, LogTarget, LogTemplate, MediaTypes, Name, OriginPattern, PathPattern,
        RetryOn, SanPattern, StatusRange, SyslogTo, Template, TokenPlace, ValuePattern,
    },
    shown::{HIDDEN, without_query},
};

macro_rules! notations {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $value:ty = $format:literal, $what:literal, [$($example:literal),*] {
            read: $read:expr $(, show: $show:expr)? $(, pattern: $pattern:literal)? $(, numbers: $numbers:expr)?
        }
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug)]
            pub(crate) struct $name;

            impl Text for $name {
                type Value = $value;

                const SYNTAX: Syntax = Syntax {
                    format: $format,
                    what: $what,
                    examples: &[$($example),*],
                    pattern: concat!($($pattern)?),
                    numbers: [$($numbers,)? Numbers::None][0],
                    check: |text| Self::parse(text).map(drop),
                };

                fn parse(text: &str) -> Result<$value, Wrong> {
                    $read(text)
                }
            }

            $(impl Unit for $name {
                fn show(value: &$value) -> String {
                    let show: fn(&$value) -> String = $show;
                    show(value)
                }
            })?
        )+

        /// All of them.
        pub(crate) static ALL: &[Syntax] = &[$($name::SYNTAX),+];
    };
}

notations! {
    /// A duration.
    Length: Duration = "attache-duration", "a duration", ["250ms", "1m30s"] {
        read: units::duration, show: |time| show_duration(*time),
        pattern: "0|{DURATION}", numbers: Numbers::From(0, 0)
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
        pattern: "0|off|{DURATION}", numbers: Numbers::From(0, 0)
    }

    /// A number of bytes.
    Size: usize = "attache-size", "a size", ["64KiB", "1MB"] {
        read: |text| units::size(text, 0, 1 << 30), show: |bytes| show_size(*bytes as u64),
        pattern: "{SIZE}", numbers: Numbers::From(0, 1 << 30)
    }

    /// Bytes of a message head: below 8 KiB HTTP parsers have no room to read into.
    HeadSize: usize = "attache-head-size", "a size from 8KiB to 16MiB", ["64KiB"] {
        read: |text| units::size(text, 8 << 10, 16 << 20), show: |bytes| show_size(*bytes as u64),
        pattern: "{HEAD_SIZE}", numbers: Numbers::From(8 << 10, 16 << 20)
    }

    /// An HTTP/2 window (RFC 9113 section 6.9): at least the 65,535 bytes every connection begins with.
    WindowSize: u32 = "attache-window-size", "a size from 65535 to 2147483647 bytes", ["256KiB"] {
        read: units::window_size, show: |bytes| show_size((*bytes).into()),
        pattern: "{WINDOW_SIZE}", numbers: Numbers::From(65_535, (1 << 31) - 1)
    }

    /// A share, 0 to 1.
    Ratio: f64 = "attache-ratio", "a ratio", ["20%", "0.2"] {
        read: units::ratio, show: |ratio| show_ratio(*ratio),
        pattern: r"{PERCENT}|0*(1(\.0*)?|0(\.[0-9]*)?|\.[0-9]+)", numbers: Numbers::From(0, 1)
    }

    /// A weight in a split.
    WeightText: Weight = "attache-weight", "a percentage or a weight", ["95%", "3"] {
        read: units::weight,
        pattern: r"{PERCENT}|\+?0*([0-9]{1,6}|1000000)", numbers: Numbers::From(0, 1_000_000)
    }

    /// Requests in a time.
    RateText: Rate = "attache-rate", "a rate", ["100/s", "5000/m"] {
        read: units::rate, pattern: r"\+?0*[1-9][0-9]{0,9}/[smh]"
    }

    /// Sockets to listen on; `localhost` are two.
    Binds: Vec<Bind> = "attache-bind", "an address to listen on", [
        "127.0.0.1:15001", "localhost:15001", "[::1]:15001", ":15006", "unix:/run/attache.sock"
    ] {
        read: address::binds, pattern: "{SOCKET}|unix:{UNIX_PATH}"
    }

    /// One address, or `off`.
    MetricsAddress: Option<SocketAddr> = "attache-address-or-off", "an address to listen on, or `off`", [
        "[::]:15090", "off"
    ] {
        read: address::metrics, pattern: "off|{SOCKET}"
    }

    /// One loopback address, a Unix socket, or `off`.
    AdminAddress: Option<Bind> = "attache-loopback-address-or-off",
        "a loopback address to listen on, a Unix socket, or `off`", [
        "127.0.0.1:15000", "unix:/run/attache-admin.sock", "off"
    ] {
        read: address::admin,
        pattern: r"off|unix:{UNIX_PATH}|(localhost|127(\.{OCTET}){3}|\[[0:.]*1\])?:{PORT}"
    }

    /// A DNS server; its port is 53 unless given.
    DnsServer: SocketAddr = "attache-dns-server", "the IP address of a DNS server", [
        "10.96.0.10", "127.0.0.1:5353"
    ] {
        read: address::dns_server, show: ToString::to_string,
        pattern: r"{IPV6}|({IPV4}|\[{IPV6}\])(:{PORT})?"
    }

    /// A local IP address.
    SourceAddress: IpAddr = "attache-ip", "an IP address", ["10.0.0.7"] {
        read: address::ip, show: ToString::to_string, pattern: "{IPV4}|{IPV6}"
    }

    /// Ranges of destinations; a port alone is two ranges, one for each family.
    AddressRange: Vec<AddressMatch> = "attache-address-range", "an address, a network or a port", [
        "10.0.0.0/8", "10.1.2.3:5432", ":5432", "[fd00::/8]:443"
    ] {
        read: address::ranges,
        pattern: r"{NETWORK}|({NETWORK_V4}|\*?|\[{NETWORK}\](/{PREFIX})?):\+?{PORT_ABOVE_0}"
    }

    /// A network or an address, without a port.
    Network: AddressMatch = "attache-network", "a network or an address", [
        "10.0.0.0/8", "10.1.2.3", "fd00::/8"
    ] {
        read: access::network, show: ToString::to_string, pattern: "{NETWORK}"
    }

    /// The address of an upstream.
    SourceText: Source = "attache-upstream-address", "an address", [
        "https://orders.internal:8443", "http://127.0.0.1:8080", "h2c://grpc.internal:50051",
        "tcp://db.internal:5432", "tls://db.internal:5432", "unix:/run/app.sock",
        "srv://_postgres._tcp.db.internal", "srv+https://_orders._tcp.internal",
        "kubernetes://orders.shop:http", "kubernetes+h2c://orders.shop:8080",
        "authority", "original-destination"
    ] {
        read: source::source,
        pattern: r"authority|original-destination|(https?|h2c)://{HOST}(:{PORT_ABOVE_0})?/?|(tcp|tls)://{HOST}:{PORT_ABOVE_0}/?|unix{SPOKEN}:{UNIX_PATH}|srv{SPOKEN}:(//)?_{LABEL}\._{LABEL}(\.|(\.{LABEL})+\.?)|kubernetes{SPOKEN}:(//)?{DNS_LABEL}\.{DNS_LABEL}(\.svc(\.cluster\.local)?)?\.?:(\+?{PORT_ABOVE_0}|{DNS_LABEL})/?"
    }

    /// A host name or IP address.
    Host: Name = "attache-host", "a host name", ["orders.internal"] {
        read: words::host, show: ToString::to_string, pattern: "{NAME}|{IPV4}|{IPV6}"
    }

    /// A host with or without a port, as in a Host header.
    HostAndPort: Name = "attache-host-port", "a host, with or without a port", [
        "orders.internal", "orders.internal:8443"
    ] {
        read: words::host_and_port, show: ToString::to_string, pattern: "{HOST}(:{PORT})?"
    }

    /// What becomes of the Host header.
    RewriteHost: HostRewrite = "attache-host-rewrite", "`preserve`, `upstream` or a host", [
        "preserve", "upstream", "orders.internal"
    ] {
        read: words::host_rewrite, pattern: "preserve|keep|upstream|{HOST}(:{PORT})?"
    }

    /// A host to match.
    HostText: HostPattern = "attache-host-pattern", "a host", [
        "orders.internal", "*.internal", "orders.*", "orders.internal:8443", "*"
    ] {
        read: pattern::host, show: ToString::to_string,
        pattern: r"(\*|(\*\.)?({NAME}|{IPV4})|({NAME}|{IPV4})\.\*|\[{IPV6}\])(:{PORT_ABOVE_0})?"
    }

    /// A path to match.
    PathText: PathPattern = "attache-path-pattern", "a path", [
        "/v1/*", "/health", "/users/{id}", "/files/{rest...}", "~/v[0-9]+/.*"
    ] {
        read: pattern::path, show: ToString::to_string,
        pattern: r"\*|~{ANY}|(/{PATH_CHARACTER}*)*/\*|(/({PATH_CHARACTER}*|\{[A-Za-z_][0-9A-Za-z_]*(\.\.\.)?\}))+"
    }

    /// A path that is written into a request, with `{capture}` parts.
    PathValue: Name = "attache-path", "a path", ["/v2", "/customers/{id}"] {
        read: words::path, show: ToString::to_string,
        pattern: r"(/|\{({PATH_CHARACTER}|[/*])+\})(([/*]|{PATH_CHARACTER})|\{({PATH_CHARACTER}|[/*])+\})*"
    }

    /// What a header or query parameter must be, and whether that is inverted.
    ValueText: (ValuePattern, bool) = "attache-value-pattern", "a value", [
        "v1", "*", "beta-*", "*-canary", "~v[0-9]+", "!v1", "=*literally*"
    ] {
        read: pattern::value, show: |(value, not)| format!("{}{value}", if *not { "!" } else { "" }),
        pattern: r"!?(={ANY}|~{ANY}|\*?[^*]*|[^*]*\*)", numbers: Numbers::Any
    }

    /// A subject alternative name to match.
    SanText: SanPattern = "attache-san-pattern", "an identity", [
        "spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/*/sa/web", "dns:web.shop.svc",
        "*.shop.svc", "subject:CN=web,O=Shop"
    ] {
        read: pattern::san,
        show: |san| match san {
            SanPattern::Dns(name) => format!("dns:{name}"),
            SanPattern::Uri(_) | SanPattern::Subject(_) => san.to_string(),
        },
        pattern: "{IDENTITY}"
    }

    /// An identity, or `*` for any that was proven.
    IdentityText: IdentityMatch = "attache-identity-pattern", "an identity, or `*` for any that was proven", [
        "spiffe://cluster.local/ns/shop/**", "*.shop.svc", "*"
    ] {
        read: access::identity,
        show: |identity| match identity {
            IdentityMatch::Verified => "*".to_owned(),
            IdentityMatch::Name(name) => SanText::show(name),
        },
        pattern: r"\*|{IDENTITY}"
    }

    /// A header's name.
    HeaderText: HeaderName = "attache-header-name", "a header name", ["x-tenant"] {
        read: header::name, show: ToString::to_string, pattern: "{TOKEN}"
    }

    /// A header's name, or the begin of one.
    HeaderMatchText: HeaderMatch = "attache-header-names", "a header name, the begin of some, or `*` for all", [
        "x-tenant", "x-auth-*", "*"
    ] {
        read: header::names,
        show: |name| match name {
            HeaderMatch::Exact(name) => name.to_string(),
            HeaderMatch::Prefix(prefix) => format!("{prefix}*"),
        },
        pattern: "{TOKEN}"
    }

    /// A header's value with `%{variable}` parts.
    TemplateText: Template = "attache-template", "a header value", ["from %{client.address}", "v1"] {
        read: header::template, show: ToString::to_string,
        pattern: r"([^%{CONTROL}]|%%|%[^%{{CONTROL}]|%\{{VARIABLE}\})*%?", numbers: Numbers::Any
    }

    /// A content type.
    MediaType: HeaderValue = "attache-content-type", "a content type", ["application/json"] {
        read: header::media_type, show: |media| media.to_str().unwrap_or_default().to_owned(),
        pattern: r"[^{CONTROL}]*/[^{CONTROL}]*"
    }

    /// A request method.
    MethodText: Method = "attache-method", "a method", ["GET", "POST"] {
        read: header::method, show: ToString::to_string, pattern: "{METHOD}"
    }

    /// A method, or `*` for all.
    MethodOrAll: Option<Method> = "attache-method-or-all", "a method, or `*` for all", ["GET", "PUT", "*"] {
        read: web::method_or_all, pattern: "{METHOD}"
    }

    /// Origins of pages.
    OriginText: OriginPattern = "attache-origin", "an origin", [
        "https://shop.test", "http://localhost:3000", "https://*.shop.test",
        "~https://pr-[0-9]+\\.shop\\.test", "*"
    ] {
        read: web::origin,
        pattern: r"\*|null|~{ANY}|[a-z][a-z0-9+.-]*://((\*\.)?[0-9a-z._-]+|\[[^A-Z]*\])(:\+?{PORT})?"
    }

    /// Media types.
    MediaTypesText: MediaTypes = "attache-media-types", "a media type, or the begin or the end of some", [
        "application/json", "text/*", "*+json"
    ] {
        read: web::media_types, show: ToString::to_string,
        pattern: r"{MEDIA}+/\*|\*\+{MEDIA}+|{MEDIA}+/({MEDIA}|/)+"
    }

    /// `*`.
    Star: () = "attache-star", "`*`", ["*"] {
        read: web::star, pattern: r"\*"
    }

    /// A condition for another attempt.
    Condition: RetryOn = "attache-retry-on", "a condition", [
        "connect-failure", "503", "header:x-retry", "grpc:unavailable"
    ] {
        read: retry::condition, show: ToString::to_string,
        pattern: r"{RETRY_WORD}|\+?0*[45][0-9]{2}|header:{TOKEN}|grpc:({GRPC_STATUS}|\+?0*([1-9]|1[0-6]))",
        numbers: Numbers::From(400, 599)
    }

    /// When another attempt is sent beside a slow one; `None` is never.
    HedgeWhen: Option<HedgeAfter> = "attache-hedge", "a percentile, a duration, or `off`", [
        "p95", "50ms", "off"
    ] {
        read: retry::hedge, pattern: r"off|p0*[5-9][0-9](\.[0-9]*)?|{POSITIVE}"
    }

    /// What a consistent hash is taken over.
    Hash: HashKey = "attache-hash-key", "what is hashed", [
        "header:x-user", "cookie:session", "source", "path"
    ] {
        read: words::hash_key,
        show: |key| match key {
            HashKey::Header(name) => format!("header:{name}"),
            HashKey::Cookie(name) => format!("cookie:{name}"),
            HashKey::Source => "source".to_owned(),
            HashKey::Path => "path".to_owned(),
        },
        pattern: r"source|path|header:{TOKEN}|cookie:[!#-+\--:<>-~]+"
    }

    /// What a rate limit counts by.
    LimitBy: LimitKey = "attache-limit-key", "what is counted by", [
        "route", "client", "identity", "header:x-tenant"
    ] {
        read: words::limit_key,
        show: |key| match key {
            LimitKey::Route => "route".to_owned(),
            LimitKey::Client => "client".to_owned(),
            LimitKey::Identity => "identity".to_owned(),
            LimitKey::Header(name) => format!("header:{name}"),
        },
        pattern: "route|client|identity|header:{TOKEN}"
    }

    /// Where a token stands.
    TokenFrom: TokenPlace = "attache-token-place", "where a token stands", [
        "header:authorization", "header:x-jwt", "cookie:session", "query:access_token"
    ] {
        read: access::token_place,
        show: |place| match place {
            TokenPlace::Header(name, _) => format!("header:{name}"),
            TokenPlace::Cookie(name) => format!("cookie:{name}"),
            TokenPlace::Query(name) => format!("query:{name}"),
        },
        pattern: "header:{TOKEN}|(cookie|query):[0-9A-Za-z_.-]+"
    }

    /// Statuses: one, a class, or from one to another.
    StatusRangeText: StatusRange = "attache-statuses", "a status, a class of statuses, or a range", [
        "404", "5xx", "500-504"
    ] {
        read: observe::statuses, show: ToString::to_string,
        pattern: r"\+?0*[1-5](xx|[0-9]{2}(-\+?0*[1-5][0-9]{2})?)", numbers: Numbers::From(100, 599)
    }

    /// Where the access log goes.
    LogPath: LogTarget = "attache-log-target", "`stdout`, `off`, `syslog`, or the path of a file", [
        "stdout", "off", "syslog", "/var/log/attache/access.log"
    ] {
        read: observe::log_target, pattern: r"off|stdout|syslog|[^:]*/{ANY}|[^/]*:/?([^/]{ANY})?"
    }

    /// Where a syslog server listens.
    SyslogAddress: SyslogTo = "attache-syslog", "where a syslog server listens", [
        "unix:/dev/log", "udp://logs.internal:514", "tcp://logs.internal:601"
    ] {
        read: observe::syslog, show: ToString::to_string,
        pattern: r"unix:[^\x00]{1,105}|(udp|tcp)://{HOST}(:{PORT})?"
    }

    /// A line of the access log with `%{field}` parts.
    LogTemplateText: LogTemplate = "attache-log-template", "text with fields of the access log", [
        "%{time} %{status} %{method} %{path}", "%{request.header.user-agent}"
    ] {
        read: observe::log_template, show: ToString::to_string,
        pattern: r"([^%\n\r]|%%|%[^%{\n\r]|%\{{LOG_FIELD}\})*%?", numbers: Numbers::Any
    }

    /// Where telemetry is sent; `off` is nowhere.
    Otlp: Option<OtlpUrl> = "attache-otlp", "the URL of an OpenTelemetry collector, or `off`", [
        "http://collector:4318", "https://collector.internal:4317", "off"
    ] {
        read: observe::otlp, pattern: r"off|https?://{HOST}(:{PORT})?(/[^?#]*)?"
    }

    /// A URL of the application.
    AppUrlText: AppUrl = "attache-app-url",
        "a plain http URL of the application, by its IP address or `localhost`", [
        "http://127.0.0.1:8080/status", "http://localhost:8080/metrics"
    ] {
        read: observe::app_url, show: |url| format!("http://{}{}", url.authority, without_query(&url.path)),
        pattern: r"http://(localhost|{IPV4}|\[{IPV6}\])(:{PORT})?(/[^#\s]*)?"
    }

    /// A path on the port of the metrics.
    AppPath: Name = "attache-metrics-path", "a path on the port of the metrics", ["/app/health"] {
        read: observe::app_path, show: ToString::to_string, pattern: r"/[^?#\s]+"
    }

    /// A JSON pointer (RFC 6901).
    JsonPointer: Name = "attache-json-pointer", "a JSON pointer (RFC 6901)", ["/status", "/queues/0/depth"] {
        read: observe::json_pointer, show: ToString::to_string, pattern: "(/{ANY})?"
    }

    /// The name of a metric.
    MetricName: Name = "attache-metric-name", "the name of a metric", ["app_queue_depth"] {
        read: observe::metric_name, show: ToString::to_string, pattern: "[A-Za-z_][A-Za-z0-9_]*"
    }

    /// The scheme of a redirect.
    RedirectScheme: Name = "attache-redirect-scheme", "`http` or `https`", ["https"] {
        read: words::redirect_scheme, show: ToString::to_string, pattern: "https?"
    }

    /// The name of a listener, route or upstream; it becomes a label.
    Label: Name = "attache-name", "a name", ["orders"] {
        read: words::label, show: ToString::to_string,
        pattern: "[0-9A-Za-z][0-9A-Za-z_./-]{0,99}", numbers: Numbers::Any
    }

    /// Any text that isn't empty.
    Word: Name = "attache-text", "a text", [] {
        read: words::word, show: ToString::to_string, pattern: "{ANY_CHARACTER}+", numbers: Numbers::Any
    }

    /// A user of HTTP's Basic scheme.
    UserName: Name = "attache-user", "a user", ["shop"] {
        read: words::user, show: ToString::to_string,
        pattern: r"[^:\x00-\x1f\x7f]+", numbers: Numbers::Any
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

    /// Who is believed: a file, or one of two words.
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
        // What is sent may be a password (Redis' AUTH).
        read: words::octets, show: |bytes| format!("{HIDDEN} {} bytes", bytes.len()),
        pattern: "hex:(:*[0-9A-Fa-f]:*[0-9A-Fa-f])+:*|h|he|hex|([^h]|h[^e]|he[^x]|hex[^:]){ANY}",
        numbers: Numbers::Any
    }

    /// Mode of a Unix socket, octal.
    SocketMode: u32 = "attache-file-mode", "an octal file mode", ["0660"] {
        read: words::socket_mode, pattern: r"(0o)?\+?0*[0-7]{1,3}", numbers: Numbers::From(0, 0o777)
    }
}
