//! The same config on loopback, with stubs in place of its upstreams, for a comparison.

use crate::File;
use crate::remark::Remarks;

use super::{included, tokens::Directive};

/// Prints the config with other addresses, and with the files that it includes. `listen` and `stub` give ports.
///
/// # Errors If a file can't be read, or no port is free.
pub(crate) fn rewritten(
    files: &[File],
    listen: &mut dyn FnMut(&str) -> Result<u16, String>,
    stub: &dyn Fn(&str) -> Result<u16, String>,
) -> Result<String, String> {
    let mut top = included::read(files, &mut Remarks::default()).map_err(|error| error.to_string())?;
    top.retain(|one| {
        !matches!(
            one.name(),
            "events"
                | "user"
                | "pid"
                | "worker_processes"
                | "error_log"
                | "load_module"
                | "include"
                | "daemon"
                | "worker_rlimit_nofile"
        )
    });
    let inside = top.iter().all(|one| !matches!(one.name(), "http" | "stream"));
    let mut out = String::new();
    let names: Vec<String> = upstreams(&top);
    if inside {
        out.push_str("http {\naccess_log off;\n");
    }
    for one in &top {
        print(one, &names, listen, stub, &mut out)?;
    }
    if inside {
        out.push_str("}\n");
    }
    Ok(out)
}

fn upstreams(all: &[Directive]) -> Vec<String> {
    let mut out = Vec::new();
    for one in all {
        if one.name() == "upstream" {
            out.push(one.word(1).to_owned());
        }
        out.extend(upstreams(one.inner()));
    }
    out
}

fn print(
    one: &Directive,
    names: &[String],
    listen: &mut dyn FnMut(&str) -> Result<u16, String>,
    stub: &dyn Fn(&str) -> Result<u16, String>,
    out: &mut String,
) -> Result<(), String> {
    let name = one.name();
    if name.starts_with("ssl_") && name != "ssl_preread"
        || name.starts_with("proxy_ssl")
        || matches!(
            name,
            "access_log"
                | "error_log"
                | "include"
                | "log_format"
                | "resolver"
                | "ssl"
                | "http2"
                | "proxy_cache"
                | "proxy_cache_path"
        )
    {
        return Ok(());
    }
    match name {
        "listen" => {
            let port = listen(&super::bind(one.word(1)).unwrap_or_default().replace("[::]", ""))?;
            let default =
                if one.words.iter().any(|word| word == "default_server") { " default_server" } else { "" };
            let line = format!("listen 127.0.0.1:{port}{default};\n");
            // `80` and `[::]:80` are one here.
            if !out.rsplit("server {").next().is_some_and(|own| own.contains(&format!("127.0.0.1:{port}"))) {
                out.push_str(&line);
            }
            return Ok(());
        }
        "upstream" => {
            let port = stub(&crate::plan::name(one.word(1)))?;
            out.push_str(&format!("upstream {} {{ server 127.0.0.1:{port}; }}\n", one.word(1)));
            return Ok(());
        }
        "proxy_pass" if !one.word(1).contains('$') => {
            let (scheme, rest) = one
                .word(1)
                .split_once("://")
                .map_or((None, one.word(1)), |(scheme, rest)| (Some(scheme), rest));
            let (authority, uri) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if names.iter().any(|name| name == authority) {
                let scheme = if scheme.is_some() { "http://" } else { "" };
                out.push_str(&format!("proxy_pass {scheme}{authority}{uri};\n"));
            } else {
                let port = stub(&crate::plan::name(&authority.replace([':', '[', ']'], "-")))?;
                let scheme = if scheme.is_some() { "http://" } else { "" };
                out.push_str(&format!("proxy_pass {scheme}127.0.0.1:{port}{uri};\n"));
            }
            return Ok(());
        }
        _ => {}
    }
    let words: Vec<String> = one.words.iter().map(|word| quoted(word)).collect();
    out.push_str(&words.join(" "));
    match &one.block {
        None => out.push_str(";\n"),
        Some(inner) => {
            out.push_str(" {\n");
            for one in inner {
                print(one, names, listen, stub, out)?;
            }
            out.push_str("}\n");
        }
    }
    Ok(())
}

fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "{};\"'#".contains(c));
    if plain { word.to_owned() } else { format!("\"{}\"", word.replace('"', "\\\"")) }
}
