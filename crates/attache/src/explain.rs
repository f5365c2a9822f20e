//! `attache explain`: shows how a request or a connection would be handled, without sending anything.

use std::{
    io::{self, Write},
    path::Path,
};

use attache_config::model::{Action, Listener};
use attache_http::{Client, VerifiedIdentity, check_head};
use attache_routing::{RouteTable, explain, explain_tcp, show_edits};
use attache_upstream::{SessionSeal, cookie};
use attache_wire::{RequestHead, header::HOST};
use http::{Method, Uri};
use serde_json::json;

use crate::{cli, run::load};

/// Prints the explanation for each listener that could receive it.
pub(crate) fn run(options: &cli::ExplainArgs) -> Result<(), Box<dyn std::error::Error>> {
    let config = load(options.config.as_deref())?;
    let asked = asked(options.method.as_deref(), options.url.as_deref())?;
    if let Some(scheme) = asked.as_ref().and_then(|(_, url)| url.scheme_str())
        && !matches!(scheme, "http" | "https" | "ws" | "wss")
    {
        return Err(format!(
            "URLs with `{scheme}://` are not routed: write `http://` or `https://`, as the application calls it"
        )
        .into());
    }
    let request = asked.map(|(method, url)| request(&method, &url, &options.headers)).transpose()?;
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
    let mut all = Vec::new();
    if !options.format.is_json() {
        writeln!(out, "{}\n", asked_of(options.config.as_deref()))?;
    }
    for listener in listeners {
        let table = RouteTable::new(listener);
        let mut explanation = if let Some(parts) = &request {
            let client = client(options, listener.tls.is_some());
            let mut parts = parts.clone();
            if let Err(refusal) = check_head(&mut parts, client.tls, true, &listener.http) {
                let (name, reason, text) = (&*listener.name, refusal.reason.as_str(), refusal.text);
                if options.format.is_json() {
                    all.push(json!({ "config": options.config, "listener": name, "refused": { "reason": reason, "text": text } }));
                } else {
                    writeln!(out, "listener {name}: refused with {reason}: {text}")?;
                }
                continue;
            }
            let mut explanation = explain(&table, &parts, &client, &config.upstreams);
            if let Some(outcome) = &mut explanation.outcome {
                outcome.endpoints.extend(session(listener, &outcome.route, &parts).map(str::to_owned));
            }
            explanation
        } else {
            // A connection with a server name is passed through as TLS, unless the listener terminates TLS.
            let passed = client(options, false);
            let decrypted = listener.tls.is_some() && !table.takes(&passed).opaque;
            explain_tcp(&table, &client(options, decrypted), &config.upstreams)
        };
        explanation.local_reply = show_edits(&listener.local_reply.headers);
        if options.format.is_json() {
            let mut explanation = serde_json::to_value(&explanation)?;
            explanation["config"] = json!(options.config);
            all.push(explanation);
        } else {
            writeln!(out, "{explanation}")?;
        }
    }
    if options.format.is_json() {
        writeln!(out, "{:#}", serde_json::Value::Array(all))?;
    }
    Ok(())
}

/// Names the config that the explanation is for. Without a file it is not the config of a running attache.
fn asked_of(file: Option<&Path>) -> String {
    match file {
        Some(file) => format!("config {}", file.display()),
        None => {
            "config: the built-in forward proxy, since neither `-c FILE` nor ATTACHE_CONFIG names another"
                .to_owned()
        }
    }
}

/// The request to explain; `None` means a connection. A URL alone means GET, as in other tools.
fn asked(method: Option<&str>, url: Option<&str>) -> Result<Option<(Method, Uri)>, String> {
    let (method, url) = match (method, url) {
        (None, _) => return Ok(None),
        (Some(url), None) if url.contains('/') => ("GET", url),
        (Some(method), None) => {
            return Err(format!(
                "`{method}` is not a URL: write `attache explain METHOD URL`, such as `GET http://orders/v1`"
            ));
        }
        (Some(method), Some(url)) => (method, url),
    };
    if let Some(capitals) = cli::in_capitals(method) {
        return Err(format!("`{method}` is not a method: write it in capitals, `{capitals}`"));
    }
    let method = method.parse().map_err(|_| format!("`{method}` is not a method: write `GET`, `POST`, …"))?;
    Ok(Some((method, parse(url)?)))
}

