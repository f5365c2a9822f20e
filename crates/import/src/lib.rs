//! Converts configs of other proxies to attache's.
//!
//! Three rules. **Exact or reported**: the imported config gives the same answers as the original, and every loss is a
//! comment at its place that says what it means and what to do. **Closed**: if a guard can't be carried over, everything behind
//! it is refused. **Checked**: `attache check` accepts every config that is printed.
//!
//! The steps: [`tree`] or a tokenizer reads the file; an importer makes a [`plan`] of it, whose rules are tried in order;
//! [`order`] makes attache's routes of these rules; [`write`] prints the routes with the [`remark`]s.

#![allow(
    clippy::format_push_string,
    clippy::match_same_arms,
    clippy::similar_names,
    clippy::single_match_else,
    clippy::type_complexity,
    clippy::unnecessary_wraps,
    clippy::items_after_statements,
    clippy::needless_for_each,
    reason = "tables of another proxy's words read best as they are"
)]

mod accepted;
mod access;
pub mod envoy;
mod gate;
mod haproxy;
mod hosted;
mod istio;
mod nginx;
mod order;
pub mod path;
pub mod plan;
pub mod remark;
mod secret;
mod stunnel;
mod text;
pub mod tree;
mod unread;
pub mod value;
pub mod verify;
mod write;

use std::path::{Path, PathBuf};

pub use order::route_count;
pub use remark::{Grade, Impact, Remark};
pub use tree::Unreadable;

use plan::Plan;

/// The program that a config is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// Envoy's bootstrap, v3 or v2.
    Envoy,
    /// HAProxy's config.
    Haproxy,
    /// nginx's config.
    Nginx,
    /// Objects of Istio and of the Gateway API.
    Istio,
    /// stunnel's config.
    Stunnel,
    /// A command line of ghostunnel.
    Ghostunnel,
}

impl ProxyKind {
    /// The program that runs such a config.
    pub const fn program(self) -> Option<&'static str> {
        match self {
            Self::Envoy => Some("envoy"),
            Self::Haproxy => Some("haproxy"),
            Self::Nginx => Some("nginx"),
            Self::Istio | Self::Stunnel | Self::Ghostunnel => None,
        }
    }
}

/// What was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The config, with comments.
    pub text: String,
    /// How much was lost.
    pub grade: Grade,
    /// Every remark, in the order of the config.
    pub remarks: Vec<Remark>,
    /// The plan that `text` was printed from.
    pub plan: Plan,
}

/// A file to import.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path, as the user wrote it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// The kind of a config, by its text and its file's name.
pub fn detect(files: &[File]) -> Option<ProxyKind> {
    let first = files.first()?;
    let has = |words: &[&str]| words.iter().any(|word| first.text.contains(word));
    let begins = |words: &[&str]| {
        first.text.lines().any(|line| {
            let mut parts = line.split_whitespace();
            parts.next().is_some_and(|first| words.contains(&first.trim_end_matches('{')))
        })
    };
    if has(&["istio.io/", "gateway.networking.k8s.io/"]) && has(&["apiVersion"]) {
        return Some(ProxyKind::Istio);
    }
    if has(&["ghostunnel "]) && has(&["--target"]) {
        return Some(ProxyKind::Ghostunnel);
    }
    let lower = first.text.to_ascii_lowercase();
    let key = |name: &str| {
        lower
            .lines()
            .any(|line| line.split('=').next().is_some_and(|key| key.trim() == name) && line.contains('='))
    };
    if key("accept") && key("connect") {
        return Some(ProxyKind::Stunnel);
    }
    if has(&["static_resources", "staticResources", "dynamic_resources", "dynamicResources", "envoy."]) {
        return Some(ProxyKind::Envoy);
    }
    if begins(&["frontend", "listen"]) && has(&["bind", "server"]) && !has(&["listen 80;", "server {"]) {
        return Some(ProxyKind::Haproxy);
    }
    if begins(&["server", "http", "stream", "upstream"]) && has(&["{"]) {
        return Some(ProxyKind::Nginx);
    }
    None
}

/// Imports files of one kind.
///
/// # Errors
/// If a file can't be parsed as a config of this kind.
pub fn import(kind: ProxyKind, files: &[File]) -> Result<Imported, Unreadable> {
    let plan = match kind {
        ProxyKind::Envoy => envoy::import(files)?,
        ProxyKind::Haproxy => haproxy::import(files)?,
        ProxyKind::Nginx => nginx::import(files)?,
        ProxyKind::Istio => istio::import(files)?,
        ProxyKind::Stunnel => stunnel::stunnel(files)?,
        ProxyKind::Ghostunnel => stunnel::ghostunnel(files)?,
    };
    Ok(finish(plan, files))
}

/// Refuses CONNECT. In attache a route that names CONNECT opens tunnels, and no rule sees the requests in a tunnel. The
/// original forwarded CONNECT as a request or refused it, so no import opens a tunnel.
fn no_tunnels(plan: &mut Plan) {
    for listener in plan.listeners.iter_mut().filter(|listener| !listener.opaque) {
        for rule in Plan::rules_of(listener).filter(|rule| rule.keys.get("to").is_some()) {
            let count = rule.when.methods.len();
            let others: Vec<String> =
                rule.when.methods.iter().filter(|method| *method != "CONNECT").cloned().collect();
            if count > 0 && others.is_empty() {
                let at = rule.at.clone();
                rule.refuse(&at, "CONNECT is refused: attache would open a tunnel for it, and no rule sees the requests in a tunnel. If you want this, write a route with `methods: CONNECT`.");
            } else if others.len() < count {
                rule.when.methods = others;
                let at = rule.at.clone();
                rule.remarks
                    .note(&at, "CONNECT is left out of the methods: attache would open a tunnel for it.");
            }
        }
    }
}

fn finish(mut plan: Plan, files: &[File]) -> Imported {
    no_tunnels(&mut plan);
    accepted::make(&mut plan);
    let mut remarks = Vec::new();
    plan.each_remark(&mut |remark| remarks.push(remark.clone()));
    let grade = match remarks.iter().map(|remark| remark.weight).max() {
        Some(Impact::Point) => Grade::Point,
        Some(Impact::Soft) => Grade::Soft,
        _ => Grade::Nothing,
    };
    let from: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
    let count = |weight| remarks.iter().filter(|remark| remark.weight == weight).count();
    let head = vec![
        format!("Imported by `attache import` from {}: {grade}.", from.join(", ")),
        format!(
            "{} marked LOST (requests get another answer, or are refused), {} marked Lost (soft), {} marked Note.",
            count(Impact::Point),
            count(Impact::Soft),
            count(Impact::Note)
        ),
        "attache's own defaults are on in addition to the imported settings: safe retries, ejection of failing endpoints, keepalive that finds dead peers."
            .to_owned(),
    ];
    let text = write::config(&plan, &head).text;
    Imported { text, grade, remarks, plan }
}

/// Reads files.
///
/// # Errors
/// If a file can't be read.
pub fn read(paths: &[PathBuf]) -> Result<Vec<File>, Unreadable> {
    paths.iter().map(|path| read_one(path)).collect()
}

fn read_one(path: &Path) -> Result<File, Unreadable> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(File { path: path.to_owned(), text }),
        Err(error) => Err(Unreadable {
            at: tree::FileLine { file: path.display().to_string().into(), line: 0 },
            what: format!("can't be read: {error}"),
        }),
    }
}
