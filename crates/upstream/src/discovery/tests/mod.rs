mod dns;
mod dns_server;
mod on_demand;
mod refresh;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use attache_config::model::{Address, EndpointSource, EndpointTarget, Upstream};
use attache_telemetry::Reason;
use tokio::time::Instant;

use super::*;
use crate::{SharedUpstream, test_support::upstream};

/// A scripted look-up: it gives the answers in turn, and then repeats the last one. It records when it was asked for
/// what.
struct ScriptedLookup {
    answers: Mutex<VecDeque<Result<LookupAnswer, LookupError>>>,
    asked: Mutex<Vec<(Duration, EndpointTarget)>>,
    began: Instant,
    takes: Duration,
}

impl ScriptedLookup {
    fn new(answers: impl IntoIterator<Item = Result<LookupAnswer, LookupError>>) -> Arc<Self> {
        Self::slow(Duration::ZERO, answers)
    }

    fn slow(
        takes: Duration,
        answers: impl IntoIterator<Item = Result<LookupAnswer, LookupError>>,
    ) -> Arc<Self> {
        let answers = Mutex::new(answers.into_iter().collect());
        Arc::new(Self { answers, asked: Mutex::default(), began: Instant::now(), takes })
    }

    /// Seconds since the beginning at which it was asked.
    fn asked_at(&self) -> Vec<u64> {
        self.asked.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect()
    }
}

impl Lookup for ScriptedLookup {
    async fn lookup(&self, target: &EndpointTarget) -> Result<LookupAnswer, LookupError> {
        self.asked.lock().unwrap().push((self.began.elapsed(), target.clone()));
        tokio::time::sleep(self.takes).await;
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers.front().unwrap().clone() }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands beside `bad` in lists of results")]
fn good(ttl: u64, addresses: &[&str]) -> Result<LookupAnswer, LookupError> {
    let found = |address: &&str| DiscoveredAddress {
        address: format!("{address}:80").parse().unwrap(),
        name: "orders".into(),
        host: "orders".into(),
        weight: 1,
        priority: 0,
        zone: None,
    };
    let found = addresses.iter().map(found).collect();
    Ok(LookupAnswer { found, ttl: Duration::from_secs(ttl), gaps: Vec::new() })
}

fn bad(reason: Reason) -> Result<LookupAnswer, LookupError> {
    Err(LookupError::new(reason, "by script"))
}

fn source(target: EndpointTarget) -> EndpointSource {
    EndpointSource::new(target)
}

fn dns_name(host: &str) -> EndpointTarget {
    EndpointTarget::Dns { host: host.into(), port: 80 }
}

fn shared_of(sources: Vec<EndpointSource>) -> Arc<SharedUpstream> {
    Arc::new(SharedUpstream::new(Arc::new(Upstream {
        address: Address::Endpoints(sources),
        ..upstream("orders")
    })))
}

/// `LABEL weight/priority` of every endpoint.
fn listed(shared: &SharedUpstream) -> Vec<String> {
    let set = shared.endpoints.load();
    set.endpoints.iter().map(|e| format!("{} {}/{}", e.label, e.weight(), e.priority())).collect()
}

fn labels(shared: &SharedUpstream) -> Vec<String> {
    shared.endpoints.load().endpoints.iter().map(|e| e.label.to_string()).collect()
}
