//! HTTP/2 as bytes.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::TestServer;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET http://h/` in HPACK's static table, `:authority: h` as a literal.
pub const HEADERS: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'h'];

/// A connection whose HTTP/2 preface has been exchanged.
pub async fn raw(server: &TestServer) -> TcpStream {
    let mut client = server.connect().await;
    client.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.unwrap();
    client
}
