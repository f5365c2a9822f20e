//! The admin API of a running proxy: its socket, its pages, and its actions.

mod views;

use std::{
    fs, io,
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::SystemTime,
};

use attache_admin::{AdminApi, AdminState, AdminTarget, Reloading};
use attache_config::model::{self, Bind};
use attache_rpc::server::ServerSocket;
use attache_telemetry::Stats;
use serde_json::Value;
use tokio::task::spawn_local;

use crate::{
    error::Error,
    inherited::{InheritedSockets, duplicate},
    process::ProcessState,
    proxy::handle::ProxyControl,
    reloads::ReloadTrigger,
};

/// The socket's name when it is handed to another process.
const KEY: &str = "admin";

/// The socket, bound before anything else runs.
pub(crate) enum AdminSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds the address of the config. A port in use is an error only if the file names it. So a second attache on the same machine starts
/// without an admin API, and with a warning.
pub(crate) fn bind(
    admin: &model::Admin,
    handed: &mut InheritedSockets,
) -> Result<Option<AdminSocket>, Error> {
    let Some(at) = &admin.bind else { return Ok(None) };
    let bound = match handed.take_one(KEY) {
        Some(given) => adopt(at, given),
        None => try_bind(at),
    };
    match bound {
        Ok(bound) => Ok(Some(bound)),
        Err(source) if admin.required => Err(Error::Admin { at: at.clone(), source }),
        Err(source) => {
            tracing::warn!(
                "no admin API and no dashboard: {at} can't be listened on ({source}); set `admin:` to another address, or to `off`"
            );
            Ok(None)
        }
    }
}

/// Takes over the socket of the process before this one.
fn adopt(at: &Bind, given: OwnedFd) -> io::Result<AdminSocket> {
    let bound = match at {
        Bind::Tcp(_) => AdminSocket::Tcp(given.into()),
        Bind::Unix { .. } => AdminSocket::Unix(given.into()),
    };
    match &bound {
        AdminSocket::Tcp(socket) => socket.set_nonblocking(true)?,
        AdminSocket::Unix(socket) => socket.set_nonblocking(true)?,
    }
    Ok(bound)
}

impl AdminSocket {
    /// A second handle of the socket with its name, for a process that takes over.
    pub(crate) fn hold(&self) -> Option<(String, OwnedFd)> {
        let socket = match self {
            Self::Tcp(socket) => duplicate(socket),
            Self::Unix(socket) => duplicate(socket),
        };
        Some((KEY.to_owned(), socket?))
    }
}

fn try_bind(at: &Bind) -> io::Result<AdminSocket> {
    match at {
        Bind::Tcp(address) => {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(AdminSocket::Tcp(socket))
        }
        Bind::Unix { path, mode } => {
            remove_stale(path)?;
            let socket = UnixListener::bind(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))?;
            socket.set_nonblocking(true)?;
            Ok(AdminSocket::Unix(socket))
        }
    }
}

/// Removes a socket that nobody answers on: a process that has ended left it behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    let dead = || matches!(UnixStream::connect(path), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused);
    if meta.file_type().is_socket() && dead() { fs::remove_file(path) } else { Ok(()) }
}

/// Serves the admin API until `end`, or as long as the thread runs. Call it within the control thread's runtime.
pub(crate) fn serve(
    control: &ProxyControl,
    bound: AdminSocket,
    end: impl Future<Output = ()> + 'static,
) -> Result<(), Error> {
    let process = control.process();
    let socket = match bound {
        AdminSocket::Tcp(socket) => tokio::net::TcpListener::from_std(socket).map(ServerSocket::Tcp),
        AdminSocket::Unix(socket) => tokio::net::UnixListener::from_std(socket).map(ServerSocket::Unix),
    };
    let socket = socket.map_err(Error::Thread)?;
    let stats = Arc::new(Stats::new(&process.metrics));
    let looking = stats.clone();
    spawn_local(async move { looking.run().await });
    let api = AdminApi {
        state: AdminState {
            metrics: process.metrics.clone(),
            readiness: process.readiness.clone(),
            app: process.app.clone(),
        },
        log: process.log.clone(),
        stats,
        proxy: Arc::new(AdminControl(control.clone())),
        started: SystemTime::now(),
    };
    spawn_local(async move {
        if let Err(error) = attache_admin::serve_api(socket, api, end).await {
            tracing::error!(%error, "the admin API has ended");
        }
    });
    Ok(())
}

struct AdminControl(ProxyControl);

impl AdminControl {
    fn process(&self) -> &ProcessState {
        self.0.process()
    }
}

impl AdminTarget for AdminControl {
    fn config(&self) -> Value {
        self.process().generation().config.effective()
    }

    fn upstreams(&self) -> Value {
        views::upstreams(&self.process().generation())
    }

    fn routes(&self) -> Value {
        views::routes(&self.process().generation())
    }

    fn listeners(&self) -> Value {
        views::listeners(&self.process().generation(), self.process().draining.load(SeqCst))
    }

    fn certificates(&self) -> Value {
        views::certificates(&self.process().generation(), self.process().certificates.status())
    }

    fn degraded(&self) -> Vec<String> {
        let process = self.process();
        views::degraded(process)
    }

    fn reloads(&self) -> Value {
        views::reloads(&self.process().reloads)
    }

    fn drain(&self) {
        let process = self.process();
        process.readiness.draining();
        process.draining.store(true, SeqCst);
        process.drain_inbound.drain();
        process.drain.drain();
    }

    fn quit(&self) {
        self.0.drain();
    }

    fn envoy_compatible(&self) -> bool {
        self.process().generation().config.admin.envoy_compatible
    }

    fn reload(&self) -> Reloading {
        let control = self.0.clone();
        Box::pin(async move {
            let report =
                control.reload(ReloadTrigger::Admin).await.map_err(|why| format!("{}\n", why.trim_end()))?;
            Ok(views::report(&report))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path) -> Bind {
        Bind::Unix { path: path.into(), mode: Bind::ADMIN_MODE }
    }

    #[test]
    fn a_taken_port_is_an_error_only_if_the_file_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut admin =
            model::Admin { bind: Some(Bind::Tcp(taken.local_addr().unwrap())), ..model::Admin::default() };
        assert!(bind(&admin, &mut InheritedSockets::default()).unwrap().is_none());
        admin.required = true;
        let error = bind(&admin, &mut InheritedSockets::default()).err().unwrap().to_string();
        assert!(error.contains("admin") && error.contains("`off`"), "{error}");
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_used_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let living = try_bind(&unix(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(try_bind(&unix(&path)).is_err());
        drop(living);
        assert!(try_bind(&unix(&path)).is_ok());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(try_bind(&unix(&path)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
    }
}
