//! The words of a `server` line, with those of the `default-server` lines before it (HAProxy's manual, section 5.2).

use crate::remark::{Impact, Remarks};
use crate::tree::FileLine;

use super::tokens::ConfigSection;

/// A server: its name, its address, and its options, each with its value.
pub(super) struct ServerLine<'l> {
    pub(super) at: &'l FileLine,
    pub(super) name: &'l str,
    pub(super) address: &'l str,
    /// Of an option that is given twice the last value is used, as in HAProxy. `no-ssl` removes `ssl`.
    words: Vec<(String, Option<String>)>,
    /// Words that are not options of any HAProxy version that this import knows.
    strange: Vec<String>,
}

/// What the import does with an option.
enum OptionHandling {
    /// The option is read, or it has no effect on requests.
    Read,
    /// The option is lost, with this weight and meaning.
    Lost(Impact, &'static str),
    /// Without the option calls would go elsewhere or would be unprotected: the server is left out.
    Out(&'static str),
}

use Impact::{Point, Soft};
use OptionHandling::{Lost, Out, Read};

const TUNED: OptionHandling =
    Lost(Soft, "this tuning is left out: attache has `pool`, `balance` and `health_check`.");
const AGENT: OptionHandling =
    Lost(Soft, "attache asks no agent about the weight or state of an endpoint: use `health_check`.");
const CHECKED: OptionHandling =
    Lost(Soft, "health checks use the protocol of calls, and the endpoint's own address or `port`.");
const EJECTED: OptionHandling = Lost(Soft, "attache has `outlier_ejection` instead, which is on by default.");
const SUITES: OptionHandling =
    Lost(Soft, "attache uses the cipher suites, curves and signatures of rustls, which are all safe.");
const TLVS: OptionHandling =
    Lost(Point, "the PROXY protocol header has only the addresses: no TLS details and no other fields.");

/// Every option of a server, whether a value follows it, and what the import does with it.
const OPTIONS: &[(&str, bool, OptionHandling)] = &[
    ("addr", true, CHECKED),
    ("agent-addr", true, AGENT),
    ("agent-check", false, AGENT),
    ("agent-inter", true, AGENT),
    ("agent-port", true, AGENT),
    ("agent-send", true, AGENT),
    ("allow-0rtt", false, Read),
    ("alpn", true, Read),
    ("backup", false, Read),
    ("ca-file", true, Read),
    ("check", false, Read),
    ("check-alpn", true, CHECKED),
    ("check-pool-conn-name", true, CHECKED),
    ("check-proto", true, CHECKED),
    ("check-reuse-pool", false, TUNED),
    ("check-send-proxy", false, CHECKED),
    ("check-sni", true, CHECKED),
    ("check-sni-auto", false, CHECKED),
    ("check-ssl", false, Read),
    ("check-via-socks4", false, CHECKED),
    ("ciphers", true, SUITES),
    ("ciphersuites", true, SUITES),
    ("client-sigalgs", true, SUITES),
    ("cookie", true, Read),
    ("crl-file", true, Read),
    ("crt", true, Read),
    ("curves", true, SUITES),
    ("disabled", false, Read),
    ("downinter", true, Read),
    ("ecdhe", true, SUITES),
    ("enabled", false, Read),
    ("error-limit", true, EJECTED),
    ("fall", true, Read),
    ("fastinter", true, TUNED),
    ("force-sslv3", false, SUITES),
    ("force-tlsv10", false, SUITES),
    ("force-tlsv11", false, SUITES),
    ("force-tlsv12", false, Read),
    ("force-tlsv13", false, Read),
    ("guid", true, Read),
    ("hash-key", true, TUNED),
    ("id", true, Read),
    ("idle-ping", true, TUNED),
    ("init-addr", true, Read),
    ("init-state", true, TUNED),
    ("inter", true, Read),
    ("interface", true, Lost(Point, "the kernel chooses the interface of calls.")),
    ("log-bufsize", true, Read),
    ("log-proto", true, Read),
    ("max-reuse", true, TUNED),
    ("maxconn", true, Read),
    ("maxqueue", true, TUNED),
    ("minconn", true, TUNED),
    ("namespace", true, Out("it is in another network namespace")),
    ("non-stick", false, Read),
    ("npn", true, Read),
    ("observe", true, EJECTED),
    ("on-error", true, EJECTED),
    ("on-marked-down", true, Read),
    ("on-marked-up", true, TUNED),
    ("pool-conn-name", true, TUNED),
    ("pool-low-conn", true, TUNED),
    ("pool-max-conn", true, TUNED),
    ("pool-purge-delay", true, TUNED),
    ("port", true, Read),
    ("prefer-server-ciphers", false, SUITES),
    ("proto", true, Read),
    ("proxy-v2-options", true, TLVS),
    ("redir", true, Out("it is not called: its requests get a redirect")),
    ("renegotiate", false, Read),
    ("resolve-net", true, TUNED),
    ("resolve-opts", true, TUNED),
    ("resolve-prefer", true, TUNED),
    ("resolvers", true, Read),
    ("rise", true, Read),
    ("send-proxy", false, Read),
    ("send-proxy-v2", false, Read),
    ("send-proxy-v2-ssl", false, TLVS),
    ("send-proxy-v2-ssl-cn", false, TLVS),
    ("set-proxy-v2-tlv-fmt", true, TLVS),
    ("shard", true, Read),
    ("sigalgs", true, SUITES),
    ("slowstart", true, Read),
    ("sni", true, Read),
    ("sni-auto", false, Read),
    ("socks4", true, Out("it is called through a SOCKS proxy")),
    (
        "source",
        true,
        Lost(Point, "the local address of calls is left out: set `source_address` of the upstream."),
    ),
    ("ssl", false, Read),
    ("ssl-max-ver", true, SUITES),
    ("ssl-min-ver", true, Read),
    ("ssl-reuse", false, Read),
    ("sslv3", false, SUITES),
    ("stick", false, Read),
    ("strict-maxconn", false, TUNED),
    ("tcp-md5sig", true, Out("its connections are signed (TCP-MD5)")),
    ("tcp-ut", true, TUNED),
    ("tfo", false, Read),
    ("tls-tickets", false, Read),
    ("tlsv10", false, SUITES),
    ("tlsv11", false, SUITES),
    ("tlsv12", false, Read),
    ("tlsv13", false, SUITES),
    ("track", true, TUNED),
    (
        "usesrc",
        true,
        Lost(
            Point,
            "servers see attache's address as the source of connections; the client's address is in `X-Forwarded-For`.",
        ),
    ),
    ("verify", true, Read),
    ("verifyhost", true, Read),
    ("weight", true, Read),
    ("ws", true, Read),
];

/// In `OPTIONS`, `set-proxy-v2-tlv-fmt(0x20)` is listed without its argument.
fn known(word: &str) -> Option<&'static (&'static str, bool, OptionHandling)> {
    let bare = word.split('(').next().unwrap_or(word);
    OPTIONS.iter().find(|(name, ..)| *name == bare)
}

/// The servers of a section, each with the options of the `default-server` lines before it.
pub(super) fn all(section: &ConfigSection) -> Vec<ServerLine<'_>> {
    let (mut words, mut strange) = (Vec::new(), Vec::new());
    let mut out = Vec::new();
    for line in &section.lines {
        match line.word(0) {
            "default-server" => add(line.rest(1), &mut words, &mut strange),
            kind @ ("server" | "server-template") => {
                let place = if kind == "server" { 2 } else { 3 };
                let mut server = ServerLine {
                    at: &line.at,
                    name: line.word(1),
                    address: line.word(place),
                    words: words.clone(),
                    strange: strange.clone(),
                };
                add(line.rest(place + 1), &mut server.words, &mut server.strange);
                out.push(server);
            }
            _ => {}
        }
    }
    out
}

