//! The metrics that only the control thread sets: the state of the process, of upstreams and of certificates.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use attache_config::model::Name;

use super::{
    AdmissionCounts, CertificateSide, ConfiguredParts, EndpointCounts, Metrics, OverloadGauges,
    expected::Expected,
};

/// The values that only the control thread sets. Locks and locked instructions do no harm there.
#[derive(Debug, Default)]
pub(super) struct ControlValues {
    /// Series that are shown as 0 before anything is counted.
    pub(super) expected: Mutex<Expected>,
    /// What the config says about listeners, routes and upstreams, for attributes of the semantic conventions.
    pub(super) known: Mutex<Arc<ConfiguredParts>>,
    pub(super) endpoints: Mutex<BTreeMap<Name, EndpointCounts>>,
    /// The state of each upstream's failure breaker.
    pub(super) circuits: Mutex<BTreeMap<Name, &'static str>>,
    pub(super) admissions: Mutex<BTreeMap<Name, AdmissionCounts>>,
    /// How many retries run, and how many may run.
    pub(super) retry_budgets: Mutex<BTreeMap<Name, [u32; 2]>>,
    pub(super) overload: Mutex<OverloadGauges>,
    /// By side and name, in seconds since the Unix epoch.
    pub(super) expiries: Mutex<BTreeMap<[Name; 2], u64>>,
    pub(super) certificate_reloads: Outcomes,
    pub(super) certificates_failing: AtomicU64,
    pub(super) credential_reloads: Outcomes,
    pub(super) credentials_failing: AtomicU64,
    pub(super) insecure: Mutex<Vec<Name>>,
    pub(super) config_reloads: Outcomes,
    pub(super) last_reload_failed: AtomicBool,
    /// In seconds since the Unix epoch; 0 before the first config was loaded.
    pub(super) last_loaded: AtomicU64,
}

/// How often a change was put into use (`ok`), and how often it could not be, so that the old state stayed in use.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    ok: AtomicU64,
    failed: AtomicU64,
}

impl Outcomes {
    /// Both counts with their label values.
    pub(super) fn counts(&self) -> [(&'static str, u64); 2] {
        [("failed", self.failed.load(Relaxed)), ("ok", self.ok.load(Relaxed))]
    }
}

/// Ignores poisoning: every value is replaced as a whole, so a panic of another holder leaves it valid.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// Sets how many endpoints of an upstream are in each state.
    pub fn set_endpoints(&self, upstream: &Name, counts: EndpointCounts) {
        lock(&self.0.control.endpoints).insert(Name::clone(upstream), counts);
    }

    /// Sets the state of an upstream's failure breaker: `closed`, `open` or `half-open`. `None` if it has none.
    pub fn set_circuit(&self, upstream: &Name, state: Option<&'static str>) {
        let mut circuits = lock(&self.0.control.circuits);
        match state {
            Some(state) => circuits.insert(Name::clone(upstream), state),
            None => circuits.remove(upstream),
        };
    }

    /// Sets the limit of an upstream, and how many calls run and wait under it.
    pub fn set_admission(&self, upstream: &Name, counts: AdmissionCounts) {
        lock(&self.0.control.admissions).insert(Name::clone(upstream), counts);
    }

    /// Sets how much of an upstream's retry budget is used, and how much there is. `None` if no route to it retries.
    pub fn set_retry_budget(&self, upstream: &Name, used_and_limit: Option<[u32; 2]>) {
        let mut budgets = lock(&self.0.control.retry_budgets);
        match used_and_limit {
            Some(budget) => budgets.insert(Name::clone(upstream), budget),
            None => budgets.remove(upstream),
        };
    }

    /// Sets how much of the process's limits is used, and which actions are taken because of that.
    pub fn set_overload(&self, gauges: OverloadGauges) {
        *lock(&self.0.control.overload) = gauges;
    }

    /// After a reload: the endpoints, breakers and budgets of removed upstreams are no longer reported.
    pub fn retain_upstreams(&self, keep: impl Fn(&Name) -> bool) {
        let control = &self.0.control;
        lock(&control.circuits).retain(|upstream, _| keep(upstream));
        lock(&control.endpoints).retain(|upstream, _| keep(upstream));
        lock(&control.admissions).retain(|upstream, _| keep(upstream));
        lock(&control.retry_budgets).retain(|upstream, _| keep(upstream));
    }

    /// Sets when the certificate that a listener presents, or that is presented to an upstream, expires.
    pub fn set_certificate_expiry(&self, side: CertificateSide, name: &Name, at: SystemTime) {
        lock(&self.0.control.expiries).insert([side.as_str().into(), Name::clone(name)], unix_seconds(at));
    }

    /// After a reload: the certificates of removed listeners and upstreams are no longer reported.
    pub fn retain_certificates(&self, keep: impl Fn(CertificateSide, &Name) -> bool) {
        let mut expiries = lock(&self.0.control.expiries);
        expiries.retain(|[side, name], _| {
            keep(
                if &**side == "listener" { CertificateSide::Listener } else { CertificateSide::Upstream },
                name,
            )
        });
    }

    /// Sets how often changed TLS files were read with and without success since the start, and how many listeners and upstreams use an
    /// older state now.
    pub fn set_certificate_reloads(&self, reloads: u64, failures: u64, failing: u64) {
        let control = &self.0.control;
        if reloads > control.certificate_reloads.ok.swap(reloads, Relaxed) {
            self.0.watch.own_event("certificates", "changed files were put into use");
        }
        if failures > control.certificate_reloads.failed.swap(failures, Relaxed) {
            self.0.watch.own_event("certificates", "changed files can't be used; the older ones stay in use");
        }
        control.certificates_failing.store(failing, Relaxed);
    }

    /// Sets how often changed secrets were read with and without success since the start, and how many can't be used as they are now.
    pub fn set_credential_reloads(&self, reloads: u64, failures: u64, failing: u64) {
        let control = &self.0.control;
        control.credential_reloads.ok.store(reloads, Relaxed);
        control.credential_reloads.failed.store(failures, Relaxed);
        control.credentials_failing.store(failing, Relaxed);
    }

    /// Sets the upstreams whose certificates are not verified. They replace those that were set before.
    pub fn set_insecure_upstreams(&self, upstreams: Vec<Name>) {
        *lock(&self.0.control.insecure) = upstreams;
    }

    /// Notes that a config was loaded (also the first one) or was refused.
    pub fn config_loaded(&self, ok: bool) {
        let control = &self.0.control;
        self.0.watch.own_event("config", if ok { "loaded" } else { "refused; the one before stays in use" });
        control.last_reload_failed.store(!ok, Relaxed);
        if ok {
            control.config_reloads.ok.fetch_add(1, Relaxed);
            control.last_loaded.store(unix_seconds(SystemTime::now()), Relaxed);
        } else {
            control.config_reloads.failed.fetch_add(1, Relaxed);
        }
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
