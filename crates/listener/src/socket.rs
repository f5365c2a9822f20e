//! Listening sockets: turns a checked bind into sockets that accept.
//!
//! The rule: if another process listens on the port, that is an error (`tcp`). Every worker has its own TCP socket for the same address
//! (`SO_REUSEPORT`), so that the kernel spreads connections over them and wakes only the worker that gets one.
//! ([`handover`](crate::handover) corrects an uneven spread.) A Unix path can be bound only once: its one socket is duplicated.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use attache_config::model::Bind;
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

use crate::handover::{ConnectionsPerWorker, WorkerSlot};

/// How many connections the kernel holds for one socket until they are accepted. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// One worker's listening socket. It may be made on one thread and used on another.
#[derive(Debug)]
pub struct WorkerSocket {
    pub(crate) kind: SocketKind,
    pub(crate) seat: WorkerSlot,
}

#[derive(Debug)]
pub(crate) enum SocketKind {
    Tcp(std::net::TcpListener, SocketAddr),
    Unix(std::os::unix::net::UnixListener, Arc<UnixPath>),
}

impl WorkerSocket {
    /// The address that it listens on, with the real port if the config has port 0. `None` on Unix sockets.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.kind {
            SocketKind::Tcp(_, local) => Some(*local),
            SocketKind::Unix(..) => None,
        }
    }
}

/// A second handle of a listening socket. As long as it exists the socket stays open, and it can be given to another process. Connections
/// that are not accepted wait, so drop the handle to close the socket.
#[derive(Debug)]
pub struct SocketHandle {
    socket: OwnedFd,
    path: Option<Arc<UnixPath>>,
}

impl AsFd for SocketHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl SocketHandle {
    /// Notes that another process listens on it from now on: the path of a Unix socket is no longer removed at the end.
    pub fn handed_on(&self) {
        if let Some(path) = &self.path {
            path.not_ours.store(true, Ordering::Relaxed);
        }
    }
}

impl WorkerSocket {
    /// A second handle of the same socket.
    pub fn hold(&self) -> io::Result<SocketHandle> {
        Ok(match &self.kind {
            SocketKind::Tcp(socket, _) => {
                SocketHandle { socket: socket.as_fd().try_clone_to_owned()?, path: None }
            }
            SocketKind::Unix(socket, path) => {
                SocketHandle { socket: socket.as_fd().try_clone_to_owned()?, path: Some(path.clone()) }
            }
        })
    }
}

/// Removes the path when the last worker has finished with it, if the path is still the same socket.
#[derive(Debug)]
pub(crate) struct UnixPath {
    path: PathBuf,
    inode: Option<u64>,
    /// Another process made the path, or owns it now.
    not_ours: AtomicBool,
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        // A successor (a reload, another process) may have replaced the path; then it must not be removed.
        let ours = !self.not_ours.load(Ordering::Relaxed);
        if ours && self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds one address for all workers: one socket each, in the order of the workers.
pub fn bind(bind: &Bind, workers: &ConnectionsPerWorker) -> Result<Vec<WorkerSocket>, BindError> {
    let fail = |step, source| BindError { bind: bind.clone(), step, source };
    let mut kinds = Vec::new();
    match bind {
        Bind::Tcp(address) => {
            let first = tcp(*address, is_ours(*address)).map_err(|(step, e)| fail(step, e))?;
            // For port 0 the kernel chooses a port once, and the other workers use the same port.
            let local = first.local_addr().map_err(|e| fail("read its address", e))?;
            have(local);
            kinds.push(SocketKind::Tcp(first, local));
            for _ in 1..workers.count() {
                let socket = tcp(local, true).map_err(|(step, e)| fail(step, e))?;
                kinds.push(SocketKind::Tcp(socket, local));
            }
        }
        Bind::Unix { path, mode } => {
            let first = unix(path, *mode).map_err(|(step, e)| fail(step, e))?;
            let owner = Arc::new(UnixPath::new(path, true));
            for _ in 1..workers.count() {
                let copy = first.try_clone().map_err(|e| fail("duplicate the socket", e))?;
                kinds.push(SocketKind::Unix(copy, owner.clone()));
            }
            kinds.push(SocketKind::Unix(first, owner));
        }
    }
    Ok(seated(kinds, workers))
}

/// Whether an address could be bound now. The socket doesn't listen, so that no client notices.
///
/// # Errors
/// As [`bind`].
pub fn could_bind(bind: &Bind) -> Result<(), BindError> {
    let could = match bind {
        Bind::Tcp(address) => open(*address, false)
            .map_err(|e| ("open a socket", e))
            .and_then(|socket| socket.bind(&(*address).into()).map_err(|e| ("bind", e))),
        Bind::Unix { path, .. } => match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => Err(not_a_socket()),
            Ok(_) if !is_stale(path) => Err(("bind", io::ErrorKind::AddrInUse.into())),
            _ => Ok(()),
        },
    };
    could.map_err(|(step, source)| BindError { bind: bind.clone(), step, source })
}

