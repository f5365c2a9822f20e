//! `attache demo`: real servers, the real proxy, real traffic, and a table of what happened.

mod traffic;
mod upstreams;
mod view;

use std::{
    io::{self, IsTerminal, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::LocalRuntime;

use self::{upstreams::ServerBehaviour, view::DemoView};
use crate::{
    cli,
    proxy::{Proxy, ProxySetup},
};

/// The config of the demo's proxy, in full.
const CONFIG: &str = "\
admin: ADMIN
metrics: off
listeners:
  outbound:
    bind: 127.0.0.1:0
    routes:
      - match: { host: shop.internal }
        to: shop
        timeout: 2s
        retry: { attempts: 3, per_try_timeout: 250ms, on: [connect-failure, reset, 5xx],
                 hedge: { after: 50ms }, budget_floor: 20 }
upstreams:
  shop:
    address: [ADDRESSES]
    outlier_ejection: { consecutive_5xx: 3, base: 1s, max_percent: 50% }
";

/// Seconds of traffic if the output is not a terminal.
const PIPE_SECONDS: u64 = 20;

/// Runs the demo to its end.
pub(crate) fn run(options: &cli::DemoArgs) -> Result<(), Box<dyn std::error::Error>> {
    let servers = on_a_thread("demo-upstreams", || async {
        Ok(vec![
            upstreams::start("healthy", ServerBehaviour::Healthy).await?,
            upstreams::start("slow", ServerBehaviour::Slow).await?,
            upstreams::start("flaky", ServerBehaviour::Flaky).await?,
        ])
    })?;
    let addresses: Vec<String> = servers.iter().map(|s| format!("'http://{}'", s.address)).collect();
    let admin = free_for_admin()?;
    let text = CONFIG.replace("ADDRESSES", &addresses.join(", ")).replace("ADMIN", &admin.to_string());
    let config = attache_config::parse(&text, None, &|_| None).map_err(|e| e.to_string())?;
    let proxy = Proxy::start(config, ProxySetup::default())?;
    let generation = proxy.generation();
    let (Some(address), Some(upstream)) = (proxy.address(), generation.upstreams.first()) else {
        return Err("the demo's config has lost its listener".into());
    };
    let rate = options.rate;
    let seen = on_a_thread("demo-app", move || async move { Ok(traffic::start(address, rate)) })?;

    let terminal = io::stdout().is_terminal();
    // In a terminal the user needs time to look at the dashboard; for a pipe the demo must end.
    let seconds = options.seconds.or((!terminal).then_some(PIPE_SECONDS));
    let view = DemoView {
        proxy: address.to_string(),
        dashboard: format!("http://localhost:{}/", admin.port()),
        upstream: upstream.shared(),
        servers: &servers,
        seen: &seen,
        colour: terminal && std::env::var_os("NO_COLOR").is_none(),
    };
    if options.format.is_json() {
        // JSON is printed once, at the end, so the demo must end.
        thread::sleep(Duration::from_secs(options.seconds.unwrap_or(PIPE_SECONDS)));
        writeln!(io::stdout(), "{:#}", view.json())?;
    } else {
        show(&view, seconds, terminal)?;
    }
    proxy.stop();
    Ok(())
}

/// The usual port of the admin API, or a free one if another program listens there.
fn free_for_admin() -> io::Result<SocketAddr> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, 15000));
    TcpListener::bind(usual).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?.local_addr()
}

/// Shows the table for this many seconds; `None` means until the program is ended.
fn show(view: &DemoView<'_>, seconds: Option<u64>, terminal: bool) -> io::Result<()> {
    let (began, total) = (Instant::now(), seconds.map_or(Duration::MAX, Duration::from_secs));
    let mut out = io::stdout().lock();
    let mut lines = 0;
    loop {
        let elapsed = began.elapsed();
        let last = elapsed >= total;
        // A terminal gets one table that is updated in place; a pipe gets the final one.
        if terminal || last {
            let table = view.render(elapsed.as_secs(), seconds);
            if lines > 0 {
                write!(out, "\x1b[{lines}A\x1b[J")?;
            }
            write!(out, "{table}")?;
            out.flush()?;
            lines = table.lines().count();
        }
        if last {
            return writeln!(
                out,
                "\nNext: `attache --help`, or put it before your own app: `attache & curl -x localhost:15001 http://example.com/`"
            );
        }
        thread::sleep(Duration::from_millis(250).min(total.saturating_sub(elapsed)));
    }
}

/// Runs `start` on the runtime of a new thread, which lives as long as the program. Returns the result of `start`.
fn on_a_thread<T, F, Fut>(name: &str, start: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = io::Result<T>>,
{
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let made = LocalRuntime::new().map(|runtime| {
            let made = runtime.block_on(start());
            (runtime, made)
        });
        match made {
            Ok((runtime, made)) => {
                let _ = sender.send(made);
                runtime.block_on(std::future::pending::<()>());
            }
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        }
    })?;
    receiver.recv().map_err(io::Error::other)?
}
