//! HAProxy's `bind` and its rules about connections.

use crate::hosted::{self, HostedRule};
use crate::plan::{FilterChain, PlannedListener, PlannedRule, VirtualHost};
use crate::remark::Remarks;

use super::{
    HaproxyImport, backend, bind,
    options::{self, ProxySide},
    rules,
    tokens::{ConfigLine, ConfigSection},
};

pub(super) fn listener(section: &ConfigSection, cx: &mut HaproxyImport) {
    if section.is_off() {
        cx.plan.remarks.note(&section.head.at, format!("`{}` is `disabled`, and left out.", section.name));
        return;
    }
    // Plaintext and TLS may meet different rules (`ssl_fc`), so they become two listeners.
    let bind_is = |line: &ConfigLine, tls: bool| line.word(0) == "bind" && line.has("ssl") == tls;
    if section.lines.iter().any(|line| bind_is(line, true))
        && section.lines.iter().any(|line| bind_is(line, false))
    {
        for tls in [false, true] {
            let mut one = section.clone();
            one.lines.retain(|line| !bind_is(line, !tls));
            listener_of(&one, if tls { "-tls" } else { "" }, cx);
        }
        return;
    }
    listener_of(section, "", cx);
}

fn listener_of(section: &ConfigSection, suffix: &str, cx: &mut HaproxyImport) {
    let mut out = PlannedListener {
        name: crate::plan::name(&format!("{}{suffix}", section.name)),
        ..PlannedListener::default()
    };
    let mut binds = Vec::new();
    let mut remarks = Remarks::default();
    let mut refused: Option<(crate::tree::FileLine, String)> = section.unknown().map(|line| {
        let what = format!(
            "this import doesn't know `{}`, which may refuse requests. Find out what it does",
            line.word(0)
        );
        (line.at.clone(), what)
    });
    for line in &section.lines {
        let word = line.word(0);
        match word {
            "bind" => {
                if let Some(why) = bind::bind(line, &mut binds, &mut out, &mut remarks) {
                    refused.get_or_insert((line.at.clone(), why.into_owned()));
                }
            }
            "capture" | "declare" => remarks.soft(
                &line.at,
                "captures for the log are left out; `access_log.format` has fields of headers.",
            ),
            "stats" if (line.word(1) == "enable" || line.word(1) == "uri") => {
                remarks.point(
                    &line.at,
                    "the statistics page is not served here: the dashboard is at http://127.0.0.1:15000/.",
                );
            }
            "compression" => {
                remarks.soft(&line.at, "responses are not compressed: use `compression` of the listener.");
            }
            "errorfile" | "errorloc" | "errorloc302" | "http-error" | "errorfiles" => {
                remarks.soft(&line.at, "the proxy's own answers have attache's text.");
            }
            _ => {}
        }
    }
    options::told(section, ProxySide::Front, &mut remarks);
    if section.name.is_empty() || binds.is_empty() {
        // The first line may have the address: `listen web 127.0.0.1:80`.
        if let Some(address) = section.head.words.get(2).filter(|word| word.contains(':')) {
            binds.push(address.trim_start_matches('*').to_owned());
        }
    }
    if binds.is_empty() {
        cx.plan.remarks.point(
            &section.head.at,
            format!("`{}` is left out: attache can't listen on any of its addresses.", section.name),
        );
        cx.plan.remarks.0.append(&mut remarks.0);
        return;
    }
    out.keys.0.insert(0, ("bind".to_owned(), binds.into()));
    if let Some(most) =
        section.last("maxconn").and_then(|line| line.word(1).parse::<u64>().ok()).filter(|most| *most > 0)
    {
        out.keys.set("max_connections", most);
    }
    out.secure = out.keys.get("tls").is_some();
    if section.is_tcp() {
        tcp(section, &mut out, &mut remarks, cx);
    } else {
        http(section, &mut out, &mut remarks, cx);
    }
    if let Some((at, why)) = refused {
        let mut rule = PlannedRule { at: at.clone(), ..PlannedRule::default() };
        rule.refuse(&at, format!("everything is refused here: {why}; then replace the refusal."));
        out.opaque = false;
        out.keys.0.retain(|(key, _)| key != "protocol");
        out.chains = vec![everything(rule)];
    }
    out.remarks = remarks;
    cx.plan.listeners.push(out);
}

/// One chain with one rule for any host.
fn everything(rule: PlannedRule) -> FilterChain {
    let site = VirtualHost { hosts: vec!["*".to_owned()], rules: vec![rule], ..VirtualHost::default() };
    FilterChain { sites: vec![site], ..FilterChain::default() }
}

