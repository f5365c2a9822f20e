//! A TLS configuration that follows its files.
//!
//! Everything of one connector or acceptor (own certificate, roots, revocation lists) is one value that is built from
//! one reading of its files and swapped whole. Rule for a change:
//!
//! 1. It is *noticed* by `stat`. So a swapped symbolic link (Kubernetes), a file renamed over another (cert-manager,
//!    Vault Agent) and a file written in place are all noticed.
//! 2. It must *settle*: two readings in a row must be equal. Before that, a link may be half swapped or a file half
//!    written.
//! 3. A new value is *built*, and swapped in if that succeeds and attache's certificate is valid now. Otherwise the
//!    last good value stays; the failure is counted, logged once for that content, and the build is tried again at every
//!    check.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;

use crate::{
    Certificate, Error,
    files::{FileStat, FilesSnapshot, Sources, stat},
    spiffe::Workload,
};

/// The objects that were made from one reading.
#[derive(Debug)]
pub(crate) struct BuiltConfig<C> {
    pub(crate) config: C,
    /// attache's own leaf certificates.
    pub(crate) certificates: Vec<Arc<Certificate>>,
}

type Build<C> = Box<dyn Fn(&FilesSnapshot) -> Result<BuiltConfig<C>, Error> + Send + Sync>;

/// The value in use, and how it is made again.
pub(crate) struct Reloadable<C> {
    current: ArcSwap<BuiltConfig<C>>,
    sources: Sources,
    build: Build<C>,
    /// `stat` of the file system; a test has its own.
    stat: fn(&Path) -> Option<FileStat>,
    /// Only the control thread takes this lock.
    progress: Mutex<ReloadProgress>,
}

struct ReloadProgress {
    seen: Vec<Option<FileStat>>,
    svid: Option<[u8; 32]>,
    /// A time stamp was so recent when it was read that a later change could have the same one.
    fresh: bool,
    loaded: [u8; 32],
    pending: Option<[u8; 32]>,
    failed: Option<[u8; 32]>,
}

/// The result of one check of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilesCheck {
    /// No change.
    Unchanged,
    /// Changed; waits until the next check finds the same content.
    Settling,
    /// Changed, and in use from now on.
    Reloaded,
    /// Changed, and not usable for this reason; reported just now.
    Failed(String),
    /// Still not usable, as reported before.
    StillFailing(String),
}

/// The interface of a live value for the watcher.
pub(crate) trait Follow: Send + Sync {
    fn look(&self, now: SystemTime) -> FilesCheck;
    fn certificates(&self) -> Vec<Arc<Certificate>>;
}

impl<C: Send + Sync> Reloadable<C> {
    /// Reads and builds. The error names the file and its problem.
    pub(crate) fn new(sources: Sources, build: Build<C>) -> Result<Arc<Self>, Error> {
        Self::new_or(sources, build, Err)
    }

    /// The same, with a value to use until the files can be used.
    pub(crate) fn new_or(
        mut sources: Sources,
        build: Build<C>,
        otherwise: impl FnOnce(Error) -> Result<BuiltConfig<C>, Error>,
    ) -> Result<Arc<Self>, Error> {
        sources.paths.sort_unstable();
        sources.paths.dedup();
        let (seen, fresh) = stats(&sources.paths, stat, SystemTime::now());
        let svid = sources.workload.as_ref().and_then(Workload::digest);
        let snapshot = FilesSnapshot::read(&sources);
        let first = build(&snapshot);
        let failed = first.is_err().then(|| snapshot.digest());
        let first = first.or_else(otherwise)?;
        for certificate in &first.certificates {
            if let Err(error) = valid(certificate, SystemTime::now()) {
                // attache starts all the same, so that everything else works; peers will refuse this certificate.
                tracing::error!("{error}: peers will refuse it until it is replaced");
            }
        }
        // After a failure nothing is loaded, so the next checks try again.
        let loaded = if failed.is_some() { [0; 32] } else { snapshot.digest() };
        let progress = ReloadProgress { seen, svid, fresh, loaded, pending: None, failed };
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(first),
            sources,
            build,
            stat,
            progress: Mutex::new(progress),
        }))
    }

    pub(crate) fn current(&self) -> Arc<BuiltConfig<C>> {
        self.current.load_full()
    }

    /// Calls `read` with the value in use. This changes no counter that threads share.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&C) -> T) -> T {
        read(&self.current.load().config)
    }

    fn rebuild(&self, snapshot: &FilesSnapshot, now: SystemTime) -> Result<(), Error> {
        let built = (self.build)(snapshot)?;
        built.certificates.iter().try_for_each(|leaf| valid(leaf, now)).map_err(Error::identity)?;
        for leaf in &built.certificates {
            tracing::info!(certificate = leaf.name(), file = ?leaf.file, "certificate files changed: reloaded");
        }
        if built.certificates.is_empty() {
            tracing::info!(files = ?self.sources.paths, "files changed: reloaded");
        }
        self.current.store(Arc::new(built));
        Ok(())
    }
}

