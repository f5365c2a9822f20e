//! Compares the original with its import: both get the same requests, and their answers must be equal.
//!
//! Both run on loopback, with stubs in place of every upstream. TLS, HTTP/2 to upstreams, health checks and logs are
//! removed from both, since only the handling of requests is compared. The requests are made from the conditions of the
//! routes: requests that match, that almost match, and that don't match.

mod client;
mod envoy;
mod grpc;
mod lines;
mod mesh;
mod probe;
mod sample;
mod stub;

use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::plan::Plan;
use crate::value::ConfigValue;
use crate::{File, Grade, ProxyKind};

pub use client::SeenAnswer;
pub use probe::PlannedProbe;

/// The stubs deny a request that has this value in any header.
const DENIED: &str = "deny-this-probe";

/// The paths of the programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The original's program.
    pub original: PathBuf,
    /// attache.
    pub attache: PathBuf,
}

/// The result of a comparison.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The grade of the import.
    pub grade: Grade,
    /// Requests that were sent to both.
    pub asked: usize,
    /// Requests that both answered equally.
    pub equal: usize,
    /// Requests that the import refused and the original did not. These are losses, but not security holes.
    pub closed: usize,
    /// Answers that differ in another way.
    pub differences: Vec<Difference>,
    /// What was left out of the comparison.
    pub left_out: Vec<String>,
}

/// One difference.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The request.
    pub request: String,
    /// The answers of the original and of attache.
    pub what: String,
}

impl VerifyReport {
    /// The report as a text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}: {} requests compared, {} answered equally, {} refused by the import alone, {} otherwise",
            self.grade,
            self.asked,
            self.equal,
            self.closed,
            self.differences.len()
        );
        for text in &self.left_out {
            let _ = writeln!(out, "  not compared: {text}");
        }
        for difference in self.differences.iter().take(50) {
            let _ = writeln!(out, "  {}\n    {}", difference.request, difference.what);
        }
        if self.differences.len() > 50 {
            let _ = writeln!(out, "  and {} more", self.differences.len() - 50);
        }
        out
    }
}

/// Both sides, ready to be started.
pub(crate) struct BothSides {
    pub(crate) plan: Plan,
    /// Port of attache and port of the original.
    pub(crate) ports: Vec<(u16, u16)>,
    pub(crate) original: Command,
    pub(crate) left_out: Vec<String>,
}

/// Runs the comparison. `folder` is for temporary files.
///
/// # Errors If one side doesn't start, with its output.
pub fn verify(
    kind: ProxyKind,
    files: &[File],
    programs: &Programs,
    folder: &Path,
) -> Result<VerifyReport, String> {
    let grade = crate::import(kind, files).map_err(|error| error.to_string())?.grade;
    let stubs = stub::Stubs::default();
    let mut bench = match kind {
        ProxyKind::Envoy => envoy::prepare(files, programs, folder, &stubs)?,
        ProxyKind::Haproxy => lines::haproxy(files, programs, folder, &stubs)?,
        ProxyKind::Nginx => lines::nginx(files, programs, folder, &stubs)?,
        ProxyKind::Istio => return by_the_objects(grade, files, programs, folder, &stubs),
        ProxyKind::Stunnel | ProxyKind::Ghostunnel => {
            return Err("for this kind of config there is no program to compare the import with".to_owned());
        }
    };
    let (own, theirs): (Vec<u16>, Vec<u16>) = bench.ports.iter().copied().unzip();
    let _attache = own_side(&mut bench.plan, programs, folder, &own)?;
    let _original =
        RunningProgram::start("the original", bench.original, &folder.join("original.log"), &theirs)?;
    let (probes, mut left_out) = probe::probes(&bench.plan, &own_headers(files));
    left_out.append(&mut bench.left_out);
    let mut report = VerifyReport { grade, asked: 0, equal: 0, closed: 0, differences: Vec::new(), left_out };
    for probe in &probes {
        let Some((own, theirs)) = bench.ports.iter().find(|(own, _)| *own == probe.port) else { continue };
        let theirs = client::ask(*theirs, probe);
        let own = client::ask(*own, probe);
        report.asked += 1;
        match compare(&theirs, &own, probe) {
            None => report.equal += 1,
            Some(_) if is_closed(&own, probe) || is_doubted(&theirs, &own) => report.closed += 1,
            Some(what) => report.differences.push(Difference { request: probe.to_string(), what }),
        }
    }
    Ok(report)
}

