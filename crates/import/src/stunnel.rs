//! stunnel and ghostunnel, which put TLS around opaque bytes. Each service becomes a listener and an upstream.
//!
//! A config of stunnel has sections with `key = value`. ghostunnel has flags: a file with its command line is read.

use crate::plan::{FilterChain, Plan, PlannedListener, PlannedRule, PlannedUpstream, UniqueNames};
use crate::remark::{Impact, Remarks};
use crate::tree::{FileLine, Unreadable};
use crate::value::YamlMap;
use crate::{File, path};

/// A service of either program.
#[derive(Default)]
struct TlsService {
    at: FileLine,
    name: String,
    listen: String,
    targets: Vec<String>,
    /// The service uses TLS to its target, and its callers use plaintext.
    client: bool,
    tls: YamlMap,
    remarks: Remarks,
    closed: Option<String>,
}

fn place(file: &File, line: usize) -> FileLine {
    FileLine { file: file.path.display().to_string().into(), line: line as u32 }
}

/// Imports configs of stunnel.
pub(crate) fn stunnel(files: &[File]) -> Result<Plan, Unreadable> {
    let mut services: Vec<TlsService> = Vec::new();
    let mut global: Vec<(String, String)> = Vec::new();
    let mut all: Vec<(FileLine, String, Vec<(String, String)>)> = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                all.push((place(file, index + 1), name.trim().to_owned(), global.clone()));
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let pair = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
            match all.last_mut() {
                Some((_, _, pairs)) => pairs.push(pair),
                None => global.push(pair),
            }
        }
    }
    for (at, name, pairs) in all {
        services.push(section(at, name, &pairs));
    }
    finish(services, files)
}

const QUIET: &[&str] = &[
    "pid",
    "foreground",
    "output",
    "debug",
    "syslog",
    "setuid",
    "setgid",
    "chroot",
    "socket",
    "options",
    "fips",
    "renegotiation",
    "session",
    "sessioncachesize",
    "sessioncachetimeout",
    "rndfile",
    "rndbytes",
    "delay",
    "accept",
    "connect",
    "client",
    "cert",
    "key",
    "cafile",
    "verify",
    "verifychain",
    "verifypeer",
    "requirecert",
    "checkhost",
    "sni",
    "sslversion",
    "sslversionmin",
    "sslversionmax",
    "ciphers",
    "ciphersuites",
    "curves",
    "curve",
    "timeoutidle",
    "timeoutconnect",
    "timeoutbusy",
    "timeoutclose",
    "compression",
    "failover",
    "log",
    "logid",
    "service",
    "egd",
    "engine",
    "enginectrl",
    "enginedefault",
    "enginenum",
    "local",
    "provider",
    "providerparameter",
    "pty",
    "reset",
    "retry",
    "securitylevel",
    "sessionresume",
    "setenv",
    "stack",
    "taskbar",
    "ticketkeysecret",
    "ticketmacsecret",
];

/// Keys that decide who passes, and that attache can't express.
const CLOSING: &[&str] = &[
    "exec",
    "protocol",
    "psksecrets",
    "checkip",
    "checkemail",
    "crlfile",
    "crlpath",
    "config",
    "ident",
    "libwrap",
    "ocsp",
    "ocspaia",
];

