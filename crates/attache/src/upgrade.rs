//! SIGUSR2: a new program takes over from the running one, and no connection is lost.
//!
//! The rule: the old process starts its own program file again with its own arguments, and passes the listening sockets to it (SCM_RIGHTS,
//! `unix(7)`). They stay the same sockets, so one of the two processes accepts the connections in their queues. When the new process
//! reports that it serves, the old one drains. If the new one doesn't report that in time, it is ended, and the old one continues to serve.
//! If the old one is told to end meanwhile, both end, because the service manager doesn't know the new process. The reasons are in
//! `docs/decisions/0012-sockets-are-handed-to-a-new-process.md`.
//!
//! The two communicate over a socket pair that is the standard input of the new process, so no other process can ask for the sockets. The
//! old process sends messages with a key and descriptors, then [`END`]; the new process sends [`READY`].

use std::{
    env,
    ffi::OsString,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::{
    io::retry_on_intr,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown,
        socketpair,
        sockopt::{Timeout, set_socket_timeout},
    },
    process::{Pid, Signal, kill_process},
};

/// The variable that is set for a process that takes over.
const MARK: &str = "ATTACHE_TAKES_OVER";
const END: &[u8] = b"end";
const READY: &[u8] = b"ready";
/// The most descriptors in one message; the kernel allows 253.
const MAX_DESCRIPTORS: usize = 64;
/// The most bytes of one message.
const MAX_MESSAGE_BYTES: usize = 4096;
/// How long a new process may take until it serves.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A socket with its key.
pub(crate) type KeyedSocket = (String, OwnedFd);

/// How this program was started, so that it can be started again. It is made before its file can be replaced.
#[derive(Clone, Debug)]
pub(crate) struct OwnCommand {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl OwnCommand {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { program: env::current_exe()?, arguments: env::args_os().skip(1).collect() })
    }

    /// The same command with another program file.
    pub(crate) fn by(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }
}

/// The process that handed its sockets over, and that waits for this one.
#[derive(Debug)]
pub(crate) struct Predecessor(OwnedFd);

impl Predecessor {
    /// Reports to it that this process serves.
    ///
    /// # Errors
    /// The old process has ended, or was told to end.
    pub(crate) fn ready(self) -> io::Result<()> {
        send(self.0.as_fd(), READY, &[])
    }
}

/// Receives what the old process hands over, if there is one.
pub(crate) fn receive() -> Result<Option<(Predecessor, Vec<KeyedSocket>)>, String> {
    if env::var_os(MARK).is_none() {
        return Ok(None);
    }
    let fail = |error: io::Error| {
        format!("{MARK} is set, but no process hands its sockets over on standard input: {error}")
    };
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(fail)?;
    let mut all = Vec::new();
    loop {
        let (text, sockets) = receive_one(socket.as_fd()).map_err(fail)?;
        match text.as_slice() {
            END => return Ok(Some((Predecessor(socket), all))),
            [] => return Err(fail(io::ErrorKind::UnexpectedEof.into())),
            key => {
                let key = String::from_utf8_lossy(key).into_owned();
                all.extend(sockets.into_iter().map(|socket| (key.clone(), socket)));
            }
        }
    }
}

/// The connection between the two processes.
pub(crate) struct UpgradeLine {
    ours: OwnedFd,
    theirs: OwnedFd,
}

/// Cancels a hand-over that runs in another thread.
pub(crate) struct GiveUp(OwnedFd);

impl GiveUp {
    /// Ends the new process, unless it has reported that it serves.
    pub(crate) fn now(&self) {
        // If the connection is already closed, no process waits for it.
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

impl UpgradeLine {
    /// # Errors
    /// The kernel has no socket pair left.
    pub(crate) fn new() -> Result<(Self, GiveUp), String> {
        let fail = |error: io::Error| format!("no socket pair: {error}");
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|error| fail(error.into()))?;
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&ours, timeout, Some(TIMEOUT)).map_err(|error| fail(error.into()))?;
        }
        let give_up = GiveUp(ours.try_clone().map_err(fail)?);
        Ok((Self { ours, theirs }, give_up))
    }
}

