//! Describes what a reload changed, for the log, the admin API and the dashboard.

use std::{collections::HashMap, time::Duration};

use attache_config::model::{Config, Listener, Upstream, Web};

/// One line for each listener, upstream and section that differs.
pub(crate) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for (before, after) in pairs(&old.listeners, &new.listeners, |listener| &*listener.name) {
        lines.extend(line("listener", before, after, |l| &*l.name, listener));
    }
    for (before, after) in pairs(&old.upstreams, &new.upstreams, |upstream| &*upstream.name) {
        lines.extend(line("upstream", before, after, |u| &*u.name, upstream));
    }
    let sections = [
        ("dns", old.dns != new.dns),
        ("access_log", old.access_log != new.access_log),
        ("tracing", old.tracing != new.tracing),
        ("otlp", old.otlp != new.otlp),
        ("metrics.app", old.app.metrics != new.app.metrics),
        ("metrics.adapt", old.app.adapt != new.app.adapt),
        ("shutdown", old.shutdown != new.shutdown),
        ("reload", old.reload != new.reload),
    ];
    lines.extend(
        sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| format!("`{name}` changed")),
    );
    lines
}

/// The most bytes of a diff that are kept; a config with thousands of routes may change completely.
const MAX_DIFF_BYTES: usize = 64 * 1024;

/// After this time the rest is shown in larger pieces than necessary.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The differences between the effective configs, as a unified diff. Secrets are hidden in it, as on `GET /config`.
pub(crate) fn text(old: &Config, new: &Config) -> String {
    let shown = |config: &Config| serde_json::to_string_pretty(&config.effective()).unwrap_or_default();
    let (old, new) = (shown(old), shown(new));
    let mut compare = similar::TextDiff::configure();
    compare.timeout(TIMEOUT);
    let mut diff = compare.diff_lines(&old, &new).unified_diff().context_radius(3).to_string();
    if diff.len() > MAX_DIFF_BYTES {
        let end = diff.floor_char_boundary(MAX_DIFF_BYTES);
        diff.truncate(end);
        diff.push_str("\n… the rest is left out: compare `GET /config` with the one before\n");
    }
    diff
}

/// Changes that need a restart. The new config keeps the running values, and the lines name the requested ones.
pub(crate) fn keep_fixed(old: &Config, new: &mut Config) -> Vec<String> {
    let mut lines = Vec::new();
    if old.workers != new.workers {
        lines.push("`workers` changed: that needs a restart".to_owned());
        new.workers = old.workers;
    }
    if old.metrics != new.metrics {
        lines.push("`metrics` changed: another address needs a restart".to_owned());
        new.metrics = old.metrics;
    }
    if old.admin != new.admin {
        lines.push("`admin` changed: another address needs a restart".to_owned());
        new.admin = old.admin.clone();
    }
    lines
}

/// The old and the new part of each name: first the existing names in their order, then the new ones.
fn pairs<'a, T>(
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&T) -> &str,
) -> Vec<(Option<&'a T>, Option<&'a T>)> {
    let by_name = |all: &'a [T]| -> HashMap<String, &'a T> {
        all.iter().map(|one| (name(one).to_owned(), one)).collect()
    };
    let (then, now) = (by_name(old), by_name(new));
    let was = old.iter().map(|before| (Some(before), now.get(name(before)).copied()));
    let added = new.iter().filter(|after| !then.contains_key(name(after))).map(|after| (None, Some(after)));
    was.chain(added).collect()
}

fn line<T>(
    what: &str,
    before: Option<&T>,
    after: Option<&T>,
    name: impl Fn(&T) -> &str,
    differ: impl Fn(&T, &T) -> Vec<&'static str>,
) -> Option<String> {
    match (before, after) {
        (Some(before), Some(after)) => {
            let differ = differ(before, after);
            (!differ.is_empty()).then(|| format!("{what} `{}` changed: {}", name(after), differ.join(", ")))
        }
        (Some(before), None) => Some(format!("{what} `{}` removed", name(before))),
        (None, Some(after)) => Some(format!("{what} `{}` added", name(after))),
        (None, None) => None,
    }
}