impl<C: Send + Sync> Follow for Reloadable<C> {
    fn look(&self, now: SystemTime) -> FilesCheck {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, fresh) = stats(&self.sources.paths, self.stat, now);
        let waiting = progress.fresh || progress.pending.is_some() || progress.failed.is_some();
        let svid = self.sources.workload.as_ref().and_then(Workload::digest);
        if seen == progress.seen && svid == progress.svid && !waiting {
            return FilesCheck::Unchanged;
        }
        progress.seen = seen;
        progress.svid = svid;
        progress.fresh = fresh;
        let snapshot = FilesSnapshot::read(&self.sources);
        let digest = snapshot.digest();
        if digest == progress.loaded {
            progress.pending = None;
            if progress.failed.take().is_some() {
                tracing::info!(files = ?self.sources.paths, "the files are again what they were: they can be used");
            }
            return FilesCheck::Unchanged;
        }
        if progress.failed != Some(digest) && progress.pending != Some(digest) {
            progress.pending = Some(digest);
            return FilesCheck::Settling;
        }
        progress.pending = None;
        match self.rebuild(&snapshot, now) {
            Ok(()) => {
                progress.loaded = digest;
                progress.failed = None;
                FilesCheck::Reloaded
            }
            Err(error) if progress.failed == Some(digest) => FilesCheck::StillFailing(error.to_string()),
            Err(error) => {
                progress.failed = Some(digest);
                tracing::error!("changed files can't be used, the last good ones stay in use: {error}");
                FilesCheck::Failed(error.to_string())
            }
        }
    }

    fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.current.load().certificates.clone()
    }
}

fn stats(
    paths: &[PathBuf],
    stat: fn(&Path) -> Option<FileStat>,
    now: SystemTime,
) -> (Vec<Option<FileStat>>, bool) {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let seen: Vec<_> = paths.iter().map(|path| stat(path)).collect();
    let fresh = seen.iter().flatten().any(|stat| stat.is_fresh(now));
    (seen, fresh)
}

fn valid(certificate: &Certificate, now: SystemTime) -> Result<(), String> {
    let file = certificate.file.as_deref().unwrap_or_else(|| std::path::Path::new("")).display();
    if certificate.not_after < now {
        return Err(format!("{file}: the certificate of {} has expired", certificate.name()));
    }
    if certificate.not_before > now {
        return Err(format!("{file}: the certificate of {} is not valid yet", certificate.name()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with coarse time stamps: it reports the same metadata for every content.
    #[expect(clippy::unnecessary_wraps, reason = "it stands in for `stat`")]
    fn coarse(_: &Path) -> Option<FileStat> {
        Some(FileStat::at(1_000))
    }

    fn read(files: &FilesSnapshot, path: &Path) -> Result<BuiltConfig<Vec<u8>>, Error> {
        let config = files.get(path).map_err(Error::identity)?.to_vec();
        Ok(BuiltConfig { config, certificates: Vec::new() })
    }

    #[test]
    fn a_second_change_within_one_time_stamp_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "first").unwrap();
        let sources = Sources { paths: vec![path.clone()], workload: None };
        let build: Build<Vec<u8>> = Box::new({
            let path = path.clone();
            move |files| read(files, &path)
        });
        let mut live = Reloadable::new(sources, build).unwrap();
        Arc::get_mut(&mut live).unwrap().stat = coarse;
        let second = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        live.look(second(1_000));
        // This change has the time stamp that was just read.
        std::fs::write(&path, "other").unwrap();
        assert_eq!(live.look(second(1_001)), FilesCheck::Settling);
        assert_eq!(live.look(second(1_002)), FilesCheck::Reloaded);
        assert_eq!(live.with(Clone::clone), b"other");
        // After the time stamp has become old, one more check reads the unchanged file.
        live.look(second(1_003));
        std::fs::write(&path, "third").unwrap();
        assert_eq!(
            live.look(second(1_004)),
            FilesCheck::Unchanged,
            "a stamp that old can't hide a change; nothing was read"
        );
    }
}
