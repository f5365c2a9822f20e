//! The last step to the model: names become indices, and what one key says about another is checked. Like the checker
//! before it, it continues after a problem; it does not report the absence of a part that the checker has left out.

mod affinity;
mod authorization;
mod authorizer;
mod authorizer_protocol;
mod credential;
mod fallback;
mod framing;
mod identity_headers;
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
mod policy;
mod route;
mod target;
mod tls;
mod traffic;
mod upstream;
mod web;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

pub(crate) use otlp::Env;
pub(crate) use target::Targets;

use crate::{
    diagnostic::{Place, Problems, Severity},
    index::FirstByKey,
    model::{Admin, Bind, Config, Dns, Listener, MetricsPage, Upstream},
    section::{ParsedSection, Shorthand},
    shapes::{Mapping, NamedEntry, Spanned},
    suggest,
    text::Label,
    yaml::{YamlKind, YamlNode},
};

/// Shortest interval between two checks of the files that the config names.
const MIN_WATCH_INTERVAL: Duration = Duration::from_millis(10);

pub(crate) fn build(
    root: ParsedSection<Config>,
    tree: &YamlNode,
    file: Option<&Path>,
    env: Env<'_>,
    problems: &mut Problems,
) -> Config {
    let ParsedSection { section: mut config, rest: root } = root;
    let nothing_said = tree.get("upstreams").is_none() && tree.get("listeners").is_none();
    let upstreams = root.upstreams.map(|map| map.entries).unwrap_or_default();
    let mut targets = Targets::new(tree);
    let mut built = Vec::new();
    for entry in upstreams {
        if let Some((upstream, layer, payload)) = upstream::upstream(entry, problems) {
            targets.add(&upstream, layer, payload);
            built.push(upstream);
        }
    }
    let authorizers;
    (authorizers, targets.authorizers) = named("authorizers", root.authorizers, tree, |entry| {
        authorizer::authorizer(entry, &mut targets, problems)
    });
    let jwt;
    (jwt, targets.issuers) =
        named("jwt", root.jwt, tree, |entry| jwt::provider(entry, &mut targets, problems));
    let listeners = match root.listeners.map(|map| map.entries).filter(|entries| !entries.is_empty()) {
        Some(entries) => entries
            .into_iter()
            .filter_map(|entry| listener::listener(entry, &built, &mut targets, problems))
            .collect(),
        None if tree.get("listeners").is_some_and(|node| node.keys().next().is_some()) => Vec::new(),
        None if nothing_said => {
            // The other keys change the built-in default.
            let default = Config::forward_proxy();
            built = default.upstreams.into_iter().map(|upstream| Upstream { line: 0, ..upstream }).collect();
            default.listeners.into_iter().map(fallback::unplaced).collect()
        }
        None => fallback::listener(&built, &mut targets, problems).into_iter().collect(),
    };
    let metrics_place = root.metrics.as_ref().map_or_else(Place::default, |metrics| metrics.at);
    let (metrics, app) = metrics_page(root.metrics, problems);
    let admin = root.admin.map_or_else(Admin::default, |raw| admin(raw, &listeners, metrics, problems));
    sockets(&listeners, tree, metrics.map(|metrics| (metrics, metrics_place)), problems);
    targets.warn_unused(problems);

    config.access_log = observe::access_log(root.access_log, &listeners, problems);
    if let Some(given) = root.watch_interval {
        config.watch_interval = given.value.0;
        if config.watch_interval < MIN_WATCH_INTERVAL {
            problems.wrong(given.at, "this interval is too short", "at least `10ms`");
        }
    }
    if let Some(raw) = root.dns {
        config.dns = dns(raw, problems);
    }
    if let Some(raw) = root.tracing {
        config.tracing = otlp::tracing(raw, env, problems);
    }
    if let Some(raw) = root.otlp {
        config.otlp = otlp::signals(raw, env, problems);
    }
    if let Some(raw) = root.overload {
        config.overload = overload::overload(raw, problems);
    }
    config.file = file.map(Path::to_path_buf);
    config.secrets = crate::model::Secrets(secrets(tree));
    (config.listeners, config.upstreams) = (listeners, built);
    (config.jwt, config.authorizers) = (jwt, authorizers);
    (config.metrics, config.app, config.admin) = (metrics, app, admin);
    identity_headers::check(&config, tree, problems);
    authorizer_protocol::check(&config, tree, problems);
    config
}

