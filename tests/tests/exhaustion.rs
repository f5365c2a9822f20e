//! What happens when file descriptors run out: connections wait, nothing loops, idle connections are closed, and all clients are served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint does not see that these are helpers of tests"
)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use attache_tests::{TestProcess, binary, eventually, free_port, local};

/// How much CPU time the process has used.
fn cpu(process: &TestProcess) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    // After the name: user and system time are the 12th and 13th field, in hundredths of a second (`man 5 proc`).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

/// Whether the client finally gets an answer. If it is refused because of overload near the limit, it asks again.
fn is_answered(client: &mut TcpStream, within: Duration) -> bool {
    let (end, server) = (Instant::now() + within, client.peer_addr().unwrap());
    while Instant::now() < end {
        client.set_read_timeout(Some(within)).unwrap();
        let mut space = [0; 2048];
        let Ok(n) = client.read(&mut space) else { return false };
        if space[..n].ends_with(b"fine") {
            return true;
        }
        if !String::from_utf8_lossy(&space[..n]).contains("overloaded") {
            return false;
        }
        thread::sleep(Duration::from_millis(100));
        *client = TcpStream::connect(server).unwrap();
        client.write_all(GET).unwrap();
    }
    false
}

#[test]
fn connections_above_the_limit_of_open_files_wait_without_a_loop_and_all_are_served() {
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
    let mut attache = TestProcess::start(&mut command, dir);
    attache.wait_for(local(port));

    let clients: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut client = TcpStream::connect(local(port)).unwrap();
            client.write_all(GET).unwrap();
            client
        })
        .collect();
    eventually("the limit is logged", || attache.output().contains("ulimit -n"));

    let (begin, before) = (Instant::now(), cpu(&attache));
    thread::sleep(Duration::from_secs(2));
    let (used, passed) = (cpu(&attache) - before, begin.elapsed());
    assert!(used < passed / 4, "{used:?} of {passed:?}: it loops");

    // No client leaves: attache closes the connections that have their answer, which makes room for the next.
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                let answered = is_answered(&mut client, Duration::from_secs(30));
                (answered, client)
            })
        })
        .collect();
    let ends: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    let answered = ends.iter().filter(|(answered, _)| *answered).count();
    assert_eq!(answered, 100, "{}", attache.output());
    drop(ends);
    let mut client = TcpStream::connect(local(port)).unwrap();
    client.write_all(GET).unwrap();
    assert!(is_answered(&mut client, Duration::from_secs(30)), "it continues");
}
