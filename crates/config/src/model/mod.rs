//! The checked configuration: what everything behind the parser works with.
//!
//! Rule: *parse, don't validate*. A value of these types is complete and consistent: every default is filled in,
//! every reference is an index that exists, units are in the types. Nothing behind this module checks again
//! or has a default of its own.

mod access_log;
mod affinity;
mod app;
mod authorization;
mod authorizer;
mod breaker;
mod credential;
mod edits;
mod ejection;
mod global_limit;
mod identity;
mod jwt;
mod listener;
mod load;
mod matching;
mod otlp;
mod overload;
mod policy;
mod pool;
mod route;
mod tls;
mod tracing;
mod upstream;
mod web;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

pub use access_log::*;
pub use affinity::*;
pub use app::*;
pub use authorization::*;
pub use authorizer::*;
pub use breaker::*;
pub use credential::*;
pub use edits::*;
pub use ejection::*;
pub use global_limit::*;
pub use identity::*;
pub use jwt::*;
pub use listener::*;
pub use load::*;
pub use matching::*;
pub use otlp::*;
pub use overload::*;
pub use policy::*;
pub use pool::*;
pub use route::*;
pub use tls::*;
pub use tracing::*;
pub use upstream::*;
pub use web::*;

use crate::{
    section::{List, Maybe, OffOr, Plain, Written, section},
    shapes::Txt,
    shown::Reference,
    text::{AdminAddress, DnsServer, File, Host, Length, Positive},
};

/// One whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the text came from; `None` for the embedded default.
    pub file: Option<PathBuf>,
    /// What is listened on, in the order of the file.
    pub listeners: Vec<Listener>,
    /// Where calls go; [`UpstreamId`] indexes this.
    pub upstreams: Vec<Upstream>,
    /// Whose tokens are believed.
    pub jwt: Vec<JwtProvider>,
    /// Who is asked about requests.
    pub authorizers: Vec<Authorizer>,
    /// Worker threads; `None` follows the container's CPU quota, rounded up.
    pub workers: Option<usize>,
    /// How names are looked up.
    pub dns: Dns,
    /// Where `/metrics`, `/healthz` and `/readyz` answer; `None` switches them off. Default `[::]:15090`, which
    /// takes IPv4 clients, too, and is IPv4 alone on a machine without IPv6.
    pub metrics: Option<SocketAddr>,
    /// What of the application is told on the port of the metrics.
    pub app: AppTold,
    /// Where the admin API and the dashboard answer.
    pub admin: Admin,
    /// Access log.
    pub access_log: AccessLog,
    /// Traces; `None` starts and exports none, and passes on what comes.
    pub tracing: Option<Tracing>,
    /// Metrics and logs that are sent by OTLP.
    pub otlp: OtlpSignals,
    /// How the program ends.
    pub shutdown: Shutdown,
    /// When the file is read again, and what becomes of connections that it no longer holds for.
    pub reload: Reload,
    /// The other files that this was made from (`!file`); a change of one is a change of the config.
    pub files: Vec<PathBuf>,
    /// What is done when memory or file descriptors run out; `None` is nothing. Default on.
    pub overload: Option<Overload>,
    /// How often the files that the config names (certificates, keys, roots, revocation lists, secrets) are looked at; a change is
    /// in use when two looks in a row found the same. Default 1 s.
    pub watch_interval: Duration,
    /// What is suspicious about the file though it can be used; to be logged.
    pub warnings: Vec<crate::Diagnostic>,
    /// What was read by `!file`, so that nothing shows it.
    pub secrets: Secrets,
}

impl Default for Config {
    /// Nothing is listened on; the rest is as in a file that says nothing of it.
    fn default() -> Self {
        Self {
            file: None,
            listeners: Vec::new(),
            upstreams: Vec::new(),
            jwt: Vec::new(),
            authorizers: Vec::new(),
            workers: None,
            dns: Dns::default(),
            metrics: Some(Self::METRICS),
            app: AppTold::default(),
            admin: Admin::default(),
            access_log: AccessLog::default(),
            tracing: None,
            otlp: OtlpSignals::default(),
            shutdown: Shutdown::default(),
            reload: Reload::default(),
            files: Vec::new(),
            overload: Some(Overload::default()),
            watch_interval: Self::WATCH_INTERVAL,
            warnings: Vec::new(),
            secrets: Secrets::default(),
        }
    }
}