fn section(at: FileLine, name: String, pairs: &[(String, String)]) -> TlsService {
    let mut out = TlsService { at: at.clone(), name, ..TlsService::default() };
    let last =
        |key: &str| pairs.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    let yes = |key: &str| last(key).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
    out.client = yes("client");
    last("accept").unwrap_or_default().clone_into(&mut out.listen);
    out.targets = pairs.iter().filter(|(key, _)| key == "connect").map(|(_, value)| value.clone()).collect();
    let level = last("verify").and_then(|level| level.parse::<u8>().ok()).unwrap_or(0);
    let verifies = yes("verifychain") || yes("requirecert") || level >= 2;
    if let Some(certificate) = last("cert") {
        out.tls.set("certificate", certificate);
        out.tls.set("key", last("key").unwrap_or(certificate));
    }
    if let Some(ca) = last("cafile") {
        if out.client {
            out.tls.set("ca", ca);
        } else if verifies || yes("verifypeer") || level > 0 {
            out.tls.set("client_ca", ca);
            if level == 1 {
                out.tls.set("client_optional", true);
            }
        }
    }
    if yes("verifypeer") || level >= 3 {
        out.closed = Some("it accepts only single certificates (`verifyPeer`). Write `allow` or `pins`, which do this in attache; then replace the refusal".to_owned());
    } else if !out.client && verifies && last("cafile").is_none() {
        out.closed = Some(
            "the roots for its clients are not in one file (`CApath`). Put them into a file, and set `client_ca`; then replace the refusal"
                .to_owned(),
        );
    }
    if out.client && !verifies {
        out.remarks.soft(&at, "stunnel didn't verify this peer. attache verifies its name, and its certificate with `tls.ca` or the system's roots.");
    }
    if out.client
        && let Some(host) = last("checkhost").or_else(|| last("sni"))
    {
        out.tls.set("name", host);
    }
    if let Some(version) = last("sslversion").or_else(|| last("sslversionmin"))
        && version.eq_ignore_ascii_case("tlsv1.3")
    {
        out.tls.set("min_version", "1.3");
    }
    for (key, value) in pairs {
        match key.as_str() {
            key if QUIET.contains(&key) || key.starts_with("timeout") || key.starts_with("icon") => {}
            "libwrap" | "ocspaia" if value.eq_ignore_ascii_case("no") => {}
            "include" => {
                let why = format!(
                    "the files of `include = {value}` are not read, and they may have rules for it. Replace this line by their content; then import again"
                );
                out.remarks.point(&at, format!("{why}."));
                out.closed.get_or_insert(why);
            }
            "protocol" | "exec" | "execargs" | "psksecrets" | "pskidentity" | "transparent" | "redirect"
            | "capath" | "castore" | "caengine" | "crlfile" | "crlpath" | "ocsp" | "ocspaia" | "ocspflag"
            | "ocspnonce" | "ocsprequire" | "checkip" | "checkemail" | "engineid" | "xforwardedfor"
            | "config" | "ident" | "libwrap" => {
                out.remarks.point(&at, format!("`{key} = {value}` is not carried over."));
                if CLOSING.contains(&key.as_str()) {
                    out.closed.get_or_insert_with(|| {
                        format!("attache has no key for `{key}`. Find another way to do what it did; then replace the refusal")
                    });
                }
            }
            key if key.starts_with("protocol") => {}
            key => {
                out.remarks.unknown(&at, format_args!("`{key}`"));
                out.closed.get_or_insert_with(|| {
                    format!("this import doesn't know the key `{key}`, which may decide who passes. Find out what it does; then replace the refusal")
                });
            }
        }
    }
    out
}

/// Imports a command line of ghostunnel.
pub(crate) fn ghostunnel(files: &[File]) -> Result<Plan, Unreadable> {
    let mut services = Vec::new();
    for file in files {
        let joined = file.text.replace("\\\n", " ");
        for (index, line) in joined.lines().enumerate() {
            let words: Vec<&str> =
                line.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
            if let Some(start) = words.iter().position(|word| word.rsplit('/').next() == Some("ghostunnel")) {
                services.push(flags(place(file, index + 1), words.get(start + 1..).unwrap_or_default()));
            }
        }
    }
    finish(services, files)
}

fn flags(at: FileLine, words: &[&str]) -> TlsService {
    let mut out = TlsService { at, ..TlsService::default() };
    let pairs = flags_and_values(words, &mut out);
    let mut passes = AllowFlags::default();
    for (flag, value) in &pairs {
        out.flag(flag, value, &mut passes);
    }
    let disabled = pairs.iter().any(|(flag, _)| flag == "disable-authentication");
    passes.decide(disabled, &mut out);
    out
}

/// Flags with their values. `server` and `client` name the service.
fn flags_and_values(words: &[&str], out: &mut TlsService) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut rest = words.iter().peekable();
    while let Some(word) = rest.next() {
        let Some(flag) = word.strip_prefix("--") else {
            if matches!(*word, "server" | "client") {
                out.client = *word == "client";
                (*word).clone_into(&mut out.name);
            }
            continue;
        };
        let (flag, value) = match flag.split_once('=') {
            Some((flag, value)) => (flag, value.to_owned()),
            None => (
                flag,
                match rest.peek() {
                    Some(next) if !next.starts_with("--") => {
                        rest.next().map(|next| (*next).to_owned()).unwrap_or_default()
                    }
                    _ => String::new(),
                },
            ),
        };
        pairs.push((flag.to_owned(), value));
    }
    pairs
}

