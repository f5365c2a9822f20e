//! The tasks of the control thread for a generation that serves: look-ups, health checks, ends of ejections.
//!
//! The rule for the next generation: a part with an unchanged config is not touched. An upstream that is new, or that has other addresses,
//! is looked up before the switch, for a limited time. An upstream with other changes starts with the endpoints of the old one, their
//! health and their ejections, at the moment of the switch. Two look-ups of one upstream never run at the same time.

use std::{sync::Arc, time::Duration};

use attache_admin::Readiness;
use attache_config::model::Dns;
use attache_resilience::UpstreamState;
use attache_upstream::{
    SharedUpstream,
    connect::Tls,
    discovery::{self, Discovery, OnDemand, Resolver},
    health, outlier,
};
use tokio::{
    task::{JoinSet, spawn_local},
    time::timeout,
};

use crate::{
    credentials::Credentials,
    error::Error,
    generation::{Generation, UpstreamParts, is_on_demand},
    prepare::{PreparedGeneration, UpstreamSource},
    process::ProcessState,
};

/// How long the first look-ups may delay the start, or a switch; they continue after it.
pub(crate) const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long first look-ups may delay `/readyz`, whatever a DNS server does.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// All tasks for the upstreams of the generation that serves.
#[derive(Default)]
pub(crate) struct Upkeep {
    resolver: Option<(Dns, Arc<Resolver>)>,
    running: Vec<UpstreamTasks>,
    /// Follows the SPIFFE agent's responses.
    workload: JoinSet<()>,
}

/// The tasks of one upstream. They end when this is dropped.
struct UpstreamTasks {
    shared: Arc<SharedUpstream>,
    discovery: Discovery,
    // Dropping this aborts the tasks.
    tasks: JoinSet<()>,
}

impl UpstreamTasks {
    fn start(
        shared: &Arc<SharedUpstream>,
        tls: Option<Tls>,
        credentials: &Credentials,
        resolver: &Arc<Resolver>,
        dns: &Dns,
    ) -> Self {
        let discovery = discovery::start(shared.clone(), resolver.clone(), dns);
        let mut tasks = JoinSet::new();
        let checked = shared.clone();
        let wanted = shared.config.credential.as_deref().filter(|wanted| wanted.health_checks);
        let credential = wanted.and_then(|wanted| credentials.get(wanted)).cloned();
        tasks.spawn_local(async move { health::run(&checked, tls.as_ref(), credential.as_ref()).await });
        let judged = shared.clone();
        tasks.spawn_local(async move { outlier::run(&judged).await });
        Self { shared: shared.clone(), discovery, tasks }
    }

    /// Reports to readiness when the first look-up has ended, even if that is after the start.
    fn tell(&mut self, readiness: &Readiness) {
        let (ready, readiness) = (self.discovery.ready(), readiness.clone());
        let name = self.shared.config.name.clone();
        self.tasks.spawn_local(async move {
            ready.await;
            readiness.discovered(&name);
        });
    }
}

impl Upkeep {
    /// Makes the generation from the prepared parts, ready to serve. After the first change no step can fail.
    pub(crate) async fn next_generation(
        &mut self,
        prepared: PreparedGeneration,
        before: &Generation,
        process: &ProcessState,
    ) -> Result<Generation, Error> {
        let PreparedGeneration {
            config,
            upstreams,
            listeners,
            access_log,
            exported,
            collectors,
            credentials,
            issuers,
            workload,
            ..
        } = prepared;
        let dns = &config.dns;
        let same_dns = self.resolver.as_ref().is_some_and(|(known, _)| known == dns);
        let resolver = match &self.resolver {
            Some((_, resolver)) if same_dns => resolver.clone(),
            _ => Arc::new(Resolver::new(dns).map_err(Error::Dns)?),
        };

        // An upstream that is new can be looked up while the old generation serves.
        let start = |shared: &Arc<SharedUpstream>, tls: Option<Tls>| {
            UpstreamTasks::start(shared, tls, &credentials, &resolver, dns)
        };
        let (steps, mut fresh) = begin(upstreams, before, &start);
        if before.number == 0 {
            let names = config.upstreams.iter().map(|upstream| upstream.name.clone());
            process.readiness.discovering(names, READY_TIMEOUT);
            let on_demand = config.upstreams.iter().filter(|upstream| is_on_demand(upstream));
            on_demand.for_each(|upstream| process.readiness.discovered(&upstream.name));
        }
        for upstream in &mut fresh {
            upstream.tell(&process.readiness);
        }
        first_answers(&fresh).await;

        // From here on nothing waits and nothing fails.
        self.running.append(&mut fresh);
        let on_demand = |shared: &Arc<SharedUpstream>| {
            let config = shared.config.clone();
            is_on_demand(&config).then(|| Arc::new(OnDemand::start(config, resolver.clone(), dns)))
        };
        let upstreams =
            steps.into_iter().map(|step| self.complete(step, same_dns, &start, &on_demand)).collect();
        self.resolver = Some((dns.clone(), resolver));
        if workload.is_none() || before.workload.is_none() {
            self.workload = JoinSet::new();
            if let Some(workload) = workload.clone() {
                self.workload.spawn_local(workload.run());
            }
        }
        before.exported.end_unless_kept(&exported);
        for collector in collectors {
            process.exports(spawn_local(collector.run()));
        }
        process.metrics.expect(&config);
        let number = before.number + 1;
        Ok(Generation {
            number,
            config,
            upstreams,
            listeners,
            access_log,
            exported,
            credentials,
            issuers,
            workload,
        })
    }