/// Takes over listening sockets that another process made for one address: the old attache, or a supervisor. The result has one entry or
/// more for each worker, in order. If there are more sockets than workers, workers get several; if there are fewer, workers share some.
/// `ours`: the path of a Unix socket must be removed at the end.
pub fn adopt(
    bind: &Bind,
    sockets: Vec<OwnedFd>,
    ours: bool,
    workers: &ConnectionsPerWorker,
) -> Result<Vec<WorkerSocket>, BindError> {
    let fail = |step| move |source| BindError { bind: bind.clone(), step, source };
    let mut all = sockets;
    let missing = all.len().next_multiple_of(workers.count()) - all.len();
    let shared: io::Result<Vec<_>> = all.iter().cycle().take(missing).map(OwnedFd::try_clone).collect();
    all.extend(shared.map_err(fail("duplicate the socket"))?);
    let owner = match bind {
        Bind::Unix { path, .. } => Some(Arc::new(UnixPath::new(path, ours))),
        Bind::Tcp(_) => None,
    };
    let mut kinds = Vec::new();
    for socket in all {
        let socket = RawSocket::from(socket);
        let listens =
            || -> io::Result<bool> { Ok(socket.r#type()? == Type::STREAM && socket.is_listener()?) };
        if !listens().map_err(fail("use a socket that was handed over"))? {
            let wrong = io::Error::new(io::ErrorKind::InvalidInput, "it is not a listening stream socket");
            return Err(fail("use a socket that was handed over")(wrong));
        }
        socket.set_nonblocking(true).map_err(fail("use a socket that was handed over"))?;
        kinds.push(if let Some(owner) = &owner {
            SocketKind::Unix(socket.into(), owner.clone())
        } else {
            // `tcp` sets this; a supervisor may not have set it.
            socket.set_tcp_nodelay(true).map_err(fail("use a socket that was handed over"))?;
            let socket = std::net::TcpListener::from(socket);
            let local = socket.local_addr().map_err(fail("read its address"))?;
            have(local);
            SocketKind::Tcp(socket, local)
        });
    }
    Ok(seated(kinds, workers))
}

/// One slot for each worker and each of its sockets.
fn seated(kinds: Vec<SocketKind>, workers: &ConnectionsPerWorker) -> Vec<WorkerSocket> {
    let mut sockets = Vec::new();
    let mut kinds = kinds.into_iter();
    while kinds.len() > 0 {
        let round = kinds.by_ref().take(workers.count());
        sockets.extend(round.zip(workers.seats()).map(|(kind, seat)| WorkerSocket { kind, seat }));
    }
    sockets
}

impl UnixPath {
    fn new(path: &Path, ours: bool) -> Self {
        Self { path: path.to_owned(), inode: inode(path), not_ours: AtomicBool::new(!ours) }
    }
}

/// The ports that this process listens on, or has listened on: it may share them.
static OURS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

fn have(address: SocketAddr) {
    OURS.lock().unwrap_or_else(PoisonError::into_inner).insert(address.port());
}

fn is_ours(address: SocketAddr) -> bool {
    OURS.lock().unwrap_or_else(PoisonError::into_inner).contains(&address.port())
}

/// Binds one TCP socket. `shared`: other sockets of this process have the port. Without it the port must be free. The kernel would let a
/// second process of the same user join (`SO_REUSEPORT`), and that process would get a part of the connections by mistake.
fn tcp(address: SocketAddr, shared: bool) -> Result<std::net::TcpListener, (&'static str, io::Error)> {
    let socket = open(address, shared).map_err(|e| ("open a socket", e))?;
    socket.bind(&address.into()).map_err(|e| ("bind", e))?;
    // From now on the other workers of this process may join.
    socket.set_reuse_port(true).map_err(|e| ("share the port among workers", e))?;
    socket.listen(BACKLOG).map_err(|e| ("listen", e))?;
    Ok(socket.into())
}

fn open(address: SocketAddr, shared: bool) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // `[::]` is IPv6 only, and `0.0.0.0` is a bind of its own. Otherwise the two would collide.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // On Linux, accepted sockets inherit this: it costs one system call here and none per connection.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn unix(path: &Path, mode: u32) -> Result<std::os::unix::net::UnixListener, (&'static str, io::Error)> {
    remove_stale(path)?;
    let address = SockAddr::unix(path).map_err(|e| ("use the path", e))?;
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None).map_err(|e| ("open a socket", e))?;
    socket.set_nonblocking(true).map_err(|e| ("open a socket", e))?;
    socket.bind(&address).map_err(|e| ("bind", e))?;
    // This comes before `listen`, so that no client can connect while the mode is wider.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| ("set the mode", e))?;
    socket.listen(BACKLOG).map_err(|e| ("listen", e))?;
    Ok(socket.into())
}