/// Starts attache with the import.
fn own_side(
    plan: &mut Plan,
    programs: &Programs,
    folder: &Path,
    ports: &[u16],
) -> Result<RunningProgram, String> {
    plan.top.set("metrics", "off");
    plan.top.set("admin", "off");
    plan.top.set("workers", 1_u64);
    plan.top.0.retain(|(key, _)| key != "access_log");
    crate::accepted::make(plan);
    let config = folder.join("attache.yaml");
    write(&config, &crate::write::config(plan, &[]).text)?;
    let mut attache = Command::new(&programs.attache);
    attache.arg("run").arg("-c").arg(&config);
    RunningProgram::start("attache", attache, &folder.join("attache.log"), ports)
}

/// Whether the import refused the request because its rule could not be carried over.
fn is_closed(own: &SeenAnswer, probe: &PlannedProbe) -> bool {
    own.status == 503 && (own.body.starts_with("closed: ") || probe.method == "HEAD" && own.stub.is_none())
}

/// Whether `authorization` refused a request that the original let pass: it refuses requests that can be read in two
/// ways.
fn is_doubted(theirs: &SeenAnswer, own: &SeenAnswer) -> bool {
    theirs.stub.is_some()
        && own.stub.is_none()
        && own.status == 403
        && own.header("x-attache-reason") == "denied-by-rule"
}

/// Compares the import of a mesh with the interpreter of its objects.
fn by_the_objects(
    grade: Grade,
    files: &[File],
    programs: &Programs,
    folder: &Path,
    stubs: &stub::Stubs,
) -> Result<VerifyReport, String> {
    let mesh = mesh::MeshModel::read(files)?;
    let (mut plan, ports) = mesh::bench(files, stubs)?;
    let _attache = own_side(&mut plan, programs, folder, &ports)?;
    let (probes, mut left_out) = probe::probes(&plan, &own_headers(files));
    left_out.push("the inbound listener: who may call".to_owned());
    let mut report =
        VerifyReport { grade, asked: 0, equal: 0, closed: 0, differences: Vec::new(), left_out: Vec::new() };
    for probe in probes.iter().filter(|probe| ports.contains(&probe.port)) {
        let said = mesh.says(probe);
        if let mesh::Expectation::Unknown(why) = said {
            left_out.push(why.to_owned());
            continue;
        }
        let own = client::ask(probe.port, probe);
        report.asked += 1;
        match mesh::differs(&said, &own, probe) {
            None => report.equal += 1,
            Some(_) if is_closed(&own, probe) => report.closed += 1,
            Some(what) => report.differences.push(Difference { request: probe.to_string(), what }),
        }
    }
    left_out.sort();
    left_out.dedup();
    report.left_out = left_out;
    Ok(report)
}

