//! Follows the files of every connector, acceptor and credential, and warns before a certificate expires.
//!
//! Files are polled: see `docs/decisions/0006-tls-files-are-polled.md`. This takes one `stat` per file and second; a
//! file is read only when its metadata changes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{
    Acceptor, Certificate, Connector, CredentialHeader,
    live::{FilesCheck, Follow},
};

/// The task that follows TLS files, for the control thread. Clones share one state.
#[derive(Clone)]
pub struct FileWatcher {
    inner: Arc<WatcherState>,
}

struct WatcherState {
    /// Nanoseconds.
    interval: AtomicU64,
    followed: Mutex<Vec<Weak<dyn Follow>>>,
    reloads: AtomicU64,
    failures: AtomicU64,
    /// The sources that can't be used now, and why.
    failing: Mutex<Vec<String>>,
    warned: Mutex<HashMap<[u8; 32], Duration>>,
}

/// Counters of the watcher, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchStatus {
    /// Changes that were put into use, since the start.
    pub reloads: u64,
    /// Changes that could not be used, each counted once, since the start.
    pub reload_failures: u64,
    /// Connectors and acceptors whose files can't be used now, so that an older state serves.
    pub failing: u64,
}

/// Something whose files can be followed.
pub struct FollowedSource(Weak<dyn Follow>);

impl From<&Connector> for FollowedSource {
    fn from(connector: &Connector) -> Self {
        Self(connector.follow())
    }
}

impl From<&Acceptor> for FollowedSource {
    fn from(acceptor: &Acceptor) -> Self {
        Self(acceptor.follow())
    }
}

impl From<&CredentialHeader> for FollowedSource {
    fn from(credential: &CredentialHeader) -> Self {
        Self(credential.follow())
    }
}

impl Default for FileWatcher {
    /// Checks once a second.
    fn default() -> Self {
        Self::new(Duration::from_secs(1))
    }
}

impl FileWatcher {
    /// Checks once per `interval`; a change is used after two checks have found the same content.
    pub fn new(interval: Duration) -> Self {
        Self {
            inner: Arc::new(WatcherState {
                interval: AtomicU64::new(nanos(interval)),
                followed: Mutex::default(),
                reloads: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                failing: Mutex::default(),
                warned: Mutex::default(),
            }),
        }
    }

    /// Follows a connector's or acceptor's files until its last clone is dropped.
    pub fn follow(&self, source: impl Into<FollowedSource>) {
        let mut followed = self.inner.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.push(source.into().0);
    }

