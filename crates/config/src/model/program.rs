//! How the program runs: its admin API, its look-ups of names, its end, its reloads.

use std::net::Ipv4Addr;

use super::prelude::*;

section! {
    "`admin`"
    /// Where the admin API and the dashboard answer, and what else is there.
    pub struct Admin: Eq {
        /// The address of the admin API and the dashboard.
        // A loopback address or a Unix socket; `None` is off.
        #[schema(default = Self::ADDRESS.to_string())]
        bind(Text<AdminAddress>): Option<Bind> as OffOr<Written> = Some(Bind::Tcp(Self::ADDRESS)),
        /// Paths of Envoy's admin API are answered, too: `/stats`, `/stats/prometheus`, `/clusters`, `/config_dump`, `/ready`, `/server_info`, `/logging`.
        envoy_compatible: bool = false,
    }
    holds {
        /// The file names the address, so that a port in use is an error. At the default it is only a warning, so that a second
        /// attache on one machine starts without a setting.
        required: bool = false,
    }
    or bind
}

impl Admin {
    /// Where it answers unless the file says otherwise.
    pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
}

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
        search: Option<Vec<Name>> as Optional<List<Host>> = None,
        /// A name with fewer dots is tried with the search domains first. This replaces `ndots` of `resolv_conf`.
        #[schema(maximum = 15, examples = [5])]
        ndots: Option<u8> as Optional<Plain> = None,
        /// The longest wait for one server. While it has its default, `timeout` of `resolv_conf` counts.
        timeout: Duration as Positive = Duration::from_secs(5),
        /// How often all servers are tried. While it has its default, `attempts` of `resolv_conf` counts.
        #[schema(minimum = 1, maximum = 10)]
        attempts: usize = 2,
        /// A shorter TTL is raised to this.
        min_ttl: Duration as Positive = Duration::from_secs(1),
        /// A longer TTL is lowered to this.
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
        /// Running work may take this long before it is cut. The program ends at most 3.5 s later, so that the default is below
        /// Kubernetes' 30 s.
        drain_timeout: Duration as Length = Duration::from_secs(25),
    }
}

section! {
    "`reload`"
    /// How attache takes over a changed config.
    pub struct Reload: Copy, Eq {
        /// The file, and those that it takes values from by `!file`, are followed and read again when they change. SIGHUP
        /// and the admin API reload in any case.
        watch: bool = true,
        /// How long open connections may continue before they are cut, if a reload has removed their listener or changed it in a way that
        /// concerns open connections. The same applies to connections of a process that has handed its sockets over to a newer one.
        // As Envoy's `--drain-time-s`.
        drain_timeout: Duration as Length = Duration::from_mins(10),
    }
}