    /// The parts of an upstream. Its discovery and health checks run from now on. `same_dns`: the resolver is that of the old generation.
    fn complete(
        &mut self,
        step: UpstreamStep,
        same_dns: bool,
        start: &impl Fn(&Arc<SharedUpstream>, Option<Tls>) -> UpstreamTasks,
        on_demand: &impl Fn(&Arc<SharedUpstream>) -> Option<Arc<OnDemand>>,
    ) -> UpstreamParts {
        match step {
            UpstreamStep::Keep(parts) if same_dns => parts,
            UpstreamStep::Keep(parts) => {
                let on_demand = on_demand(parts.shared());
                if on_demand.is_none() {
                    self.end(parts.shared());
                    self.running.push(start(parts.shared(), parts.tls.clone()));
                }
                UpstreamParts { on_demand, hosts: Arc::default(), ..parts }
            }
            UpstreamStep::Begin(shared, tls) => UpstreamParts {
                on_demand: on_demand(&shared),
                resilience: UpstreamState::new(shared),
                tls,
                hosts: Arc::default(),
            },
            UpstreamStep::Inherit(config, tls, old) => {
                self.end(old.shared());
                let shared = Arc::new(SharedUpstream::inherit_from(config, old.shared()));
                let on_demand = on_demand(&shared);
                if on_demand.is_none() {
                    self.running.push(start(&shared, tls.clone()));
                }
                let resilience = UpstreamState::inherit_from(shared, &old.resilience);
                UpstreamParts { resilience, tls, on_demand, hosts: Arc::default() }
            }
        }
    }

    /// Ends the tasks for upstreams that `generation` no longer has.
    pub(crate) fn retain(&mut self, generation: &Generation) {
        self.running.retain(|running| {
            generation.upstreams.iter().any(|parts| Arc::ptr_eq(parts.shared(), &running.shared))
        });
    }

    fn end(&mut self, shared: &Arc<SharedUpstream>) {
        self.running.retain(|running| !Arc::ptr_eq(&running.shared, shared));
    }
}

/// What becomes of each upstream, and what runs for those that are there for the first time.
fn begin(
    upstreams: Vec<UpstreamSource>,
    before: &Generation,
    start: &impl Fn(&Arc<SharedUpstream>, Option<Tls>) -> UpstreamTasks,
) -> (Vec<UpstreamStep>, Vec<UpstreamTasks>) {
    let known = before.by_name();
    let mut fresh = Vec::new();
    let mut steps = Vec::new();
    for source in upstreams {
        steps.push(match source {
            UpstreamSource::Kept(parts) => UpstreamStep::Keep(parts),
            UpstreamSource::New { config, tls } => {
                let old = known.get(&*config.name).copied();
                let old = old.filter(|old| old.shared().config.address == config.address);
                if let Some(old) = old {
                    UpstreamStep::Inherit(config, tls, old.clone())
                } else {
                    let shared = Arc::new(SharedUpstream::new(config));
                    if !is_on_demand(&shared.config) {
                        fresh.push(start(&shared, tls.clone()));
                    }
                    UpstreamStep::Begin(shared, tls)
                }
            }
        });
    }
    (steps, fresh)
}

/// What happens to one upstream at the switch.
enum UpstreamStep {
    Keep(UpstreamParts),
    Begin(Arc<SharedUpstream>, Option<Tls>),
    Inherit(Arc<attache_config::model::Upstream>, Option<Tls>, UpstreamParts),
}

async fn first_answers(running: &[UpstreamTasks]) {
    let all = async {
        for upstream in running {
            upstream.discovery.ready().await;
        }
    };
    if timeout(DISCOVERY_TIMEOUT, all).await.is_err() {
        tracing::warn!(
            "some names have no answer after {DISCOVERY_TIMEOUT:?}; attache starts to serve, and the look-ups continue"
        );
    }
}
