//! `attache explain`: what a request would meet, without sending anything.

use std::io::{self, Write};

use attache_http::{Client, check_request, normalize_uri};
use attache_routing::{RouteTable, explain};
use http::{HeaderValue, Request, header::HOST};

use crate::{cli, run::load};

/// Prints the explanation of each listener that HTTP could come in by.
pub(crate) fn run(options: &cli::Explain) -> Result<(), Box<dyn std::error::Error>> {
    let config = load(options.config.as_deref())?;
    let mut request = Request::builder().method(options.method.clone()).uri(options.url.clone());
    for header in &options.headers {
        let (name, value) =
            header.split_once(':').ok_or_else(|| format!("`{header}` is no header; write `NAME: VALUE`"))?;
        request = request.header(name.trim(), value.trim());
    }
    let (mut parts, ()) = request.body(())?.into_parts();
    // As an app sends it that was pointed at localhost: the host in a header, the target in origin-form.
    if let Some(authority) = parts.uri.authority().cloned()
        && !parts.headers.contains_key(HOST)
    {
        parts.headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
        parts.uri = parts.uri.path_and_query().map_or("/", |target| target.as_str()).parse()?;
    }
    let mut listeners = config
        .listeners
        .iter()
        .filter(|listener| options.listener.as_ref().is_none_or(|name| **name == *listener.name))
        .peekable();
    if listeners.peek().is_none() {
        let names: Vec<&str> = config.listeners.iter().map(|listener| &*listener.name).collect();
        let asked = options.listener.as_deref().unwrap_or_default();
        return Err(format!("there is no listener `{asked}`; there are: {}", names.join(", ")).into());
    }
    let mut out = io::stdout().lock();
    for listener in listeners {
        let mut parts = parts.clone();
        let identity = options.identity.as_deref();
        let client = Client {
            tls: listener.tls.is_some(),
            identities: identity.into_iter().map(Into::into).collect(),
            uris: usize::from(identity.is_some_and(|name| name.contains("://"))),
            ..Client::default()
        };
        let checked = check_request(&mut parts, client.tls, true)
            .and_then(|_| normalize_uri(&mut parts.uri, listener.http.path));
        if let Err(refusal) = checked {
            writeln!(out, "listener {}: refused with {}: {}", listener.name, refusal.reason, refusal.text)?;
            continue;
        }
        let explanation = explain(&RouteTable::new(listener), &parts, &client, &config.upstreams);
        if options.json {
            serde_json::to_writer_pretty(&mut out, &explanation)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{explanation}")?;
        }
    }
    Ok(())
}
