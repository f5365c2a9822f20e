//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::styling};

pub(crate) use crate::client::AdminAddress;
use crate::{format::OutputFlags, intercept::InterceptArgs};

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default().bold())
    .placeholder(styling::AnsiColor::Cyan.on_default());

/// An ambassador sidecar: your app talks plain HTTP or TCP to localhost:15001,
/// attache makes the network calls for it.
///
/// With no arguments it is a forward proxy on 127.0.0.1:15001 with every safe default on:
///
///     attache &
///     curl -x localhost:15001 http://example.com/
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
#[command(name = "attache", version = VERSION, styles = STYLES, max_term_width = 100, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// The version, and the commit that it was built from if that is known.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("ATTACHE_BUILT_FROM"));

const AFTER_HELP: &str = "\
Start here:
  attache demo                         see what it does, without any setup
  attache run -c attache.yaml          run with a config
  attache check attache.yaml           every mistake at once, each with its place
  attache explain -c attache.yaml GET http://orders.internal/v1/x
                                       how that request would be handled, and why
  attache status | top | tap           the state and the traffic of the attache that runs here";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the proxy (the default).
    Run(RunArgs),
    /// Check a config file and the files that it names, print every problem at once, each with line, column and a
    /// suggestion, and say which Host each upstream is sent.
    Check(CheckArgs),
    /// Print the JSON schema of the config file, for editors.
    Schema,
    /// Say which listener, route, upstream and policies a request would match, and why. It sends nothing.
    Explain(ExplainArgs),
    /// Print the config of Envoy, HAProxy, nginx, Istio, stunnel or ghostunnel as one of attache. Each loss is a comment at its place.
    /// Exit code 0: nothing is lost; 3: something soft (statistics, tracing); 4: some requests are answered otherwise or refused.
    Import(ImportArgs),
    /// Start small upstreams (one healthy, one slow, one failing now and then), the proxy in front of them and some traffic,
    /// and show live what the proxy does about it.
    Demo(DemoArgs),
    /// Wait until the running attache is ready (`/readyz` is 200), for at most `--timeout`. For hooks and scripts.
    WaitReady(WaitReady),
    /// Redirect the TCP connections of this network namespace (a pod, a machine) to attache: the application's calls to 15001,
    /// calls to it to 15006. Doing it twice changes nothing. Needs CAP_NET_ADMIN.
    Intercept(InterceptArgs),
    /// Put attache into Kubernetes manifests: every kind that has pods; comments, order and unknown fields stay as they are.
    Inject(crate::inject::InjectArgs),
    /// Take attache out of manifests that it was put into.
    Uninject(crate::inject::UninjectArgs),
    /// Answer the API server's admission reviews: pods get attache as they are created. Also makes its certificates and registration.
    Webhook(Box<crate::webhook::WebhookArgs>),
    /// Do nothing for a while: the `preStop` hook of a container, in an image that has no shell.
    Sleep(SleepArgs),
    /// Show the state of the running attache on one screen. Exit code 0: all is well; 1: no answer; 2: something is wrong.
    Status(StatusArgs),
    /// Show its traffic live: rates, success, latencies, by upstream, endpoint, route or listener.
    Top(TopArgs),
    /// Follow requests as they end, with reasons, attempts and timing; credentials are hidden.
    Tap(TapArgs),
    /// Make the running attache read its config again. An invalid config is rejected and reported; the running config stays.
    Reload(OrderArgs),
    /// Make attache unready and accept no new requests; running ones finish, and the process stays.
    Drain(OrderArgs),
    /// End the running attache in an orderly way, as SIGTERM does.
    Quit(OrderArgs),
    /// Let this program take over from the attache that serves in a container with `--upgrade-dir`: its sockets are handed over, and
    /// running requests end in the old one. If the new one can't serve, the old one continues. See docs/kubernetes.md.
    Upgrade(UpgradeArgs),
    /// Print the completions of a shell: `attache completions bash > /etc/bash_completion.d/attache`.
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command.
    Man(ManArgs),
}

impl Command {
    /// Whether the result is printed as JSON; then a failure is printed as JSON too. Commands that report failures in their own output are
    /// not included.
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Status(options) => options.format.is_json(),
            Self::Top(options) => options.format.is_json(),
            Self::Tap(options) => options.format.is_json(),
            Self::Reload(options) | Self::Drain(options) | Self::Quit(options) => options.format.is_json(),
            Self::Explain(options) => options.format.is_json(),
            Self::Upgrade(options) => options.format.is_json(),
            Self::Demo(options) => options.format.is_json(),
            Self::Import(options) => options.format.is_json(),
            Self::Intercept(options) => options.is_json(),
            _ => false,
        }
    }
}

/// `attache reload`, `drain` and `quit`
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) format: OutputFlags,
}

