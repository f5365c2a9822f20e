//! nginx's `listen`: addresses and their options.

use crate::remark::Remarks;

use super::tokens::Directive;

/// The options of a `listen`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Listen {
    pub(super) bind: String,
    pub(super) ssl: bool,
    pub(super) default: bool,
    pub(super) proxy: bool,
    pub(super) h2: bool,
}

pub(super) fn listens(server: &Directive, remarks: &mut Remarks) -> Vec<Listen> {
    let mut out = Vec::new();
    for one in server.all("listen") {
        let has = |word: &str| one.words.iter().any(|own| own == word);
        if has("quic") || has("udp") {
            remarks.point(&one.at, "attache has no UDP and no QUIC: this address is left out.");
            continue;
        }
        let Some(bind) = bind(one.word(1)) else {
            remarks.point(
                &one.at,
                format!("attache can't listen on the address `{}`, which is left out.", one.word(1)),
            );
            continue;
        };
        let quiet = |word: &str| {
            let valued =
                ["backlog=", "rcvbuf=", "sndbuf=", "setfib=", "fastopen=", "ipv6only=", "so_keepalive="];
            let others = [
                "bind",
                "default",
                "default_server",
                "deferred",
                "http2",
                "proxy_protocol",
                "reuseport",
                "spdy",
                "ssl",
            ];
            others.contains(&word) || valued.iter().any(|start| word.starts_with(start))
        };
        if let Some(word) = one.words.iter().skip(2).find(|word| !quiet(word)) {
            remarks.unknown(&one.at, format_args!("`{word}` of an address"));
        }
        out.push(Listen {
            bind,
            ssl: has("ssl") || server.last("ssl").is_some_and(|one| one.word(1) == "on"),
            default: has("default_server") || has("default"),
            proxy: has("proxy_protocol"),
            h2: has("http2"),
        });
    }
    if server.all("listen").next().is_none() {
        out.push(Listen { bind: ":80".to_owned(), ..Listen::default() });
    }
    out
}

pub(crate) fn bind(text: &str) -> Option<String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Some(format!("unix:{path}"));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        return Some(format!(":{text}"));
    }
    if text.contains('$') || text.is_empty() {
        return None;
    }
    let text = text.trim_start_matches('*');
    if let Some(inner) = text.strip_prefix('[') {
        return Some(if inner.contains("]:") { text.to_owned() } else { format!("{text}:80") });
    }
    Some(if text.contains(':') { text.to_owned() } else { format!("{text}:80") })
}