impl Config {
    /// Where the metrics answer unless the file says otherwise.
    pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 15090);
    /// Default of [`Self::watch_interval`].
    pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);
}

section! {
    "`admin`"
    /// Where the admin API and the dashboard answer, and what else is there.
    pub struct Admin: Eq {
        /// Where they answer.
        // A loopback address or a Unix socket; `None` is off.
        #[schema(default = Self::ADDRESS.to_string())]
        bind(Txt<AdminAddress>): Option<Bind> as OffOr<Written> = Some(Bind::Tcp(Self::ADDRESS)),
        /// Paths of Envoy's admin API are answered, too: `/stats`, `/stats/prometheus`, `/clusters`, `/config_dump`, `/ready`, `/server_info`, `/logging`.
        envoy_compatible: bool = false,
    }
    holds {
        /// The file names it, so that a port which is taken is an error. At the default it is only a warning: whoever runs a second
        /// attache on one machine to try it out should not have to learn of the admin API first.
        required: bool = false,
    }
    or bind
}

impl Admin {
    /// Where it answers unless the file says otherwise.
    pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
}

/// Texts that must never be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub Vec<Arc<str>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// An index into [`Config::upstreams`]; the parser makes only valid ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub usize);

impl Serialize for UpstreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Reference::Upstream(self.0).show().serialize(serializer)
    }
}

/// A name that is cheap to clone into labels and logs.
pub type Name = Arc<str>;

section! {
    "`dns`"
    /// Name resolution.
    pub struct Dns {
        /// Servers to ask instead of those of `resolv_conf`; the port is 53 unless given.
        servers: Vec<SocketAddr> as List<DnsServer> = Vec::new(),
        /// Where search domains, `ndots` and servers are read from.
        resolv_conf: PathBuf as File = PathBuf::from("/etc/resolv.conf"),
        /// Search domains instead of those of `resolv_conf`.
        #[schema(examples = [["shop.svc.cluster.local", "svc.cluster.local"]])]
        search: Option<Vec<Name>> as Maybe<List<Host>> = None,
        /// A name with fewer dots is tried with the search domains first; instead of that of `resolv_conf`.
        #[schema(maximum = 15, examples = [5])]
        ndots: Option<u8> as Maybe<Plain> = None,
        /// How long one server is waited for. While it has its default, `timeout` of `resolv_conf` counts.
        timeout: Duration as Positive = Duration::from_secs(5),
        /// How often the list of servers is gone through. While it has its default, `attempts` of `resolv_conf` counts.
        #[schema(minimum = 1, maximum = 10)]
        attempts: usize = 2,
        /// A TTL below this counts as this.
        min_ttl: Duration as Positive = Duration::from_secs(1),
        /// A TTL above this counts as this.
        max_ttl: Duration as Positive = Duration::from_mins(5),
        /// How long a failed look-up waits before it is tried again, doubled up to 5 s (not above `max_ttl`).
        retry_interval: Duration as Positive = Duration::from_secs(1),
        /// Which address families are used.
        family: DnsFamily = DnsFamily::Auto,
    }
}

/// Which address families a look-up asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DnsFamily {
    /// A and AAAA; connections race the families (RFC 8305).
    #[default]
    Auto,
    /// Only A.
    V4Only,
    /// Only AAAA.
    V6Only,
    /// AAAA, and A where there is none.
    V6Preferred,
    /// A, and AAAA where there is none.
    V4Preferred,
}

section! {
    "`shutdown`"
    /// How the program ends.
    pub struct Shutdown: Copy, Eq {
        /// New work is still accepted for this long after SIGTERM.
        delay: Duration as Length = Duration::ZERO,
        /// Running work may take this long before it is cut. The default is below Kubernetes' 30 s.
        drain_timeout: Duration as Length = Duration::from_secs(25),
    }
}

section! {
    "`reload`"
    /// How a changed config is taken.
    pub struct Reload: Copy, Eq {
        /// The file, and those that it takes values from by `!file`, are followed and read again when they change. SIGHUP
        /// and the admin API reload in any case.
        watch: bool = true,
        /// Connections of a listener that is gone, or changed in what concerns open connections, may finish for this long before
        /// they are cut; so may those of a process that handed its sockets over to a newer one.
        // As Envoy's `--drain-time-s`.
        drain_timeout: Duration as Length = Duration::from_mins(10),
    }
}