/// `attache run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Config file. Without it: a forward proxy on 127.0.0.1:15001.
    #[arg(short, long, value_name = "FILE", env = "ATTACHE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Log level: error, warn, info, debug, trace, or a filter such as `info,attache_upstream=debug`.
    #[arg(long, value_name = "LEVEL", env = "ATTACHE_LOG", default_value = "info")]
    pub(crate) log: String,
    /// Keep the first process when a newer program takes over, the file `attache` in this folder. For containers, which end with their
    /// first process. See `attache upgrade`.
    #[arg(long, value_name = "FOLDER", env = "ATTACHE_UPGRADE_DIR", conflicts_with = "app")]
    pub(crate) upgrade_dir: Option<PathBuf>,
    /// A program to run, after `--`. attache starts it when it is ready, ends it with itself, and passes its exit code on.
    #[arg(last = true, value_name = "APP")]
    pub(crate) app: Vec<std::ffi::OsString>,
}

/// `attache upgrade`
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// The folder of `attache run --upgrade-dir`, where it is mounted in this container.
    #[arg(long, value_name = "FOLDER", env = "ATTACHE_UPGRADE_DIR", default_value = "/upgrade")]
    pub(crate) upgrade_dir: PathBuf,
    #[command(flatten)]
    pub(crate) format: OutputFlags,
}

/// `attache check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Config file; `-` is standard input.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The config file, as for the other commands. Default: the file that the variable ATTACHE_CONFIG names.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check only the config, not the certificates, keys, secrets, folders and addresses that it names. For the config of another machine.
    #[arg(long)]
    pub(crate) without_files: bool,
    #[command(flatten)]
    pub(crate) format: OutputFlags,
}

impl CheckArgs {
    /// The file, however it was given.
    ///
    /// The environment is read here and not by clap: clap would refuse a file if the variable for `attache run` is set too.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let named = || std::env::var_os("ATTACHE_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        self.file.clone().or_else(|| self.config.clone()).or_else(named)
    }
}

/// `attache completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// `attache man`
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// A command whose page is printed, or a folder to which a page for each command is written. Default: the page of `attache` is printed.
    #[arg(value_name = "COMMAND|FOLDER")]
    pub(crate) folder: Option<PathBuf>,
}

/// `attache import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The files of the config. Give several if one names others, or if there is one file for each object.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The proxy that the config is for. Default: recognised by the content.
    #[arg(long, value_enum, value_name = "PROXY")]
    pub(crate) from: Option<SourceProxy>,
    /// Write the config to this file. Default: standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: OutputFlags,
    /// Run the original and the import side by side on loopback, with stubs in place of the upstreams, and show which answers differ. Exit
    /// code 5 if some do.
    #[arg(long)]
    pub(crate) verify: bool,
    /// The original's program, for `--verify`. Default: the one in PATH.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) original: Option<PathBuf>,
}

/// Proxies whose configs can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceProxy {
    Envoy,
    Haproxy,
    Nginx,
    Istio,
    Stunnel,
    Ghostunnel,
}

impl SourceProxy {
    pub(crate) const fn kind(self) -> attache_import::ProxyKind {
        match self {
            Self::Envoy => attache_import::ProxyKind::Envoy,
            Self::Haproxy => attache_import::ProxyKind::Haproxy,
            Self::Nginx => attache_import::ProxyKind::Nginx,
            Self::Istio => attache_import::ProxyKind::Istio,
            Self::Stunnel => attache_import::ProxyKind::Stunnel,
            Self::Ghostunnel => attache_import::ProxyKind::Ghostunnel,
        }
    }
}

/// `attache explain`
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Config file. Without it: the forward proxy.
    #[arg(short, long, value_name = "FILE", env = "ATTACHE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Listener that receives the request. Default: all of them.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// Request header, may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// Identity that the client has proven by its certificate (`spiffe://…`, or a DNS name).
    #[arg(long, value_name = "NAME")]
    pub(crate) identity: Option<String>,
    /// Address of the client, for access rules.
    #[arg(long, value_name = "IP")]
    pub(crate) client: Option<std::net::IpAddr>,
    /// TLS server name that the client asks for. Without METHOD and URL: a connection whose TLS is passed through.
    #[arg(long, value_name = "NAME")]
    pub(crate) sni: Option<String>,
    /// Original destination of an intercepted connection. Without METHOD and URL: a connection of opaque bytes.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) destination: Option<std::net::SocketAddr>,
    #[command(flatten)]
    pub(crate) format: OutputFlags,
    /// Method, including `CONNECT`. With only a URL it is GET. Without both: a connection whose bytes are not HTTP.
    #[arg(value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// URL. A path alone is a request without a host; for CONNECT it is `HOST:PORT`.
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,
}

