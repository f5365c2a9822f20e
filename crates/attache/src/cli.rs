//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, builder::styling};

use crate::client::Target;
use crate::intercept::Intercept;

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
#[command(name = "attache", version, styles = STYLES, max_term_width = 100, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Run,
}

const AFTER_HELP: &str = "\
Start here:
  attache demo                         see what it does, nothing to set up
  attache run -c attache.yaml          run with a config
  attache check attache.yaml           every mistake at once, each with its place
  attache explain -c attache.yaml GET http://orders.internal/v1/x
                                       what that request would meet, and why";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the proxy (the default).
    Run(Run),
    /// Check a config file and print every problem at once, each with line, column and a suggestion.
    Check(Check),
    /// Print the JSON schema of the config file, for editors.
    Schema,
    /// Say which listener, route, upstream and policies a request would meet, and why. Sends nothing.
    Explain(Explain),
    /// Start small upstreams (one healthy, one slow, one failing now and then), the proxy in front of them and some traffic,
    /// and show live what the proxy does about it.
    Demo(Demo),
    /// Wait until the attache that runs here is ready (`/readyz` is 200), for at most `--timeout`. For hooks and scripts.
    WaitReady(WaitReady),
    /// Redirect the TCP connections of this network namespace (a pod, a machine) to attache: the application's calls to 15001,
    /// calls to it to 15006. Doing it twice changes nothing. Needs CAP_NET_ADMIN.
    Intercept(Intercept),
    /// Put attache into Kubernetes manifests: every kind that has pods; comments, order and unknown fields stay as they are.
    Inject(crate::inject::Inject),
    /// Take attache out of manifests that it was put into.
    Uninject(crate::inject::Uninject),
    /// Answer the API server's admission reviews: pods get attache as they are created. Also makes its certificates and registration.
    Webhook(Box<crate::webhook::Webhook>),
    /// Do nothing for a while: the `preStop` hook of a container, in an image that has no shell.
    Sleep(Sleep),
}

/// `attache run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Config file. Without it: a forward proxy on 127.0.0.1:15001.
    #[arg(short, long, value_name = "FILE", env = "ATTACHE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Log level: error, warn, info, debug, trace, or a filter such as `info,attache_upstream=debug`.
    #[arg(long, value_name = "LEVEL", env = "ATTACHE_LOG", default_value = "info")]
    pub(crate) log: String,
    /// An app to run beside, behind `--`: started when attache is ready, ended with it, its exit code passed on.
    #[arg(last = true, value_name = "APP")]
    pub(crate) app: Vec<std::ffi::OsString>,
}

/// `attache check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Config file; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `attache explain`
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Config file. Without it: the forward proxy.
    #[arg(short, long, value_name = "FILE", env = "ATTACHE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Listener that the request would come in by. Default: all of them.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// Request header, may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Method.
    #[arg(value_name = "METHOD")]
    pub(crate) method: http::Method,
    /// URL; a path alone is a request without a known host.
    #[arg(value_name = "URL")]
    pub(crate) url: http::Uri,
}

/// `attache demo`
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Seconds of traffic.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Requests a second.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) rate: u32,
}

/// `attache sleep`
#[derive(Debug, Args)]
pub(crate) struct Sleep {
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
    pub(crate) address: Target,
}

fn duration(text: &str) -> Result<Duration, String> {
    attache_config::duration(text)
}
