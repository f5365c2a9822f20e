//! What `attache check` checks in addition to the config's files: whether this machine has the addresses to listen on, whether they are
//! free, and whether the SPIFFE agent is there. `run` finds the same problems when it binds and connects.
//!
//! A port that attache itself has counts as free: the checked config is usually the next one for that attache.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::net::UnixStream,
};

use attache_config::{
    LocatedProblem,
    model::{Bind, Config},
};
use attache_listener::could_bind;
use attache_tls::{SPIFFE_ENDPOINT, Workload};

use crate::tls::uses_spiffe;

/// What this machine lacks for a config, and what a person should know about it.
#[derive(Default)]
pub(crate) struct Surroundings {
    pub(crate) problems: Vec<LocatedProblem>,
    pub(crate) notes: Vec<String>,
}

impl Surroundings {
    pub(crate) fn of(config: &Config) -> Self {
        let mut found = Self::default();
        for listener in &config.listeners {
            for bind in &listener.bind {
                let value = bind.to_string();
                found.address(bind, &["listeners", &listener.name, "bind"], &value);
            }
        }
        if let Some(bind) = config.admin.bind.as_ref().filter(|_| config.admin.required) {
            found.address(bind, &["admin"], &bind.to_string());
        }
        // At its default address this port is left out if another program has it.
        if let Some(address) = config.metrics.filter(|address| *address != Config::METRICS) {
            let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            let both = (address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)).then_some(any);
            for address in both.into_iter().chain([address]) {
                found.address(&Bind::Tcp(address), &["metrics"], &address.to_string());
            }
        }
        found.spiffe(config);
        found
    }

    fn address(&mut self, bind: &Bind, keys: &[&str], value: &str) {
        let Err(error) = could_bind(bind) else { return };
        // Problems of a path and its folder are reported with the files.
        if matches!(
            (bind, error.kind()),
            (Bind::Unix { .. }, io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        ) {
            return;
        }
        let holder = match error.kind() {
            io::ErrorKind::AddrInUse => Some(AddressHolder::of(bind)),
            _ => None,
        };
        match holder {
            // Its file may have another name: `attache-0.2` replaces `attache` without a gap.
            Some(AddressHolder::Known { ref name, .. })
                if name.starts_with("attache") || name == "systemd" => {}
            Some(AddressHolder::Unknown) => self.notes.push(format!(
                "{value} is in use by a process that this user can't see: `run` fails unless it takes over from that process"
            )),
            Some(holder) => self.wrong(
                keys,
                value,
                format!("`{value}` is in use by {holder}"),
                "end that program, or name another address",
            ),
            None => self.wrong(keys, value, error.to_string(), ""),
        }
    }

    /// The agent's socket, for every user of an identity from it.
    fn spiffe(&mut self, config: &Config) {
        let users = uses_spiffe(config);
        if users.is_empty() {
            return;
        }
        let Err((what, help)) = agent() else { return };
        for (section, name) in users {
            self.wrong(&[section, name, "tls"], "", what.clone(), help);
        }
    }

    fn wrong(&mut self, keys: &[&str], value: &str, message: String, help: &str) {
        self.problems.push(LocatedProblem {
            keys: keys.iter().map(ToString::to_string).collect(),
            value: Some(value.to_owned()),
            message,
            help: help.to_owned(),
        });
    }
}

/// Why the SPIFFE agent can't be reached, and what to do.
fn agent() -> Result<(), (String, &'static str)> {
    let Ok(endpoint) = std::env::var(SPIFFE_ENDPOINT) else {
        return Err((
            format!("`spiffe` needs the environment's {SPIFFE_ENDPOINT}, which is not set"),
            "set it to the agent's socket, `unix:///run/spire/agent.sock`",
        ));
    };
    let workload = Workload::new(&endpoint).map_err(|error| (error.to_string(), ""))?;
    let socket = workload.socket();
    match UnixStream::connect(socket) {
        Ok(_) => Ok(()),
        Err(error) => Err((
            format!("the SPIFFE agent at {} can't be connected to: {error}", socket.display()),
            "is the agent running, and its socket mounted?",
        )),
    }
}

