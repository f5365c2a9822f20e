//! The program's own control thread and workers on one thread, with the clock of the test; its upstreams; and its clients.

use std::{fs, io::Write, os::unix::net::UnixStream, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_local, yield_now},
    time::{Instant, advance, sleep, timeout},
};

use super::model::{
    ClientEvent, ExpectedOutcome, ListenerPlace, RELOAD_DRAIN, ReloadChange, ReloadHistory, ScriptedClient,
};
use crate::{
    inherited::InheritedSockets,
    prepare,
    process::ProcessState,
    proxy::{
        control::{self, ControlChannels, OperatorSockets},
        handle::{ProxyControl, ProxyEnd},
        workers::WorkerThreads,
    },
    reloads::ReloadTrigger,
};

/// How many turns of the runtime are enough to finish the work of one instant.
const SETTLED: usize = 60;
/// The same, if only timers can have made work.
const QUIET: usize = 12;
/// Longer than any history.
const LAST_MILLISECOND: u64 = 4000;

impl ListenerPlace {
    fn file(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Extra => "extra",
        }
    }
}

/// The results of the reloads so far.
#[derive(Clone, Copy, Default)]
struct ReloadState {
    other: bool,
    replaced: bool,
    settings: bool,
    extra: bool,
}

impl ReloadState {
    fn change(&mut self, change: ReloadChange) {
        match change {
            ReloadChange::Route => self.other = !self.other,
            ReloadChange::Upstream => self.replaced = !self.replaced,
            ReloadChange::Settings => self.settings = !self.settings,
            ReloadChange::Extra => self.extra = !self.extra,
            ReloadChange::Broken => {}
        }
    }

    fn config(self, history: &ReloadHistory, dir: &Path) -> String {
        let dir = dir.display();
        let to = if self.other { 'b' } else { 'a' };
        let (connect, idle) = (1 + u8::from(self.replaced), 60 + u8::from(self.settings));
        let listener = |name: &str, more: &str, to: char| {
            let rest = format!("protocol: http1, http: {{ idle_timeout: {idle}s }}, to: {to}");
            format!("  {name}: {{ bind: [{more}'unix:{dir}/{name}'], {rest} }}\n")
        };
        let upstream =
            |name| format!("  {name}: {{ address: 'unix:{dir}/{name}', connect_timeout: {connect}s }}\n");
        let listeners = [
            // An address that is not loopback makes it a listener that other machines reach.
            listener("inbound", "'0.0.0.0:0', ", to),
            listener("outbound", "", to),
            if self.extra { listener("extra", "", 'b') } else { String::new() },
        ];
        format!(
            "workers: 2\nmetrics: off\nadmin: off\noverload: off\n\
             reload: {{ watch: false, drain_timeout: {RELOAD_DRAIN}ms }}\n\
             shutdown: {{ delay: {}ms, drain_timeout: {}ms }}\nlisteners:\n{}upstreams:\n{}{}",
            history.delay,
            history.drain_timeout,
            listeners.concat(),
            upstream('a'),
            upstream('b'),
        )
    }
}

/// Lets everything happen that can happen in this instant.
async fn settle(turns: usize) {
    for _ in 0..turns {
        yield_now().await;
    }
}

/// Waits without letting the runtime become idle: its clock would advance.
async fn done<T: 'static>(task: JoinHandle<T>) -> T {
    while !task.is_finished() {
        yield_now().await;
    }
    task.await.unwrap()
}

/// An upstream that needs as many milliseconds as the path says.
async fn upstream(listener: UnixListener, name: char) {
    while let Ok((mut stream, _)) = listener.accept().await {
        spawn_local(async move {
            let mut read = Vec::new();
            while let Ok(1..) = stream.read_buf(&mut read).await {
                if !read.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let head = String::from_utf8_lossy(&read).into_owned();
                let needs = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
                read.clear();
                sleep(Duration::from_millis(needs)).await;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{name}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
    }
}

fn request(service: u64) -> String {
    format!("GET /{service} HTTP/1.1\r\nhost: h\r\n\r\n")
}

/// Connects, and sends the first request at once.
fn connect(client: &ScriptedClient, dir: &Path) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(dir.join(client.to.file())).ok()?;
    if let Some((_, service)) = client.requests.first() {
        stream.write_all(request(*service).as_bytes()).unwrap();
    }
    stream.set_nonblocking(true).unwrap();
    Some(stream)
}

/// The rest of the client's actions.
async fn follow(stream: UnixStream, client: ScriptedClient, began: Instant) -> Vec<ClientEvent> {
    let mut stream = tokio::net::UnixStream::from_std(stream).unwrap();
    let now = || u64::try_from(began.elapsed().as_millis()).unwrap();
    let mut seen = Vec::new();
    for n in 0..client.requests.len() {
        let mut answer = Vec::new();
        while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") || answer.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut answer).await, Ok(1..)) {
                seen.push(ClientEvent::End(now()));
                return seen;
            }
        }
        let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
        let from = if answer.starts_with("http/1.1 200") { answer.chars().last().unwrap() } else { '!' };
        seen.push(ClientEvent::Answer { at: now(), close: answer.contains("connection: close"), from });
        let Some((wait, service)) = client.requests.get(n + 1) else { break };
        // Between two requests only the end of the connection can arrive.
        if timeout(Duration::from_millis(*wait), stream.read(&mut [0])).await.is_ok() {
            seen.push(ClientEvent::End(now()));
            return seen;
        }
        stream.write_all(request(*service).as_bytes()).await.unwrap();
    }
    if !client.leaves {
        let _ = stream.read(&mut [0]).await;
        seen.push(ClientEvent::End(now()));
    }
    seen
}