/// Removes a socket that no process listens on. It doesn't touch any other file.
fn remove_stale(path: &Path) -> Result<(), (&'static str, io::Error)> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(not_a_socket());
    }
    if is_stale(path) {
        fs::remove_file(path).map_err(|e| ("remove the stale socket", e))
    } else {
        Err(("bind", io::ErrorKind::AddrInUse.into()))
    }
}

fn not_a_socket() -> (&'static str, io::Error) {
    ("bind", io::Error::new(io::ErrorKind::AlreadyExists, "the path is not a socket"))
}

/// Whether no process listens on this socket.
fn is_stale(path: &Path) -> bool {
    let connected = std::os::unix::net::UnixStream::connect(path);
    connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|m| std::os::unix::fs::MetadataExt::ino(&m))
}

/// The original destination of a redirected connection; `None` if the connection was not redirected.
pub(crate) fn original_destination(
    stream: &tokio::net::TcpStream,
    local: Option<SocketAddr>,
) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let v6 = matches!(local.map(|l| l.ip()), Some(IpAddr::V6(_)));
    let original = if v6 { socket.original_dst_v6() } else { socket.original_dst_v4() };
    // ENOENT or ENOPROTOOPT: this connection was not translated, or this kernel has no translation.
    let original = original.ok()?.as_socket()?;
    (Some(original) != local).then_some(original)
}

/// The command that shows which program has a port.
pub fn who_has(port: u16) -> String {
    format!("ss -tanp sport = :{port}")
}

/// Why a socket can't listen.
#[derive(Debug)]
pub struct BindError {
    /// The bind of the config.
    pub bind: Bind,
    step: &'static str,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bind {
            Bind::Tcp(address) => write!(f, "cannot listen on {address}: ")?,
            Bind::Unix { path, .. } => write!(f, "cannot listen on unix:{}: ", path.display())?,
        }
        write!(f, "could not {}: {}", self.step, self.source)?;
        match (self.source.kind(), &self.bind) {
            (io::ErrorKind::AddrInUse, Bind::Tcp(address)) => write!(
                f,
                "; another program has the port (`{}` shows which): end it, or bind another port; to replace a running attache without a gap, send it SIGUSR2",
                who_has(address.port())
            ),
            (io::ErrorKind::AddrInUse, Bind::Unix { .. }) => {
                f.write_str("; another program listens on it: end it, or bind another path")
            }
            (io::ErrorKind::AddrNotAvailable, Bind::Tcp(address)) => {
                write!(
                    f,
                    "; no interface has the address {}: bind one that `ip address` lists, or 0.0.0.0",
                    address.ip()
                )
            }
            (io::ErrorKind::PermissionDenied, Bind::Tcp(address)) if address.port() < 1024 => {
                f.write_str("; a port below 1024 needs CAP_NET_BIND_SERVICE: grant it, or bind a higher port")
            }
            (io::ErrorKind::PermissionDenied, Bind::Unix { .. }) => {
                f.write_str("; the directory must be writable for attache's user")
            }
            (io::ErrorKind::NotFound, Bind::Unix { .. }) => f.write_str("; make the directory first"),
            (io::ErrorKind::AlreadyExists, _) => f.write_str("; remove it, or bind another path"),
            _ => Ok(()),
        }
    }
}

