//! `attache check`: reports everything that would keep `run` from starting, at once. `run` and a reload check the same things first.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _, Write as _},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    time::SystemTime,
};

use attache_authorization::jwt::Issuer;
use attache_config::{
    Diagnostic, Diagnostics, LocatedProblem, locate,
    model::{Action, Address, Bind, Config, Dns, EndpointTarget, JwtKeys, Listener, LogTarget},
};
use attache_tls::check::{FileProblem, client_files, credential_file, server_files, untimely};
use serde_json::json;

use crate::{cli, surroundings::Surroundings};

/// Prints every problem of a config.
pub(crate) fn run(options: &cli::CheckArgs) -> ExitCode {
    let Some(file) = options.file() else {
        crate::error::print_error(&io::Error::other(
            "which config? `attache check attache.yaml`, or `-` for standard input",
        ));
        return ExitCode::from(2);
    };
    let file = file.as_path();
    let env = |name: &str| std::env::var(name).ok();
    let standard_input = file == Path::new("-");
    let text = if standard_input {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let named = (!standard_input).then_some(file);
    let result = match (&text, named) {
        (Ok(text), _) => attache_config::parse(text, named, &env),
        // For a file that can't be read, this gives a better error.
        (Err(_), Some(file)) => attache_config::load(file, &env),
        (Err(error), None) => {
            crate::error::print_error(error);
            return ExitCode::FAILURE;
        }
    };
    // Warnings are printed together with problems of files; a valid config has warnings of its own.
    let mut warnings: Vec<Diagnostic> = Vec::new();
    let mut notes = Vec::new();
    let result = result.and_then(|config| {
        if options.without_files {
            return Ok(config);
        }
        let around = Surroundings::of(&config);
        notes = around.notes;
        let found = [unusable(&config), around.problems].concat();
        warnings.clone_from(&config.warnings);
        locate(found, text.as_deref().unwrap_or_default(), config.file.as_deref()).map_or(Ok(config), Err)
    });
    let summary = |config: &Config| {
        let mut lines = summary(config, options.without_files);
        lines.append(&mut notes.clone());
        lines
    };
    match (options.format.is_json(), result) {
        (true, result) => {
            let (ok, found) = match &result {
                Ok(config) => (true, json!(config.warnings)),
                Err(found) => (false, json!(warnings.iter().chain(found.iter()).collect::<Vec<_>>())),
            };
            let summary = result.as_ref().map(summary).unwrap_or_default();
            let said = json!({ "ok": ok, "problems": found, "summary": summary });
            print(&format!("{said:#}\n"), if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        (false, Ok(config)) => {
            for warning in &config.warnings {
                let _ = writeln!(io::stderr(), "{}", warning.display(coloured()));
            }
            let mut said = format!(
                "{}: ok, {} and {}\n",
                file.display(),
                count(config.listeners.len(), "listener"),
                count(config.upstreams.len(), "upstream")
            );
            for line in summary(&config) {
                said.extend(["  ", &line, "\n"]);
            }
            print(&said, ExitCode::SUCCESS)
        }
        (false, Err(found)) => {
            for warning in &warnings {
                let _ = writeln!(io::stderr(), "{}", warning.display(coloured()));
            }
            let _ = writeln!(io::stderr(), "{}", found.display(coloured()));
            ExitCode::FAILURE
        }
    }
}

/// Prints the result. If the reader of the output has ended, that is no error; a full disk is one.
fn print(said: &str, code: ExitCode) -> ExitCode {
    match io::stdout().write_all(said.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            crate::error::print_error(&error);
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// What a person should know about a valid config.
fn summary(config: &Config, without_files: bool) -> Vec<String> {
    let mut lines = attache_routing::summary(config);
    // The config may leave the address to the environment, or to OpenTelemetry's default.
    let tracing = config.tracing.iter().map(|tracing| ("tracing: spans", &tracing.collector));
    let metrics = config.otlp.metrics.iter().map(|metrics| ("otlp: metrics", &metrics.collector));
    let logs = config.otlp.logs.iter().map(|logs| ("otlp: log records", &logs.collector));
    let sent = tracing.chain(metrics).chain(logs);
    lines.extend(sent.map(|(what, collector)| format!("{what} are sent to {}", collector.url())));
    if !without_files {
        let listeners = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let upstreams = config.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref());
        let shown = listeners
            .flat_map(|tls| &tls.identities)
            .chain(upstreams.filter_map(|tls| tls.identity.as_ref()));
        lines.extend(untimely(shown, SystemTime::now()));
    }
    lines
}

/// Whether to use colours: only if the output is a terminal.
pub(crate) fn coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The problems of the files and folders that a config names, each with its place. `text` is the text of the config.
pub(crate) fn files(config: &Config, text: &str) -> Option<Diagnostics> {
    locate(unusable(config), text, config.file.as_deref())
}

fn unusable(config: &Config) -> Vec<LocatedProblem> {
    let mut found = UnusableReferences::default();
    found.loops(config);
    for listener in &config.listeners {
        found.listener(listener, config);
    }
    for upstream in &config.upstreams {
        for problem in upstream.tls.as_ref().map(client_files).unwrap_or_default() {
            found.add(&["upstreams", &upstream.name, "tls"], problem);
        }
        if let Some(problem) = upstream.credential.as_ref().and_then(|own| credential_file(own)) {
            found.add(&["upstreams", &upstream.name, "credential"], problem);
        }
    }
    if let LogTarget::File(file) = &config.access_log.to
        && let Some(what) = appending(&file.path)
    {
        found.add(&["access_log"], FileProblem { file: Some(file.path.clone()), what });
    }
    found.collectors(config);
    if let Some(problem) = config.admin.bind.as_ref().and_then(socket) {
        found.add(&["admin"], problem);
    }
    found.issuers(config);
    found.system(config);
    found.0
}

/// What can't be used of what a config names.
#[derive(Default)]
struct UnusableReferences(Vec<LocatedProblem>);

impl UnusableReferences {
    fn add(&mut self, keys: &[&str], problem: FileProblem) {
        let value = problem.file.map(|file| file.to_string_lossy().into_owned());
        let keys = keys.iter().map(ToString::to_string).collect();
        self.0.push(LocatedProblem { keys, value, message: problem.what, help: String::new() });
    }

    fn loops(&mut self, config: &Config) {
        for (listener, upstream, at) in loops(config) {
            self.0.push(LocatedProblem {
                keys: vec!["upstreams".to_owned(), upstream.to_owned()],
                value: None,
                message: format!("`{upstream}` leads back to listener `{listener}`, which is at {at}: attache would call itself"),
                help: "name the address of the service itself".to_owned(),
            });
        }
    }

    fn listener(&mut self, listener: &Listener, config: &Config) {
        for problem in listener.tls.as_ref().map(server_files).unwrap_or_default() {
            self.add(&["listeners", &listener.name, "tls"], problem);
        }
        for bind in &listener.bind {
            if let Some(problem) = socket(bind) {
                self.add(&["listeners", &listener.name, "bind"], problem);
            }
        }
        for (index, route) in listener.routes.iter().enumerate() {
            let Action::Forward(forward) = &route.action else { continue };
            for to in &forward.to {
                let of_upstream = config.upstreams.get(to.upstream.0).and_then(|to| to.credential.as_ref());
                let own = to.policy.credential.as_ref().filter(|own| of_upstream != Some(*own));
                if let Some(problem) = own.and_then(|own| credential_file(own)) {
                    self.add(
                        &["listeners", &listener.name, "routes", &index.to_string(), "credential"],
                        problem,
                    );
                }
            }
        }
    }

    fn collectors(&mut self, config: &Config) {
        let tracing = config.tracing.iter().map(|tracing| ("tracing", &tracing.collector));
        let metrics = config.otlp.metrics.iter().map(|metrics| ("otlp", &metrics.collector));
        let logs = config.otlp.logs.iter().map(|logs| ("otlp", &logs.collector));
        let mut told = Vec::new();
        for (section, collector) in tracing.chain(metrics).chain(logs) {
            for problem in collector.tls.as_ref().map(client_files).unwrap_or_default() {
                // Both signals of `otlp` have the same files.
                if !told.contains(&(section, problem.what.clone())) {
                    told.push((section, problem.what.clone()));
                    self.add(&[section, "tls"], problem);
                }
            }
        }
    }

    fn issuers(&mut self, config: &Config) {
        for provider in &config.jwt {
            if let Err(error) = Issuer::new(provider.clone()) {
                let file = match &provider.keys {
                    JwtKeys::File(path) => Some(path.clone()),
                    JwtKeys::Inline(_) | JwtKeys::Remote(_) => None,
                };
                self.add(&["jwt", &provider.name, "keys"], FileProblem { file, what: error.to_string() });
            }
        }
    }

    /// The system's files: those of DNS and of the control group.
    fn system(&mut self, config: &Config) {
        // Without the system's own file the DNS servers are those of the loopback. A file that the config names must exist.
        let resolv_conf = &config.dns.resolv_conf;
        if *resolv_conf != Dns::default().resolv_conf
            && let Err(error) = fs::read_to_string(resolv_conf)
        {
            let what = format!("{} can't be read: {error}", resolv_conf.display());
            self.add(&["dns", "resolv_conf"], FileProblem { file: Some(resolv_conf.clone()), what });
        }
        if let Some(folder) = config
            .overload
            .as_ref()
            .and_then(|overload| overload.cgroup.as_ref())
            .filter(|folder| !folder.is_dir())
        {
            let what = format!(
                "{} is no folder: name one of a control group, such as /sys/fs/cgroup",
                folder.display()
            );
            self.add(&["overload", "cgroup"], FileProblem { file: Some(folder.clone()), what });
        }
    }
}

/// Upstreams that a listener's routes use and that lead to this listener itself: the listener's name, the upstream's, and the address.
fn loops(config: &Config) -> Vec<(&str, &str, SocketAddr)> {
    let mut found = Vec::new();
    for listener in &config.listeners {
        for route in &listener.routes {
            let Action::Forward(forward) = &route.action else { continue };
            for upstream in forward.to.iter().filter_map(|to| config.upstreams.get(to.upstream.0)) {
                let Address::Endpoints(sources) = &upstream.address else { continue };
                let back = listener.bind.iter().find_map(|bind| match bind {
                    Bind::Tcp(at) => sources.iter().any(|source| is_at(&source.target, *at)).then_some(*at),
                    Bind::Unix { .. } => None,
                });
                let known = |(_, name, _): &(&str, &str, SocketAddr)| *name == &*upstream.name;
                if let Some(at) = back.filter(|_| !found.iter().any(known)) {
                    found.push((&*listener.name, &*upstream.name, at));
                }
            }
        }
    }
    found
}

/// Whether an endpoint is this socket, as far as the config shows it: by its address, or by a name of the loopback.
fn is_at(target: &EndpointTarget, socket: SocketAddr) -> bool {
    let is_any = socket.ip().is_unspecified();
    match target {
        EndpointTarget::Ip(address) => {
            let ip = address.ip().to_canonical();
            address.port() == socket.port()
                && (ip == socket.ip().to_canonical() || (is_any && (ip.is_loopback() || ip.is_unspecified())))
        }
        EndpointTarget::Dns { host, port } => {
            *port == socket.port()
                && host.trim_end_matches('.').eq_ignore_ascii_case("localhost")
                && (is_any || socket.ip().is_loopback())
        }
        EndpointTarget::Srv { .. } | EndpointTarget::Kubernetes(_) | EndpointTarget::Unix(_) => false,
    }
}

/// A Unix socket needs a folder in which it can be created.
fn socket(bind: &Bind) -> Option<FileProblem> {
    let Bind::Unix { path, .. } = bind else { return None };
    // An abstract socket, recognised by its first byte, needs no folder.
    if path.to_string_lossy().starts_with(['@', '\0']) {
        return None;
    }
    let what = folder(path)?;
    Some(FileProblem { file: Some(format!("unix:{}", path.display()).into()), what })
}

/// Why a file can't be appended to. An existing file is not changed.
fn appending(path: &Path) -> Option<String> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Some(format!("{shown} is a folder: name a file in it")),
        Ok(_) => {
            let error = fs::OpenOptions::new().append(true).open(path).err()?;
            Some(format!("{shown} can't be written to ({error}): change its owner or mode"))
        }
        Err(_) => folder(path),
    }
}

/// Why nothing can be created next to this path. The file that is created to find out is removed at once.
fn folder(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = folder.display();
    match fs::metadata(folder) {
        Err(error) => Some(format!("the folder {shown} can't be used ({error}): create it, or name another")),
        Ok(meta) if !meta.is_dir() => Some(format!("{shown} is no folder")),
        Ok(_) => {
            let trial = folder.join(format!(".attache-check-{}", std::process::id()));
            match fs::OpenOptions::new().write(true).create_new(true).open(&trial) {
                Ok(_) => {
                    let _ = fs::remove_file(&trial);
                    None
                }
                Err(error) => Some(format!(
                    "nothing can be created in the folder {shown} ({error}): change its owner or mode"
                )),
            }
        }
    }
}