/// The actual result of a history.
pub(super) async fn run(history: &ReloadHistory) -> ExpectedOutcome {
    let dir = tempfile::tempdir().unwrap();
    let (dir, file) = (dir.path(), dir.path().join("attache.yaml"));
    for name in ['a', 'b'] {
        spawn_local(upstream(UnixListener::bind(dir.join(name.to_string())).unwrap(), name));
    }
    let mut state = ReloadState::default();
    fs::write(&file, state.config(history, dir)).unwrap();
    let config = attache_config::load(&file, &|_: &str| None).unwrap_or_else(|found| panic!("{found}"));
    let process = ProcessState::new(2, None, crate::notify::Supervisor::default());
    let prepared =
        prepare::prepare(config, &process.generation(), &process, &mut InheritedSockets::default()).unwrap();
    let (stop, stopping) = watch::channel(ProxyEnd::No);
    let (orders, ordered) = mpsc::unbounded_channel();
    let control = ProxyControl { process: process.clone(), stop, orders };
    let (began, told) = (Instant::now(), control.clone());
    let program = spawn_local(async move {
        let (started, _start) = std::sync::mpsc::channel();
        let operators = OperatorSockets { probes: None, admin: None, others: Vec::new() };
        let orders = ControlChannels { stop: stopping, others: ordered };
        let start: control::StartWorkers = WorkerThreads::start_here;
        control::serve(&told, prepared, operators, orders, &started, start).await.unwrap();
        u64::try_from(began.elapsed().as_millis()).unwrap()
    });
    settle(SETTLED).await;

    let mut clients: Vec<Option<JoinHandle<Vec<ClientEvent>>>> =
        history.clients.iter().map(|_| None).collect();
    advance(Duration::from_millis(1)).await;
    for now in (1..LAST_MILLISECOND).step_by(2) {
        let mut acted = false;
        for (client, task) in history.clients.iter().zip(&mut clients).filter(|(client, _)| client.at == now)
        {
            let (stream, client) = (connect(client, dir), client.clone());
            *task = Some(spawn_local(async move {
                match stream {
                    Some(stream) => follow(stream, client, began).await,
                    None => vec![ClientEvent::Refused],
                }
            }));
            if !history.clients.iter().any(|client| client.at == now && client.tied) {
                settle(SETTLED).await;
            }
            acted = true;
        }
        for reload in history.reloads.iter().filter(|(at, _)| *at == now) {
            let broken = "listeners: {";
            if history.is_taken(reload) {
                state.change(reload.1);
            }
            let text = state.config(history, dir);
            fs::write(&file, if reload.1 == ReloadChange::Broken { broken } else { &*text }).unwrap();
            let told = control.clone();
            let reloaded = done(spawn_local(async move { told.reload(ReloadTrigger::Admin).await })).await;
            assert_eq!(reloaded.is_ok(), history.is_taken(reload), "{reloaded:?}");
            acted = true;
        }
        if now == history.stop {
            control.drain();
            acted = true;
        }
        settle(if acted { SETTLED } else { QUIET }).await;
        if program.is_finished() && now > history.stop {
            break;
        }
        advance(Duration::from_millis(2)).await;
    }
    let end = done(program).await;
    let mut seen = Vec::new();
    for (task, client) in clients.into_iter().zip(&history.clients) {
        seen.push(if let Some(task) = task {
            done(task).await
        } else {
            // The program has already ended.
            assert!(connect(client, dir).is_none());
            vec![ClientEvent::Refused]
        });
    }
    ExpectedOutcome { clients: seen, end }
}