fn listener(old: &Listener, new: &Listener) -> Vec<&'static str> {
    let rest = |listener: &Listener| Listener {
        bind: Vec::new(),
        routes: Vec::new(),
        authorization: None,
        web: Web::default(),
        tls: None,
        // The position in the file doesn't matter.
        line: 0,
        ..listener.clone()
    };
    named([
        ("bind", old.bind != new.bind),
        ("tls", old.tls != new.tls),
        ("authorization", old.authorization != new.authorization),
        ("cors", old.web.cors != new.web.cors),
        ("grpc_web", old.web.grpc_web != new.web.grpc_web),
        ("compression", old.web.compression != new.web.compression),
        ("routes", old.routes != new.routes),
        ("settings", rest(old) != rest(new)),
    ])
}

fn upstream(old: &Upstream, new: &Upstream) -> Vec<&'static str> {
    let rest = |upstream: &Upstream| Upstream { address: new.address.clone(), tls: None, ..upstream.clone() };
    named([
        ("address", old.address != new.address),
        ("tls", old.tls != new.tls),
        ("settings", rest(old) != rest(new)),
    ])
}

fn named<const N: usize>(parts: [(&'static str, bool); N]) -> Vec<&'static str> {
    parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        attache_config::parse(text, None, &|_| None).unwrap()
    }

    #[test]
    fn the_diff_shows_the_lines_that_differ_and_no_secret() {
        let of = |seconds: u32| {
            config(&format!(
                "upstreams: {{ a: {{ address: 'https://a.test', connect_timeout: {seconds}s, credential: {{ bearer: {{ file: /s }} }} }} }}"
            ))
        };
        let diff = text(&of(3), &of(4));
        let lines: Vec<&str> =
            diff.lines().filter(|line| line.starts_with(['+', '-'])).map(str::trim_end).collect();
        assert_eq!(lines.len(), 2, "{diff}");
        assert!(lines[0].starts_with('-') && lines[0].contains("connect_timeout"), "{diff}");
        assert_eq!(text(&of(3), &of(3)), "");
    }

    #[test]
    fn a_diff_is_bounded() {
        let of = |path: &str| {
            let upstreams: Vec<_> = (0..2000).map(|n| format!("u{n}: 'http://{path}{n}.test'")).collect();
            config(&format!("upstreams: {{ {} }}", upstreams.join(", ")))
        };
        let diff = text(&of("a"), &of("b"));
        assert!(diff.len() < MAX_DIFF_BYTES + 200 && diff.contains("the rest is left out"), "{}", diff.len());
    }

    #[test]
    fn changed_parts_are_named() {
        let old = config(
            "workers: 2\nlisteners: { out: { bind: '127.0.0.1:1', to: a }, gone: { bind: '127.0.0.1:2', to: a } }\n\
             upstreams: { a: 'http://a.test', b: 'http://b.test', c: 'http://c.test' }",
        );
        let mut new = config(
            "workers: 3\nmetrics: off\nshutdown: { delay: 1s }\n\
             listeners: { out: { bind: ['127.0.0.1:1', '127.0.0.1:3'], to: b, max_connections: 5 } }\n\
             upstreams: { a: 'https://a.test', b: { address: 'http://b.test', pool: { max_idle: 1 } }, d: 'http://d.test' }",
        );
        insta::assert_snapshot!(keep_fixed(&old, &mut new).join("\n"), @r"
        `workers` changed: that needs a restart
        `metrics` changed: another address needs a restart
        ");
        assert_eq!((new.workers, new.metrics), (old.workers, old.metrics));
        insta::assert_snapshot!(changes(&old, &new).join("\n"), @r"
        listener `out` changed: bind, routes, settings
        listener `gone` removed
        upstream `a` changed: address, tls, settings
        upstream `b` changed: settings
        upstream `c` removed
        upstream `d` added
        `shutdown` changed
        ");
        assert!(changes(&old, &old).is_empty());
    }
}
