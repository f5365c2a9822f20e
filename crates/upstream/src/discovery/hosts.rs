//! The hosts file (hosts(5)) and `localhost`, which come before DNS.
//!
//! As libc's `files dns`: for a name in the file only the file answers, without search domains. `localhost` and names
//! below it are the loopback addresses and never leave the machine (RFC 6761 section 6.3).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// The file as it was read last. It is read again when it has changed.
#[derive(Debug)]
pub(super) struct Hosts {
    path: PathBuf,
    read: Mutex<HostsContents>,
}

#[derive(Debug, Default)]
struct HostsContents {
    stamp: Option<(SystemTime, u64)>,
    names: HashMap<String, Vec<IpAddr>>,
}

impl Hosts {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read: Mutex::default() }
    }

    /// The addresses of a name, in the file's order; `None` asks DNS.
    pub(super) fn find(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let stamp = std::fs::metadata(&self.path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.stamp != stamp {
            // If the file can't be read for a moment, the content of the last read stays in use.
            match std::fs::read(&self.path) {
                Ok(text) => *read = HostsContents { stamp, names: parse(&String::from_utf8_lossy(&text)) },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    *read = HostsContents::default();
                }
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "hosts file not read");
                    // Reported once for each state of the file.
                    read.stamp = stamp;
                }
            }
        }
        read.names.get(&name).cloned()
    }
}

fn parse(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        for name in words {
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            let addresses = names.entry(name).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_the_file_is_found_whatever_its_case() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, "10.0.0.7 Orders orders.internal # note\n\n::7 orders\nbad line\n").unwrap();
        let hosts = Hosts::new(&path);
        let both: Vec<IpAddr> = vec!["10.0.0.7".parse().unwrap(), "::7".parse().unwrap()];
        assert_eq!(hosts.find("ORDERS."), Some(both));
        assert_eq!(hosts.find("line"), None);
        std::fs::write(&path, "10.0.0.8 billing\n").unwrap();
        assert_eq!(hosts.find("orders"), None, "the file has changed");
        assert_eq!(hosts.find("billing").map(|found| found.len()), Some(1));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(hosts.find("billing"), None);
    }

    #[test]
    fn localhost_is_always_loopback() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, "10.0.0.7 localhost\n").unwrap();
        for name in ["localhost", "LocalHost.", "app.localhost"] {
            let found = Hosts::new(&path).find(name).unwrap();
            assert!(found.iter().all(IpAddr::is_loopback), "{name}");
        }
        assert_eq!(Hosts::new(&path).find("notlocalhost"), None);
    }
}