    /// Checks until the process ends, each time after `wait` has waited for the interval. Files are read on the
    /// runtime's blocking threads, so that a hung network volume blocks nothing else. If nothing is followed, no thread
    /// is woken.
    pub async fn run(self, wait: impl AsyncFn(Duration)) {
        loop {
            wait(Duration::from_nanos(self.inner.interval.load(Ordering::Relaxed))).await;
            if self.sources().is_empty() {
                self.look();
                continue;
            }
            let this = self.clone();
            // The panic hook reports a panic inside; the next check continues.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Sets the interval of the checks.
    pub fn look_every(&self, interval: Duration) {
        self.inner.interval.store(nanos(interval), Ordering::Relaxed);
    }

    /// Checks once, now.
    pub fn look(&self) {
        let now = SystemTime::now();
        let mut failing = Vec::new();
        for source in self.sources() {
            match source.look(now) {
                FilesCheck::Unchanged | FilesCheck::Settling => {}
                FilesCheck::Reloaded => {
                    self.inner.reloads.fetch_add(1, Ordering::Relaxed);
                }
                FilesCheck::Failed(why) => {
                    self.inner.failures.fetch_add(1, Ordering::Relaxed);
                    failing.push(why);
                }
                FilesCheck::StillFailing(why) => failing.push(why),
            }
        }
        *self.inner.failing.lock().unwrap_or_else(PoisonError::into_inner) = failing;
        self.warn(now);
    }

    /// Counters for metrics.
    pub fn status(&self) -> WatchStatus {
        WatchStatus {
            reloads: self.inner.reloads.load(Ordering::Relaxed),
            reload_failures: self.inner.failures.load(Ordering::Relaxed),
            failing: self.failing().len() as u64,
        }
    }

    /// Why files can't be used now, so that an older state serves: one text for each connector, acceptor or credential.
    pub fn failing(&self) -> Vec<String> {
        self.inner.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// attache's own certificates in use, each once, the first to expire first.
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        let mut all: Vec<_> = self.sources().iter().flat_map(|source| source.certificates()).collect();
        all.sort_by(|a, b| (a.not_after, &a.file, a.sha256).cmp(&(b.not_after, &b.file, b.sha256)));
        all.dedup();
        all
    }

    fn sources(&self) -> Vec<Arc<dyn Follow>> {
        let mut followed = self.inner.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|source| source.strong_count() > 0);
        followed.iter().filter_map(Weak::upgrade).collect()
    }

    fn warn(&self, now: SystemTime) {
        let certificates = self.certificates();
        let mut warned = self.inner.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.retain(|sha256, _| certificates.iter().any(|c| c.sha256 == *sha256));
        for certificate in certificates {
            let Some(due) = due_warning(&certificate, now) else { continue };
            if warned.get(&certificate.sha256).is_some_and(|done| *done <= due) {
                continue;
            }
            warned.insert(certificate.sha256, due);
            let left = certificate.remaining(now);
            tracing::warn!(
                certificate = certificate.name(),
                file = ?certificate.file,
                "certificate expires in {} h: it should have been renewed",
                left.as_secs() / 3600
            );
        }
    }
}

fn nanos(interval: Duration) -> u64 {
    u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX)
}

const DAY: Duration = Duration::from_hours(24);

/// The smallest threshold that has been crossed: 30, 7, 1 days, a tenth of the lifetime. A threshold above a third of
/// the lifetime is left out: otherwise a certificate for one day would cause warnings during its whole life.
fn due_warning(certificate: &Certificate, now: SystemTime) -> Option<Duration> {
    let (left, lifetime) = (certificate.remaining(now), certificate.lifetime());
    let mut thresholds = [DAY * 30, DAY * 7, DAY, lifetime / 10];
    thresholds.sort_unstable();
    thresholds.into_iter().find(|threshold| left <= *threshold && *threshold <= lifetime / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(lifetime: Duration, age: Duration) -> (Certificate, SystemTime) {
        let now = SystemTime::UNIX_EPOCH + DAY * 20000;
        let certificate = Certificate {
            file: None,
            subject: String::new(),
            issuer: String::new(),
            uris: Vec::new(),
            dns: Vec::new(),
            ips: Vec::new(),
            not_before: now - age,
            not_after: now - age + lifetime,
            sha256: [0; 32],
        };
        (certificate, now)
    }

    #[test]
    fn a_year_long_certificate_warns_at_thirty_seven_and_one_days() {
        let due = |age| {
            let (certificate, now) = certificate(DAY * 365, age);
            due_warning(&certificate, now)
        };
        assert_eq!(due(DAY * 300), None);
        assert_eq!(due(DAY * 329), Some(DAY * 73 / 2), "a tenth of the lifetime");
        assert_eq!(due(DAY * 335), Some(DAY * 30));
        assert_eq!(due(DAY * 358), Some(DAY * 7));
        assert_eq!(due(DAY * 364), Some(DAY));
        assert_eq!(due(DAY * 400), Some(DAY));
    }

    #[test]
    fn an_hour_long_certificate_is_not_late_before_its_last_tenth() {
        let hour = Duration::from_secs(3600);
        let due = |age| {
            let (certificate, now) = certificate(hour, age);
            due_warning(&certificate, now)
        };
        assert_eq!(due(hour / 2), None);
        assert_eq!(due(hour * 11 / 12), Some(hour / 10));
    }
}