fn parse(url: &str) -> Result<Uri, String> {
    url.parse().map_err(|error| match url.split_once(' ') {
        Some((method, rest)) if method.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            format!("`{url}` is not a URL: method and URL are two words, `attache explain {method} {rest}`")
        }
        Some(_) => format!("`{url}` is not a URL: a space is written `%20`"),
        None if !url.contains("://") && !url.starts_with('/') => {
            format!("`{url}` is not a URL: did you mean `http://{url}`?")
        }
        None => format!("`{url}` is not a URL: {error}"),
    })
}

/// Which session the request's cookie means for the route's `session_cookie`.
fn session(listener: &Listener, route: &str, request: &RequestHead) -> Option<&'static str> {
    let route = listener.routes.iter().find(|known| *known.name == *route)?;
    let Action::Forward(forward) = &route.action else { return None };
    let named = forward.session_cookie.as_deref()?;
    Some(match cookie(&request.headers, &named.name).map(|value| SessionSeal::new(named).open(value)) {
        None => "the request has no such cookie: the balancer chooses, and the response sets one",
        Some(None) => "the request's cookie was not made with a key of the config: it counts as none",
        Some(Some(_)) => "the request's cookie was made by attache",
    })
}

/// The request as an app sends it to localhost: the host in a header, and the target in origin-form.
fn request(
    method: &Method,
    url: &Uri,
    headers: &[String],
) -> Result<RequestHead, Box<dyn std::error::Error>> {
    let mut request = http::Request::builder().method(method.clone()).uri(url.clone());
    for header in headers {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| format!("`{header}` is not a header; write `NAME: VALUE`"))?;
        request = request.header(name.trim(), value.trim());
    }
    let mut parts = RequestHead::from(request.body(())?.into_parts().0);
    if *method != Method::CONNECT
        && let Some(authority) = parts.uri.authority().cloned()
        && !parts.headers.contains_key(HOST)
    {
        parts.headers.try_insert(HOST, authority.as_str().as_bytes())?;
        parts.uri = parts.uri.path_and_query().map_or("/", |target| target.as_str()).parse()?;
    }
    // Only HTTP/1.0 allows a request without a host.
    if parts.uri.authority().is_none() && !parts.headers.contains_key(HOST) {
        parts.version = http::Version::HTTP_10;
    }
    Ok(parts)
}

fn client(options: &cli::ExplainArgs, tls: bool) -> Client {
    let identity = options.identity.as_deref();
    Client {
        tls,
        address: options.client.map(|ip| (ip, 0).into()),
        sni: options.sni.as_deref().map(|name| name.to_ascii_lowercase().into()),
        original_destination: options.destination.map(Box::new),
        proven: identity.and_then(|name| VerifiedIdentity::names([name], usize::from(name.contains("://")))),
        ..Client::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_explanation_names_its_config() {
        assert_eq!(asked_of(Some(Path::new("a/b.yaml"))), "config a/b.yaml");
        assert!(asked_of(None).contains("built-in forward proxy"));
    }

    #[test]
    fn a_url_alone_means_get() {
        let told = |method, url| {
            let asked = asked(method, url);
            asked.map(|asked| asked.map(|(method, url)| format!("{method} {url}")))
        };
        assert_eq!(told(None, None), Ok(None));
        assert_eq!(told(Some("http://a/b"), None), Ok(Some("GET http://a/b".to_owned())));
        assert_eq!(told(Some("/b"), None), Ok(Some("GET /b".to_owned())));
        assert_eq!(told(Some("CONNECT"), Some("a:443")), Ok(Some("CONNECT a:443".to_owned())));
        assert!(told(Some("GET"), None).is_err_and(|error| error.contains("METHOD URL")));
        assert!(told(Some("G T"), Some("/")).is_err_and(|error| error.contains("is not a method")));
    }
}