/// The flags of ghostunnel that decide who passes.
#[derive(Default)]
struct AllowFlags {
    /// Names in certificates.
    allow: Vec<String>,
    /// Every name is allowed.
    open: bool,
    /// A client shows no certificate.
    no_certificate: bool,
}

impl TlsService {
    fn flag(&mut self, flag: &str, value: &str, passes: &mut AllowFlags) {
        match flag {
            "listen" => value.clone_into(&mut self.listen),
            "target" => self.targets.push(value.to_owned()),
            "cert" => self.tls.set("certificate", value),
            "key" => self.tls.set("key", value),
            "cacert" => self.tls.set(if self.client { "ca" } else { "client_ca" }, value),
            "allow-all" | "disable-authentication" => {
                passes.open = true;
                passes.no_certificate |= flag == "disable-authentication" && self.client;
            }
            "allow-cn" | "verify-cn" => passes.allow.push(format!("subject:CN={value}")),
            "allow-ou" | "verify-ou" => passes.allow.push(format!("subject:OU={value}")),
            "allow-dns" | "verify-dns" => passes.allow.push(value.to_owned()),
            "allow-uri" | "verify-uri" => passes.allow.push(value.to_owned()),
            "override-server-name" => self.tls.set("name", value),
            "keystore" => {
                self.remarks.point(
                    &self.at,
                    "a PKCS#12 keystore is not read: write certificate and key as PEM files.",
                );
                self.tls.set("certificate", value);
                self.tls.set("key", value);
            }
            "proxy-protocol" => self
                .remarks
                .point(&self.at, "the PROXY protocol header for the target is not sent: set `proxy_protocol: v2` of the upstream."),
            "storepass" | "unsafe-target" | "unsafe-listen" | "timed-reload" | "shutdown-timeout"
            | "connect-timeout" | "close-timeout" | "max-conn-lifetime" | "quiet" | "syslog"
            | "skip-resolve" | "disable-landlock" | "use-landlock" => {}
            "max-concurrent-conns" => self.remarks.point(
                &self.at,
                "`--max-concurrent-conns` is not carried over: write `max_connections` of the listener.",
            ),
            "status" | "enable-pprof" | "enable-shutdown" | "metrics-graphite" | "metrics-url"
            | "metrics-prefix" | "metrics-interval" => {
                self.remarks.soft(&self.at, format!("`--{flag}`: metrics and probes are on port 15090."));
            }
            "allow-policy"
            | "verify-policy"
            | "allow-query"
            | "use-workload-api"
            | "use-workload-api-addr" => {
                self.closed = Some(format!(
                    "`--{flag}` decided who passes. Write `allow`, or `spiffe: true`; then replace the refusal"
                ));
            }
            other => {
                self.remarks.unknown(&self.at, format_args!("`--{other}`"));
                self.closed.get_or_insert_with(|| {
                    format!("this import doesn't know `--{other}`, which may decide who passes. Find out what it does; then replace the refusal")
                });
            }
        }
    }
}

impl AllowFlags {
    fn decide(self, disabled: bool, out: &mut TlsService) {
        if out.client {
            if !self.allow.is_empty() {
                out.tls.set("peers", self.allow);
            }
            if self.no_certificate {
                out.tls.0.retain(|(key, _)| key != "certificate" && key != "key");
            }
        } else if self.open && disabled {
            out.tls.0.retain(|(key, _)| key != "client_ca");
        } else if self.allow.is_empty() && !self.open {
            out.closed = Some("it allows no name, and ghostunnel doesn't start without one".to_owned());
        } else if out.tls.get("client_ca").is_none() {
            out.closed.get_or_insert_with(|| {
                "clients were verified with the system's roots. Set `client_ca`; then replace the refusal"
                    .to_owned()
            });
        } else if !self.open {
            out.tls.set("allow", self.allow);
        }
    }
}

