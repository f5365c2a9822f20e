//! The keys at the top level of the file, and what is known of the file itself.

use std::net::Ipv6Addr;

use super::prelude::*;

section! {
    "the config"
    /// An attache config: what is listened on (`listeners`), where calls go (`upstreams`), and how the program runs.
    pub struct Config {
        /// Listeners: addresses that accept connections, by name. Without this key there is one listener, `outbound`, on `127.0.0.1:15001`.
        listeners(Mapping<Label, Spanned<ParsedSection<Listener>>>): Vec<Listener> as NamedSections = Vec::new(),
        /// Upstreams: services that are called, by name. An address alone is short for `{ address: … }`.
        // `UpstreamId` indexes this.
        upstreams(Mapping<Label, Shorthand<Upstream>>): Vec<Upstream> as NamedSections = Vec::new(),
        /// Issuers of tokens (JWT), by name, for `jwt` of `authorization`.
        jwt(Mapping<Label, ParsedSection<JwtProvider>>): Vec<JwtProvider> as NamedSections = Vec::new(),
        /// Services that decide whether requests are allowed, by name, for `external` of `authorization`.
        authorizers(Mapping<Label, Spanned<ParsedSection<Authorizer>>>): Vec<Authorizer> as NamedSections = Vec::new(),
        /// Worker threads. By default the container's CPU quota, rounded up.
        #[schema(minimum = 1, maximum = 1024, examples = [2])]
        workers: Option<usize> as Optional<Plain> = None,
        /// How attache looks names up.
        dns(Spanned<Dns>): Dns as Nested = Dns::default(),
        /// Where `/metrics`, `/healthz` and `/readyz` answer, and the application's own metrics and probes. An address
        /// alone is short for
        /// `{ bind: … }`.
        // IPv6 takes IPv4 clients, too; on a machine without IPv6 it is IPv4 alone.
        metrics(Shorthand<MetricsPage>): Option<SocketAddr> as OffOr<Written> = Some(Self::METRICS),
        /// Where the admin API and the dashboard answer. If the default port is in use, the API is only switched off,
        /// with a warning; an address in the config must be free. An address alone is short for `{ bind: … }`.
        #[schema(default = Admin::ADDRESS.to_string())]
        admin(Shorthand<Admin>): Admin as Nested = Admin::default(),
        /// Where finished requests and connections are written.
        #[schema(default = "off")]
        access_log(Shorthand<AccessLog>): AccessLog as Nested = AccessLog::default(),
        /// Traces by OpenTelemetry. An endpoint alone is short for `{ otlp: … }`; without this key attache starts no
        /// traces, and passes existing ones on.
        tracing(Shorthand<Tracing>): Option<Tracing> as Optional<Nested> = None,
        /// Metrics and logs to an OpenTelemetry collector. An endpoint alone is short for `{ to: … }`; without this key none are sent.
        #[schema(examples = ["http://collector:4318"])]
        otlp(Shorthand<OtlpKeys>): OtlpSignals as Plain = OtlpSignals::default(),
        /// How the program ends on SIGTERM.
        shutdown: Shutdown as Nested = Shutdown::default(),
        /// How attache takes over a changed config while it serves with the old one.
        reload: Reload as Nested = Reload::default(),
        /// What attache does when the container's memory or the file descriptors run out. It is on by default; `off` switches it off.
        overload(OrOff<Spanned<Overload>>): Option<Overload> as OffOr<Nested> = Some(Overload::default()),
        /// How often the files that the config names (certificates, keys, roots, revocation lists, secrets) are
        /// checked; a change is used when two checks in a row found the same content. At least 10 ms.
        watch_interval(Spanned<Text<Positive>>): Duration as Positive = Duration::from_secs(1),
    }
    holds {
        /// The file's path; `None` for the embedded default.
        file: Option<PathBuf> = None,
        /// The application on the metrics port.
        app: MetricsPage = MetricsPage::default(),
        /// The other files that this was made from (`!file`); a change of one is a change of the config.
        files: Vec<PathBuf> = Vec::new(),
        /// Warnings about the file; to be logged.
        warnings: Vec<crate::Diagnostic> = Vec::new(),
        /// Texts that were read by `!file`, so that they can be hidden.
        secrets: Secrets = Secrets::default(),
    }
    shows Self::show_origin
}

impl Config {
    /// Where the metrics answer unless the file says otherwise.
    pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 15090);

    fn show_origin(&self, shown: &mut Object<String, serde_json::Value>) {
        shown.insert("file".into(), self.file.as_ref().map(|file| file.display().to_string()).into());
        shown.insert("app".into(), Nested::show(&self.app));
    }
}

macro_rules! have_names {
    ($($section:ty),+) => {
        $(impl HasName for $section {
            fn name(&self) -> &str {
                &self.name
            }
        })+
    };
}

have_names!(Listener, Upstream, JwtProvider, Authorizer);

/// Texts that must never be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub Vec<Arc<str>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}
