//! Requests of one connection: the size of pieces makes no difference, nothing panics, and httparse finds the same
//! framing in every accepted request.

use attache_wire::{HeadLimits, body::BodyPiece, request::TargetStrictness, server::RequestReader};
use bytes::BytesMut;

const LIMITS: HeadLimits = HeadLimits { line: 8000, size: 16000, count: 64 };

#[derive(Debug, PartialEq)]
enum RequestEnd {
    Open,
    Refused,
    Broken,
}

fn read(pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<(String, Vec<u8>)>, RequestEnd) {
    let (mut reader, mut buf) = (RequestReader::new(TargetStrictness::Lenient), BytesMut::new());
    let mut messages: Vec<(String, Vec<u8>)> = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(&piece);
        loop {
            if reader.at_start() {
                let before = buf.clone();
                match reader.head(&mut buf, &LIMITS) {
                    Ok(Some((head, parts))) => {
                        let skipped = before.len() - buf.len() - head.len;
                        agree(&before[skipped..skipped + head.len]);
                        messages.push((
                            format!("{} {} {:?}", parts.method, parts.uri, parts.headers),
                            Vec::new(),
                        ));
                    }
                    Ok(None) => break,
                    Err(_) => return (messages, RequestEnd::Refused),
                }
            } else if reader.is_switching() {
                return (messages, RequestEnd::Open);
            }
            match reader.piece(&mut buf) {
                Ok(BodyPiece::Data(data)) => messages.last_mut().unwrap().1.extend_from_slice(&data),
                Ok(BodyPiece::Trailers(_) | BodyPiece::End) => {}
                Ok(BodyPiece::More) => break,
                Err(_) => return (messages, RequestEnd::Broken),
            }
        }
    }
    (messages, RequestEnd::Open)
}

/// httparse, which is more lenient, reads the same head with the same length.
fn agree(head: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Request::new(&mut headers);
    match other.parse(head) {
        Ok(httparse::Status::Complete(len)) => assert_eq!(len, head.len()),
        // A version above 1.1, which httparse refuses.
        Err(httparse::Error::Version) => {}
        other => panic!("{other:?}: {:?}", head.escape_ascii().to_string()),
    }
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else { return };
    let whole = read(std::iter::once(bytes.to_vec()));
    let step = usize::from(*step).max(1);
    assert_eq!(read(bytes.chunks(step).map(<[u8]>::to_vec)), whole);
}
