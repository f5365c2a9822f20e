//! The raw file becomes the model: defaults are filled in, names become indices, and what one key says about another is
//! checked. Like the checker before it, it goes on after a problem; a part that was left out there isn't missed here.

mod authorization;
mod authorizer;
mod chosen;
mod claimed;
mod credential;
mod fallback;
mod framing;
pub use framing::is_framing;
mod global_limit;
mod jwt;
mod limits;
mod listener;
mod load;
mod local_reply;
mod observe;
mod otlp;
mod overload;
mod plain;
mod policy;
mod reach;
mod route;
mod target;
mod tls;
mod upstream;
mod web;

use std::{collections::HashSet, net::SocketAddr, path::Path, time::Duration};

pub(crate) use otlp::Env;
use plain::{Plain, fill};
pub(crate) use target::Targets;

use crate::{
    diagnostic::{Place, Problems},
    model::{Admin, Bind, Config, Dns, Listener, Upstream},
    raw,
    section::{Read, Short},
    yaml::{Kind, Node},
};

/// Shortest time between two looks at the files that the config names.
const SHORTEST_WATCH: Duration = Duration::from_millis(10);

pub(crate) fn build(
    root: raw::Root,
    tree: &Node,
    file: Option<&Path>,
    env: Env<'_>,
    problems: &mut Problems,
) -> Config {
    let nothing_said = tree.get("upstreams").is_none() && tree.get("listeners").is_none();
    let upstreams = root.upstreams.map(|map| map.entries).unwrap_or_default();
    let mut targets = Targets::new(tree);
    let mut built = Vec::new();
    for entry in upstreams {
        if let Some((upstream, layer, speaks)) = upstream::upstream(entry, problems) {
            targets.add(&upstream, layer, speaks);
            built.push(upstream);
        }
    }
    let (authorizers, known) = named(root.authorizers, tree.get("authorizers"), |entry| {
        authorizer::authorizer(entry, &mut targets, problems)
    });
    targets.authorizers = known;
    let (jwt, known) = named(root.jwt, tree.get("jwt"), |entry| jwt::provider(entry, &mut targets, problems));
    targets.issuers = known;
    let listeners = match root.listeners.map(|map| map.entries).filter(|entries| !entries.is_empty()) {
        Some(entries) => entries
            .into_iter()
            .filter_map(|entry| listener::listener(entry, &built, &mut targets, problems))
            .collect(),
        None if tree.get("listeners").is_some_and(|node| node.keys().next().is_some()) => Vec::new(),
        None if nothing_said => {
            // What is said of the rest holds for what there is without a file.
            let default = Config::forward_proxy();
            built = default.upstreams.into_iter().map(|upstream| Upstream { line: 0, ..upstream }).collect();
            default.listeners.into_iter().map(fallback::unplaced).collect()
        }
        None => fallback::listener(&built, &mut targets, problems).into_iter().collect(),
    };
    let metrics_place = root.metrics.as_ref().map_or_else(Place::default, |metrics| metrics.at);
    let Read { section: mut app, rest } = root.metrics.map_or_else(Read::default, |metrics| metrics.0.value);
    let metrics = rest.bind.map_or(Some(Config::METRICS), |bind| bind.0.0);
    if metrics.is_none() && (!app.metrics.is_empty() || rest.adapt.is_some()) {
        problems.error(metrics_place, "`app` and `adapt` have no port: `bind` is `off`");
    }
    app.adapt =
        rest.adapt.map(|map| map.entries).unwrap_or_default().into_iter().map(observe::adapter).collect();
    let admin = root.admin.map_or_else(Admin::default, |Short(raw)| {
        let (given, Read { section: mut admin, rest }) = raw.open();
        if let Some(bind) = rest.bind {
            (admin.bind, admin.required) = (bind.0.0, true);
            check_admin(admin.bind.as_ref(), given.at, &listeners, metrics, problems);
        }
        admin
    });
    sockets(&listeners, tree, metrics.map(|metrics| (metrics, metrics_place)), problems);
    targets.warn_unused(problems);

    let access_log = observe::access_log(root.access_log, &listeners, problems);
    let mut watch_interval = Config::WATCH_INTERVAL;
    if let Some(given) = root.watch_interval {
        watch_interval = given.value.0.0;
        if watch_interval < SHORTEST_WATCH {
            problems.wrong(given.at, "looking so often costs more than it brings", "at least `10ms`");
        }
    }
    let config = Config {
        file: file.map(Path::to_path_buf),
        listeners,
        upstreams: built,
        jwt,
        authorizers,
        workers: root.workers,
        dns: root.dns.map_or_else(Dns::default, |raw| dns(raw, problems)),
        metrics,
        app,
        access_log,
        tracing: root.tracing.and_then(|raw| otlp::tracing(raw, env, problems)),
        otlp: root.otlp.map(|raw| otlp::signals(raw, env, problems)).unwrap_or_default(),
        admin,
        shutdown: root.shutdown.unwrap_or_default(),
        reload: root.reload.unwrap_or_default(),
        files: Vec::new(),
        overload: overload::overload(root.overload, problems),
        watch_interval,
        warnings: Vec::new(),
        secrets: crate::model::Secrets(secrets(tree)),
    };
    claimed::check(&config, tree, problems);
    config
}