/// The address of the metrics, and the application on it.
fn metrics_page(
    raw: Option<Shorthand<MetricsPage>>,
    problems: &mut Problems,
) -> (Option<SocketAddr>, MetricsPage) {
    let place = raw.as_ref().map_or_else(Place::default, |metrics| metrics.at);
    let ParsedSection { section: mut app, rest } =
        raw.map_or_else(ParsedSection::default, |metrics| metrics.0.value);
    let metrics = rest.bind.map_or(Some(Config::METRICS), |bind| bind.0);
    if metrics.is_none() && (!app.metrics.is_empty() || rest.adapt.is_some()) {
        problems.error(place, "`app` and `adapt` need the port of the metrics, but `bind` is `off`");
    }
    app.adapt =
        rest.adapt.map(|map| map.entries).unwrap_or_default().into_iter().map(observe::adapter).collect();
    (metrics, app)
}

fn admin(
    Shorthand(raw): Shorthand<Admin>,
    listeners: &[Listener],
    metrics: Option<SocketAddr>,
    problems: &mut Problems,
) -> Admin {
    let (given, ParsedSection { section: mut admin, rest }) = raw.open();
    if let Some(bind) = rest.bind {
        (admin.bind, admin.required) = (bind.0, true);
        check_admin(admin.bind.as_ref(), given.at, listeners, metrics, problems);
    }
    admin
}

/// The names below one key of the file, each with the index of its part, if the part is valid.
#[derive(Default)]
pub(crate) struct DeclaredNames {
    key: &'static str,
    known: Vec<String>,
    index: FirstByKey<String, Option<usize>>,
}

impl DeclaredNames {
    /// The index of a name. For `None` an error was reported, here or in the part itself. Messages write `kind` before
    /// the name.
    fn find(&self, kind: &str, name: &str, at: Place, problems: &mut Problems) -> Option<usize> {
        if let Some(index) = self.index.get(name) {
            return *index;
        }
        let key = self.key;
        let help = among(name, &self.known, problems, || {
            format!("add it: `{key}: {{ {name}: … }}` next to `listeners`")
        });
        problems.wrong(at, format!("`{key}` has no {kind}`{name}`"), help);
        None
    }
}

/// Help about an unknown name: which known name it may mean. The search reads every name, so there is none once the
/// list of problems is full.
fn among<T: AsRef<str>>(
    name: &str,
    known: &[T],
    problems: &Problems,
    add: impl FnOnce() -> String,
) -> String {
    if problems.is_full(Severity::Error) {
        return String::new();
    }
    suggest::instead(name, known.iter().map(AsRef::as_ref), "there are", add)
}

/// The parts below a key of the file that has names, and these names.
fn named<R, T>(
    key: &'static str,
    section: Option<Mapping<Label, R>>,
    tree: &YamlNode,
    mut build: impl FnMut(NamedEntry<R>) -> Option<T>,
) -> (Vec<T>, DeclaredNames) {
    let (mut parts, mut known, mut index) = (Vec::new(), Vec::new(), FirstByKey::default());
    for entry in section.map(|map| map.entries).unwrap_or_default() {
        let name = entry.key.clone();
        let part = build(entry);
        index.keep(name.clone(), part.is_some().then_some(parts.len()));
        known.push(name);
        parts.extend(part);
    }
    // The file has a name also where its part can't be read.
    for (name, _) in tree.get(key).into_iter().flat_map(YamlNode::keys) {
        if index.keep(name.to_owned(), None).is_none() {
            known.push(name.to_owned());
        }
    }
    (parts, DeclaredNames { key, known, index })
}

