//! Notices that the config's files have changed, and waits until they are written completely.
//!
//! The files are polled, as TLS files are (`docs/decisions/0006-tls-files-are-polled.md`). A change is noticed by `stat` of the file that a
//! path leads to. So it makes no difference whether a symbolic link was swapped (a ConfigMap), a file was renamed over another (editors,
//! Ansible), or a file was written in place. Two readings in a row must be equal, because a file may be half written, or not all links may
//! be swapped. A content that was loaded or refused already is not tried again until it changes.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::io::Errno;

use crate::{proxy::handle::ProxyControl, reloads::ReloadTrigger, ticks::tick};

/// The time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The time until the next check after a change was seen.
const SETTLES: Duration = Duration::from_millis(500);
/// A file with a time stamp younger than this, in seconds, may have changed again without a new time stamp.
const FRESH: i64 = 2;
/// The most bytes of one file; a larger one is not a config.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Follows the files of the running config, and reloads when they change. It ends with the thread.
pub(crate) async fn follow(control: ProxyControl) {
    let mut watch = ConfigWatch::default();
    loop {
        tick(if watch.pending.is_some() { SETTLES } else { CHECK_INTERVAL }).await;
        let process = control.process();
        let files = files(&process.generation().config);
        if !process.generation().config.reload.watch || files.is_empty() {
            continue;
        }
        let tried = process.reloads.tried();
        // If a network volume hangs, it blocks only this separate thread.
        let look = move || {
            let found = watch.look(&files, tried);
            (watch, found)
        };
        let Ok((back, found)) = tokio::task::spawn_blocking(look).await else { return };
        watch = back;
        if found == ConfigCheck::Changed {
            // The reload logs and counts its result.
            let _ = control.reload(ReloadTrigger::File).await;
        }
    }
}

/// The files that a config was made from.
pub(crate) fn files(config: &attache_config::model::Config) -> Vec<PathBuf> {
    config.file.iter().chain(&config.files).cloned().collect()
}

/// A digest of the contents, or of the errors if they can't be read. Two digests are equal only if the contents are, except by an accident
/// of one in 2^64.
pub(crate) fn digest(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        match read(file) {
            Ok(bytes) => (0, bytes).hash(&mut hasher),
            Err(error) => (1, format!("{:?}", error.kind())).hash(&mut hasher),
        }
    }
    hasher.finish()
}

/// Whether the content of a file can't be known, because this process can't open any file now. Then it doesn't count as changed.
fn is_unknown(path: &Path) -> bool {
    fs::File::open(path).is_err_and(|error| is_for_now(&error))
}

/// Whether the error comes from this process or the machine, and not from the file.
fn is_for_now(error: &io::Error) -> bool {
    let error = Errno::from_io_error(error);
    error.is_some_and(|error| matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigCheck {
    /// The content is the one that was tried last.
    Unchanged,
    /// It has changed; the next check must find the same content.
    Settling,
    /// It has changed, and it is written completely.
    Changed,
}

/// What the last check found.
#[derive(Debug, Default)]
struct ConfigWatch {
    seen: Vec<Option<ConfigStat>>,
    pending: Option<u64>,
}

type ConfigStat = (u64, u64, u64, i64, i64, i64, i64);

impl ConfigWatch {
    /// Checks once. `tried` is the digest of the content that was last loaded or refused.
    fn look(&mut self, files: &[PathBuf], tried: u64) -> ConfigCheck {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let stats: Vec<_> = files.iter().map(|file| stat(file)).collect();
        let fresh = |stat: &ConfigStat| now.cast_signed().saturating_sub(stat.3.max(stat.5)) <= FRESH;
        if stats == self.seen && self.pending.is_none() && !stats.iter().flatten().any(fresh) {
            return ConfigCheck::Unchanged;
        }
        self.seen = stats;
        if files.iter().any(|file| is_unknown(file)) {
            // The next check reads the file, whatever `stat` says.
            self.seen.clear();
            return ConfigCheck::Unchanged;
        }
        let found = digest(files);
        if found == tried {
            self.pending = None;
            return ConfigCheck::Unchanged;
        }
        if self.pending == Some(found) {
            self.pending = None;
            return ConfigCheck::Changed;
        }
        self.pending = Some(found);
        ConfigCheck::Settling
    }
}

/// Follows symbolic links. `None` if there is no file.
fn stat(path: &Path) -> Option<ConfigStat> {
    let m = fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_counts_once_after_it_was_found_twice() {
        let dir = tempfile::tempdir().unwrap();
        let files = vec![dir.path().join("a.yaml"), dir.path().join("secret")];
        fs::write(&files[0], "one").unwrap();
        let (mut watch, tried) = (ConfigWatch::default(), digest(&files));
        assert_eq!(watch.look(&files, tried), ConfigCheck::Unchanged);
        fs::write(&files[0], "tw").unwrap();
        assert_eq!(watch.look(&files, tried), ConfigCheck::Settling);
        // The file was only half written.
        fs::write(&files[0], "two").unwrap();
        assert_eq!(watch.look(&files, tried), ConfigCheck::Settling);
        assert_eq!(watch.look(&files, tried), ConfigCheck::Changed);
        let tried = digest(&files);
        assert_eq!(watch.look(&files, tried), ConfigCheck::Unchanged);
        // The second file counts too, and so does its creation.
        fs::write(&files[1], "s").unwrap();
        assert_eq!(
            (watch.look(&files, tried), watch.look(&files, tried)),
            (ConfigCheck::Settling, ConfigCheck::Changed)
        );
    }

    #[test]
    fn a_file_that_can_not_be_opened_now_has_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let folder = dir.path().to_path_buf();
        // A missing file is known to be missing, and a folder is known not to be a file.
        assert!(!is_unknown(&missing) && !is_unknown(&folder));
        assert!(
            is_for_now(&io::Error::from_raw_os_error(24)) && !is_for_now(&io::Error::from_raw_os_error(2))
        );
    }

    #[test]
    fn a_change_that_is_reverted_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let files = vec![dir.path().join("a.yaml")];
        fs::write(&files[0], "one").unwrap();
        let (mut watch, tried) = (ConfigWatch::default(), digest(&files));
        fs::write(&files[0], "two").unwrap();
        assert_eq!(watch.look(&files, tried), ConfigCheck::Settling);
        fs::write(&files[0], "one").unwrap();
        assert_eq!(watch.look(&files, tried), ConfigCheck::Unchanged);
        assert_eq!(watch.look(&files, tried), ConfigCheck::Unchanged);
    }

    #[test]
    fn a_swapped_symbolic_link_is_a_change() {
        // The kubelet does it like this: file -> ..data/file, ..data -> a folder with a time stamp as its name.
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (folder, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("a.yaml"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/a.yaml", at("a.yaml")).unwrap();
        let files = vec![at("a.yaml")];
        let (mut watch, tried) = (ConfigWatch::default(), digest(&files));
        assert_eq!(watch.look(&files, tried), ConfigCheck::Unchanged);
        symlink("..2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert_eq!(
            (watch.look(&files, tried), watch.look(&files, tried)),
            (ConfigCheck::Settling, ConfigCheck::Changed)
        );
    }
}
