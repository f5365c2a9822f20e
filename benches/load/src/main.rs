//! Servers and clients for the comparison of proxies, for traffic that wrk and h2load can't make.
//!
//! They send messages over plain TCP and over an upgraded connection (for a proxy, the bytes of a WebSocket are opaque), bulk, idle
//! connections, and gRPC over HTTP/2. There is one thread, which the comparison pins to a core of its own. Each client prints one number:
//! its amount of work.

#![expect(clippy::print_stdout, reason = "a command-line tool")]

mod grpc;
mod tcp;

use std::{io, net::SocketAddr, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use tokio::runtime;

#[derive(Debug, Parser)]
#[command(about)]
struct LoadCli {
    #[command(subcommand)]
    command: LoadCommand,
}

#[derive(Debug, Subcommand)]
enum LoadCommand {
    /// Send back what is received; if an HTTP upgrade comes first, answer it.
    Echo(LoadServer),
    /// Send zeros as long as they are accepted.
    Source(LoadServer),
    /// Send back every message of every HTTP/2 stream, with gRPC's headers and trailers.
    GrpcEcho(LoadServer),
    /// Send messages and wait for their echo on each connection; prints how many.
    Ping(PingArgs),
    /// Read everything that comes; prints the number of bytes.
    Drain(LoadArgs),
    /// Make gRPC calls with one message each; prints how many.
    Unary(LoadArgs),
    /// Send messages and wait for their echo on one gRPC stream per connection; prints how many.
    Stream(LoadArgs),
    /// Open connections and hold them until the program is ended; prints `open` when all are open.
    Idle(IdleArgs),
}

#[derive(Args, Debug)]
struct LoadServer {
    /// Port on 127.0.0.1.
    port: u16,
}

#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// Address of the proxy.
    pub(crate) address: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 16)]
    pub(crate) connections: usize,
    /// Duration in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
}

impl LoadArgs {
    pub(crate) fn time(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::from_secs(3))
    }
}

#[derive(Args, Debug)]
struct PingArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Ask for an upgrade to WebSocket first.
    #[arg(long)]
    upgrade: bool,
}

#[derive(Args, Debug)]
struct IdleArgs {
    /// Address of the proxy.
    address: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Send one HTTP request on each connection before it idles.
    #[arg(long)]
    request: bool,
}

fn main() -> ExitCode {
    let cli = LoadCli::parse();
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run(cli.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: LoadCommand) -> io::Result<()> {
    let done = match command {
        LoadCommand::Echo(server) => return tcp::echo(server.port).await,
        LoadCommand::Source(server) => return tcp::source(server.port).await,
        LoadCommand::GrpcEcho(server) => return grpc::echo(server.port).await,
        LoadCommand::Idle(idle) => return tcp::idle(idle.address, idle.connections, idle.request).await,
        LoadCommand::Ping(ping) => tcp::ping(ping.load, ping.upgrade).await?,
        LoadCommand::Drain(load) => tcp::drain(load).await?,
        LoadCommand::Unary(load) => grpc::unary(load).await?,
        LoadCommand::Stream(load) => grpc::stream(load).await?,
    };
    println!("{done}");
    Ok(())
}
