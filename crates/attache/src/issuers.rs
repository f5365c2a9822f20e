//! The issuers of tokens, and the tasks that keep their keys fresh.
//!
//! A file is read again when it changes. A URL is requested again after `refresh`, or sooner if a token names an unknown key, but never
//! more often than every [`MIN_REFRESH`]. While the keys can't be loaded, the last good set stays in use. All workers share the keys, and
//! one worker refreshes those of each issuer.

use std::{
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use attache_authorization::jwt::{Issuer, KeySet};
use attache_config::model::{Config, JwtKeys, JwtProvider, Name, RemoteKeys, Retry};
use attache_telemetry::metrics;
use attache_wire::{Request, header::ACCEPT};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, sleep};

use crate::{error::Error, stack::Upstreams};

/// A key set is requested at most this often, whatever tokens clients send.
const MIN_REFRESH: Duration = Duration::from_secs(10);
/// How often attache checks the file, and whether a key is missing.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The issuers of a config. An issuer whose settings are unchanged keeps its keys.
pub(crate) fn prepare(
    config: &Config,
    before: &Config,
    known: &[Arc<Issuer>],
) -> Result<Vec<Arc<Issuer>>, Error> {
    let upstream = |config: &Config, provider: &JwtProvider| match &provider.keys {
        JwtKeys::Remote(keys) => config.upstreams.get(keys.upstream.0).map(|it| it.name.clone()),
        JwtKeys::Inline(_) | JwtKeys::File(_) => None,
    };
    let issuer = |provider: &JwtProvider| {
        let same = known.iter().find(|old| {
            old.config == *provider && upstream(before, &old.config) == upstream(config, provider)
        });
        match same {
            Some(issuer) => Ok(issuer.clone()),
            None => match Issuer::new(provider.clone()) {
                Ok(issuer) => Ok(Arc::new(issuer)),
                Err(source) => Err(Error::Keys { issuer: provider.name.clone(), source }),
            },
        }
    };
    config.jwt.iter().map(issuer).collect()
}

/// Refreshes an issuer's keys until the task is dropped. Of the tasks of all workers, one does the work.
pub(crate) async fn keep(issuer: Arc<Issuer>, upstreams: Rc<Upstreams>) {
    if matches!(issuer.config.keys, JwtKeys::Inline(_)) {
        return;
    }
    let turn = loop {
        match issuer.keys.refresh_permit() {
            Some(turn) => break turn,
            None => sleep(CHECK_INTERVAL).await,
        }
    };
    match &issuer.config.keys {
        JwtKeys::File(path) => follow(&issuer, path).await,
        JwtKeys::Remote(keys) => ask_again(&issuer, &upstreams, keys).await,
        JwtKeys::Inline(_) => {}
    }
    drop(turn);
}

async fn follow(issuer: &Issuer, path: &Path) {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|it| it.modified()).ok();
    // The file may have changed before the first check.
    let mut known: Option<SystemTime> = None;
    loop {
        let now = changed(path);
        if now.is_some() && now != known {
            let path_buf = path.to_owned();
            let read = tokio::task::spawn_blocking(move || std::fs::read(path_buf)).await;
            let read = read.map_err(std::io::Error::other).flatten();
            let set = read
                .map_err(|error| error.to_string())
                .and_then(|text| KeySet::parse(&text).map_err(|error| error.to_string()));
            put(issuer, set);
            known = now;
        }
        sleep(CHECK_INTERVAL).await;
    }
}

async fn ask_again(issuer: &Issuer, upstreams: &Upstreams, keys: &RemoteKeys) {
    let refresh = keys.refresh;
    let mut failures = 0_u32;
    loop {
        let begun = Instant::now();
        let set = ask(upstreams, keys).await;
        failures = if set.is_ok() { 0 } else { failures.saturating_add(1) };
        put(issuer, set);
        // At the start there are no keys, and every request is refused. So they are requested every second.
        let again = match failures {
            0 => refresh,
            failures if !issuer.keys.are_there() => Duration::from_secs(u64::from(failures.min(5))),
            _ => MIN_REFRESH.min(refresh),
        };
        loop {
            sleep(CHECK_INTERVAL.min(again)).await;
            let waited = begun.elapsed();
            if waited >= again || (waited >= MIN_REFRESH && issuer.keys.take_wanted()) {
                break;
            }
        }
    }
}

async fn ask(upstreams: &Upstreams, keys: &RemoteKeys) -> Result<KeySet, String> {
    let service = upstreams
        .service(keys.upstream, keys.timeout, Retry::default())
        .ok_or("its upstream has no endpoints of its own")?;
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = service.uri(&keys.path)?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    let answer = service.ask(request, &Name::from("jwt"), keys.timeout, JwtKeys::MAX_SET_BYTES).await?;
    if answer.status != StatusCode::OK {
        return Err(format!("it was answered with {}", answer.status));
    }
    KeySet::parse(&answer.body).map_err(|error| error.to_string())
}

/// What happens to an issuer's tokens while its keys can't be loaded.
pub(crate) fn what_serves(issuer: &Issuer) -> &'static str {
    if issuer.keys.are_there() { "the last good ones stay in use" } else { "its tokens are refused" }
}

fn put(issuer: &Issuer, set: Result<KeySet, String>) {
    let name = &issuer.config.name;
    let outcome = match set {
        Ok(set) => {
            if issuer.keys.put(set) {
                tracing::info!(issuer = %name, "the keys can be loaded again");
            }
            "ok"
        }
        Err(why) => {
            // The request is repeated every few seconds: one line is logged when the failures begin, and one when they end.
            if issuer.keys.failed(&why) {
                tracing::warn!(issuer = %name, why, "the keys can't be loaded: {}", what_serves(issuer));
            }
            "failed"
        }
    };
    metrics().jwt_keys(name, outcome);
}
