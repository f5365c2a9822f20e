//! Endpoints of a Service from the API server: `kubernetes://SERVICE.NAMESPACE:PORT`.
//!
//! **Rule.** List, then watch from that version on (Kubernetes API concepts, "Efficient detection of changes"). A watch
//! ends by its own timeout, and the next one continues at the last version that was seen, which bookmarks keep current.
//! After 410 Gone, and after any other error of a watch, everything is listed again. While the API server can't be
//! reached, the last good answer stays in use.
//!
//! **Load on the API server.** The first list may be answered from its cache (`resourceVersion=0`). After a list or a
//! watch that lasted less than half a minute comes a wait that doubles from 1 s up to half a minute, or the wait that
//! `Retry-After` says. Events that come close together are published together.

mod api;
mod lines;
mod object;
mod slices;
#[cfg(test)]
mod tests;

use std::{
    env,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use attache_config::model::KubernetesService;
use attache_telemetry::{Reason, metrics};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::{
    api::{ApiError, KubernetesApi},
    lines::LineReader,
    object::{Slice, SliceList, WatchEvent},
    slices::{EndpointFilter, Slices},
};
use super::{
    lookup::{LookupAnswer, LookupError},
    merge::{Merge, ResultChange},
    refresh::lock,
};

/// The most bytes of a list: ten thousand endpoints have about five million.
const MAX_LIST_BYTES: usize = 32 << 20;
/// Time for a whole list.
const LIST: Duration = Duration::from_secs(30);
/// How long the API server is asked to keep a watch; up to a fifth less at random, so that they don't all end together.
const WATCH: Duration = Duration::from_mins(5);
/// How much longer than that a watch may last.
const LATE: Duration = Duration::from_secs(30);

/// Waits between requests to the API server.
#[derive(Clone, Copy, Debug)]
struct RequestPace {
    /// After the first failure.
    first: Duration,
    /// The longest. A list or watch that lasted longer than this has not failed.
    longest: Duration,
    /// The shortest time between two published sets of endpoints.
    publish: Duration,
}

const PACE: RequestPace = RequestPace {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    publish: Duration::from_millis(100),
};

/// Keeps one source of an upstream fresh.
pub(super) struct KubernetesTask {
    merge: Arc<Mutex<Merge>>,
    source: usize,
    wanted: EndpointFilter,
    untried: watch::Sender<usize>,
    pace: RequestPace,
    slices: Slices,
    /// The version to watch from; with `None` the slices must be listed.
    version: Option<String>,
    /// The API server said that its cache may be too old for us.
    newest: bool,
    /// The first list has ended, with any result.
    tried: bool,
    /// The last reports about endpoints that can't be used, and about slices that can't be read.
    told: [Option<String>; 2],
}

/// The part of an answer with a problem.
#[derive(Clone, Copy, Debug)]
enum AnswerPart {
    Endpoints,
    Slice,
}

impl KubernetesTask {
    pub(super) fn new(
        merge: Arc<Mutex<Merge>>,
        source: usize,
        service: KubernetesService,
        untried: watch::Sender<usize>,
    ) -> Self {
        let zone = lock(&merge).shared().config.balance.zone.clone();
        let v6 =
            |name: &str| env::var(name).ok().and_then(|ip| ip.parse().ok()).map(|ip: IpAddr| ip.is_ipv6());
        let prefer_v6 = v6("POD_IP").or_else(|| v6("KUBERNETES_SERVICE_HOST")).unwrap_or(false);
        Self {
            merge,
            source,
            wanted: EndpointFilter { service, zone, prefer_v6 },
            untried,
            pace: PACE,
            slices: Slices::default(),
            version: None,
            newest: false,
            tried: false,
            told: [None, None],
        }
    }

    /// Never ends.
    pub(super) async fn run(self) {
        self.run_with(KubernetesApi::of_this_pod).await;
    }

    async fn run_with(mut self, api: impl Fn() -> Result<KubernetesApi, ApiError>) {
        let mut pause = self.pace.first;
        loop {
            let begun = Instant::now();
            let ended = match api() {
                Ok(api) => self.turn(&api).await,
                Err(problem) => Err(problem),
            };
            let lasted = begun.elapsed() > self.pace.longest;
            if lasted {
                pause = self.pace.first;
            }
            // Up to a fifth less at random, because many sidecars lose the same API server at once.
            let mut wait = pause.mul_f64(1.0 - 0.2 * fastrand::f64());
            match ended {
                Ok(()) if lasted => continue,
                Ok(()) => {}
                Err(ApiError::Gone) => {
                    (self.version, self.newest) = (None, true);
                    if lasted {
                        continue;
                    }
                }
                Err(ApiError::Away { detail, after }) => {
                    wait = wait.max(after.unwrap_or_default());
                    self.failed(&detail, wait);
                }
                Err(ApiError::Refused(detail)) => {
                    (self.version, self.newest) = (None, true);
                    self.failed(&detail, wait);
                }
            }
            pause = (pause * 2).min(self.pace.longest);
            sleep(wait).await;
        }
    }

    /// Lists if that is needed, and watches until the watch ends.
    async fn turn(&mut self, api: &KubernetesApi) -> Result<(), ApiError> {
        let from = if let Some(from) = &self.version {
            from.clone()
        } else {
            let list = timeout(LIST, self.list(api)).await;
            let list =
                list.map_err(|_| ApiError::away(format!("{api} sent no whole list within {LIST:?}")))??;
            let SliceList { version, slices, unreadable, wrong } = list;
            self.slices.replace(slices, &unreadable).map_err(ApiError::Refused)?;
            self.publish();
            self.tell(AnswerPart::Slice, wrong);
            (self.version, self.newest) = (Some(version.clone()), false);
            version
        };
        let seconds = (WATCH.as_secs_f64() * (1.0 - 0.2 * fastrand::f64())) as u64;
        let path = format!(
            "{}&watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={from}",
            self.path()
        );
        let watching = timeout(Duration::from_secs(seconds) + LATE, self.watch(api, &path));
        // A watch that never ends is cut, and a new one continues it.
        watching.await.unwrap_or(Ok(()))
    }

    fn path(&self) -> String {
        let KubernetesService { name, namespace, .. } = &self.wanted.service;
        // Both are DNS labels, so nothing in them needs escaping.
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
        )
    }

    async fn list(&self, api: &KubernetesApi) -> Result<SliceList, ApiError> {
        let mut path = self.path();
        if !self.newest {
            path.push_str("&resourceVersion=0");
        }
        let text = api.get(&path).await?.text(MAX_LIST_BYTES).await?;
        self.count(Ok(()));
        SliceList::parse(&text).map_err(|wrong| ApiError::Refused(format!("{api}: {wrong}")))
    }

    async fn watch(&mut self, api: &KubernetesApi, path: &str) -> Result<(), ApiError> {
        let mut answered = api.get(path).await?;
        self.count(Ok(()));
        // The API server works again, so the failure ends, although no endpoint has changed.
        self.publish();
        let (mut lines, mut published, mut changed) = (LineReader::default(), Instant::now(), false);
        loop {
            let data = tokio::select! {
                data = answered.data() => data,
                () = sleep_until(published + self.pace.publish), if changed => {
                    self.publish();
                    (published, changed) = (Instant::now(), false);
                    continue;
                }
            };
            let ended = match data {
                Ok(Some(data)) => self.take_lines(&mut lines, &data, &mut changed).err(),
                Ok(None) => {
                    if changed {
                        self.publish();
                    }
                    return Ok(());
                }
                Err(problem) => Some(problem),
            };
            if changed && (ended.is_some() || published.elapsed() >= self.pace.publish) {
                self.publish();
                (published, changed) = (Instant::now(), false);
            }
            if let Some(problem) = ended {
                return Err(problem);
            }
        }
    }

    fn take_lines(
        &mut self,
        lines: &mut LineReader,
        data: &[u8],
        changed: &mut bool,
    ) -> Result<(), ApiError> {
        let lines =
            lines.take(data).map_err(|_| ApiError::Refused("an event is longer than any can be".into()))?;
        for line in lines {
            *changed |= self.take(&line)?;
        }
        Ok(())
    }

    /// Takes one event; true if it changed something.
    fn take(&mut self, line: &[u8]) -> Result<bool, ApiError> {
        let event: WatchEvent = serde_json::from_slice(line)
            .map_err(|error| ApiError::Refused(format!("an event can't be read: {error}")))?;
        let text =
            |place: &str| event.object.pointer(place).and_then(Value::as_str).unwrap_or_default().to_owned();
        if event.kind == "ERROR" {
            return Err(match event.object.get("code").and_then(Value::as_u64) {
                Some(410) => ApiError::Gone,
                code => ApiError::Refused(format!(
                    "the API server ended the watch with {}: {}",
                    code.unwrap_or_default(),
                    text("/message").escape_debug()
                )),
            });
        }
        let name = text("/metadata/name");
        let version = object::version(text("/metadata/resourceVersion")).map_err(ApiError::Refused)?;
        let changed = match event.kind.as_str() {
            "ADDED" | "MODIFIED" => match serde_json::from_value::<Slice>(event.object) {
                Ok(slice) => {
                    self.slices.set(slice).map_err(ApiError::Refused)?;
                    true
                }
                // The last good version of the slice stays: the next one may be valid.
                Err(error) => {
                    self.tell(AnswerPart::Slice, Some(format!("the slice `{name}` can't be read: {error}")));
                    false
                }
            },
            "DELETED" => {
                self.slices.remove(&name);
                true
            }
            // BOOKMARK, and what later versions may add.
            _ => false,
        };
        self.version = Some(version);
        Ok(changed)
    }

    fn tried(&mut self) {
        if !std::mem::replace(&mut self.tried, true) {
            self.untried.send_modify(|untried| *untried = untried.saturating_sub(1));
        }
    }

    fn publish(&mut self) {
        let chosen = self.slices.choose(&self.wanted);
        if let (true, Some(trouble)) = (chosen.found.is_empty(), &chosen.trouble) {
            self.settle(Err(trouble.clone()), WATCH);
            return;
        }
        self.tell(AnswerPart::Endpoints, chosen.trouble);
        self.settle(Ok(LookupAnswer { found: chosen.found, ttl: WATCH, gaps: Vec::new() }), WATCH);
    }

    fn failed(&mut self, detail: &str, wait: Duration) {
        self.count(Err(Reason::DiscoveryFailed));
        self.settle(Err(detail.to_owned()), wait);
    }

    /// Handles an answer, or its absence.
    fn settle(&mut self, result: Result<LookupAnswer, String>, next: Duration) {
        let service = self.wanted.service.to_string();
        let reason = Reason::DiscoveryFailed;
        let mut merge = lock(&self.merge);
        let noted =
            result.as_ref().map(|answer| answer.found.len()).map_err(|detail| (reason, detail.clone()));
        let detail = result.as_ref().err().cloned().unwrap_or_default();
        merge.shared().lookups.note(service.clone(), Instant::now() + next, noted);
        let turn = merge.take(self.source, result.map_err(|detail| LookupError::new(reason, detail)));
        let upstream = &merge.shared().config.name;
        let serving = merge.shared().endpoints.load().endpoints.len();
        match turn {
            ResultChange::Same => {}
            ResultChange::Failed(_) if serving == 0 => tracing::warn!(
                %upstream, service, %reason, detail,
                "the endpoints of a Service can't be loaded, and none is known: calls fail until they can"
            ),
            ResultChange::Failed(_) => tracing::warn!(
                %upstream, service, %reason, detail, endpoints = serving,
                "the endpoints of a Service can't be loaded; those of the last good answer stay in use"
            ),
            ResultChange::Recovered => {
                tracing::info!(%upstream, service, endpoints = serving, "the endpoints of a Service can be loaded again");
            }
        }
        drop(merge);
        self.tried();
    }

    /// Logs a problem with a part of an answer, once.
    fn tell(&mut self, part: AnswerPart, trouble: Option<String>) {
        let Some(told) = self.told.get_mut(part as usize).filter(|told| **told != trouble) else { return };
        told.clone_from(&trouble);
        if let Some(detail) = &trouble {
            let upstream = lock(&self.merge).shared().config.name.clone();
            tracing::warn!(%upstream, service = %self.wanted.service, detail, "a part of a Service's endpoints is left out");
        }
    }

    fn count(&self, outcome: Result<(), Reason>) {
        metrics().endpoint_slices(&lock(&self.merge).shared().config.name, outcome);
    }
}