/// Whether a rule could refuse connections or answers and can't be carried over.
fn refuses(line: &ConfigLine) -> bool {
    let (on, action) = (line.word(1), line.word(2));
    match line.word(0) {
        "tcp-request" | "tcp-response" => {
            let hello =
                |word: &String| word.contains("req_ssl_hello_type") || word.contains("req.ssl_hello_type");
            let passes = action == "accept"
                && (on != "content" || line.words.len() == 3 || line.rest(3).iter().any(hello));
            let counts = action.starts_with("track-sc") || action.starts_with("set-");
            !(on == "inspect-delay" || action == "inspect-delay" || passes || counts)
        }
        _ => false,
    }
}

fn tcp(section: &ConfigSection, out: &mut PlannedListener, remarks: &mut Remarks, cx: &mut HaproxyImport) {
    out.opaque = true;
    if let Some(time) = section.timeout("client") {
        out.keys.set("tcp_idle_timeout", time);
    }
    let mut chains: Vec<FilterChain> = Vec::new();
    let mut closed = None;
    for line in &section.lines {
        match line.word(0) {
            "tcp-request" | "tcp-response" if refuses(line) => closed = Some(line.clone()),
            "tcp-request" if line.word(2).starts_with("track-sc") || line.word(2).starts_with("set-") => {
                remarks.soft(&line.at, "attache has no counters and variables of connections.");
            }
            "acl" => {}
            "use_backend" => {
                let names = sni(line, section);
                match names {
                    Some(names) if !names.is_empty() => match opaque(line.word(1), line, remarks, cx) {
                        Some(rule) => {
                            chains.push(FilterChain {
                                sni: names,
                                opaque: Some(rule),
                                ..FilterChain::default()
                            });
                        }
                        // These connections must not reach the default backend.
                        None => closed = Some(line.clone()),
                    },
                    _ => closed = Some(line.clone()),
                }
            }
            _ => {}
        }
    }
    let default = if section.kind == "listen" && section.last("server").is_some() {
        Some((section.name.clone(), section.head.clone()))
    } else {
        section.last("default_backend").map(|line| (line.word(1).to_owned(), line.clone()))
    };
    let secure = out.keys.get("tls").is_some();
    let by_name = !chains.is_empty();
    if let Some((name, line)) = default
        && let Some(rule) = opaque(&name, &line, remarks, cx)
    {
        let sni = if by_name && !secure { vec!["*".to_owned()] } else { Vec::new() };
        if by_name {
            remarks.note(&line.at, "the default takes TLS with any name; what isn't TLS is closed.");
        }
        chains.push(FilterChain { sni, opaque: Some(rule), ..FilterChain::default() });
    }
    if let Some(line) = closed {
        remarks.point(
            &line.at,
            "everything is refused: this rule about connections is absent, and may be a guard. Write it as `authorization` or `sni`.",
        );
        chains.clear();
    }
    if chains.is_empty() {
        // Without a route for opaque bytes, connections are closed.
        let mut rule = PlannedRule::default();
        rule.refuse(&section.head.at, "no connection is accepted here: no backend could be carried over.");
        out.opaque = false;
        out.keys.0.retain(|(key, _)| key != "protocol");
        chains.push(everything(rule));
    } else {
        out.keys.set("protocol", if by_name && !secure { "tls" } else { "tcp" });
    }
    out.chains = chains;
}

fn opaque(
    name: &str,
    line: &ConfigLine,
    remarks: &mut Remarks,
    cx: &mut HaproxyImport,
) -> Option<PlannedRule> {
    let found = cx
        .sections
        .iter()
        .find(|other| other.name == name && matches!(other.kind.as_str(), "backend" | "listen"));
    if let Some(rule) = found
        .filter(|section| section.kind == "backend")
        .and_then(|section| section.unknown().or_else(|| section.lines.iter().find(|line| refuses(line))))
    {
        remarks.point(
            &rule.at,
            format!(
                "the backend `{name}` has a rule about connections that is absent here: they are refused."
            ),
        );
        return None;
    }
    let Some(upstream) = backend::used(name, true, cx) else {
        remarks.point(
            &line.at,
            format!("there is no backend `{name}` with a server; its connections are closed."),
        );
        return None;
    };
    let mut rule = PlannedRule { at: line.at.clone(), ..PlannedRule::default() };
    rule.when.path = crate::path::PlannedPath::Any;
    rule.targets.push(upstream.clone());
    rule.keys.set("to", upstream);
    Some(rule)
}

