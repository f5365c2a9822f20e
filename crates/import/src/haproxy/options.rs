//! Lines that the import reads, that have no effect on requests, or that are lost (HAProxy's manual, section 4.2).

use crate::remark::{Impact, Remarks};

use super::tokens::ConfigSection;

use Impact::{Point, Soft};

/// The side that an option applies to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxySide {
    Front,
    Back,
}

/// Options that are read, or that have no effect on requests.
const READ: &[&str] = &[
    "abortonclose",
    "accept-invalid-http-response",
    "accept-unsafe-violations-in-http-response",
    "clitcpka",
    "contstats",
    "dontlog-normal",
    "dontlognull",
    "external-check",
    "forceclose",
    "forwardfor",
    "http-buffer-request",
    "http-ignore-probes",
    "http-keep-alive",
    "http-no-delay",
    "http-pretend-keepalive",
    "http-restrict-req-hdr-names",
    "http-server-close",
    "http-tunnel",
    "http-use-htx",
    "httpchk",
    "httpclose",
    "httplog",
    "httpslog",
    "idle-close-on-response",
    "independent-streams",
    "ldap-check",
    "log-health-checks",
    "log-separate-errors",
    "logasap",
    "mysql-check",
    "nolinger",
    "persist",
    "pgsql-check",
    "prefer-last-server",
    "redis-check",
    "redispatch",
    "smtpchk",
    "socket-stats",
    "splice-auto",
    "splice-request",
    "splice-response",
    "srvtcpka",
    "ssl-hello-chk",
    "tcp-check",
    "tcp-smart-accept",
    "tcp-smart-connect",
    "tcpka",
    "tcplog",
    "use-small-buffers",
];

const REMARKS: &[(&str, ProxySide, Impact, &str)] = &[
    (
        "accept-invalid-http-request",
        ProxySide::Front,
        Point,
        "requests that break HTTP's rules are refused here, whatever this option says.",
    ),
    (
        "accept-unsafe-violations-in-http-request",
        ProxySide::Front,
        Point,
        "requests that break HTTP's rules are refused here, whatever this option says.",
    ),
    (
        "allbackups",
        ProxySide::Back,
        Soft,
        "all servers with `backup` are used together here, with this option or without.",
    ),
    (
        "disable-h2-upgrade",
        ProxySide::Front,
        Soft,
        "HTTP/2 with prior knowledge is taken: `protocol: http1` refuses it.",
    ),
    (
        "forwarded",
        ProxySide::Back,
        Point,
        "no `Forwarded` header is written; `X-Forwarded-For` is, with `option forwardfor`.",
    ),
    ("h1-case-adjust-bogus-client", ProxySide::Front, Soft, "the names of headers go on as they came."),
    ("h1-case-adjust-bogus-server", ProxySide::Back, Soft, "the names of headers go on as they came."),
    ("http-drop-request-trailers", ProxySide::Back, Point, "trailers of requests go on."),
    ("http-drop-response-trailers", ProxySide::Front, Point, "trailers of answers go on."),
    (
        "http-use-proxy-header",
        ProxySide::Front,
        Soft,
        "`Proxy-Connection` is a header of the hop, and is removed.",
    ),
    (
        "http_proxy",
        ProxySide::Front,
        Point,
        "a request for a whole address was sent there: `address: authority` does that.",
    ),
    ("originalto", ProxySide::Back, Point, "`X-Original-To` is not written; a rule of `headers` can set it."),
    ("spop-check", ProxySide::Back, Soft, "a TCP connection is enough for a health check."),
    (
        "transparent",
        ProxySide::Back,
        Point,
        "the destination that the client called is no address here: see `transparent` of a listener.",
    ),
];

