//! `resolv.conf` (resolv.conf(5)): servers, search domains and the options that concern them.
//!
//! Unknown lines and options are ignored, as libc does; if there are several `search` and `domain` lines, the last one
//! counts.

use std::{net::IpAddr, time::Duration};

/// The settings of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    /// Default 1, at most 15.
    pub(super) ndots: u8,
    /// 1 to 30 s.
    pub(super) timeout: Option<Duration>,
    /// 1 to 5.
    pub(super) attempts: Option<usize>,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout: None, attempts: None }
    }
}

impl ResolvConf {
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                // An IPv6 address may carry its interface (`fe80::1%eth0`), which can't be kept here.
                Some("nameserver") => {
                    conf.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                Some("domain") => conf.search = words.next().map(domain).into_iter().collect(),
                Some("search") => conf.search = words.map(domain).collect(),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf.search.retain(|domain| !domain.is_empty());
        conf
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = value.min(15) as u8,
            "timeout" => self.timeout = Some(Duration::from_secs(u64::from(value.clamp(1, 30)))),
            "attempts" => self.attempts = Some(value.clamp(1, 5) as usize),
            _ => {}
        }
    }
}

/// Without the final dot; the root itself (`search .`) is empty.
fn domain(word: &str) -> String {
    word.strip_suffix('.').unwrap_or(word).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_file_is_understood() {
        let conf = ResolvConf::parse(
            "# made by kubelet\nsearch shop.svc.cluster.local svc.cluster.local cluster.local.\n\
             nameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver 2001:db8::53\n\
             options ndots:5 timeout:2 attempts:9 edns0 nonsense:x\n",
        );
        let expected = ResolvConf {
            servers: vec!["10.96.0.10".parse().unwrap(), "2001:db8::53".parse().unwrap()],
            search: ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(String::from).into(),
            ndots: 5,
            timeout: Some(Duration::from_secs(2)),
            attempts: Some(5),
        };
        assert_eq!(conf, expected);
    }

    #[test]
    fn the_last_of_domain_and_search_counts() {
        assert_eq!(ResolvConf::parse("search a b\ndomain c\n").search, ["c"]);
        assert_eq!(ResolvConf::parse("domain c\nsearch a b\n").search, ["a", "b"]);
        assert_eq!(ResolvConf::parse("search .\n"), ResolvConf::default());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            ResolvConf::parse(&text);
        }
    }
}