impl BindError {
    /// The kind of the error.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Bind {
        Bind::Tcp("127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn every_worker_gets_a_socket_for_the_same_port() {
        let sockets = bind(&loopback(), &ConnectionsPerWorker::new(3)).unwrap();
        let addresses: Vec<_> = sockets.iter().map(WorkerSocket::local_addr).collect();
        assert_eq!(addresses.len(), 3);
        assert!(addresses.iter().all(|a| *a == addresses[0] && a.unwrap().port() != 0));
    }

    #[test]
    fn a_port_is_not_shared_with_another_process_of_the_same_user() {
        let other = tcp("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let address = other.local_addr().unwrap();
        let error = bind(&Bind::Tcp(address), &ConnectionsPerWorker::new(2)).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        // A port that this process has already may be bound again: for a reload, or for a wider address.
        have(address);
        assert_eq!(bind(&Bind::Tcp(address), &ConnectionsPerWorker::new(2)).unwrap().len(), 2);
    }

    #[test]
    fn the_error_for_a_taken_port_names_it_and_a_remedy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(&Bind::Tcp(taken.local_addr().unwrap()), &ConnectionsPerWorker::new(1))
            .unwrap_err()
            .to_string();
        let port = taken.local_addr().unwrap().port();
        assert!(
            error.starts_with(&format!("cannot listen on 127.0.0.1:{port}: could not bind: ")),
            "{error}"
        );
        assert!(error.contains(&format!("ss -tanp sport = :{port}")), "{error}");
    }

    #[test]
    fn the_ipv6_wildcard_does_not_include_ipv4() {
        let v6 = bind(&Bind::Tcp("[::]:0".parse().unwrap()), &ConnectionsPerWorker::new(1)).unwrap();
        let port = v6[0].local_addr().unwrap().port();
        std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bound = Bind::Unix { path: path.clone(), mode: 0o600 };
        // A listener that closed without removing its path.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = bind(&bound, &ConnectionsPerWorker::new(2)).unwrap();
        assert_eq!(live.len(), 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = bind(&bound, &ConnectionsPerWorker::new(1)).unwrap_err().to_string();
        assert!(error.contains("another program listens on it"), "{error}");
        drop(live);
        assert!(!path.exists());
    }

    #[test]
    fn sockets_that_are_handed_over_are_shared_among_more_or_fewer_workers() {
        for (before, after, sockets) in [(2, 2, 2), (3, 2, 4), (1, 3, 3)] {
            let old = bind(&loopback(), &ConnectionsPerWorker::new(before)).unwrap();
            let address = old[0].local_addr().unwrap();
            let held: Vec<_> = old.iter().map(|socket| socket.hold().unwrap()).collect();
            // The old process has ended, but the connections in the queue remain.
            let waiting = std::net::TcpStream::connect(address).unwrap();
            drop(old);
            let handed = held.iter().map(|held| held.as_fd().try_clone_to_owned().unwrap()).collect();
            drop(held);
            let new = adopt(&Bind::Tcp(address), handed, true, &ConnectionsPerWorker::new(after)).unwrap();
            assert_eq!(new.len(), sockets, "{before} to {after}");
            assert!(new.iter().all(|socket| socket.local_addr() == Some(address)));
            let accepted = new.iter().any(|socket| match &socket.kind {
                SocketKind::Tcp(socket, _) => socket.accept().is_ok(),
                SocketKind::Unix(..) => false,
            });
            assert!(accepted, "the connection that waited");
            drop(waiting);
        }
    }

    #[test]
    fn the_path_of_a_unix_socket_that_was_handed_over_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let bound = Bind::Unix { path: path.clone(), mode: 0o600 };
        let old = bind(&bound, &ConnectionsPerWorker::new(1)).unwrap();
        let held = old[0].hold().unwrap();
        held.handed_on();
        let handed = vec![held.as_fd().try_clone_to_owned().unwrap()];
        drop((held, old));
        let new = adopt(&bound, handed, true, &ConnectionsPerWorker::new(2)).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(new);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "kept").unwrap();
        let error = bind(&Bind::Unix { path: path.clone(), mode: 0o600 }, &ConnectionsPerWorker::new(1))
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }
}
