//! nginx: servers, locations that proxy, and streams. The import carries over the parts that a sidecar needs.

mod answer;
mod clients;
mod decoded;
mod glob;
mod included;
mod listen;
mod listener;
mod location;
mod proxied;
mod rewritten;
mod scope;
mod server;
mod several;
mod stream;
mod tls;
mod tokens;
mod upstream;
mod words;

use crate::File;
use crate::plan::{Plan, UniqueNames};
use crate::tree::{FileLine, Unreadable};

pub(crate) use listen::bind;
pub(crate) use rewritten::rewritten;
use tokens::Directive;

/// State that the parts of an import share.
#[derive(Default)]
pub(crate) struct NginxImport {
    pub(crate) plan: Plan,
    pub(crate) names: UniqueNames,
    /// Blocks `upstream` of HTTP and streams.
    pub(crate) upstreams: Vec<Directive>,
    /// Upstreams that were made: scheme and address as in `proxy_pass`, and the name.
    pub(crate) used: Vec<(String, String)>,
    /// Zones of `limit_req_zone`.
    pub(crate) zones: Vec<Directive>,
    /// Directives of `http`, which servers inherit.
    pub(crate) http: Vec<Directive>,
    /// `map` blocks.
    pub(crate) maps: Vec<Directive>,
    /// The reason if all of HTTP must be refused.
    pub(crate) refused: Option<(FileLine, String)>,
    /// An include of a server that was not followed: the server may have had further names and addresses.
    pub(crate) unread_names: Option<(FileLine, String)>,
    /// The listener that is read terminates TLS.
    pub(crate) secure: bool,
    /// Whether connections begin with a PROXY protocol header.
    pub(crate) proxied: bool,
}

/// Directives at the top level of a config, outside `http`.
const ABOVE_HTTP: &[&str] = &[
    "http",
    "stream",
    "events",
    "user",
    "worker_processes",
    "pid",
    "error_log",
    "load_module",
    // The import refuses everything if such an include was not followed.
    "include",
    "daemon",
    "worker_rlimit_nofile",
    "master_process",
    "env",
    "pcre_jit",
    "timer_resolution",
    "worker_cpu_affinity",
    "worker_priority",
    "worker_shutdown_timeout",
    "thread_pool",
    "mail",
    "lock_file",
    "ssl_engine",
    "working_directory",
];

pub(crate) fn import(files: &[File]) -> Result<Plan, Unreadable> {
    let mut cx = NginxImport::default();
    let top = included::read(files, &mut cx.plan.remarks)?;
    let streams: Vec<Directive> = top.iter().filter(|one| one.name() == "stream").cloned().collect();
    let mut http: Vec<Directive> =
        top.iter().filter(|one| one.name() == "http").flat_map(|one| one.inner().to_vec()).collect();
    // A file of `conf.d` has the directives of `http`, without the block itself.
    http.extend(top.iter().filter(|one| !ABOVE_HTTP.contains(&one.name())).cloned());
    refuse_unknown(&top, &http, &mut cx);
    cx.upstreams = http.iter().filter(|one| one.name() == "upstream").cloned().collect();
    cx.zones = http.iter().filter(|one| one.name() == "limit_req_zone").cloned().collect();
    cx.maps = http.iter().filter(|one| one.name() == "map").cloned().collect();
    let inherited = |one: &&Directive| one.block.is_none() || words::is_known(one.name());
    cx.http = http.iter().filter(|one| one.name() != "server").filter(inherited).cloned().collect();
    let servers: Vec<Directive> = http.iter().filter(|one| one.name() == "server").cloned().collect();
    if servers.is_empty() && streams.is_empty() {
        if let Some((at, what)) = cx.refused {
            return Err(Unreadable { at, what: format!("there is no `server` in the config, and {what}") });
        }
        let file = files.first().map(|file| file.path.display().to_string()).unwrap_or_default();
        return Err(Unreadable {
            at: crate::tree::FileLine { file: file.into(), line: 0 },
            what: "there is no `server` in it".to_owned(),
        });
    }
    if let Some((at, what)) = cx.refused.clone().filter(|_| servers.is_empty()) {
        cx.plan.remarks.point(&at, format!("{what}."));
    }
    let mut inner = servers.iter().flat_map(Directive::inner);
    cx.unread_names = inner.find_map(|one| Some((one.at.clone(), included::not_followed(one)?)));
    listener::listeners(&servers, &mut cx);
    for block in &streams {
        stream::stream(block, &mut cx);
    }
    upstream::upstreams(&mut cx);
    Ok(cx.plan)
}

/// Refuses all of HTTP if an include was not followed, or a directive of `http` isn't known: it may decide who passes.
fn refuse_unknown(top: &[Directive], http: &[Directive], cx: &mut NginxImport) {
    for one in http.iter().chain(top) {
        if let Some(why) = included::not_followed(one) {
            cx.refused.get_or_insert((one.at.clone(), why));
        }
    }
    let known = |one: &&Directive| words::is_known(one.name()) || words::OF_HTTP.contains(&one.name());
    if let Some(one) = http.iter().find(|one| !known(one)) {
        cx.refused.get_or_insert((one.at.clone(), words::unknown(one.name())));
    }
}
