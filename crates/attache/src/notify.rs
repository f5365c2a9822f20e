//! Notifies a supervisor by systemd's protocol (`sd_notify(3)`), which other supervisors use too.
//!
//! A notification is a datagram of `NAME=VALUE` lines to the socket that `NOTIFY_SOCKET` names; without that variable nothing is sent.
//! attache sends `READY=1` when the listeners are open, `RELOADING=1` with the time and later `READY=1` for a reload, `STOPPING=1` when the
//! drain begins, `STATUS=` with a text beside each of these, `MAINPID=` when another process takes over, and `WATCHDOG=1` from the control
//! thread twice in the time that `WATCHDOG_USEC` sets.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{linux::net::SocketAddrExt, unix::ffi::OsStrExt, unix::net},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// The connection to the supervisor, or none.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    socket: Option<net::UnixDatagram>,
    /// How often it expects a keepalive.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The supervisor that the environment names.
    pub(crate) fn from_env() -> Self {
        let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self::default();
        };
        match connect(&path) {
            Ok(socket) => Self { socket: Some(socket), watchdog: watchdog() },
            Err(error) => {
                tracing::warn!(socket = %path.display(), %error, "the supervisor of NOTIFY_SOCKET can't be told anything");
                Self::default()
            }
        }
    }

    /// The listeners are open, or a reload has ended.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// A reload begins; [`Self::ready`] ends it.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading the config"));
    }

    /// The drain begins.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// From now on another process is the one to watch.
    pub(crate) fn succeeded_by(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}\nREADY=1\nSTATUS=handed over to process {pid}"));
    }

    /// Sends keepalives as long as the calling thread runs; returns at once if the supervisor expects none.
    pub(crate) async fn keep_alive(&self) {
        let Some(every) = self.watchdog else { return };
        let mut ticks = tokio::time::interval(every / 2);
        loop {
            ticks.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, lines: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(lines.as_bytes())
        {
            tracing::debug!(%error, "the supervisor was not notified");
        }
    }
}

fn connect(path: &OsStr) -> io::Result<net::UnixDatagram> {
    let socket = net::UnixDatagram::unbound()?;
    // A supervisor that does not read must not block attache.
    socket.set_nonblocking(true)?;
    match path.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&net::SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(path)?,
    }
    Ok(socket)
}

fn watchdog() -> Option<Duration> {
    let meant = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    let micros = env::var("WATCHDOG_USEC").ok()?.parse().ok().filter(|micros| *micros > 0)?;
    meant.then(|| Duration::from_micros(micros))
}

/// The first line of a text: a line break would begin another variable.
fn one_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_gets_complete_lines_and_only_known_variables() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let heard = net::UnixDatagram::bind(&path).unwrap();
        let supervisor = Supervisor { socket: Some(connect(path.as_os_str()).unwrap()), watchdog: None };
        let mut buffer = [0; 256];
        let mut next = || {
            let read = heard.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        };
        supervisor.ready("serving\nMAINPID=1");
        assert_eq!(next(), "READY=1\nSTATUS=serving");
        supervisor.reloading();
        let said = next();
        let micros = said.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0 && said.starts_with("RELOADING=1\n"), "{said}");
        supervisor.stopping();
        assert_eq!(next(), "STOPPING=1\nSTATUS=draining");
    }

    #[test]
    fn an_abstract_socket_is_used_and_without_a_socket_nothing_is_sent() {
        let name = format!("attache-test-{}", std::process::id());
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        let heard = net::UnixDatagram::bind_addr(&address).unwrap();
        let socket = connect(OsStr::new(&format!("@{name}"))).unwrap();
        Supervisor { socket: Some(socket), watchdog: None }.stopping();
        let mut buffer = [0; 64];
        assert!(heard.recv(&mut buffer).unwrap() > 0);
        Supervisor::default().stopping();
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_gets_two_keepalives_in_its_time() {
        let (ours, theirs) = net::UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let supervisor = Supervisor { socket: Some(ours), watchdog: Some(Duration::from_secs(2)) };
        let _ = tokio::time::timeout(Duration::from_millis(3500), supervisor.keep_alive()).await;
        let mut buffer = [0; 64];
        let mut heard = 0;
        while theirs.recv(&mut buffer).is_ok() {
            heard += 1;
        }
        assert_eq!(heard, 4, "at 0, 1, 2 and 3 s");
    }
}
