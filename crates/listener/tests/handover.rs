//! Connections that arrive at one worker are shared with the other workers, and none is lost when the workers end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint does not see that these are helpers of tests"
)]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use attache_config::model::{Bind, Listener};
use attache_listener::{
    Connections, ConnectionsPerWorker, DrainTrigger, ListenerSettings, WorkerSocket, bind, serve,
};
use support::*;

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

/// A worker on a thread of its own.
fn worker(listener: Listener, sockets: Vec<WorkerSocket>, trigger: &DrainTrigger) -> JoinHandle<()> {
    let drain = trigger.subscribe();
    thread::spawn(move || {
        run(async {
            let settings = ListenerSettings {
                listener: Arc::new(listener),
                tls: None,
                connections: Arc::new(Connections::default()),
                takes: Rc::new(|_| attache_http::AcceptedTraffic { http: true, opaque: true }),
                passes_tls: false,
                overload: Arc::default(),
                on_finish: Rc::new(|_| {}),
                release_memory: || {},
                drain_timeout: FOREVER,
            };
            let (_replace, settings) = tokio::sync::watch::channel(Rc::new(settings));
            serve(settings, sockets, Answering(fun(answer)), fun(echo_bytes), drain).await;
        });
    })
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + FOREVER;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn get(client: &mut (impl Read + Write)) {
    client.write_all(GET).unwrap();
    let mut all = Vec::new();
    let mut space = [0; 1024];
    while !String::from_utf8_lossy(&all).contains("GET /a []") {
        let n = client.read(&mut space).unwrap();
        assert!(n > 0, "closed: {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&space[..n]);
    }
}

#[test]
fn connections_are_balanced_whatever_socket_the_kernel_chose() {
    let (listener, workers, trigger) = (listener(), ConnectionsPerWorker::new(2), DrainTrigger::new());
    let sockets = bind(&listener.bind[0], &workers).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let threads: Vec<_> = sockets.into_iter().map(|s| worker(listener.clone(), vec![s], &trigger)).collect();
    let mut clients = Vec::new();
    for count in 1..=8 {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(FOREVER)).unwrap();
        clients.push(client);
        eventually("it is open", || workers.open(0) + workers.open(1) == count);
    }
    assert_eq!((workers.open(0), workers.open(1)), (4, 4));
    clients.iter_mut().for_each(get);
    // Every client can send again: the handing over lost no byte.
    clients.iter_mut().for_each(get);
    drop(clients);
    eventually("none is open", || workers.open(0) + workers.open(1) == 0);
    trigger.drain();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn connections_that_were_handed_over_survive_a_drain() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = Listener { bind: vec![Bind::Unix { path: path.clone(), mode: 0o600 }], ..listener() };
    let (workers, trigger) = (ConnectionsPerWorker::new(2), DrainTrigger::new());
    let mut sockets = bind(&listener.bind[0], &workers).unwrap();
    let second = sockets.pop().unwrap();
    // Only one of the two workers runs: it accepts all connections, and half of them wait in the queue of the other.
    let first = worker(listener.clone(), sockets, &trigger);
    let mut clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = UnixStream::connect(&path).unwrap();
            client.set_read_timeout(Some(FOREVER)).unwrap();
            client.write_all(GET).unwrap();
            client
        })
        .collect();
    eventually("half of them wait", || (workers.open(0), workers.open(1)) == (4, 4));
    trigger.drain();
    let second = worker(listener, vec![second], &trigger);
    for client in &mut clients {
        let mut all = String::new();
        client.read_to_string(&mut all).unwrap();
        assert!(all.contains("GET /a []"), "{all:?}");
    }
    first.join().unwrap();
    second.join().unwrap();
    assert_eq!((workers.open(0), workers.open(1)), (0, 0));
}