/// `attache demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Seconds of traffic. Default: until Ctrl-C in a terminal, 20 elsewhere.
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub(crate) seconds: Option<u64>,
    /// Requests a second.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = at_least_one::<u32>)]
    pub(crate) rate: u32,
    #[command(flatten)]
    pub(crate) format: OutputFlags,
}

/// `attache sleep`
#[derive(Debug, Args)]
pub(crate) struct SleepArgs {
    /// How long: `5s`, `500ms`.
    #[arg(value_name = "DURATION", value_parser = duration)]
    pub(crate) duration: Duration,
}

/// `attache wait-ready`
#[derive(Debug, Args)]
pub(crate) struct WaitReady {
    /// How long to wait: `30s`, `500ms`, `2m`.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Where `/readyz` answers: the config's `metrics`, or its `admin`. HOST:PORT, a port, or unix:PATH.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15090")]
    pub(crate) address: AdminAddress,
    #[command(flatten)]
    pub(crate) format: OutputFlags,
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    attache_config::duration(text)
}

/// The method in capitals, if it contains small letters: the case of a method matters, and no common method has small letters (RFC 9110
/// section 9.1).
pub(crate) fn in_capitals(method: &str) -> Option<String> {
    method.bytes().any(|byte| byte.is_ascii_lowercase()).then(|| method.to_ascii_uppercase())
}

/// A whole number.
pub(crate) fn whole<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number"))
}

/// A whole number, at least 1.
fn at_least_one<N: std::str::FromStr + PartialOrd + Default>(text: &str) -> Result<N, String> {
    whole(text).and_then(|number| {
        if number > N::default() { Ok(number) } else { Err("it must be at least 1".to_owned()) }
    })
}

/// The address of the admin API.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Where the admin API answers: HOST:PORT, a port, or unix:PATH.
    #[arg(long, value_name = "ADDRESS", env = "ATTACHE_ADMIN", default_value = "127.0.0.1:15000")]
    pub(crate) admin: AdminAddress,
}

/// `attache status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) format: OutputFlags,
}

/// `attache top`
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Print the table once and end, as without a terminal.
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) format: OutputFlags,
    /// Time between two updates.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// The rows of the table.
    #[arg(long, value_enum, default_value_t = TopTable::Upstreams)]
    pub(crate) view: TopTable,
    /// The order of the rows.
    #[arg(long, value_enum, default_value_t = SortOrder::Rate)]
    pub(crate) sort: SortOrder,
}

/// The rows of `attache top`'s table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopTable {
    Upstreams,
    Endpoints,
    Routes,
    Listeners,
}

/// The order of the rows of `attache top`'s table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortOrder {
    Name,
    Rate,
    Failures,
    P99,
}

/// `attache tap`
#[derive(Debug, Args)]
pub(crate) struct TapArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Only requests of this listener.
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// Only requests of this route.
    #[arg(long, value_name = "NAME")]
    pub(crate) route: Option<String>,
    /// Only requests to this upstream.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) upstream: Option<String>,
    /// Only requests to this endpoint (of the last attempt).
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) endpoint: Option<String>,
    /// Only requests for this host.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Only requests with this method.
    #[arg(short, long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Only requests whose path begins with this.
    #[arg(short, long, value_name = "PREFIX")]
    pub(crate) path: Option<String>,
    /// Only requests that were answered with this status: 503, or a class: 5xx.
    #[arg(short, long, value_name = "STATUS")]
    pub(crate) status: Option<String>,
    /// Only requests that failed for this reason; `any` means every reason.
    #[arg(short, long, value_name = "REASON")]
    pub(crate) reason: Option<String>,
    /// Only requests that took at least this long.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) slower: Option<Duration>,
    /// Show one request out of this number.
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
    pub(crate) sample: Option<u64>,
    /// Show headers too; credentials are hidden.
    #[arg(short = 'H', long)]
    pub(crate) headers: bool,
    /// End after this number of requests.
    #[arg(short = 'n', long, value_name = "N", value_parser = at_least_one::<u64>)]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) format: OutputFlags,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Commands that print a file of a fixed format, or nothing.
    const WITHOUT: &[&str] = &["run", "schema", "webhook", "sleep", "completions", "man"];

    #[test]
    fn every_command_with_a_result_can_print_it_as_json() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let output = command.get_arguments().find(|argument| argument.get_short() == Some('o'));
            let Some(output) = output else {
                assert!(WITHOUT.contains(&name), "`attache {name}` has no `-o json`");
                continue;
            };
            let values: Vec<_> =
                output.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
            assert!(values.iter().any(|value| value == "json"), "`attache {name} -o` takes {values:?}");
            assert!(!WITHOUT.contains(&name), "`attache {name}` has `-o json` now");
        }
    }
}
