//! EndpointSlices of one Service, and the endpoints that they make together.
//!
//! Source: `discovery.k8s.io/v1`. A Service has a slice for each hundred endpoints and address family, and while the
//! control plane moves an endpoint from one slice to another, it may be in both. `ready` endpoints are used. A
//! terminating endpoint gets no new work: it is left out while its streams continue. Only if no endpoint is ready,
//! terminating ones that still serve are used (as kube-proxy does, KEP-1669).
//!
//! Addresses that the API server itself refuses in an EndpointSlice (loopback, link-local, multicast, unspecified) are never used.
//! Otherwise a user who may write slices could lead calls to this machine or to the node's metadata service.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use attache_config::model::{KubernetesPort, KubernetesService, Name};

use super::{
    super::{deny::leads_to, lookup::DiscoveredAddress},
    object::{EndpointReadiness, Slice, SliceEndpoint, SlicePort},
};

/// The most endpoints of one Service that are kept.
const MAX_ENDPOINTS: usize = 50_000;
/// The most slices that are kept.
const MAX_SLICES: usize = 10_000;

/// All slices of a Service.
#[derive(Debug, Default)]
pub(super) struct Slices(HashMap<String, Slice>);

/// The result of all slices together.
#[derive(Debug, Default)]
pub(super) struct SelectedEndpoints {
    /// The endpoints to use.
    pub(super) found: Vec<DiscoveredAddress>,
    /// Why some endpoints, or all, can't be used.
    pub(super) trouble: Option<String>,
}

/// Which of the endpoints an upstream uses.
#[derive(Clone, Debug)]
pub(super) struct EndpointFilter {
    pub(super) service: KubernetesService,
    /// attache's own zone.
    pub(super) zone: Option<Name>,
    /// The family to use where the Service has endpoints of both.
    pub(super) prefer_v6: bool,
}

impl Slices {
    /// Replaces all slices by the result of a list. For a slice that can't be read, the previous state stays.
    pub(super) fn replace(&mut self, slices: Vec<Slice>, unreadable: &[String]) -> Result<(), String> {
        let mut new: HashMap<String, Slice> =
            slices.into_iter().map(|slice| (slice.metadata.name.clone(), slice)).collect();
        for name in unreadable {
            if let Some((name, old)) = self.0.remove_entry(name) {
                new.entry(name).or_insert(old);
            }
        }
        self.0 = new;
        self.within_bounds()
    }

    /// A slice is new, or has changed.
    pub(super) fn set(&mut self, slice: Slice) -> Result<(), String> {
        self.0.insert(slice.metadata.name.clone(), slice);
        self.within_bounds()
    }

    /// A slice was deleted.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    fn within_bounds(&self) -> Result<(), String> {
        let endpoints: usize = self.0.values().map(|slice| slice.endpoints().len()).sum();
        if self.0.len() > MAX_SLICES || endpoints > MAX_ENDPOINTS {
            return Err(format!(
                "the Service has {} slices with {endpoints} endpoints; attache takes {MAX_SLICES} with {MAX_ENDPOINTS}",
                self.0.len()
            ));
        }
        Ok(())
    }

    /// The endpoints to use. If a Service has endpoints of both address families, only one family is used: the slices
    /// of the other family name the same pods, but change a moment later.
    pub(super) fn choose(&self, wanted: &EndpointFilter) -> SelectedEndpoints {
        let addresses = || self.0.values().flat_map(Slice::endpoints).filter_map(SliceEndpoint::address);
        let v6 = if addresses().any(|ip| ip.is_ipv6() == wanted.prefer_v6) {
            wanted.prefer_v6
        } else {
            !wanted.prefer_v6
        };
        let (mut ready, mut ending) = (BTreeMap::new(), BTreeMap::new());
        let (mut refused, mut usable) = (BTreeSet::new(), 0_usize);
        for slice in self.0.values() {
            let ports: BTreeSet<u16> =
                slice.ports().iter().filter_map(|own| matching(own, &wanted.service.port)).collect();
            for endpoint in slice.endpoints() {
                let set = match endpoint.state() {
                    EndpointReadiness::Ready => &mut ready,
                    EndpointReadiness::Ending => &mut ending,
                    EndpointReadiness::Out => continue,
                };
                let Some(ip) = endpoint.address().filter(|ip| ip.is_ipv6() == v6) else { continue };
                usable += 1;
                if is_special(ip) {
                    refused.insert(ip);
                    continue;
                }
                for port in &ports {
                    set.entry(SocketAddr::new(ip, *port)).or_insert(endpoint);
                }
            }
        }
        let used = if ready.is_empty() { ending } else { ready };
        let trouble = if !refused.is_empty() {
            let some: Vec<String> = refused.iter().take(3).map(ToString::to_string).collect();
            Some(format!(
                "{} addresses ({}) can't be those of pods: loopback, link-local, multicast or unspecified",
                refused.len(),
                some.join(", ")
            ))
        } else if used.is_empty() && usable > 0 {
            Some(self.no_such_port(&wanted.service.port))
        } else {
            None
        };
        let host = wanted.service.host();
        let found = |(address, endpoint): (SocketAddr, &SliceEndpoint)| DiscoveredAddress {
            address,
            name: host.clone(),
            host: host.clone(),
            weight: 1,
            priority: 0,
            zone: endpoint.zone_for(wanted.zone.as_deref()).map(Into::into),
        };
        SelectedEndpoints { found: used.into_iter().map(found).collect(), trouble }
    }

    fn no_such_port(&self, wanted: &KubernetesPort) -> String {
        let ports = self.0.values().flat_map(Slice::ports);
        let known: BTreeSet<String> =
            ports.filter(|port| port.is_tcp()).filter_map(SlicePort::describe).collect();
        let known: Vec<String> = known.into_iter().take(8).collect();
        let known = if known.is_empty() { "no TCP port".to_owned() } else { known.join(", ") };
        match wanted {
            KubernetesPort::Number(number) => format!(
                "no endpoint has port {number}: they have {known}. A number is the port of the pods, not of the Service; a name is the Service's"
            ),
            KubernetesPort::Name(name) => {
                format!("the Service has no TCP port named `{name}`: its endpoints have {known}")
            }
        }
    }
}

