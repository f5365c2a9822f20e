//! A client that sends exactly the given bytes.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::probe::PlannedProbe;

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct SeenAnswer {
    /// The status; 0 where the connection ended without one.
    pub status: u16,
    /// The body.
    pub body: String,
    headers: Vec<(String, String)>,
    /// The request that the stub got, if a stub answered.
    pub(crate) stub: Option<StubRequest>,
}

/// A request as a stub got it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StubRequest {
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Vec<(String, String)>,
}

fn header(headers: &[(String, String)], name: &str) -> String {
    let found: Vec<_> = headers
        .iter()
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect();
    found.join(",").replace(", ", ",")
}

impl StubRequest {
    pub(crate) fn header(&self, name: &str) -> String {
        header(&self.headers, name)
    }
}

impl SeenAnswer {
    pub(crate) fn header(&self, name: &str) -> String {
        header(&self.headers, name)
    }

    pub(crate) fn summary(&self) -> String {
        match &self.stub {
            Some(stub) => format!("{} by {}", self.status, stub.name),
            None if self.status == 0 => "no answer".to_owned(),
            None => format!("{} by itself ({})", self.status, self.header("x-attache-reason")),
        }
    }
}

/// Sends a request and reads the answer to the connection's end.
pub(crate) fn ask(port: u16, probe: &PlannedProbe) -> SeenAnswer {
    read(port, probe).unwrap_or_default()
}

fn read(port: u16, probe: &PlannedProbe) -> Option<SeenAnswer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    stream.write_all(probe.bytes().as_bytes()).ok()?;
    let mut bytes = Vec::new();
    let mut piece = [0; 8192];
    loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(n) => bytes.extend_from_slice(piece.get(..n)?),
        }
        if complete(&bytes, probe.method == "HEAD") {
            break;
        }
    }
    parse(&bytes, probe.method == "HEAD")
}

fn head(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((String::from_utf8_lossy(bytes.get(..end)?).into_owned(), end + 4))
}

fn complete(bytes: &[u8], no_body: bool) -> bool {
    let Some((text, start)) = head(bytes) else { return false };
    if no_body || text.contains(" 304 ") || text.contains(" 204 ") {
        return true;
    }
    let lower = text.to_ascii_lowercase();
    if lower.contains("transfer-encoding: chunked") {
        return bytes.ends_with(b"0\r\n\r\n");
    }
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse::<usize>().ok());
    length.is_some_and(|length| bytes.len() >= start + length)
}

fn parse(bytes: &[u8], no_body: bool) -> Option<SeenAnswer> {
    let (text, start) = head(bytes)?;
    let mut lines = text.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let rest = bytes.get(start..)?;
    let body =
        if header(&headers, "transfer-encoding").contains("chunked") { dechunk(rest) } else { rest.to_vec() };
    let body = String::from_utf8_lossy(&body).into_owned();
    let stub = seen(&body).or_else(|| {
        let name = header(&headers, "x-stub");
        let coded = !header(&headers, "content-encoding").is_empty();
        if name.is_empty() || !(no_body || coded) {
            return None;
        }
        let line = header(&headers, "x-stub-line");
        let mut words = line.split(' ');
        Some(StubRequest {
            name,
            method: words.next()?.to_owned(),
            target: words.next()?.to_owned(),
            headers: Vec::new(),
        })
    });
    Some(SeenAnswer { status, body, headers, stub })
}

fn seen(body: &str) -> Option<StubRequest> {
    let mut lines = body.lines();
    let name = lines.next()?.strip_prefix("stub ")?.to_owned();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Some(StubRequest { name, method, target, headers })
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return out };
        let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let Ok(size) = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16) else {
            return out;
        };
        bytes = &bytes[end + 2..];
        if size == 0 || bytes.len() < size {
            return out;
        }
        out.extend_from_slice(&bytes[..size]);
        bytes = bytes.get(size + 2..).unwrap_or_default();
    }
}