/// The parts of a section with names, and of each name in the file the index of its part, where that is right.
fn named<R, T>(
    section: Option<raw::Map<crate::text::Label, R>>,
    written: Option<&Node>,
    mut build: impl FnMut(raw::Entry<R>) -> Option<T>,
) -> (Vec<T>, Vec<(String, Option<usize>)>) {
    let (mut parts, mut known) = (Vec::new(), Vec::new());
    for entry in section.map(|map| map.entries).unwrap_or_default() {
        let name = entry.key.clone();
        let part = build(entry);
        known.push((name, part.is_some().then_some(parts.len())));
        parts.extend(part);
    }
    // One that can't be read is no name that is missed.
    for (name, _) in written.into_iter().flat_map(Node::keys) {
        if !known.iter().any(|(known, _)| known == name) {
            known.push((name.to_owned(), None));
        }
    }
    (parts, known)
}

/// The admin API has a socket of its own. (At its default it gives way instead.)
fn check_admin(
    bind: Option<&Bind>,
    at: Place,
    listeners: &[Listener],
    metrics: Option<SocketAddr>,
    problems: &mut Problems,
) {
    let Some(bind) = bind else { return };
    let clash = |other: &SocketAddr| match bind {
        Bind::Tcp(at) => {
            at.port() != 0
                && other.port() == at.port()
                && (other.ip() == at.ip() || other.ip().is_unspecified())
        }
        Bind::Unix { .. } => false,
    };
    let other = listeners.iter().find(|listener| {
        listener.bind.iter().any(|other| match (other, bind) {
            (Bind::Tcp(other), _) => clash(other),
            (Bind::Unix { path: a, .. }, Bind::Unix { path: b, .. }) => a == b,
            (Bind::Unix { .. }, Bind::Tcp(_)) => false,
        })
    });
    let other = match other {
        Some(listener) => format!("`{}`", listener.name),
        None if metrics.as_ref().is_some_and(clash) => "the metrics".to_owned(),
        None => return,
    };
    problems.wrong(
        at,
        format!("{} is already listened on by {other}", shown(bind)),
        "move one of them, or `admin: off`",
    );
}

/// What `!file` brought in.
fn secrets(node: &Node) -> Vec<std::sync::Arc<str>> {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.secret && !scalar.text.is_empty() => vec![scalar.text.as_str().into()],
        Kind::Scalar(_) | Kind::Broken => Vec::new(),
        Kind::Sequence(items) => items.iter().flat_map(secrets).collect(),
        Kind::Mapping(entries) => entries.iter().flat_map(|entry| secrets(&entry.value)).collect(),
    }
}

fn dns(given: raw::At<Dns>, problems: &mut Problems) -> Dns {
    if given.value.min_ttl > given.value.max_ttl {
        problems.error(given.key("max_ttl").unwrap_or_default(), "`min_ttl` is longer than `max_ttl`");
    }
    given.value
}

/// No two listeners on one socket. Port 0 is a free one, always another.
fn sockets(
    listeners: &[Listener],
    tree: &Node,
    metrics: Option<(SocketAddr, Place)>,
    problems: &mut Problems,
) {
    let mut taken: Vec<(&Bind, &str)> = Vec::new();
    for listener in listeners {
        let place = tree
            .get("listeners")
            .and_then(|listeners| listeners.get(&listener.name))
            .and_then(|listener| listener.get("bind"))
            .map_or_else(Place::default, |bind| bind.place);
        let mut own = HashSet::new();
        for bind in &listener.bind {
            let free = matches!(bind, Bind::Tcp(address) if address.port() == 0);
            if free {
                continue;
            }
            let same = |(other, _): &&(&Bind, &str)| match (*other, bind) {
                (Bind::Unix { path: a, .. }, Bind::Unix { path: b, .. }) => a == b,
                (a, b) => a == b,
            };
            if let Some((_, other)) = taken.iter().find(same) {
                problems.wrong(
                    place,
                    format!("{} is already listened on by `{other}`", shown(bind)),
                    "give each listener an address of its own",
                );
            } else if !own.insert(bind) {
                problems.error(place, format!("{} stands twice", shown(bind)));
            }
            if let (Bind::Tcp(address), Some((metrics, metrics_place))) = (bind, metrics)
                && metrics.port() == address.port()
                && (metrics.ip() == address.ip()
                    || metrics.ip().is_unspecified()
                    || address.ip().is_unspecified())
            {
                let place = if metrics_place == Place::default() { place } else { metrics_place };
                problems.wrong(
                    place,
                    format!("`{}` and the metrics both want port {}", listener.name, address.port()),
                    "move one of them, or `metrics: off`",
                );
            }
        }
        taken.extend(listener.bind.iter().map(|bind| (bind, &*listener.name)));
    }
}

fn shown(bind: &Bind) -> String {
    match bind {
        Bind::Tcp(address) => format!("`{address}`"),
        Bind::Unix { path, .. } => format!("`unix:{}`", path.display()),
    }
}
