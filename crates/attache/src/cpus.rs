//! The number of workers: it depends on the CPU time that this container may use, not on the cores of its host.
//!
//! The quota of cgroup v2 (`cpu.max`) or v1 (`cpu.cfs_quota_us` / `cpu.cfs_period_us`) is rounded up. The result is never above the number
//! of processors that this process may run on.

use std::{fs, path::Path, thread};

/// The number of worker threads for this machine or container, at least 1.
pub(crate) fn workers() -> usize {
    let allowed = thread::available_parallelism().map_or(1, usize::from);
    quota(Path::new("/sys/fs/cgroup")).map_or(allowed, |quota| quota.clamp(1, allowed))
}

/// The quota in whole processors, rounded up; `None` if there is no limit.
fn quota(root: &Path) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(root.join(name)).ok();
    let (quota, period) = if let Some(text) = read("cpu.max") {
        let (quota, period) = text.trim().split_once(' ')?;
        (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)
    } else {
        // In v1, -1 means "no limit"; it isn't a u64.
        (
            read("cpu/cpu.cfs_quota_us")?.trim().parse().ok()?,
            read("cpu/cpu.cfs_period_us")?.trim().parse().ok()?,
        )
    };
    (period > 0).then(|| quota.div_ceil(period).max(1) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota_of(files: &[(&str, &str)]) -> Option<usize> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        quota(root.path())
    }

    #[test]
    fn a_v2_quota_is_rounded_up() {
        assert_eq!(quota_of(&[("cpu.max", "150000 100000\n")]), Some(2));
        assert_eq!(quota_of(&[("cpu.max", "20000 100000\n")]), Some(1));
        assert_eq!(quota_of(&[("cpu.max", "max 100000\n")]), None);
    }

    #[test]
    fn a_v1_quota_is_read_if_there_is_no_v2() {
        let v1 = |quota| [("cpu/cpu.cfs_quota_us", quota), ("cpu/cpu.cfs_period_us", "100000\n")];
        assert_eq!(quota_of(&v1("250000\n")), Some(3));
        assert_eq!(quota_of(&v1("-1\n")), None);
        assert_eq!(quota_of(&[]), None);
    }
}
