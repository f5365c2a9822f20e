//! The addresses that this process itself listens on. No host that a client names may lead there.
//!
//! A call to one of the listeners would come back to this process. The admin API, the metrics and the probes are for this machine and its
//! scrapers: through a forward proxy, others could reach what they can't reach directly, and even with a loopback address. The check uses
//! the address that a name led to, so it works for every spelling of the name.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use attache_telemetry::Reason;
use attache_upstream::{EndpointAddress, Error, SentPart, SharedUpstream};

/// The addresses that this process listens on.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnAddresses {
    /// Those of the listeners.
    pub(crate) listeners: Vec<SocketAddr>,
    /// Those of the admin API, the metrics and the probes.
    pub(crate) control: Vec<SocketAddr>,
}

impl OwnAddresses {
    /// Refuses an upstream that leads to this process. `called` is the address that the client's connection was accepted on.
    pub(super) fn refuse(&self, shared: &SharedUpstream, called: Option<SocketAddr>) -> Result<(), Error> {
        let called = called.map(|called| called.ip().to_canonical());
        for endpoint in &shared.endpoints.load().endpoints {
            let EndpointAddress::Tcp(to) = &endpoint.address else { continue };
            // For a listener on a wildcard address, only the address that the client called shows whether an address belongs to this
            // machine: an intercepted call from outside to our own port has that address as its destination.
            let ours = |own: &SocketAddr| leads_to(*own, *to, |ip| Some(ip) == called);
            if self.listeners.iter().any(ours) {
                return Err(Error::new(Reason::Loop, SentPart::Nothing));
            }
            if self
                .control
                .iter()
                .any(|own| leads_to(*own, *to, |ip| Some(ip) == called || is_this_machine(ip)))
            {
                let why = "the destination is the admin API, the metrics or the probes of this proxy";
                return Err(Error::with_source(Reason::DeniedDestination, SentPart::Nothing, why));
            }
        }
        Ok(())
    }
}

fn leads_to(own: SocketAddr, to: SocketAddr, is_here: impl Fn(IpAddr) -> bool) -> bool {
    if own.port() != to.port() {
        return false;
    }
    let (own, to) = (own.ip().to_canonical(), to.ip().to_canonical());
    own == to || (own.is_unspecified() && (local(to) || is_here(to))) || (local(to) && local(own))
}

/// Connecting to an unspecified address reaches this machine, as loopback does.
const fn local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

/// Whether one of this machine's interfaces has the address: only then can a socket be bound to it. It is called only for a port of our
/// own.
fn is_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(own: &str, to: &str) -> bool {
        leads_to(own.parse().unwrap(), to.parse().unwrap(), is_this_machine)
    }

    #[test]
    fn every_spelling_of_this_machine_s_addresses_is_recognised() {
        for to in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "0.0.0.0:1",
            "[::]:1",
            "[::ffff:0.0.0.0]:1",
        ] {
            assert!(leads("127.0.0.1:1", to), "{to}");
            assert!(leads("0.0.0.0:1", to), "{to}");
            assert!(leads("[::]:1", to), "{to}");
        }
        assert!(!leads("127.0.0.1:1", "127.0.0.1:2"));
        // No machine has an address of TEST-NET-3.
        assert!(!leads("0.0.0.0:1", "203.0.113.1:1"));
        assert!(leads("203.0.113.1:1", "[::ffff:203.0.113.1]:1"));
        assert!(!leads("127.0.0.1:1", "203.0.113.1:1"));
    }
}
