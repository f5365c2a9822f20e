//! Notations of addresses: where attache listens, and what it calls.

use std::net::IpAddr;
use std::net::SocketAddr;

use crate::{
    model::{AddressMatch, AppUrl, Bind, HostPattern, HostRewrite, Name, OriginPattern, SyslogTo},
    redaction::without_query,
    text::{
        NotationError, NumberTexts, OtlpUrl, Syntax, TextNotation, Unit, UpstreamAddress, access, address,
        observe, pattern, source, web, words,
    },
};

notations! {
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
    SourceText: UpstreamAddress = "attache-upstream-address", "an address", [
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

    /// The Host header that the upstream gets.
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

    /// Where a syslog server listens.
    SyslogAddress: SyslogTo = "attache-syslog", "where a syslog server listens", [
        "unix:/dev/log", "udp://logs.internal:514", "tcp://logs.internal:601"
    ] {
        read: observe::syslog, show: ToString::to_string,
        pattern: r"unix:[^\x00]{1,105}|(udp|tcp)://{HOST}(:{PORT})?"
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

    /// Origins of pages.
    OriginText: OriginPattern = "attache-origin", "an origin", [
        "https://shop.test", "http://localhost:3000", "https://*.shop.test",
        "~https://pr-[0-9]+\\.shop\\.test", "*"
    ] {
        read: web::origin,
        pattern: r"\*|null|~{ANY}|[a-z][a-z0-9+.-]*://((\*\.)?[0-9a-z._-]+|\[[^A-Z]*\])(:\+?{PORT})?"
    }
}
