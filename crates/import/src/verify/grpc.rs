//! A stub that gives every gRPC call the same answer, over HTTP/2 with prior knowledge.
//!
//! Its message is `0a 00`, an `envoy.service.auth.v3.CheckResponse` with the status OK. A call whose bytes contain
//! [`super::DENIED`] gets an answer with `PERMISSION_DENIED` and 401 instead. The stub does not decode headers, since
//! nothing else in a call matters.

use std::io::{Read, Write};
use std::net::TcpStream;

/// HEADERS, DATA and the other types of RFC 9113 section 6 that matter here.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// `status: { code: 7 }, denied_response: { status: { code: 401 } }`
const DENIAL: &[u8] = &[0x0a, 0x02, 0x08, 0x07, 0x12, 0x05, 0x0a, 0x03, 0x08, 0x91, 0x03];
/// `status: {}`
const OK: &[u8] = &[0x0a, 0x00];

pub(crate) fn serve(mut stream: &TcpStream) -> Option<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).ok()?;
    frame(stream, SETTINGS, 0, 0, &[])?;
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let mut payload = vec![0; length.min(1 << 20)];
        stream.read_exact(&mut payload).ok()?;
        match kind {
            SETTINGS if flags & ACK == 0 => frame(stream, SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 => frame(stream, PING, ACK, 0, &payload)?,
            DATA => body.extend_from_slice(&payload),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            let word = super::DENIED.as_bytes();
            let denied = body.windows(word.len()).any(|window| window == word);
            body.clear();
            answer(stream, id, if denied { DENIAL } else { OK })?;
        }
    }
}

fn answer(stream: &TcpStream, id: u32, message: &[u8]) -> Option<()> {
    // `:status: 200` is entry 8 of the static table of HPACK; names and values beside it are literals without Huffman coding.
    let mut head = vec![0x88];
    literal("content-type", "application/grpc", &mut head);
    frame(stream, HEADERS, END_HEADERS, id, &head)?;
    let mut data = vec![0];
    data.extend_from_slice(&(message.len() as u32).to_be_bytes());
    data.extend_from_slice(message);
    frame(stream, DATA, 0, id, &data)?;
    let mut trailers = Vec::new();
    literal("grpc-status", "0", &mut trailers);
    frame(stream, HEADERS, END_HEADERS | END_STREAM, id, &trailers)
}

fn literal(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        out.push(text.len() as u8);
        out.extend_from_slice(text.as_bytes());
    }
}

fn frame(mut stream: &TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> Option<()> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
    stream.write_all(&out).ok()
}