/// Server names of `use_backend b if { req_ssl_sni -i name }`, also by a named ACL.
fn sni(line: &ConfigLine, section: &ConfigSection) -> Option<Vec<String>> {
    let words = line.rest(2);
    if words.first().map(String::as_str) != Some("if") {
        return None;
    }
    let mut names = Vec::new();
    let inner: Vec<Vec<String>> = match words.get(1).map(String::as_str) {
        Some("{") => vec![words.iter().skip(2).take_while(|word| *word != "}").cloned().collect()],
        Some(_) if words.len() == 2 => section
            .lines
            .iter()
            .filter(|line| line.word(0) == "acl" && Some(&line.words[1]) == words.get(1))
            .map(|line| line.rest(2).to_vec())
            .collect(),
        _ => return None,
    };
    for test in inner {
        let (sample, patterns) = test.split_first()?;
        let (ends, beg) = (
            sample.ends_with("_end") || test.windows(2).any(|pair| pair[0] == "-m" && pair[1] == "end"),
            sample.ends_with("_beg"),
        );
        if !sample.contains("ssl_sni") && !sample.contains("ssl_fc_sni") || beg {
            return None;
        }
        for pattern in
            patterns.iter().filter(|word| !word.starts_with('-') && *word != "end" && *word != "str")
        {
            let pattern = pattern.to_ascii_lowercase();
            names.push(if ends {
                format!("*{}", if pattern.starts_with('.') { pattern } else { return None })
            } else {
                pattern
            });
        }
    }
    Some(names)
}

fn http(section: &ConfigSection, out: &mut PlannedListener, remarks: &mut Remarks, cx: &mut HaproxyImport) {
    out.keys.set("protocol", "http");
    let forwarded = section.option("forwardfor").is_some();
    let secure = out.secure;
    let mut http = out.keys.child("http");
    if forwarded != secure {
        http.set("forwarded", if forwarded { "append" } else { "pass" });
    }
    if let Some(time) = section.timeout("http-request") {
        http.set("header_timeout", time);
    }
    if let Some(time) = section.timeout("http-keep-alive").or_else(|| section.timeout("client")) {
        http.set("idle_timeout", time);
    }
    let merges = |line: &&ConfigLine| {
        line.word(0) == "http-request"
            && line.word(1) == "normalize-uri"
            && line.word(2) == "path-merge-slashes"
    };
    if section.lines.iter().any(|line| merges(&line)) {
        http.child("path").set("merge_slashes", true);
    }
    if let Some(line) = section.option("http-restrict-req-hdr-names") {
        let what = match line.word(2) {
            "delete" => Some("drop"),
            "reject" => Some("reject"),
            _ => None,
        };
        if let Some(what) = what.filter(|_| line.word(0) == "option") {
            http.child("header_names").set("underscores", what);
            http.child("header_names").set("others", what);
        }
    }
    drop(http);
    if section.option("httplog").is_some() || section.option("tcplog").is_some() {
        cx.plan.top.set("access_log", "stdout");
    }
    let mut rules: Vec<HostedRule> = rules::frontend(section, secure, remarks, cx);
    if !forwarded {
        rules.iter_mut().for_each(|hosted| forwarded_by_backend(&mut hosted.rule, cx));
    }
    as_compared(&rules, out, cx);
    out.chains.push(FilterChain { sites: hosted::sites(&rules), ..FilterChain::default() });
}

/// `option forwardfor` of a backend: the header with the client's address is added for this backend only.
fn forwarded_by_backend(rule: &mut PlannedRule, cx: &HaproxyImport) {
    let writes = |name: &str| {
        let mut sections =
            cx.sections.iter().filter(|other| matches!(other.kind.as_str(), "backend" | "listen"));
        sections.any(|other| other.name == name && other.option("forwardfor").is_some())
    };
    let names = cx.used.iter().filter(|(.., upstream)| rule.targets.contains(upstream));
    if names.into_iter().any(|(name, ..)| writes(name)) {
        let mut headers = rule.keys.child("headers");
        headers.child("request").child("add").set("x-forwarded-for", "%{client.address}");
    }
}

/// HAProxy compares hosts and query parameters as texts: another spelling of a host is another host, `;` separates
/// parameters as `&` does, and escapes are not decoded.
fn as_compared(rules: &[HostedRule], out: &mut PlannedListener, cx: &HaproxyImport) {
    let mut http = out.keys.child("http");
    if rules.iter().any(|hosted| !hosted.rule.when.query.is_empty()) {
        let mut query = http.child("query");
        query.set("semicolons", "separate");
        query.set("decode", false);
    }
    let hosts: Vec<&String> = rules.iter().flat_map(|hosted| &hosted.hosts).collect();
    if hosts.is_empty() {
        return;
    }
    let mut host = http.child("host");
    let asks = |line: &ConfigLine| line.words.iter().any(|word| word.to_ascii_lowercase().contains("(host)"));
    let folds = |line: &ConfigLine| line.has("-i") || line.words.iter().any(|word| word.contains(",lower"));
    let lines = cx.sections.iter().flat_map(|section| &section.lines);
    if lines.clone().any(|line| asks(line) && !folds(line)) {
        host.set("capitals", "reject");
    }
    host.set("trailing", "reject");
    let written =
        |line: &ConfigLine| line.words.iter().any(|word| word.ends_with(":80") || word.ends_with(":443"));
    let any_port =
        lines.clone().any(|line| asks(line) && line.words.iter().any(|word| word.contains("field(1,:)")));
    if !any_port && !lines.clone().any(|line| asks(line) && written(line)) {
        host.set("default_port", "reject");
    }
}
