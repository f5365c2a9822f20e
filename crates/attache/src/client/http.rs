//! The smallest HTTP client that the admin API needs: one request on a new connection, by HTTP/1.0. So a response of any length ends with
//! its connection and needs no framing.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

/// The most time for a connection, and for each wait for bytes of a response.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of one response; a longer one is not from attache.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// The address where attache answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminAddress {
    /// `HOST:PORT`.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        match (port, text.parse::<u16>()) {
            (_, Ok(port)) => Ok(Self::Tcp(format!("127.0.0.1:{port}"))),
            (Some(_), _) => Ok(Self::Tcp(
                text.strip_prefix(':').map_or(text.to_owned(), |port| format!("127.0.0.1:{port}")),
            )),
            (None, _) => Err("expected HOST:PORT, a port, or unix:PATH".to_owned()),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => f.write_str(at),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A response whose body is still to be read.
pub(crate) struct StreamedAnswer {
    pub(crate) status: u16,
    pub(crate) body: BufReader<Box<dyn Read>>,
}

impl StreamedAnswer {
    /// The whole body.
    pub(crate) fn text(self) -> io::Result<String> {
        let mut text = String::new();
        self.body.take(MAX_ANSWER_BYTES).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// Sends a request without a body. `read_timeout` limits each wait for bytes; `None` waits without a limit (for streams).
pub(crate) fn send(
    target: &AdminAddress,
    method: &str,
    path: &str,
    read_timeout: Option<Duration>,
) -> io::Result<StreamedAnswer> {
    let request = format!("{method} {path} HTTP/1.0\r\nhost: {}\r\n\r\n", host(target));
    let stream: Box<dyn Read> = match target {
        AdminAddress::Tcp(at) => {
            let mut stream = connect(at)?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            stream.set_read_timeout(read_timeout)?;
            stream.write_all(request.as_bytes())?;
            Box::new(stream)
        }
        AdminAddress::Unix(path) => {
            let mut stream = UnixStream::connect(path)?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            stream.set_read_timeout(read_timeout)?;
            stream.write_all(request.as_bytes())?;
            Box::new(stream)
        }
    };
    head(BufReader::new(stream))
}

/// The complete response if it was a success; otherwise its text as an error.
pub(crate) fn fetch(target: &AdminAddress, method: &str, path: &str) -> Result<String, String> {
    let (status, text) = ask(target, method, path, TIMEOUT)?;
    if (200..300).contains(&status) { Ok(text) } else { Err(refused(target, status, &text)) }
}

/// The error for a response that is not a success: its own text, or that something else answers there.
pub(super) fn refused(target: &AdminAddress, status: u16, text: &str) -> String {
    if status == 404 {
        return format!(
            "the program at {target} is not the admin API of attache (it answers 404). `--admin ADDRESS` is the `admin` of the config, not its \
             `metrics`"
        );
    }
    format!("{status}: {}", text.trim())
}

/// The status and the text of a response. `read_timeout` limits each wait for bytes.
pub(super) fn ask(
    target: &AdminAddress,
    method: &str,
    path: &str,
    read_timeout: Duration,
) -> Result<(u16, String), String> {
    let unreachable = |error: io::Error| match error.kind() {
        // Which error a socket returns at a timeout depends on the system.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!(
                "no answer at {target} within {read_timeout:?}. attache may be busy: the log says what it does"
            )
        }
        _ => unreachable(target, &error),
    };
    let answer = send(target, method, path, Some(read_timeout)).map_err(unreachable)?;
    let status = answer.status;
    Ok((status, answer.text().map_err(unreachable)?))
}

/// The error if no attache answers.
pub(super) fn unreachable(target: &AdminAddress, error: &io::Error) -> String {
    format!(
        "no answer at {target}: {error}. Does attache run here, and is its `admin` there? (`--admin ADDRESS` says where)"
    )
}

fn host(target: &AdminAddress) -> &str {
    match target {
        AdminAddress::Tcp(at) => at,
        AdminAddress::Unix(_) => "localhost",
    }
}

fn connect(at: &str) -> io::Result<TcpStream> {
    let mut last = None;
    for address in at.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("the name has no address")))
}

fn head(mut body: BufReader<Box<dyn Read>>) -> io::Result<StreamedAnswer> {
    let mut line = String::new();
    let mut status = None;
    loop {
        line.clear();
        let read = (&mut body).take(64 << 10).read_line(&mut line)?;
        let end = line.trim_end();
        if status.is_none() {
            let code = end.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
            status = Some(code.ok_or_else(|| io::Error::other("what answers there isn't HTTP"))?);
        } else if end.is_empty() || read == 0 {
            return Ok(StreamedAnswer { status: status.unwrap_or_default(), body });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_an_address_a_url_and_a_socket_are_valid_targets() {
        for (text, at) in [
            ("15000", "127.0.0.1:15000"),
            (":15000", "127.0.0.1:15000"),
            ("localhost:15000", "localhost:15000"),
            ("[::1]:15000", "[::1]:15000"),
            ("http://127.0.0.1:15000/", "127.0.0.1:15000"),
            ("unix:/run/attache.sock", "unix:/run/attache.sock"),
        ] {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_string(), at);
        }
        assert!("localhost".parse::<AdminAddress>().is_err());
        assert!("localhost:http".parse::<AdminAddress>().is_err());
    }

    #[test]
    fn a_missing_answer_is_reported_with_the_timeout() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = AdminAddress::Tcp(silent.local_addr().unwrap().to_string());
        let said = ask(&target, "POST", "/reload", Duration::from_millis(50)).unwrap_err();
        assert!(said.ends_with("within 50ms. attache may be busy: the log says what it does"), "{said}");
    }
}
