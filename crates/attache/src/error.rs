//! Why a proxy did not start, or did not accept a new config.

use std::{
    fmt,
    io::{self, Write as _},
    net::SocketAddr,
};

use attache_authorization::jwt::KeySetError;
use attache_config::model::{Bind, Name};
use attache_listener::BindError;
use attache_telemetry::AccessLogError;

/// Any error that ends a command.
pub(crate) type AnyError = Box<dyn std::error::Error>;

/// Why the proxy did not start.
#[derive(Debug)]
pub(crate) enum Error {
    /// A listener's address can't be used.
    Bind { listener: Name, source: BindError },
    /// The address of probes and metrics can't be used.
    Probes { address: SocketAddr, source: io::Error },
    /// The address of the admin API can't be used, and the file names it.
    Admin { at: Bind, source: io::Error },
    /// Certificates, keys, trust or secrets can't be used.
    Tls { what: &'static str, name: Name, source: attache_tls::Error },
    /// The keys of an issuer of tokens can't be used.
    Keys { issuer: Name, source: KeySetError },
    /// The SPIFFE Workload API failed.
    Spiffe(attache_tls::Error),
    /// The access log's file can't be used.
    AccessLog(AccessLogError),
    /// The resolver's settings can't be used.
    Dns(io::Error),
    /// A thread, or its runtime, can't be started.
    Thread(io::Error),
    /// The process that handed its sockets over has failed.
    Predecessor(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { listener, source } => write!(f, "listener `{listener}`: {source}"),
            Self::Probes { address, source } => write!(
                f,
                "probes and metrics can't listen on {address}: {source}{}; set `metrics:` to another address, or to `off`",
                who_has(source, *address)
            ),
            Self::Admin { at, source } => {
                let who = match at {
                    Bind::Tcp(address) => who_has(source, *address),
                    Bind::Unix { .. } => String::new(),
                };
                write!(
                    f,
                    "the admin API can't listen on {at}: {source}{who}; set `admin:` to another address, or to `off`"
                )
            }
            Self::Spiffe(source) => source.fmt(f),
            Self::Keys { issuer, source } => write!(f, "the keys of `{issuer}` in `jwt`: {source}"),
            Self::Tls { what, name, source } => write!(f, "{what} `{name}`: {source}"),
            Self::AccessLog(source) => source.fmt(f),
            Self::Dns(source) => write!(f, "DNS settings: {source}"),
            Self::Thread(source) => write!(f, "a thread can't be started: {source}"),
            Self::Predecessor(source) => write!(
                f,
                "the process before this one ended while it handed its sockets over ({source}): this one ends too; start attache again"
            ),
        }
    }
}

/// How to find out which program has a port.
fn who_has(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(" (`{}` shows which program has it)", attache_listener::who_has(address.port()))
        }
        _ => String::new(),
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { source, .. } => source.source(),
            Self::Spiffe(source) | Self::Tls { source, .. } => std::error::Error::source(source),
            Self::AccessLog(source) => source.source(),
            Self::Keys { source, .. } => source.source(),
            Self::Probes { source, .. }
            | Self::Admin { source, .. }
            | Self::Dns(source)
            | Self::Thread(source)
            | Self::Predecessor(source) => source.source(),
        }
    }
}

/// An error with all its causes, one line each. A cause whose text is already a part of the line before is left out.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        if !text.contains(&cause) {
            text = format!("{text}\n  because: {cause}");
        }
        next = source.source();
    }
    text
}

/// Prints an error to standard error.
pub(crate) fn print_error(error: &dyn std::error::Error) {
    let mut err = io::stderr();
    let _ = writeln!(err, "attache: {}", whole(error));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_printed_once() {
        let source = io::Error::from_raw_os_error(98);
        let error = Error::Probes { address: ([0, 0, 0, 0], 15090).into(), source };
        let whole = whole(&error);
        assert_eq!(whole.matches("Address already in use").count(), 1, "{whole}");
        assert_eq!(whole.lines().count(), 1, "{whole}");
    }
}