/// Other lines than options that are lost, by their first words.
const LINES: &[(&[&str], ProxySide, Impact, &str)] = &[
    (&["email-alert"], ProxySide::Back, Soft, "attache's metrics and log tell of failing endpoints."),
    (&["external-check"], ProxySide::Back, Soft, "no program is run for a health check."),
    (
        &["filter"],
        ProxySide::Front,
        Soft,
        "filters are absent; where a rule reads what one set, that rule says so.",
    ),
    (
        &["filter"],
        ProxySide::Back,
        Soft,
        "filters are absent; where a rule reads what one set, that rule says so.",
    ),
    (&["force-persist"], ProxySide::Back, Soft, "sessions don't go to an endpoint that is down."),
    (&["hash-balance-factor"], ProxySide::Back, Soft, "hashing doesn't look at the load."),
    (&["hash-type"], ProxySide::Back, Soft, "hashing is `maglev`, which keeps most keys where they are."),
    (&["http-check", "comment"], ProxySide::Back, Soft, "checks have no comments."),
    (&["http-check", "connect"], ProxySide::Back, Soft, "a health check is one `GET` to the endpoint."),
    (&["http-check", "disable-on-404"], ProxySide::Back, Soft, "404 is an answer of an unhealthy endpoint."),
    (&["http-check", "send-state"], ProxySide::Back, Soft, "the state isn't told to endpoints."),
    (&["http-check", "set-var"], ProxySide::Back, Soft, "checks have no variables."),
    (&["http-check", "set-var-fmt"], ProxySide::Back, Soft, "checks have no variables."),
    (&["http-check", "unset-var"], ProxySide::Back, Soft, "checks have no variables."),
    (
        &["http-reuse", "never"],
        ProxySide::Back,
        Soft,
        "connections are used again by other clients' requests.",
    ),
    (&["ignore-persist"], ProxySide::Back, Soft, "sessions of all requests are kept."),
    (&["persist"], ProxySide::Back, Soft, "sessions are kept by `session_cookie`."),
    (
        &["rate-limit"],
        ProxySide::Front,
        Point,
        "connections are not limited by rate: `max_connections` limits how many are open, `rate_limit` requests.",
    ),
    (
        &["unique-id-header"],
        ProxySide::Front,
        Point,
        "requests get `X-Request-Id`, and no header of another name.",
    ),
];

/// Times that are read, or that only tune.
const TIMEOUTS: &[(&str, Option<&str>)] = &[
    ("check", None),
    ("client", None),
    ("client-fin", None),
    ("client-hs", None),
    ("clitimeout", None),
    ("connect", None),
    ("contimeout", None),
    ("http-keep-alive", None),
    ("http-request", None),
    ("queue", Some("how long a call may wait is `queue.timeout` of the upstream.")),
    ("server", None),
    ("server-fin", None),
    ("srvtimeout", None),
    ("tarpit", None),
    ("tunnel", None),
];

/// Words after the cookie's name that are read, or that are attributes of attache's own cookie.
const COOKIE: &[&str] = &["insert", "rewrite", "prefix", "indirect", "nocache", "httponly", "secure"];

fn lines(section: &ConfigSection, side: ProxySide, remarks: &mut Remarks) {
    for line in &section.lines {
        let begins = |words: &[&str]| words.iter().enumerate().all(|(index, word)| line.word(index) == *word);
        if let Some((words, _, weight, why)) =
            LINES.iter().find(|(words, own, ..)| *own == side && begins(words))
        {
            remarks.say(*weight, &line.at, format!("`{}`: {why}", words.join(" ")));
        }
        match line.word(0) {
            "timeout" if side == ProxySide::Front => {
                match TIMEOUTS.iter().find(|(name, _)| *name == line.word(1)) {
                    Some((_, None)) => {}
                    Some((name, Some(why))) => remarks.soft(&line.at, format!("`timeout {name}`: {why}")),
                    None => remarks.unknown(&line.at, format_args!("`timeout {}`", line.word(1))),
                }
            }
            "cookie" if side == ProxySide::Back && line.has("insert") => {
                if let Some(word) = line.rest(2).iter().find(|word| !COOKIE.contains(&word.as_str())) {
                    remarks.soft(
                        &line.at,
                        format!("`cookie … {word}`: attributes of the session's cookie are attache's: `HttpOnly`, `SameSite=Lax`, and `Secure` where TLS is terminated."),
                    );
                }
            }
            "balance" if side == ProxySide::Back && line.words.len() > 2 => {
                let read = line.word(1) == "hdr" && line.words.len() == 3;
                if !read {
                    remarks.soft(&line.at, format!("`{}` of `balance` is left out.", line.rest(2).join(" ")));
                }
            }
            _ => {}
        }
    }
}

/// Reports the options and other lines of a section that are lost.
pub(super) fn told(section: &ConfigSection, side: ProxySide, remarks: &mut Remarks) {
    for line in section.lines.iter().filter(|line| line.word(0) == "option") {
        let name = line.word(1);
        if READ.contains(&name) || section.option(name).is_none() {
            continue;
        }
        match REMARKS.iter().find(|(known, ..)| *known == name) {
            Some((_, own, weight, why)) if *own == side => {
                remarks.say(*weight, &line.at, format!("`option {name}`: {why}"));
            }
            Some(_) => {}
            None => remarks.unknown(&line.at, format_args!("`option {name}`")),
        }
    }
    lines(section, side, remarks);
    let Some(line) = section.option("forwardfor") else { return };
    for (word, why) in [
        ("except", "clients of this network get no `X-Forwarded-For` there; here all do."),
        (
            "header",
            "the client's address stands in `X-Forwarded-For`; `headers` of a route writes another one.",
        ),
        ("if-none", "the address is added to an `X-Forwarded-For` that the client sends, too."),
    ] {
        if line.has(word) {
            remarks.point(&line.at, format!("`option forwardfor {word}`: {why}"));
        }
    }
}
