//! Runs the original config in HAProxy or nginx next to the import: on loopback, with stubs, and without TLS.
//!
//! Both configs are texts of words, so the addresses are replaced in the text.

use std::path::Path;
use std::process::Command;

use crate::{File, haproxy, nginx, plan};

use super::{BothSides, Programs, stub::Stubs};

/// Ports of one side, in the order in which addresses were met.
struct SidePorts(Vec<(String, u16)>);

impl SidePorts {
    fn of(&mut self, address: &str) -> Result<u16, String> {
        if let Some((_, port)) = self.0.iter().find(|(known, _)| known == address) {
            return Ok(*port);
        }
        let port = super::port()?;
        self.0.push((address.to_owned(), port));
        Ok(port)
    }
}

pub(crate) fn haproxy(
    files: &[File],
    programs: &Programs,
    folder: &Path,
    stubs: &Stubs,
) -> Result<BothSides, String> {
    let text = files.iter().map(|file| file.text.as_str()).collect::<Vec<_>>().join("\n");
    let (mut own, mut theirs) = (SidePorts(Vec::new()), SidePorts(Vec::new()));
    let config = haproxy_text(&text, stubs, &mut theirs)?;
    let path = folder.join("haproxy.cfg");
    super::write(&path, &config)?;
    let mine = haproxy_text(&text, stubs, &mut own)?;
    let plan = haproxy::import(&[File { path: "haproxy.cfg".into(), text: mine }])
        .map_err(|error| error.to_string())?;
    let mut command = Command::new(&programs.original);
    command.args(["-db", "-f"]).arg(&path);
    Ok(bench(plan, &own, &theirs, command))
}

fn bench(plan: plan::Plan, own: &SidePorts, theirs: &SidePorts, original: Command) -> BothSides {
    let bound: Vec<u16> =
        plan.listeners.iter().filter_map(|listener| super::bound(listener.keys.get("bind"))).collect();
    let ports = own
        .0
        .iter()
        .zip(&theirs.0)
        .map(|((_, own), (_, theirs))| (*own, *theirs))
        .filter(|(own, _)| bound.contains(own))
        .collect();
    BothSides { plan, ports, original, left_out: vec!["TLS of clients and upstreams".to_owned()] }
}

fn haproxy_text(text: &str, stubs: &Stubs, ports: &mut SidePorts) -> Result<String, String> {
    let mut out = String::new();
    let mut section = (String::new(), String::new());
    for line in text.lines() {
        let words = crate::haproxy::words(line);
        let indent = line.starts_with(char::is_whitespace);
        let word = |index: usize| words.get(index).map_or("", String::as_str);
        match word(0) {
            "global" | "defaults" | "frontend" | "backend" | "listen" | "resolvers" | "userlist"
            | "peers" | "cache" | "mailers"
                if !indent =>
            {
                section = (word(0).to_owned(), word(1).to_owned());
                if section.0 != "global"
                    && section.0 != "peers"
                    && section.0 != "mailers"
                    && section.0 != "resolvers"
                {
                    out.push_str(line);
                    out.push('\n');
                }
                continue;
            }
            _ => {}
        }
        if matches!(section.0.as_str(), "global" | "peers" | "mailers" | "resolvers") {
            continue;
        }
        match word(0) {
            "bind" => {
                let port = ports.of(&format!("{} {}", section.1, word(1)))?;
                out.push_str(&format!("    bind 127.0.0.1:{port}\n"));
            }
            "server" => {
                let port = stubs.port(&plan::name(&section.1))?;
                let weight = words
                    .windows(2)
                    .find(|pair| pair[0] == "weight")
                    .map(|pair| format!(" weight {}", pair[1]))
                    .unwrap_or_default();
                let rest = if words.iter().any(|word| word == "backup") { " backup" } else { "" };
                out.push_str(&format!("    server {} 127.0.0.1:{port}{weight}{rest}\n", word(1)));
            }
            "log" | "stats" | "cookie" | "errorfile" | "user" | "group" | "chroot" | "default-server"
            | "http-check" | "stick" | "stick-table" | "server-template" | "errorfiles" => {}
            "option"
                if matches!(
                    word(1),
                    "httpchk"
                        | "httplog"
                        | "tcplog"
                        | "dontlognull"
                        | "mysql-check"
                        | "pgsql-check"
                        | "redis-check"
                        | "tcp-check"
                ) => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    Ok(out)
}

/// The line that loads the module for streams, if the module is a separate file.
fn stream_module(nginx: &Path) -> String {
    let said = Command::new(nginx)
        .arg("-V")
        .output()
        .map(|out| String::from_utf8_lossy(&out.stderr).into_owned())
        .unwrap_or_default();
    let word = |name: &str| said.split_whitespace().find_map(|word| word.strip_prefix(name));
    let folder = word("--modules-path=")
        .map(ToOwned::to_owned)
        .or_else(|| word("--prefix=").map(|prefix| format!("{prefix}/modules")));
    let module =
        folder.map(|folder| Path::new(&folder).join("ngx_stream_module.so")).filter(|path| path.is_file());
    module.map_or_else(String::new, |path| format!("load_module {};\n", path.display()))
}

pub(crate) fn nginx(
    files: &[File],
    programs: &Programs,
    folder: &Path,
    stubs: &Stubs,
) -> Result<BothSides, String> {
    let (mut own, mut theirs) = (SidePorts(Vec::new()), SidePorts(Vec::new()));
    let config = nginx::rewritten(files, &mut |address| theirs.of(address), &|name| stubs.port(name))?;
    let path = folder.join("nginx.conf");
    let module = if config.lines().any(|line| line.starts_with("stream {")) {
        stream_module(&programs.original)
    } else {
        String::new()
    };
    let head = format!(
        "{module}daemon off;\nmaster_process off;\npid {0}/nginx.pid;\nerror_log {0}/nginx-error.log;\nevents {{}}\n",
        folder.display()
    );
    super::write(&path, &format!("{head}{config}"))?;
    let mine = nginx::rewritten(files, &mut |address| own.of(address), &|name| stubs.port(name))?;
    let plan = nginx::import(&[File { path: "nginx.conf".into(), text: mine }])
        .map_err(|error| error.to_string())?;
    let mut command = Command::new(&programs.original);
    command.arg("-p").arg(folder).arg("-c").arg(&path);
    Ok(bench(plan, &own, &theirs, command))
}
