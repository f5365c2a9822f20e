//! How much memory and how many file descriptors are in use, read from the kernel's files.
//!
//! Control groups in version 2 (`memory.max`, `.high`, `.current`, `.stat`, `.pressure`;
//! Documentation/admin-guide/cgroup-v2.rst) and 1 (`memory.limit_in_bytes`, `.usage_in_bytes`). Files that don't exist,
//! and values without a limit, are ignored.

use std::{
    fs,
    path::{Path, PathBuf},
};

use attache_config::model;

const MOUNT: &str = "/sys/fs/cgroup";
/// Version 1 has no word for "no limit", but a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// What may run out.
pub(super) struct Resources {
    /// Folders of the control group and of those above it.
    groups: Vec<PathBuf>,
    limit: Option<u64>,
    descriptors: Option<u64>,
}

impl Resources {
    pub(super) fn new(config: &model::Overload) -> Self {
        let groups = match &config.cgroup {
            Some(folder) => vec![folder.clone()],
            None => folders(&read("/proc/self/cgroup").unwrap_or_default()),
        };
        Self {
            groups: groups.into_iter().filter(|folder| folder.is_dir()).collect(),
            limit: config.memory_limit.map(|limit| limit as u64),
            descriptors: limit(),
        }
    }

    /// By resource, the share that is in use.
    pub(super) fn shares(&self) -> Vec<(&'static str, f64)> {
        // The innermost group with a limit: those above it are shared with others.
        let memory = self.groups.iter().enumerate().find_map(|(at, group)| {
            // A limit of the config's is one for the group itself.
            share(group, self.limit.filter(|_| at == 0))
        });
        let stalled = self.groups.first().and_then(|group| stalled(&read(group.join("memory.pressure"))?));
        let used = self.descriptors().map(|limit| open() as f64 / limit.max(1) as f64);
        let all = [("memory", memory), ("memory-stall", stalled), ("file-descriptors", used)];
        all.into_iter().filter_map(|(name, share)| Some((name, share?))).collect()
    }

    /// Their limit; asked for again where it could not be read when none was left.
    fn descriptors(&self) -> Option<u64> {
        self.descriptors.or_else(limit)
    }

    /// How many file descriptors are free until this share of them is used.
    pub(super) fn descriptors_below(&self, share: f64) -> i64 {
        let free = self.descriptors().map(|limit| (limit as f64 * share) as i64 - open().cast_signed());
        free.unwrap_or(i64::MAX)
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(path: PathBuf) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// Open file descriptors. Since Linux 6.2 the folder's size says it; before, its entries are counted.
fn open() -> u64 {
    let folder = "/proc/self/fd";
    match fs::metadata(folder) {
        Ok(folder) if folder.len() > 0 => folder.len(),
        _ => fs::read_dir(folder).map_or(0, |entries| entries.count().saturating_sub(1) as u64),
    }
}

fn limit() -> Option<u64> {
    limit_of_files(&read("/proc/self/limits")?)
}

/// The soft limit, of `/proc/self/limits`.
fn limit_of_files(limits: &str) -> Option<u64> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The folders of `/proc/self/cgroup`'s memory group, the innermost first. A container often sees its own group as the root.
fn folders(groups: &str) -> Vec<PathBuf> {
    let line = |wanted: fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            wanted(controllers).then(|| parts.next()).flatten()
        })
    };
    let memory = line(|controllers| controllers.split(',').any(|controller| controller == "memory"));
    let (mount, group) = match (memory, line(str::is_empty)) {
        (Some(group), _) => (Path::new(MOUNT).join("memory"), group),
        (None, Some(group)) => (PathBuf::from(MOUNT), group),
        (None, None) => return Vec::new(),
    };
    let own = mount.join(group.trim_start_matches('/'));
    own.ancestors().take_while(|folder| folder.starts_with(&mount)).map(Path::to_path_buf).collect()
}

/// The share of a group's limit that is in use.
fn share(group: &Path, limit: Option<u64>) -> Option<f64> {
    let (limits, current, cache) = if group.join("memory.current").exists() {
        (["memory.max", "memory.high"], "memory.current", "inactive_file ")
    } else {
        (["memory.limit_in_bytes"; 2], "memory.usage_in_bytes", "total_inactive_file ")
    };
    let own = limits.into_iter().filter_map(|file| number(group.join(file))).min();
    let limit = limit.into_iter().chain(own).min().filter(|limit| *limit < NO_LIMIT)?;
    let stat = read(group.join("memory.stat")).unwrap_or_default();
    let cache = stat.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse().ok()).unwrap_or(0);
    let used = number(group.join(current))?.saturating_sub(cache);
    Some(used as f64 / limit.max(1) as f64)
}

/// `full avg10=1.25 …`: percent of the last 10 s.
fn stalled(pressure: &str) -> Option<f64> {
    let full = pressure.lines().find_map(|line| line.strip_prefix("full avg10="))?;
    full.split_whitespace().next()?.parse::<f64>().ok().map(|percent| percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn both_versions_of_control_groups_are_read_without_the_page_cache() {
        let v2 = [
            ("memory.max", "1000\n"),
            ("memory.high", "max\n"),
            ("memory.current", "700\n"),
            ("memory.stat", "anon 5\ninactive_file 200\n"),
        ];
        assert_eq!(share(group(&v2).path(), None), Some(0.5));
        assert_eq!(share(group(&v2).path(), Some(600)), Some(500.0 / 600.0), "the lower limit counts");
        let dir = group(&v2);
        fs::write(dir.path().join("memory.high"), "500").unwrap();
        assert_eq!(share(dir.path(), None), Some(1.0));
        let v1 = [
            ("memory.limit_in_bytes", "1000\n"),
            ("memory.usage_in_bytes", "700\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 300\n"),
        ];
        assert_eq!(share(group(&v1).path(), None), Some(0.4));
        let none = [("memory.limit_in_bytes", "9223372036854771712\n"), ("memory.usage_in_bytes", "700\n")];
        assert_eq!(share(group(&none).path(), None), None);
        assert_eq!(share(group(&none).path(), Some(1400)), Some(0.5), "but the config may have one");
        assert_eq!(share(group(&[]).path(), Some(1400)), None);
    }

    #[test]
    fn the_groups_are_those_of_the_process_and_those_above() {
        let paths =
            |text: &str| folders(text).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(paths("0::/a/b\n"), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        assert_eq!(
            paths("3:cpu:/x\n4:memory:/a\n0::/\n"),
            ["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]
        );
        assert_eq!(paths("nonsense"), [""; 0]);
    }

    #[test]
    fn stalls_and_limits_are_read() {
        let text = "some avg10=30.00 avg60=1.00 avg300=0.00 total=1\nfull avg10=12.50 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(stalled(text), Some(0.125));
        assert_eq!(stalled(""), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(limit_of_files(limits), Some(1024));
        assert!(open() > 2);
    }
}