/// Which process has an address.
enum AddressHolder {
    Known { name: String, process: u32 },
    Unknown,
}

impl fmt::Display for AddressHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known { name, process } => write!(f, "`{name}` (process {process})"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

impl AddressHolder {
    fn of(bind: &Bind) -> Self {
        let inodes = match bind {
            Bind::Tcp(address) => of_port(address.port()),
            Bind::Unix { path, .. } => of_path(&path.to_string_lossy()),
        };
        inodes.iter().find_map(|inode| Self::of_inode(inode)).unwrap_or(Self::Unknown)
    }

    /// The process with this socket. Only root can see the sockets of other users' processes.
    fn of_inode(inode: &str) -> Option<Self> {
        let link = format!("socket:[{inode}]");
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(open) = fs::read_dir(entry.path().join("fd")) else { continue };
            if open
                .flatten()
                .any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
            {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                return Some(Self::Known { name: name.trim_end().to_owned(), process });
            }
        }
        None
    }
}

/// The sockets with this port, those that listen first: `/proc/net/tcp` (proc(5)).
fn of_port(port: u16) -> Vec<String> {
    const LISTENS: &str = "0A";
    let mut found = Vec::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(file).unwrap_or_default().lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (words.get(1), words.get(3), words.get(9)) else {
                continue;
            };
            if local.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok()) == Some(port) {
                found.push((*state != LISTENS, (*inode).to_owned()));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, inode)| inode).collect()
}

/// The sockets with this path: `/proc/net/unix`.
fn of_path(path: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let at_path = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    at_path
        .filter(|words| words.get(7) == Some(&path))
        .filter_map(|words| words.get(6).map(ToString::to_string))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn of(text: &str) -> Surroundings {
        let config = attache_config::parse(text, None, &|_| None).unwrap();
        Surroundings::of(&config)
    }

    #[test]
    fn an_address_without_an_interface_is_reported_with_its_place_and_a_port_that_attache_has_is_free() {
        // The process of the test is also called attache-….
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let found = of(&format!(
            "admin: {address}\nmetrics: 192.0.2.1:9\nlisteners: {{ out: {{ bind: '192.0.2.7:80', to: o }} }}\nupstreams: {{ o: 'http://a.test' }}\n"
        ));
        let said: Vec<_> =
            found.problems.iter().map(|found| (found.keys.join("."), found.message.clone())).collect();
        let [(listener, first), (metrics, second)] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!([&**listener, &**metrics], ["listeners.out.bind", "metrics"]);
        assert!(first.contains("no interface has the address 192.0.2.7"), "{first}");
        assert!(second.contains("192.0.2.1"), "{second}");
        assert!(could_bind(&Bind::Tcp(address)).is_err());
        let holder = AddressHolder::of(&Bind::Tcp(address)).to_string();
        assert!(holder.contains(&format!("(process {})", std::process::id())), "{holder}");
    }

    #[test]
    fn a_path_that_is_no_socket_is_reported_and_a_free_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let text = format!(
            "admin: off\nmetrics: off\nlisteners: {{ out: {{ bind: 'unix:{}', to: o }} }}\nupstreams: {{ o: 'http://a.test' }}\n",
            path.display()
        );
        assert!(of(&text).problems.is_empty());
        fs::write(&path, "").unwrap();
        assert!(of(&text).problems[0].message.contains("not a socket"));
        fs::remove_file(&path).unwrap();
        let living = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let bind = Bind::Unix { path: path.clone(), mode: 0o600 };
        assert!(could_bind(&bind).is_err());
        let holder = AddressHolder::of(&bind).to_string();
        assert!(holder.contains(&format!("(process {})", std::process::id())), "{holder}");
        // A process that has ended left the socket behind.
        drop(living);
        assert!(of(&text).problems.is_empty());
        assert!(of("upstreams: { o: 'http://a.test' }\n").problems.is_empty());
    }
}