/// True if it is impossible to listen on both. Port 0 asks for any free port, so it never clashes.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let any = |address: SocketAddr| address.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || any(one) || any(other))
}

/// The admin API needs its own socket. (At the default address the API is switched off, without an error.)
fn check_admin(
    bind: Option<&Bind>,
    at: Place,
    listeners: &[Listener],
    metrics: Option<SocketAddr>,
    problems: &mut Problems,
) {
    let Some(bind) = bind else { return };
    let taken = |other: &Bind| match (other, bind) {
        (Bind::Tcp(other), Bind::Tcp(bind)) => clash(*other, *bind),
        (Bind::Unix { path: other, .. }, Bind::Unix { path, .. }) => other == path,
        _ => false,
    };
    let other = match listeners.iter().find(|listener| listener.bind.iter().any(taken)) {
        Some(listener) => format!("`{}`", listener.name),
        None if metrics.is_some_and(|metrics| taken(&Bind::Tcp(metrics))) => "the metrics".to_owned(),
        None => return,
    };
    let message = format!("`{bind}` is already used by {other}");
    problems.wrong(at, message, "move one of them, or `admin: off`");
}

/// The texts that `!file` has read.
fn secrets(node: &YamlNode) -> Vec<std::sync::Arc<str>> {
    match &node.kind {
        YamlKind::Scalar(scalar) if scalar.secret && !scalar.text.is_empty() => {
            vec![scalar.text.as_str().into()]
        }
        YamlKind::Scalar(_) | YamlKind::Broken => Vec::new(),
        YamlKind::Sequence(items) => items.iter().flat_map(secrets).collect(),
        YamlKind::Mapping(entries) => entries.iter().flat_map(|entry| secrets(&entry.value)).collect(),
    }
}

fn dns(given: Spanned<Dns>, problems: &mut Problems) -> Dns {
    if given.value.min_ttl > given.value.max_ttl {
        problems.error(given.key("max_ttl").unwrap_or_default(), "`min_ttl` is longer than `max_ttl`");
    }
    given.value
}

/// The part of a [`Bind`] that only one listener can have.
#[derive(PartialEq, Eq, Hash)]
enum ClaimedSocket<'a> {
    Tcp(SocketAddr),
    Unix(&'a Path),
}

impl<'a> ClaimedSocket<'a> {
    fn of(bind: &'a Bind) -> Self {
        match bind {
            Bind::Tcp(address) => Self::Tcp(*address),
            Bind::Unix { path, .. } => Self::Unix(path),
        }
    }
}

/// No two listeners on one socket.
fn sockets(
    listeners: &[Listener],
    tree: &YamlNode,
    metrics: Option<(SocketAddr, Place)>,
    problems: &mut Problems,
) {
    let mut taken: HashMap<ClaimedSocket<'_>, &str> = HashMap::new();
    for listener in listeners {
        let node = tree.get("listeners").and_then(|all| all.get(&listener.name)?.get("bind"));
        let place = node.map_or_else(Place::default, |bind| bind.place);
        let mut own = HashSet::new();
        for bind in &listener.bind {
            if matches!(bind, Bind::Tcp(address) if address.port() == 0) {
                continue;
            }
            if let Some(other) = taken.get(&ClaimedSocket::of(bind)) {
                let message = format!("`{bind}` is already used by `{other}`");
                problems.wrong(place, message, "give each listener a different address");
            } else if !own.insert(bind) {
                problems.error(place, format!("`{bind}` is listed twice"));
            }
            if let (Bind::Tcp(address), Some((metrics, at))) = (bind, metrics)
                && clash(*address, metrics)
            {
                let message = format!("`{}` and the metrics both use port {}", listener.name, address.port());
                let at = if at == Place::default() { place } else { at };
                problems.wrong(at, message, "move one of them, or `metrics: off`");
            }
        }
        for bind in &listener.bind {
            taken.entry(ClaimedSocket::of(bind)).or_insert(&*listener.name);
        }
    }
}