fn finish(services: Vec<TlsService>, files: &[File]) -> Result<Plan, Unreadable> {
    if services.is_empty() {
        let at = files.first().map(|file| place(file, 0)).unwrap_or_default();
        return Err(Unreadable {
            at,
            what: "there is no service in it; if an `include` has its services, give those files instead"
                .to_owned(),
        });
    }
    let (mut plan, mut names) = (Plan::default(), UniqueNames::default());
    let mut listeners = UniqueNames::default();
    for (index, service) in services.into_iter().enumerate() {
        let own =
            if service.name.is_empty() { format!("service-{}", index + 1) } else { service.name.clone() };
        let mut listener = PlannedListener {
            name: listeners.of(&own),
            remarks: service.remarks.clone(),
            opaque: true,
            ..PlannedListener::default()
        };
        let Some(bind) = address(&service.listen) else {
            listener.remarks.say(
                Impact::Point,
                &service.at,
                "attache can't listen on the address of this service: the service is left out.",
            );
            plan.remarks.0.extend(listener.remarks.0);
            continue;
        };
        listener.keys.set("bind", bind);
        listener.keys.set("protocol", "tcp");
        let targets = service.addresses();
        match service.refused(&targets) {
            Some(why) => {
                // attache closes opaque connections that no route matches.
                listener.keys.set("protocol", "http");
                listener.opaque = false;
                listener.chains.push(refusing(&service.at, format!("every connection is refused: {why}.")));
            }
            None => {
                let name = names.of(&format!("{own}-target"));
                plan.upstreams.push(service.carry(name, targets, &mut listener));
            }
        }
        plan.listeners.push(listener);
    }
    Ok(plan)
}

/// A chain that refuses every connection.
fn refusing(at: &FileLine, why: String) -> FilterChain {
    let mut rule = PlannedRule::refusal(at, why);
    rule.when.path = path::PlannedPath::Any;
    let site =
        crate::plan::VirtualHost { hosts: vec!["*".to_owned()], rules: vec![rule], ..Default::default() };
    FilterChain { sites: vec![site], ..FilterChain::default() }
}

impl TlsService {
    /// The addresses of its targets, in the config's notation.
    fn addresses(&self) -> Vec<String> {
        let scheme = if self.client { "tls" } else { "tcp" };
        self.targets
            .iter()
            .filter_map(|target| address(target))
            .map(|target| match target.strip_prefix("unix:") {
                Some(path) if self.client => format!("unix+tls:{path}"),
                Some(path) => format!("unix+tcp:{path}"),
                None => format!("{scheme}://{target}"),
            })
            .collect()
    }

    /// Why its connections must be refused.
    fn refused(&self, targets: &[String]) -> Option<String> {
        let mut closed = self.closed.clone();
        if !self.client && self.tls.get("certificate").is_none() {
            closed.get_or_insert_with(|| "it has no certificate in a file. Set `tls.certificate` and `tls.key`; then replace the refusal".to_owned());
        }
        if targets.is_empty() {
            closed.get_or_insert_with(|| "it has no target that the import can read".to_owned());
        }
        closed
    }

    /// Makes the listener pass its bytes on. Returns the upstream.
    fn carry(self, name: String, targets: Vec<String>, listener: &mut PlannedListener) -> PlannedUpstream {
        let mut rule = PlannedRule { at: self.at, targets: vec![name.clone()], ..PlannedRule::default() };
        rule.when.path = path::PlannedPath::Any;
        rule.keys.set("to", name.as_str());
        listener.chains.push(FilterChain { opaque: Some(rule), ..FilterChain::default() });
        let mut upstream = PlannedUpstream { name, ..PlannedUpstream::default() };
        upstream.keys.set("address", targets);
        if !self.client {
            listener.keys.set("tls", self.tls);
            listener.secure = true;
        } else if !self.tls.is_empty() {
            upstream.keys.set("tls", self.tls);
        }
        upstream
    }
}

/// `8443`, `:8443`, `localhost:8443`, `unix:/run/x`.
fn address(text: &str) -> Option<String> {
    let text = text.strip_prefix("tcp:").unwrap_or(text);
    if let Some(path) = text.strip_prefix("unix:") {
        return (path.starts_with('/')).then(|| format!("unix:{path}"));
    }
    if text.starts_with('/') {
        return Some(format!("unix:{text}"));
    }
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match text.rsplit_once(':') {
        None if port(text) => Some(format!("127.0.0.1:{text}")),
        Some(("", number)) if port(number) => Some(format!("0.0.0.0:{number}")),
        Some((host, number)) if port(number) && !host.is_empty() && !host.contains([' ', '/']) => {
            Some(format!("{host}:{number}"))
        }
        _ => None,
    }
}
