//! "Did you mean": the nearest known word by optimal string alignment distance (Damerau 1964): insertions,
//! deletions, substitutions and swaps of neighbours cost one each. A word further than a third of its length away is
//! no typing error, and nothing is suggested.

/// The known word nearest to `word`, if one is near enough.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let folded = word.to_ascii_lowercase().replace('-', "_");
    let bound = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| {
            let other = candidate.to_ascii_lowercase().replace('-', "_");
            (distance(&folded, &other), same_stem(&folded, &other), candidate)
        })
        .filter(|(distance, stem, _)| *distance <= bound || *stem)
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, _, candidate)| candidate)
}

/// attache's keys, each with the names that other programs have for it.
const OF_OTHERS: &[(&str, &[&str])] = &[
    ("listeners", &["frontend", "frontends", "entrypoints", "server", "servers"]),
    ("upstreams", &["backend", "backends", "cluster", "clusters", "service", "services", "origins"]),
    (
        "bind",
        &["listen", "listen_address", "local_address", "accept", "port", "address", "addr", "interface"],
    ),
    (
        "address",
        &["url", "uri", "target", "server", "servers", "endpoint", "endpoints", "connect", "host", "hosts"],
    ),
    (
        "to",
        &[
            "backend",
            "backends",
            "cluster",
            "destination",
            "forward",
            "proxy_pass",
            "service",
            "target",
            "targets",
            "upstream",
            "upstreams",
        ],
    ),
    ("routes", &["rules", "paths", "locations", "handlers"]),
    ("match", &["when", "if", "matches", "rule", "condition", "conditions"]),
    (
        "balance",
        &["lb", "lb_policy", "lb_algorithm", "load_balancer", "load_balancing", "strategy", "policy"],
    ),
    ("health_check", &["check", "healthcheck", "probe", "readiness"]),
    ("outlier_ejection", &["outlier_detection", "passive_health_check", "max_fails"]),
    ("circuit_breaker", &["breaker"]),
    ("rate_limit", &["limit_req", "ratelimit", "throttle"]),
    ("retry", &["retry_policy", "proxy_next_upstream"]),
    ("mirror", &["shadow", "request_mirror_policies"]),
    ("fault", &["fault_injection", "chaos"]),
    ("tls", &["mtls", "ssl", "transport_socket"]),
    ("insecure_skip_verify", &["insecure", "skip_verify", "ssl_verify", "verify", "verify_peer"]),
    ("protocol", &["mode", "proto", "type"]),
    ("max_connections", &["connection_limit", "maxconn"]),
    ("timeout", &["read_timeout", "request_timeout", "proxy_read_timeout"]),
    ("connect_timeout", &["dial_timeout", "proxy_connect_timeout"]),
    ("per_try_timeout", &["attempt_timeout", "try_timeout"]),
    ("interval", &["every", "period", "period_seconds"]),
    ("metrics", &["monitoring", "prometheus", "stats"]),
    ("admin", &["dashboard", "management"]),
    ("path", &["location", "path_prefix", "prefix", "uri", "url"]),
    ("host", &["authority", "domain", "domains", "hostname", "server_name"]),
    ("certificate", &["cert", "cert_file", "certificate_chain", "crt"]),
    ("key", &["key_file", "private_key"]),
    ("ca", &["ca_cert", "ca_file", "cafile", "root_ca", "trusted_ca"]),
    ("client_ca", &["ca", "ca_cert", "ca_file", "cafile", "trusted_ca"]),
    ("name", &["server_name", "sni"]),
    ("attempts", &["max_attempts", "max_retries", "num_retries", "retries"]),
    ("requests", &["limit", "rate"]),
    ("respond", &["direct_response", "return", "status"]),
    ("otlp", &["collector", "endpoint"]),
];

/// attache's words for values, each with the words that other programs have for it.
const WORDS_OF_OTHERS: &[(&str, &[&str])] = &[
    ("least-request", &["least_conn", "least_connections", "leastconn", "p2c"]),
    ("round-robin", &["rr", "static-rr", "weighted"]),
    ("peak-ewma", &["ewma", "least_time", "latency"]),
    ("ring-hash", &["consistent", "consistent_hash", "hash", "ip_hash", "source", "sticky"]),
    ("http2", &["grpc", "h2", "h2c"]),
    ("http1", &["h1", "http/1.1", "http1.1"]),
    ("tcp", &["l4", "opaque", "raw", "stream"]),
    ("tls", &["passthrough", "ssl", "sni"]),
];

/// attache's word for what other programs call `word`.
pub(crate) fn word_of_others<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let is = |(_, theirs): &&(&str, &[&str])| {
        theirs.contains(&word.as_str()) || theirs.contains(&word.replace('-', "_").as_str())
    };
    known.into_iter().find(|ours| WORDS_OF_OTHERS.iter().filter(is).any(|(name, _)| name == ours))
}

