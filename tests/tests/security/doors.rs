//! The ways in which a client reaches a listener: plaintext, TLS, or redirected by the kernel.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use attache_tests::pki::Pki;

use super::say;

/// One way to connect.
#[derive(Clone, Copy)]
pub(crate) enum EntryPoint<'a> {
    /// TCP.
    Plain(SocketAddr),
    /// TLS, with what the client says of itself.
    Tls { port: u16, pki: &'a Pki, name: &'a str, alpn: &'a str, certificate: Option<&'a str> },
}

impl EntryPoint<'_> {
    /// Sends the pieces with the pauses before them, and waits until nothing more is received.
    pub(crate) fn say(self, pieces: &[(u64, &[u8])]) -> String {
        match self {
            Self::Plain(address) => say(address, pieces),
            Self::Tls { port, pki, name, alpn, certificate } => {
                let mut client = Command::new("openssl");
                client.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")]);
                client.args(["-servername", name]);
                if !alpn.is_empty() {
                    client.args(["-alpn", alpn]);
                }
                if let Some(certificate) = certificate {
                    let file = |end: &str| pki.at(&format!("{certificate}.{end}"));
                    client.args(["-cert", &file("crt"), "-key", &file("key")]);
                }
                through(&mut client, pieces)
            }
        }
    }
}

/// The output of a program that relays its input to the server.
fn through(client: &mut Command, pieces: &[(u64, &[u8])]) -> String {
    let mut child =
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (send, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut space = [0; 4096];
        while let Ok(n @ 1..) = output.read(&mut space) {
            if send.send(space[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    for (pause, piece) in pieces {
        thread::sleep(Duration::from_millis(*pause));
        if input.write_all(piece).and_then(|()| input.flush()).is_err() {
            break;
        }
    }
    // A handshake takes time on a busy machine; everything after it is fast.
    let (mut answer, mut within) = (Vec::new(), Duration::from_millis(2_500));
    while let Ok(more) = heard.recv_timeout(within) {
        answer.extend_from_slice(&more);
        within = Duration::from_millis(300);
    }
    let _ = child.kill();
    let _ = child.wait();
    String::from_utf8_lossy(&answer).into_owned()
}
