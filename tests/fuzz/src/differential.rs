//! The same bytes through attache's reader of HTTP/1 and through hyper's server may differ only in that attache
//! refuses: attache sees no request that hyper does not see, with the same method, target, fields and body. hyper and
//! httparse read the bytes that attache then writes for the next hop as exactly these messages.

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use attache_http::{TargetForm, check_request, strip_request};
use attache_wire::{
    Fields, HeadLimits, RequestHead,
    body::BodyPiece,
    outbox::BodyEncoder,
    request::{RequestFraming, TargetStrictness},
    server::RequestReader,
    write,
};
use bytes::BytesMut;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

const LIMITS: HeadLimits = HeadLimits { line: 8000, size: 16000, count: 64 };

/// One message. Fields are in the order of their names, those of one name in the order of the message.
#[derive(Clone, Debug, PartialEq)]
struct ReadRequest {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    /// The body has ended cleanly.
    whole: bool,
}

fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

fn fields(of: &Fields) -> Vec<(String, Vec<u8>)> {
    let name = |name: &[u8]| String::from_utf8_lossy(name).to_ascii_lowercase();
    sorted(of.iter().map(|(field, value)| (name(field.as_bytes()), value.as_bytes().to_vec())).collect())
}

/// The requests that hyper's server reads from a connection that sends these bytes and ends.
fn hyper_sees(bytes: &[u8]) -> Vec<ReadRequest> {
    let seen: Rc<RefCell<Vec<ReadRequest>>> = Rc::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        let all = head.headers.iter();
        let all = all.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
        seen.borrow_mut().push(ReadRequest {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            fields: sorted(all),
            body: Vec::new(),
            whole: false,
        });
        let seen = seen.clone();
        async move {
            if let Ok(body) = body.collect().await {
                let mut seen = seen.borrow_mut();
                let last = seen.last_mut().unwrap();
                (last.body, last.whole) = (body.to_bytes().to_vec(), true);
            }
            Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()))
        }
    });
    let io = TokioIo::new(tokio::io::join(bytes, tokio::io::sink()));
    let mut server = http1::Builder::new();
    server.half_close(true).auto_date_header(false).max_headers(100);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // An error of hyper is a refusal.
    let _ = runtime.block_on(server.serve_connection(io, service));
    seen.take()
}

/// The requests that attache reads, and the bytes that it writes for the next hop.
struct AttacheReading {
    seen: Vec<ReadRequest>,
    /// For each valid and whole message: its written bytes, and the request that the next hop must read.
    written: Vec<(Vec<u8>, ReadRequest)>,
    /// The connection may have switched to another protocol.
    may_switch: bool,
}

fn attache_sees(bytes: &[u8]) -> AttacheReading {
    let (mut reader, mut buf) = (RequestReader::new(TargetStrictness::Strict), BytesMut::from(bytes));
    let mut ours = AttacheReading { seen: Vec::new(), written: Vec::new(), may_switch: false };
    while let Ok(Some((head, parts))) = reader.head(&mut buf, &LIMITS) {
        let mut one = ReadRequest {
            method: parts.method.to_string(),
            target: parts.uri.to_string(),
            fields: fields(&parts.headers),
            body: Vec::new(),
            whole: false,
        };
        let mut checked = Rc::unwrap_or_clone(parts.clone());
        let form = check_request(&mut checked, false, head.framing == RequestFraming::None);
        if form.is_err() {
            // The message is refused, and the connection ends.
            return ours;
        }
        while !one.whole {
            match reader.piece(&mut buf) {
                Ok(BodyPiece::Data(data)) => one.body.extend_from_slice(&data),
                Ok(BodyPiece::Trailers(_)) => {}
                Ok(BodyPiece::End) => one.whole = true,
                Ok(BodyPiece::More) | Err(_) => break,
            }
        }
        ours.seen.push(one.clone());
        ours.may_switch = head.may_switch;
        if !one.whole || head.may_switch {
            break;
        }
        let encoder = match head.framing {
            RequestFraming::None => BodyEncoder::None,
            RequestFraming::Length(length) => BodyEncoder::Length(length),
            RequestFraming::Chunked => BodyEncoder::Chunked,
        };
        if form.is_ok_and(|form| form == TargetForm::Origin) {
            ours.written.push(written(checked, one, encoder));
        }
        if !head.persists {
            break;
        }
    }
    ours
}