/// Keys of other programs that attache doesn't have, and what to use instead. The first word of a row is a key that the
/// mapping must know.
const KEYS_OF_OTHER_PROGRAMS: &[(&str, &[&str], &str)] = &[
    (
        "listeners",
        &["log", "log_level", "loglevel", "logger", "logging", "verbosity"],
        "`--log LEVEL` or ATTACHE_LOG sets how much the program logs; `access_log` is about calls",
    ),
    ("address", &["port", "ports"], "the port is a part of the address: `address: http://HOST:PORT`"),
    ("address", &["scheme"], "the scheme is a part of the address: `address: https://HOST:PORT`"),
    (
        "listeners",
        &["env", "environment", "variables"],
        "`${NAME}` in any value stands for the environment variable of that name",
    ),
    (
        "listeners",
        &["include", "includes", "import", "imports"],
        "a config is one file; `!file PATH` reads one value from another file",
    ),
];

/// The help for a key that only other programs have.
pub(crate) fn elsewhere<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<&'static str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let is = |(ours, theirs, _): &&(&str, &[&str], &str)| {
        theirs.contains(&word.as_str()) && known.clone().into_iter().any(|known| known == *ours)
    };
    KEYS_OF_OTHER_PROGRAMS.iter().find(is).map(|(_, _, help)| *help)
}

/// attache's key for what other programs call `word`.
pub(crate) fn of_others<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let is = |(_, theirs): &&(&str, &[&str])| theirs.contains(&word.as_str());
    known.into_iter().find(|ours| OF_OTHERS.iter().filter(is).any(|(name, _)| name == ours))
}

/// The key that differs from the word by one typing error, or by one capital letter, if the word is long enough to be
/// sure.
pub(crate) fn slip<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_ascii_lowercase().replace('-', "_");
    let bound = usize::from((5..=64).contains(&word.len()));
    known.into_iter().find(|candidate| distance(&folded, candidate) <= bound)
}

/// The key that was probably meant, by its spelling or by another program's name for it.
pub(crate) fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    slip(word, known.clone()).or_else(|| of_others(word, known.clone())).or_else(|| nearest(word, known))
}

/// `retries` and `retry`: most of the shorter word, and at least four characters, begin the longer one.
fn same_stem(a: &str, b: &str) -> bool {
    let common = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let (short, long) = (a.len().min(b.len()), a.len().max(b.len()));
    common >= 4 && common + 1 >= short && long <= common + 3
}

/// Help for a name that isn't known: the one that was probably meant; or `have` and all known names; or `none` where there are none.
pub(crate) fn instead<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    have: &str,
    none: impl FnOnce() -> String,
) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.clone().next().is_none() => none(),
        None => format!("{have} {}", list(known, "and")),
    }
}

/// Words as a list for people: "`a`, `b` or `c`".
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>, conjunction: &str) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} {conjunction} {last}", rest.join(", ")),
    }
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous_a = None;
    for (i, ca) in a.chars().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        let mut previous_b = None;
        for (j, &cb) in b.iter().enumerate() {
            let at = |row: &[usize], k: usize| row.get(k).copied().unwrap_or(usize::MAX - 1);
            let mut cost =
                (at(&last, j) + usize::from(ca != cb)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            if previous_a == Some(cb) && previous_b == Some(ca) && j > 0 {
                cost = cost.min(at(&before_last, j - 1) + 1);
            }
            row.push(cost);
            previous_b = Some(cb);
        }
        before_last = std::mem::replace(&mut last, row);
        previous_a = Some(ca);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_of_neighbours_is_one_mistake() {
        assert_eq!(distance("timeuot", "timeout"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
        assert_eq!(nearest("timout", ["idle_timeout", "timeout"]), Some("timeout"));
        assert_eq!(nearest("idle-timeout", ["idle_timeout", "timeout"]), Some("idle_timeout"));
        assert_eq!(nearest("retries", ["to", "retry"]), Some("retry"));
        assert_eq!(nearest("cluster", ["upstream", "route"]), None);
    }

    #[test]
    fn words_of_other_programs_are_understood_where_ours_fits() {
        assert_eq!(meant("listen", ["bind", "to"]), Some("bind"));
        assert_eq!(meant("URL", ["address", "tls"]), Some("address"));
        assert_eq!(meant("listen", ["address", "tls"]), None);
        // A slip is nearer than another program's word.
        assert_eq!(meant("upstream", ["upstreams", "to"]), Some("upstreams"));
        assert_eq!(meant("upstream", ["match", "to"]), Some("to"));
        assert_eq!(word_of_others("leastconn", ["random", "least-request"]), Some("least-request"));
        assert_eq!(word_of_others("leastconn", ["random"]), None);
        assert!(elsewhere("port", ["address"]).is_some() && elsewhere("port", ["bind"]).is_none());
        for (ours, theirs) in OF_OTHERS.iter().chain(WORDS_OF_OTHERS) {
            assert!(!theirs.contains(ours), "{ours}");
        }
    }

    #[test]
    fn a_list_reads_like_a_sentence() {
        assert_eq!(list(["a", "b", "c"], "or"), "`a`, `b` or `c`");
        assert_eq!(list(["a"], "or"), "`a`");
        assert_eq!(list([], "or"), "");
    }
}