fn add(from: &[String], words: &mut Vec<(String, Option<String>)>, strange: &mut Vec<String>) {
    let mut from = from.iter();
    while let Some(word) = from.next() {
        if let Some((name, valued, _)) = known(word) {
            let value = if *valued { from.next().cloned() } else { None };
            words.retain(|(other, _)| other != name);
            words.push(((*name).to_owned(), value));
            continue;
        }
        match word
            .strip_prefix("no-")
            .filter(|positive| known(positive).is_some_and(|(_, valued, _)| !valued))
        {
            Some(positive) => {
                words.retain(|(other, _)| other != positive);
                words.push((word.clone(), None));
            }
            // `verifyhost` is the only option with a value that `no-` removes: without it the certificate may have any
            // name.
            None if word == "no-verifyhost" => words.retain(|(other, _)| other != "verifyhost"),
            None => strange.push(word.clone()),
        }
    }
}

impl ServerLine<'_> {
    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|(name, _)| name == word)
    }

    pub(super) fn value(&self, word: &str) -> Option<&str> {
        self.words.iter().find(|(name, _)| name == word).and_then(|(_, value)| value.as_deref())
    }

    pub(super) fn number(&self, word: &str) -> Option<u64> {
        self.value(word).and_then(|text| text.parse().ok())
    }

    /// Reports the server's options that are lost. False if the server must be left out.
    pub(super) fn told(&self, remarks: &mut Remarks) -> bool {
        let mut stays = true;
        for word in &self.strange {
            remarks.unknown(self.at, format_args!("`{word}` of a server"));
        }
        for (word, _) in &self.words {
            match known(word).map(|(_, _, fate)| fate) {
                Some(Lost(weight, why)) => {
                    remarks.say(*weight, self.at, format!("`{word}` of a server: {why}"));
                }
                Some(Out(why)) => {
                    stays = false;
                    remarks.point(
                        self.at,
                        format!("the server `{}` is left out: {why} (`{word}`), and attache would call it directly.", self.name),
                    );
                }
                Some(Read) | None => {}
            }
        }
        stays
    }
}