/// The number of the port, if this is the port of the config.
fn matching(own: &SlicePort, wanted: &KubernetesPort) -> Option<u16> {
    let port = own.number.filter(|port| *port > 0 && own.is_tcp())?;
    let same = match wanted {
        KubernetesPort::Number(number) => port == *number,
        KubernetesPort::Name(name) => own.name.as_deref().unwrap_or_default() == &**name,
    };
    same.then_some(port)
}

/// No pod has such an address.
fn is_special(ip: IpAddr) -> bool {
    let special = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_unspecified()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified()
        }
    };
    special(ip) || leads_to(ip).is_some_and(special)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(text: &str) -> Slice {
        serde_json::from_str(text).unwrap()
    }

    fn chosen(slices: &[&str], port: KubernetesPort, zone: Option<&str>) -> SelectedEndpoints {
        let mut all = Slices::default();
        all.replace(slices.iter().map(|text| slice(text)).collect(), &[]).unwrap();
        let service = KubernetesService { name: "orders".into(), namespace: "shop".into(), port };
        all.choose(&EndpointFilter { service, zone: zone.map(Into::into), prefer_v6: false })
    }

    fn found(slices: &[&str], port: KubernetesPort) -> Vec<String> {
        let found = chosen(slices, port, None).found;
        found.iter().map(|f| format!("{} {}", f.address, f.zone.as_deref().unwrap_or("-"))).collect()
    }

    fn http() -> KubernetesPort {
        KubernetesPort::Name("http".into())
    }

    const PORTS: &str = r#""ports":[{"name":"http","port":8080,"protocol":"TCP"},{"name":"metrics","port":9090},{"name":"http","port":53,"protocol":"UDP"}]"#;

    fn of(name: &str, endpoints: &str) -> String {
        format!(r#"{{"metadata":{{"name":"{name}"}},{PORTS},"endpoints":[{endpoints}]}}"#)
    }

    #[test]
    fn slices_are_merged_and_ports_are_named_or_numbered() {
        let a = of("a", r#"{"addresses":["10.0.0.1"],"zone":"z1"}"#);
        let b = of(
            "b",
            r#"{"addresses":["10.0.0.2"],"zone":"z1","hints":{"forZones":[{"name":"z2"}]}},{"addresses":["10.0.0.1"],"conditions":{"ready":false}}"#,
        );
        assert_eq!(found(&[&a, &b], http()), ["10.0.0.1:8080 z1", "10.0.0.2:8080 z2"]);
        assert_eq!(found(&[&a], KubernetesPort::Number(9090)), ["10.0.0.1:9090 z1"]);
        assert_eq!(found(&[], http()), [""; 0]);
        assert_eq!(chosen(&[], http(), None).trouble, None);
    }

    #[test]
    fn a_hint_for_several_zones_is_for_our_own() {
        let hinted = of(
            "a",
            r#"{"addresses":["10.0.0.1"],"zone":"z1","hints":{"forZones":[{"name":"z2"},{"name":"z3"}]}}"#,
        );
        for (own, expected) in [(None, "z2"), (Some("z1"), "z2"), (Some("z3"), "z3")] {
            let found = chosen(&[&hinted], http(), own).found;
            assert_eq!(found[0].zone.as_deref(), Some(expected), "{own:?}");
        }
    }

    #[test]
    fn a_missing_port_is_reported_with_the_ports_that_exist() {
        let a = of("a", r#"{"addresses":["10.0.0.1"]}"#);
        let trouble = chosen(&[&a], KubernetesPort::Number(80), None).trouble.unwrap();
        assert!(
            trouble.contains("http (8080), metrics (9090)") && trouble.contains("not of the Service"),
            "{trouble}"
        );
        let trouble = chosen(&[&a], KubernetesPort::Name("grpc".into()), None).trouble.unwrap();
        assert!(trouble.contains("`grpc`") && !trouble.contains("53"), "{trouble}");
    }

    #[test]
    fn a_terminating_endpoint_is_used_only_if_none_is_ready() {
        let endpoint =
            |ip: &str, conditions: &str| format!(r#"{{"addresses":["{ip}"],"conditions":{{{conditions}}}}}"#);
        let ready = endpoint("10.0.0.1", r#""ready":true,"serving":true,"terminating":false"#);
        let ending = endpoint("10.0.0.2", r#""ready":false,"serving":true,"terminating":true"#);
        let gone = endpoint("10.0.0.3", r#""ready":false,"serving":false,"terminating":true"#);
        let starting = endpoint("10.0.0.4", r#""ready":false,"serving":false,"terminating":false"#);
        let of = |endpoints: &[&str]| found(&[&of("a", &endpoints.join(","))], http());
        assert_eq!(of(&[&ready, &ending, &gone, &starting]), ["10.0.0.1:8080 -"]);
        assert_eq!(of(&[&ending, &gone, &starting]), ["10.0.0.2:8080 -"]);
        assert_eq!(of(&[&gone, &starting]), [""; 0]);
    }

    #[test]
    fn an_endpoint_that_moves_between_slices_is_ready_if_either_says_so() {
        let not = of(
            "a",
            r#"{"addresses":["10.0.0.1"],"conditions":{"ready":false,"serving":true,"terminating":true}}"#,
        );
        let ready = of("b", r#"{"addresses":["10.0.0.1"],"conditions":{"ready":true}}"#);
        assert_eq!(found(&[&not, &ready], http()), ["10.0.0.1:8080 -"]);
    }

    #[test]
    fn only_one_of_two_address_families_is_used() {
        let ending = r#""conditions":{"ready":false,"serving":true,"terminating":true}"#;
        let four = of("a", r#"{"addresses":["10.0.0.1"]}"#);
        let four_ending =
            of("a", &format!(r#"{{"addresses":["10.0.0.1"],{ending}}},{{"addresses":["10.0.0.2"]}}"#));
        let six = of("b", r#"{"addresses":["fd00::1"]},{"addresses":["fd00::2"]}"#);
        assert_eq!(found(&[&four, &six], http()), ["10.0.0.1:8080 -"]);
        // The pod's other address must not bring it new work: the slice that has it changes a moment later.
        assert_eq!(found(&[&four_ending, &six], http()), ["10.0.0.2:8080 -"]);
        assert_eq!(found(&[&six], http()), ["[fd00::1]:8080 -", "[fd00::2]:8080 -"]);
    }

    #[test]
    fn an_address_that_no_pod_has_is_never_used() {
        for ip in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            let other = if ip.contains(':') { "fd00::1" } else { "10.0.0.1" };
            let slice = of("a", &format!(r#"{{"addresses":["{ip}"]}},{{"addresses":["{other}"]}}"#));
            let chosen = chosen(&[&slice], http(), None);
            assert_eq!(
                chosen.found.iter().map(|f| f.address.ip().to_string()).collect::<Vec<_>>(),
                [other],
                "{ip}"
            );
            assert!(chosen.trouble.unwrap().contains("can't be those of pods"));
        }
    }

    #[test]
    fn nulls_and_unknown_values_are_accepted() {
        let text =
            r#"{"metadata":{"name":"a","labels":{}},"addressType":"FQDN","ports":null,"endpoints":null}"#;
        assert_eq!(found(&[text], http()), [""; 0]);
        let text = r#"{"metadata":{"name":"a"},"ports":[{"name":"http","port":80}],"endpoints":[{"addresses":["web.example"]},{"addresses":[]},{"addresses":null,"conditions":{"ready":null},"hints":{"forZones":null}}]}"#;
        assert_eq!(found(&[text], http()), [""; 0]);
    }

    #[test]
    fn if_a_slice_can_not_be_read_its_last_good_version_stays() {
        let mut all = Slices::default();
        let (a, b) = (of("a", r#"{"addresses":["10.0.0.1"]}"#), of("b", r#"{"addresses":["10.0.0.2"]}"#));
        all.replace(vec![slice(&a), slice(&b)], &[]).unwrap();
        all.replace(vec![slice(&a)], &["b".into(), "never-seen".into()]).unwrap();
        assert_eq!(all.0.len(), 2);
        all.replace(vec![slice(&a)], &[]).unwrap();
        assert_eq!(all.0.len(), 1);
    }

    #[test]
    fn more_endpoints_than_any_service_has_are_refused() {
        let endpoints = vec![r#"{"addresses":["10.0.0.1"]}"#; 1000].join(",");
        let mut all = Slices::default();
        for n in 0..MAX_ENDPOINTS / 1000 {
            all.set(slice(&of(&n.to_string(), &endpoints))).unwrap();
        }
        assert!(all.set(slice(&of("more", &endpoints))).is_err());
    }
}
