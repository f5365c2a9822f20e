//! What a client must not achieve: each test is a closed way to avoid the rules. `docs/security.md` names them by its promises.
#![allow(missing_docs, reason = "tests")]

mod answers;
mod boundaries;
mod doors;
mod heads;
mod pipe;
mod property;
mod rules;
mod settings;
mod upgrades;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A lenient HTTP server of a kind that exists: it keeps every byte that it gets, and answers whenever an empty line arrives.
struct LenientUpstream {
    port: u16,
    /// The received bytes, by connection.
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl LenientUpstream {
    fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let upstream = Self { port: listener.local_addr().unwrap().port(), seen: Arc::default() };
        let seen = upstream.seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                thread::spawn(move || serve(stream, &seen));
            }
        });
        upstream
    }

    /// All received bytes, as text.
    fn seen(&self) -> String {
        self.connections().concat()
    }

    /// The received bytes of each connection, as text.
    fn connections(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    fn forget(&self) {
        self.seen.lock().unwrap().iter_mut().for_each(Vec::clear);
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Vec<u8>>>) {
    let at = {
        let mut seen = seen.lock().unwrap();
        seen.push(Vec::new());
        seen.len() - 1
    };
    let (mut space, mut head) = ([0; 4096], Vec::new());
    while let Ok(n @ 1..) = stream.read(&mut space) {
        seen.lock().unwrap()[at].extend_from_slice(&space[..n]);
        head.extend_from_slice(&space[..n]);
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            head.clear();
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}

/// Sends the pieces with the pauses before them, and reads until nothing has arrived for a second.
fn say(address: SocketAddr, pieces: &[(u64, &[u8])]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    for (pause, piece) in pieces {
        thread::sleep(Duration::from_millis(*pause));
        // The other side may have closed, which is a valid reaction too.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let (mut answer, mut space) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut space) {
        answer.extend_from_slice(&space[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// HTTP/2 by hand: the preface, and one HEADERS frame (RFC 9113 section 6.2) with literals without indexing (RFC 7541 section 6.2.2).
fn h2(fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // Integers that need more than 7 bits (section 5.1).
            let length = text.len();
            if length < 127 {
                block.push(length as u8);
            } else {
                block.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    block.push((rest % 128 + 128) as u8);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    frame(&mut out, 1, 4 | u8::from(end), &block);
    out
}

/// A frame of stream 1.
fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
    out.extend_from_slice(payload);
}
