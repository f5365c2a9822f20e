//! `attache intercept`: see [`attache_kubernetes::intercept`].

use std::io::{self, Write};

use attache_kubernetes::intercept::{self, Backend, BackendChoice, Interface, Network, Options, PortRange};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::format::OutputFlags;

/// `attache intercept`
#[derive(Debug, Args)]
pub(crate) struct InterceptArgs {
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: OutputFlags,
    /// Remove the redirection: connections are direct again.
    #[arg(long, conflicts_with_all = ["OutboundArgs", "InboundArgs", "CommonArgs"])]
    remove: bool,
    /// How the rules are loaded into the kernel. `auto`: netlink, or iptables if the kernel has no nf_tables.
    #[arg(long, value_enum, value_name = "WAY", default_value_t = BackendArg::Auto)]
    backend: BackendArg,
    #[command(flatten)]
    both: CommonArgs,
    #[command(flatten)]
    outbound: OutboundArgs,
    #[command(flatten)]
    inbound: InboundArgs,
}

impl InterceptArgs {
    pub(crate) fn is_json(&self) -> bool {
        self.format.is_json()
    }
}

fn user(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("it is a number: `id -u {text}` prints that of a user"))
}

fn group(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("it is a number: `getent group {text}` prints that of a group"))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BackendArg {
    Auto,
    /// attache's own nf_tables messages; this needs no program.
    Netlink,
    /// The program `nft`.
    Nft,
    /// `iptables-restore` and `ip6tables-restore`.
    Iptables,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Both directions")]
#[group(multiple = true)]
struct CommonArgs {
    /// attache's own users; their connections are not redirected.
    #[arg(long, value_name = "UID", value_delimiter = ',', default_value = "1337", value_parser = user)]
    proxy_uid: Vec<u32>,
    /// attache's own groups; their connections are not redirected.
    #[arg(long, value_name = "GID", value_delimiter = ',', default_value = "1337", value_parser = group)]
    proxy_gid: Vec<u32>,
    /// Network interfaces without interception; `cali*` means all whose names begin with `cali`.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    exclude_interfaces: Vec<Interface>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The application's calls")]
#[group(multiple = true)]
struct OutboundArgs {
    /// The port that they are redirected to.
    #[arg(long, value_name = "PORT", default_value_t = Options::OUTBOUND)]
    outbound_port: u16,
    /// Do not redirect them.
    #[arg(long)]
    no_outbound: bool,
    /// Destination ports that are called directly, such as `9000-9100,5432`.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_outbound_ports: Vec<PortRange>,
    /// Destination networks that are called directly, such as `169.254.169.254,10.0.0.0/8`.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    exclude_outbound_cidrs: Vec<Network>,
    /// Redirect only these destination ports (and the networks of `--include-outbound-cidrs`).
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    include_outbound_ports: Vec<PortRange>,
    /// Redirect only these destination networks (and the ports of `--include-outbound-ports`).
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    include_outbound_cidrs: Vec<Network>,
    /// Other users whose calls are not redirected.
    #[arg(long, value_name = "UIDS", value_delimiter = ',')]
    exclude_uids: Vec<u32>,
    /// Other groups whose calls are not redirected.
    #[arg(long, value_name = "GIDS", value_delimiter = ',')]
    exclude_gids: Vec<u32>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Calls to the application")]
#[group(multiple = true)]
struct InboundArgs {
    /// The port that they are redirected to.
    #[arg(long, value_name = "PORT", default_value_t = Options::INBOUND)]
    inbound_port: u16,
    /// Do not redirect them.
    #[arg(long)]
    no_inbound: bool,
    /// Ports that are reached without attache, in addition to its own 15000 and 15090; for example those of probes.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_inbound_ports: Vec<PortRange>,
    /// Redirect only calls to these ports.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    include_inbound_ports: Vec<PortRange>,
}

impl InterceptArgs {
    fn options(&self) -> Options {
        Options {
            outbound_to: (!self.outbound.no_outbound).then_some(self.outbound.outbound_port),
            inbound_to: (!self.inbound.no_inbound).then_some(self.inbound.inbound_port),
            proxy_uids: self.both.proxy_uid.clone(),
            proxy_gids: self.both.proxy_gid.clone(),
            exclude_uids: self.outbound.exclude_uids.clone(),
            exclude_gids: self.outbound.exclude_gids.clone(),
            exclude_outbound_ports: self.outbound.exclude_outbound_ports.clone(),
            exclude_outbound_networks: self.outbound.exclude_outbound_cidrs.clone(),
            include_outbound_ports: self.outbound.include_outbound_ports.clone(),
            include_outbound_networks: self.outbound.include_outbound_cidrs.clone(),
            exclude_inbound_ports: self.inbound.exclude_inbound_ports.clone(),
            include_inbound_ports: self.inbound.include_inbound_ports.clone(),
            exclude_interfaces: self.both.exclude_interfaces.clone(),
        }
    }

    fn way(&self) -> BackendChoice {
        match self.backend {
            BackendArg::Auto => BackendChoice::Auto,
            BackendArg::Netlink => BackendChoice::Only(Backend::Netlink),
            BackendArg::Nft => BackendChoice::Only(Backend::Nft),
            BackendArg::Iptables => BackendChoice::Only(Backend::Iptables),
        }
    }
}

/// Redirects connections, removes the redirection, or prints what would be done.
pub(crate) fn run(arguments: &InterceptArgs) -> Result<(), Box<dyn std::error::Error>> {
    let (options, way) = (arguments.options(), arguments.way());
    let as_json = |value: Value| format!("{value:#}\n");
    let json = arguments.format.is_json();
    let text = match (arguments.remove, arguments.dry_run) {
        (_, true) => {
            let would = if arguments.remove {
                intercept::dry_run_remove(way)?
            } else {
                intercept::dry_run(&options, way)?
            };
            if json { as_json(json!({ "would_do": would.lines().collect::<Vec<_>>() })) } else { would }
        }
        (true, false) if json => {
            intercept::remove(way)?;
            as_json(json!({ "outbound": null, "inbound": null }))
        }
        (true, false) => {
            intercept::remove(way)?;
            "connections are no longer redirected to attache\n".to_owned()
        }
        (false, false) => {
            let backend = intercept::apply(&options, way)?;
            if json {
                let (outbound, inbound, backend) =
                    (options.outbound_to, options.inbound_to, backend.to_string());
                let done = json!({ "outbound": outbound, "inbound": inbound, "backend": backend });
                return Ok(io::stdout().write_all(as_json(done).as_bytes())?);
            }
            let port = |port: Option<u16>| port.map_or("left alone".to_owned(), |port| format!("to {port}"));
            let (outbound, inbound) = (port(options.outbound_to), port(options.inbound_to));
            format!("the application's calls: {outbound}; calls to it: {inbound} ({backend})\n")
        }
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
