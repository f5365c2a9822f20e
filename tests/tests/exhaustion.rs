//! What happens when the process has no file descriptor left: it waits, it doesn't spin, and it goes on when there are some again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests stand outside of them"
)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use attache_tests::{Process, binary, eventually, free_port, local};

/// What the process has used of the processor's time.
fn cpu(process: &Process) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    // Behind the name: user and system time are the 12th and 13th field, in hundredths of a second (`man 5 proc`).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn is_answered(client: &mut TcpStream, patience: Duration) -> bool {
    client.set_read_timeout(Some(patience)).unwrap();
    let mut space = [0; 1024];
    client.read(&mut space).is_ok_and(|n| space[..n].ends_with(b"fine"))
}

#[test]
fn connections_beyond_the_limit_of_open_files_wait_without_a_spin_and_are_served_later() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let file = dir.path().join("attache.yaml");
    fs::write(
        &file,
        format!(
            "metrics: off
workers: 2
listeners:
  outbound: {{ bind: '127.0.0.1:{port}', routes: [ {{ match: {{ path: /* }}, respond: {{ status: 200, body: fine }} }} ] }}
"
        ),
    )
    .unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 48; exec \"$0\" run -c \"$1\""]).arg(binary()).arg(&file);
    let mut attache = Process::start(&mut command, dir);
    attache.wait_for(local(port));

    let mut clients: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut client = TcpStream::connect(local(port)).unwrap();
            client.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            client
        })
        .collect();
    eventually("the limit is said", || attache.output().contains("ulimit -n"));

    let (begin, before) = (Instant::now(), cpu(&attache));
    thread::sleep(Duration::from_secs(2));
    let (used, passed) = (cpu(&attache) - before, begin.elapsed());
    assert!(used < passed / 4, "{used:?} of {passed:?}: it spins");

    let waiting: Vec<TcpStream> = {
        let (answered, waiting): (Vec<_>, Vec<_>) = clients
            .drain(..)
            .map(|mut c| (is_answered(&mut c, Duration::from_millis(20)), c))
            .partition(|(ok, _)| *ok);
        assert!(!answered.is_empty() && waiting.len() > 40, "{} {}", answered.len(), waiting.len());
        waiting.into_iter().map(|(_, client)| client).collect()
        // Those that have their answer leave here, and make room.
    };
    // Whoever has the answer makes room for the next; which one that is, is the kernel's choice.
    let readers: Vec<_> = waiting
        .into_iter()
        .map(|mut client| thread::spawn(move || is_answered(&mut client, Duration::from_secs(30))))
        .collect();
    let count = readers.len();
    let answered = readers.into_iter().filter_map(|reader| reader.join().ok()).filter(|ok| *ok).count();
    assert_eq!(answered, count, "{}", attache.output());
}