/// Further request headers from the user, such as a token: lines `# probe: NAME: VALUE` in the config.
fn own_headers(files: &[File]) -> Vec<(String, String)> {
    let lines = files.iter().flat_map(|file| file.text.lines());
    lines
        .filter_map(|line| line.trim().strip_prefix("# probe: ")?.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}

/// The difference between two answers.
fn compare(theirs: &SeenAnswer, own: &SeenAnswer, probe: &PlannedProbe) -> Option<String> {
    let both = |what: &str, a: &str, b: &str| Some(format!("{what}: {a} in the original, {b} here"));
    if theirs.status != own.status {
        return both("status", &theirs.summary(), &own.summary());
    }
    match (&theirs.stub, &own.stub) {
        (None, None) => {}
        (Some(a), Some(b)) => {
            let split = probe.splits.iter().any(|split| split.contains(&a.name) && split.contains(&b.name));
            if a.name != b.name && !split {
                return both("upstream", &a.name, &b.name);
            }
            if a.target != b.target {
                return both("path", &a.target, &b.target);
            }
            if a.method != b.method {
                return both("method", &a.method, &b.method);
            }
            for name in ["host"].into_iter().chain(probe.watched_up.iter().map(String::as_str)) {
                let (a, b) = (a.header(name), b.header(name));
                if a != b && !random(name, &a, &b) {
                    return both(&format!("request header {name}"), &a, &b);
                }
            }
        }
        (a, b) => {
            let name = |stub: &Option<client::StubRequest>| {
                stub.as_ref().map_or("the proxy itself", |stub| stub.name.as_str()).to_owned()
            };
            return both("answered by", &name(a), &name(b));
        }
    }
    for name in ["location"].into_iter().chain(probe.watched_down.iter().map(String::as_str)) {
        let (mut a, mut b) = (theirs.header(name), own.header(name));
        if name == "location" {
            // nginx writes its own port, which differs on each side.
            (a, b) = (without_port(&a), without_port(&b));
        }
        // `*` allows every origin, so it equals the echoed origin.
        let everybody = name == "access-control-allow-origin" && b == "*" && a == probe.origin();
        if a != b && !everybody && !random(name, &a, &b) {
            return both(&format!("response header {name}"), &a, &b);
        }
    }
    // A space before the value of a trailer of gRPC-Web means nothing.
    let plain = |body: &str| body.replace("grpc-status: ", "grpc-status:");
    const OWN_WORDS: &[&str] = &[
        "no healthy upstream",
        "upstream connect error",
        "RBAC: access denied",
        "fault filter abort",
        "<html",
        "<!DOCTYPE",
        "upstream request timeout",
        "Jwt ",
        "Audiences in Jwt",
    ];
    if theirs.stub.is_none()
        && !theirs.body.is_empty()
        && !OWN_WORDS.iter().any(|words| theirs.body.starts_with(words))
        && plain(&theirs.body) != plain(&own.body)
        && !(300..400).contains(&theirs.status)
    {
        return both("body", &theirs.body, &own.body);
    }
    None
}

/// Ids are random: it is enough that both sides have one, or neither.
fn random(name: &str, a: &str, b: &str) -> bool {
    name == "x-request-id" && a.is_empty() == b.is_empty()
}

/// A URL without the port of its host.
fn without_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    format!("{scheme}://{host}{path}")
}

/// A free port on loopback.
pub(crate) fn port() -> Result<u16, String> {
    let listener =
        TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no free port on loopback: {error}"))?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A program that is killed when this value is dropped.
struct RunningProgram(Child);

impl RunningProgram {
    fn start(name: &str, mut command: Command, log: &Path, ports: &[u16]) -> Result<Self, String> {
        let out = fs::File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let err = out.try_clone().map_err(|error| error.to_string())?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(|error| {
            format!("{name} ({}) can't be started: {error}", command.get_program().display())
        })?;
        let mut running = Self(child);
        let end = Instant::now() + Duration::from_secs(20);
        for port in ports {
            loop {
                if std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok() {
                    break;
                }
                let ended = running.0.try_wait().ok().flatten().is_some();
                if ended || Instant::now() > end {
                    let said = fs::read_to_string(log).unwrap_or_default();
                    let last: Vec<_> = said.lines().rev().take(12).collect();
                    let last: Vec<_> = last.into_iter().rev().collect();
                    return Err(format!("{name} does not listen on {port}; it said:\n{}", last.join("\n")));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(running)
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The port of a listener's `bind`.
pub(crate) fn bound(value: Option<&ConfigValue>) -> Option<u16> {
    match value {
        Some(ConfigValue::Text(text)) => text.rsplit_once(':')?.1.parse().ok(),
        Some(ConfigValue::List(items)) => bound(items.first()),
        _ => None,
    }
}