/// The written bytes of the message, and the request that must be read from them.
fn written(mut head: RequestHead, mut one: ReadRequest, encoder: BodyEncoder) -> (Vec<u8>, ReadRequest) {
    strip_request(&mut head.headers, None, false);
    let path = head.uri.path_and_query().unwrap().clone();
    let raw = head.raw_query.as_ref().and_then(|raw| raw.target(&path));
    let target = raw.as_deref().unwrap_or(path.as_str().as_bytes());
    let mut out = BytesMut::new();
    write::request(&mut out, &head.method, target, &head.headers, encoder);
    if encoder == BodyEncoder::Chunked {
        if !one.body.is_empty() {
            out.extend_from_slice(format!("{:x}\r\n", one.body.len()).as_bytes());
            out.extend_from_slice(&one.body);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
    } else {
        out.extend_from_slice(&one.body);
    }
    one.target = String::from_utf8_lossy(target).into_owned();
    one.fields = fields(&head.headers);
    one.fields.retain(|(name, _)| name != "content-length" && name != "transfer-encoding");
    (out.to_vec(), one)
}

/// Messages that only hyper refuses, although they have a single meaning: a version above 1.1 (which RFC 9110 section
/// 2.5 treats as 1.1), and characters of a query that the `http` crate can't hold.
fn is_refused_by_hyper(bytes: &[u8], ours: &ReadRequest) -> bool {
    let version = bytes.windows(8).any(|at| at.starts_with(b"HTTP/1.") && !matches!(at[7], b'0' | b'1'));
    version || ours.target.contains("%22") || ours.target.contains("%3C") || ours.target.contains("%3E")
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let ours = attache_sees(data);
    if ours.seen.is_empty() {
        return;
    }
    let theirs = hyper_sees(data);
    let shown = || data.escape_ascii().to_string();
    for (at, one) in ours.seen.iter().enumerate() {
        if is_refused_by_hyper(data, one) {
            break;
        }
        let Some(other) = theirs.get(at) else {
            panic!("message {at} is one for attache alone: {one:?}\n{}", shown());
        };
        assert_eq!((&one.method, &one.target), (&other.method, &other.target), "message {at} of {}", shown());
        assert_eq!(one.fields, other.fields, "message {at} of {}", shown());
        let last = at + 1 == ours.seen.len();
        if !(last && (ours.may_switch || !one.whole)) {
            assert!(other.whole, "message {at} is whole for attache alone: {}", shown());
            assert_eq!(one.body, other.body, "message {at} of {}", shown());
        }
    }
    next_hop(&ours);
}

/// Every reader reads the written bytes as the same messages.
fn next_hop(ours: &AttacheReading) {
    let all: Vec<u8> = ours.written.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
    let mut seen = hyper_sees(&all);
    let shown = || all.escape_ascii().to_string();
    for one in &mut seen {
        one.fields.retain(|(name, _)| name != "content-length" && name != "transfer-encoding");
    }
    let expected: Vec<ReadRequest> = ours.written.iter().map(|(_, one)| one.clone()).collect();
    // Characters that the `http` crate can't hold: hyper refuses the message, and all that follow.
    let refused =
        expected.iter().position(|one| one.target.contains(['"', '<', '>'])).unwrap_or(expected.len());
    assert_eq!(seen, expected[..refused], "{}", shown());
    for (bytes, one) in &ours.written {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Request::new(&mut headers);
        let read = other.parse(bytes);
        assert!(matches!(read, Ok(httparse::Status::Complete(_))), "{read:?}: {}", shown());
        assert_eq!((other.method, other.path), (Some(&*one.method), Some(&*one.target)), "{}", shown());
        assert_eq!(other.version, Some(1));
    }
}
