//! How much memory and how many file descriptors are in use, read from the kernel's files.
//!
//! It reads control groups of version 2 (`memory.max`, `.high`, `.current`, `.stat`, `.pressure`; Documentation/admin-guide/cgroup-v2.rst)
//! and of version 1 (`memory.limit_in_bytes`, `.usage_in_bytes`). Files that don't exist, and values without a limit, are ignored.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use attache_config::model;

const MOUNT: &str = "/sys/fs/cgroup";
/// Version 1 has no value for "no limit", only a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;
/// Limits seldom change, and reading them is most of the work of a measurement. So they are read only once in this many measurements, of
/// which there may be one a second.
const LOOKS_FOR_LIMITS: u32 = 2;

/// The resources that may run out.
pub(super) struct Resources {
    /// The control group and its parents, the innermost first.
    groups: Vec<ControlGroup>,
    descriptors: Option<u64>,
    looks: u32,
}

/// The result of one measurement.
pub(super) struct ResourceUsage {
    /// For each resource, the share that is in use.
    pub(super) shares: Vec<(&'static str, f64)>,
    open: u64,
    descriptors: Option<u64>,
}

impl Resources {
    pub(super) fn new(config: &model::Overload) -> Self {
        let folders = match &config.cgroup {
            Some(folder) => vec![folder.clone()],
            None => folders(&read("/proc/self/cgroup").unwrap_or_default()),
        };
        let own = config.memory_limit.map(|limit| limit as u64);
        let groups = folders.into_iter().filter(|folder| folder.is_dir()).enumerate();
        // A limit in the config is a limit of the innermost group.
        let groups = groups.map(|(at, folder)| ControlGroup::new(folder, own.filter(|_| at == 0))).collect();
        Self { groups, descriptors: limit(), looks: 0 }
    }

    pub(super) fn look(&mut self) -> ResourceUsage {
        if self.looks.is_multiple_of(LOOKS_FOR_LIMITS) {
            self.groups.iter_mut().for_each(ControlGroup::read_limit);
        }
        self.looks = self.looks.wrapping_add(1);
        // It is read again if it could not be read before because no descriptor was free.
        self.descriptors = self.descriptors.or_else(limit);
        // The innermost group with a limit counts: its parents are shared with other containers.
        let memory = self.groups.iter_mut().find_map(ControlGroup::share);
        let stalled = self.groups.first_mut().and_then(|group| stalled(group.pressure.as_mut()?.text()?));
        let open = open();
        let used = self.descriptors.map(|limit| open as f64 / limit.max(1) as f64);
        let all = [("memory", memory), ("memory-stall", stalled), ("file-descriptors", used)];
        let shares = all.into_iter().filter_map(|(name, share)| Some((name, share?))).collect();
        ResourceUsage { shares, open, descriptors: self.descriptors }
    }
}

impl ResourceUsage {
    /// How many more file descriptors can be opened until this share of them is in use.
    pub(super) fn descriptors_below(&self, share: f64) -> i64 {
        let free = self.descriptors.map(|limit| (limit as f64 * share) as i64 - self.open.cast_signed());
        free.unwrap_or(i64::MAX)
    }
}

/// The memory of one control group.
struct ControlGroup {
    folder: PathBuf,
    limits: &'static [&'static str],
    /// The limit of the config.
    own_limit: Option<u64>,
    limit: Option<u64>,
    current: KernelFile,
    stat: KernelFile,
    /// Version 1 and kernels without PSI have none.
    pressure: Option<KernelFile>,
    /// The beginning of the line in `stat` with the memory that the kernel can reclaim.
    cache: &'static str,
}

impl ControlGroup {
    fn new(folder: PathBuf, own_limit: Option<u64>) -> Self {
        let (limits, current, cache) = if folder.join("memory.current").exists() {
            (&["memory.max", "memory.high"][..], "memory.current", "inactive_file ")
        } else {
            (&["memory.limit_in_bytes"][..], "memory.usage_in_bytes", "total_inactive_file ")
        };
        let followed = |name: &str| KernelFile::new(folder.join(name));
        let (current, stat) = (followed(current), followed("memory.stat"));
        let pressure = folder.join("memory.pressure").exists().then(|| followed("memory.pressure"));
        Self { folder, limits, own_limit, limit: None, current, stat, pressure, cache }
    }