/// Starts the new process, hands the sockets over and waits until it serves. Returns its id, or why it doesn't serve. It blocks.
pub(crate) fn hand_over(
    line: UpgradeLine,
    myself: &OwnCommand,
    sockets: &[(String, Vec<BorrowedFd<'_>>)],
) -> Result<u32, String> {
    let UpgradeLine { ours, theirs } = line;
    let mut command = Command::new(&myself.program);
    command.args(&myself.arguments).stdin(Stdio::from(theirs)).env(MARK, "stdin");
    // These variables are for the process that a supervisor started.
    for variable in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(variable);
    }
    let mut child =
        command.spawn().map_err(|error| format!("{} can't be started: {error}", myself.program.display()))?;
    // It holds the other end of the connection, which must close when the new process closes it.
    drop(command);
    match hand(ours.as_fd(), sockets) {
        Ok(()) => Ok(child.id()),
        Err(error) => Err(give_up(&mut child, &error)),
    }
}

/// Tells a process that has taken over to end.
pub(crate) fn end(pid: u32) {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = process.map(|process| kill_process(process, Signal::TERM)) {
        tracing::error!(pid, %error, "the process that has taken over could not be told to end");
    }
}

fn hand(to: BorrowedFd<'_>, sockets: &[(String, Vec<BorrowedFd<'_>>)]) -> io::Result<()> {
    for (key, sockets) in sockets {
        for some in sockets.chunks(MAX_DESCRIPTORS) {
            send(to, key.as_bytes(), some)?;
        }
    }
    send(to, END, &[])?;
    match receive_one(to)?.0.as_slice() {
        READY => Ok(()),
        [] => Err(io::Error::other("it ended before it served; its log says why")),
        other => Err(io::Error::other(format!("it said {:?}", String::from_utf8_lossy(other)))),
    }
}

fn give_up(child: &mut Child, error: &io::Error) -> String {
    let _ = child.kill();
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    let why = match error.kind() {
        io::ErrorKind::WouldBlock => format!("it does not serve after {TIMEOUT:?}"),
        _ => error.to_string(),
    };
    format!("the new process did not take over: {why} ({status})")
}

fn send(to: BorrowedFd<'_>, text: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("too many sockets in one message"));
    }
    retry_on_intr(|| sendmsg(to, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one message; it is empty at the end.
fn receive_one(from: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut text = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(&mut text)];
    // A signal says nothing about the other process: if a child ends or stops, the hand-over must not end.
    let received = retry_on_intr(|| recvmsg(from, slices, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            sockets.extend(some);
        }
    }
    text.truncate(received.bytes);
    Ok((text, sockets))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sockets_arrive_with_their_key_and_are_the_same_sockets() {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        send(one.as_fd(), b"tcp 1", &[listener.as_fd(), listener.as_fd()]).unwrap();
        send(one.as_fd(), END, &[]).unwrap();
        let (key, mut sockets) = receive_one(other.as_fd()).unwrap();
        assert_eq!((key.as_slice(), sockets.len()), (&b"tcp 1"[..], 2));
        let copy = TcpListener::from(sockets.pop().unwrap());
        assert_eq!(copy.local_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(receive_one(other.as_fd()).unwrap().0, END);
        drop(one);
        assert!(receive_one(other.as_fd()).unwrap().0.is_empty(), "the end");
    }

    #[test]
    fn a_new_process_that_ends_at_once_is_an_error_without_a_wait() {
        let myself = OwnCommand { program: "/bin/false".into(), arguments: Vec::new() };
        let said = hand_over(UpgradeLine::new().unwrap().0, &myself, &[]).unwrap_err();
        assert!(said.contains("did not take over"), "{said}");
        let nothing = OwnCommand { program: "/no/such/program".into(), arguments: Vec::new() };
        let said = hand_over(UpgradeLine::new().unwrap().0, &nothing, &[]).unwrap_err();
        assert!(said.contains("/no/such/program"), "{said}");
    }

    #[test]
    fn a_cancelled_hand_over_ends_the_new_process() {
        let myself = OwnCommand { program: "/bin/sleep".into(), arguments: vec!["600".into()] };
        let (line, give_up) = UpgradeLine::new().unwrap();
        let handing = std::thread::spawn(move || hand_over(line, &myself, &[]));
        std::thread::sleep(Duration::from_millis(100));
        give_up.now();
        let said = handing.join().unwrap().unwrap_err();
        assert!(said.contains("did not take over") && said.contains("signal: 9"), "{said}");
    }

    #[test]
    fn a_cancelled_process_gets_an_error_when_it_reports_that_it_serves() {
        let (line, give_up) = UpgradeLine::new().unwrap();
        give_up.now();
        assert!(Predecessor(line.theirs).ready().is_err());
    }
}
