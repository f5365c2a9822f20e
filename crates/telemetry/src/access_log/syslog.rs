//! Writes lines as syslog messages (RFC 5424): to a Unix datagram socket, over UDP (RFC 5426), or over TCP with octet counting (RFC 6587
//! section 3.4.1).
//!
//! Rule: while the server is unreachable, lines are lost and counted; the start and requests never fail because of it. attache tries to
//! connect again at most once a second.

use std::{
    fs,
    io::{self, Write},
    net::{TcpStream, ToSocketAddrs, UdpSocket},
    os::unix::net::UnixDatagram,
    time::{Duration, Instant, SystemTime},
};

use attache_config::model::{Syslog, SyslogTo};

use super::time::LogTimestamp;

/// How long the server may take to accept a connection or a message.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two attempts to connect.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// The most bytes of a line in a datagram. Receivers accept this (RFC 5426 section 3.2 asks for 2048), and it is far below the limit of
/// UDP.
const MAX_DATAGRAM_BYTES: usize = 8 << 10;
/// Severity "informational" (RFC 5424 section 6.2.1).
const INFORMATIONAL: u8 = 6;

pub(super) struct SyslogWriter {
    to: SyslogTo,
    priority: u8,
    /// `HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA`.
    head: String,
    socket: Option<SyslogSocket>,
    failed: Option<Instant>,
    message: Vec<u8>,
}

enum SyslogSocket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl SyslogWriter {
    pub(super) fn new(settings: &Syslog) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host =
            Some(host.trim()).filter(|host| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic()));
        let head = format!("{} {} {} access -", host.unwrap_or("-"), settings.app, std::process::id());
        Self {
            to: settings.to.clone(),
            priority: settings.facility as u8 * 8 + INFORMATIONAL,
            head,
            socket: None,
            failed: None,
            message: Vec::new(),
        }
    }

    fn send(&mut self, lines: &[u8]) -> io::Result<()> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(connect(&self.to)?),
        };
        let now = LogTimestamp(SystemTime::now());
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.message.clear();
            let line = if matches!(socket, SyslogSocket::Tcp(_)) { line } else { shortened(line) };
            write!(self.message, "<{}>1 {now} {} ", self.priority, self.head)?;
            self.message.extend_from_slice(line);
            match socket {
                SyslogSocket::Unix(socket) => drop(socket.send(&self.message)?),
                SyslogSocket::Udp(socket) => drop(socket.send(&self.message)?),
                SyslogSocket::Tcp(stream) => {
                    let length = format!("{} ", self.message.len());
                    stream.write_all(length.as_bytes())?;
                    stream.write_all(&self.message)?;
                }
            }
        }
        Ok(())
    }
}

/// Cuts a line that is too long, between two characters.
fn shortened(line: &[u8]) -> &[u8] {
    let mut end = line.len().min(MAX_DATAGRAM_BYTES);
    while end > 0 && line.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    line.get(..end).unwrap_or(line)
}

fn connect(to: &SyslogTo) -> io::Result<SyslogSocket> {
    match to {
        SyslogTo::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            socket.set_write_timeout(Some(TIMEOUT))?;
            Ok(SyslogSocket::Unix(socket))
        }
        SyslogTo::Udp(server) => {
            let server = resolve(server)?;
            let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(server)?;
            Ok(SyslogSocket::Udp(socket))
        }
        SyslogTo::Tcp(server) => {
            let stream = TcpStream::connect_timeout(&resolve(server)?, TIMEOUT)?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(SyslogSocket::Tcp(stream))
        }
    }
}

fn resolve(server: &str) -> io::Result<std::net::SocketAddr> {
    let mut addresses = server.to_socket_addrs()?;
    addresses
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{server} has no address")))
}

impl Write for SyslogWriter {
    /// Accepts only complete lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.failed.is_some_and(|failed| failed.elapsed() < RECONNECT_INTERVAL) {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the syslog server was unreachable a moment ago",
            ));
        }
        match self.send(lines) {
            Ok(()) => {
                self.failed = None;
                Ok(lines.len())
            }
            Err(error) => {
                self.socket = None;
                self.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, net::TcpListener};

    use attache_config::model::Facility;

    use super::*;

    fn writer(to: SyslogTo) -> SyslogWriter {
        SyslogWriter::new(&Syslog { to, facility: Facility::Local0, app: "shop".into() })
    }

    /// Checks that a message is `<134>1 TIME HOST shop PID access - LINE`.
    fn check(message: &str, line: &str) {
        let fields: Vec<_> = message.splitn(8, ' ').collect();
        let [version, time, host, app, pid, id, data, text] = fields[..] else { panic!("{message}") };
        assert_eq!((version, app, id, data, text), ("<134>1", "shop", "access", "-", line));
        assert!(time.ends_with('Z') && !host.is_empty() && pid.parse::<u32>().is_ok(), "{message}");
    }

    #[test]
    fn every_line_is_one_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let unix = UnixDatagram::bind(&path).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut buffer = [0; 4096];
        writer(SyslogTo::Unix(path)).write_all(b"one\n\ntwo 2\n").unwrap();
        for line in ["one", "two 2"] {
            let length = unix.recv(&mut buffer).unwrap();
            check(std::str::from_utf8(&buffer[..length]).unwrap(), line);
        }
        let address = udp.local_addr().unwrap().to_string();
        writer(SyslogTo::Udp(address.into())).write_all(b"one\n").unwrap();
        let length = udp.recv(&mut buffer).unwrap();
        check(std::str::from_utf8(&buffer[..length]).unwrap(), "one");
    }

    #[test]
    fn over_tcp_every_message_begins_with_its_length() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = writer(SyslogTo::Tcp(server.local_addr().unwrap().to_string().into()));
        writer.write_all("eins\nzw\u{f6}lf\n".as_bytes()).unwrap();
        drop(writer);
        let mut text = String::new();
        server.accept().unwrap().0.read_to_string(&mut text).unwrap();
        let mut rest = text.as_str();
        for line in ["eins", "zw\u{f6}lf"] {
            let (length, after) = rest.split_once(' ').unwrap();
            let (message, after) = after.split_at(length.parse().unwrap());
            check(message, line);
            rest = after;
        }
        assert_eq!(rest, "");
    }

    #[test]
    fn an_unreachable_server_is_an_error_and_not_tried_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = writer(SyslogTo::Unix(path.clone()));
        assert!(writer.write_all(b"lost\n").is_err());
        let server = UnixDatagram::bind(&path).unwrap();
        assert_eq!(writer.write_all(b"lost too\n").unwrap_err().kind(), io::ErrorKind::NotConnected);
        writer.failed = writer.failed.and_then(|failed| failed.checked_sub(RECONNECT_INTERVAL));
        writer.write_all(b"kept\n").unwrap();
        let mut buffer = [0; 4096];
        let length = server.recv(&mut buffer).unwrap();
        check(std::str::from_utf8(&buffer[..length]).unwrap(), "kept");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let line = "\u{20ac}".repeat(MAX_DATAGRAM_BYTES);
        let cut = shortened(line.as_bytes());
        assert!(cut.len() <= MAX_DATAGRAM_BYTES && std::str::from_utf8(cut).is_ok());
    }
}