    /// Reads the limit, and opens the other files again, in case the folder has been replaced.
    fn read_limit(&mut self) {
        for followed in [&mut self.current, &mut self.stat].into_iter().chain(&mut self.pressure) {
            followed.file = None;
        }
        let own = self.limits.iter().filter_map(|file| number(&read(self.folder.join(file))?));
        self.limit = self.own_limit.into_iter().chain(own).min().filter(|limit| *limit < NO_LIMIT);
    }

    /// The share of the limit that is in use.
    fn share(&mut self) -> Option<f64> {
        let limit = self.limit?;
        let used = number(self.current.text()?)?;
        let stat = self.stat.text().unwrap_or_default();
        let cache = stat.lines().find_map(|line| number(line.strip_prefix(self.cache)?)).unwrap_or(0);
        Some(used.saturating_sub(cache) as f64 / limit.max(1) as f64)
    }
}

/// A file of the kernel that stays open between measurements: each read from its start returns new values.
struct KernelFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl KernelFile {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, buffer: Vec::new() }
    }

    /// The text of the file; `None` if it can't be read. Then it is opened again: it could not be opened before if no descriptor was free.
    fn text(&mut self) -> Option<&str> {
        if self.file.is_none() {
            self.file = Some(File::open(&self.path).ok()?);
        }
        if self.fill().is_none() {
            self.file = None;
            return None;
        }
        std::str::from_utf8(&self.buffer).ok()
    }

    fn fill(&mut self) -> Option<()> {
        /// More bytes than any of these files has.
        const PIECE: usize = 8192;
        let file = self.file.as_ref()?;
        self.buffer.clear();
        loop {
            let begin = self.buffer.len();
            self.buffer.resize(begin + PIECE, 0);
            let read = file.read_at(&mut self.buffer[begin..], begin as u64).ok()?;
            self.buffer.truncate(begin + read);
            if read == 0 {
                return Some(());
            }
        }
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number of open file descriptors. Since Linux 6.2 it is the size of the folder; before, the entries are counted.
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

/// The soft limit in `/proc/self/limits`.
fn limit_of_files(limits: &str) -> Option<u64> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The folders of the memory group in `/proc/self/cgroup`, the innermost first. A container often sees its own group as the root.
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

/// The value in `full avg10=1.25 …`: per cent of the last 10 s.
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

    fn share(folder: &Path, limit: Option<u64>) -> Option<f64> {
        let mut group = ControlGroup::new(folder.to_owned(), limit);
        group.read_limit();
        group.share()
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
        assert_eq!(share(group(&none).path(), Some(1400)), Some(0.5), "but the config may set a limit");
        assert_eq!(share(group(&[]).path(), Some(1400)), None);
    }

    #[test]
    fn usage_is_read_at_each_measurement_and_a_new_limit_soon() {
        let v2 =
            [("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", "inactive_file 200\n")];
        let dir = group(&v2);
        let config = model::Overload { cgroup: Some(dir.path().to_owned()), ..model::Overload::default() };
        let mut resources = Resources::new(&config);
        let mut memory = || {
            resources.look().shares.into_iter().find_map(|(name, share)| (name == "memory").then_some(share))
        };
        assert_eq!(memory(), Some(0.5));
        fs::write(dir.path().join("memory.current"), "1100\n").unwrap();
        assert_eq!(memory(), Some(0.9), "a file that stays open is read again");
        fs::write(dir.path().join("memory.stat"), "anon 1\ninactive_file 100\n").unwrap();
        assert_eq!(memory(), Some(1.0));
        fs::write(dir.path().join("memory.max"), "2000\n").unwrap();
        assert_eq!(memory(), Some(1.0));
        let looks = (0..LOOKS_FOR_LIMITS).filter(|_| memory() == Some(0.5)).count();
        assert!(looks > 0, "the new limit counts within {LOOKS_FOR_LIMITS} measurements");
        fs::write(dir.path().join("new"), "2100\n").unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("memory.current")).unwrap();
        let looks = (0..LOOKS_FOR_LIMITS).filter(|_| memory() == Some(1.0)).count();
        assert!(looks > 0, "and a file that was replaced is read");
    }

    #[test]
    fn the_groups_are_that_of_the_process_and_its_parents() {
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
