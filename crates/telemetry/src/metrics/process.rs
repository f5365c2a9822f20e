//! What the kernel knows about this process, read from `/proc` (proc(5)) at each scrape.
//!
//! A value that can't be read or parsed is left out: a missing metric is better than a wrong zero.

use std::fs;

/// Clock ticks per second in `/proc`: `USER_HZ`, which is 100 on every architecture that Linux still supports (sysconf(3) would need unsafe
/// code).
const TICKS: f64 = 100.0;

/// One reading.
#[derive(Debug, Default)]
pub(crate) struct ProcessReading {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<f64>,
    pub(crate) open_fds: Option<f64>,
    pub(crate) max_fds: Option<f64>,
    pub(crate) threads: Option<f64>,
    pub(crate) start_seconds: Option<f64>,
    /// For the whole container.
    pub(crate) throttled_seconds: Option<f64>,
}

impl ProcessReading {
    /// Reads all values now.
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let stat = text("/proc/self/stat");
        let status = text("/proc/self/status");
        let boot = || number(line(&text("/proc/stat"), "btime ")?);
        Self {
            cpu_seconds: cpu_ticks(&stat).map(|ticks| ticks / TICKS),
            resident_bytes: line(&status, "VmRSS:").and_then(number).map(|kib| kib * 1024.0),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count().saturating_sub(1) as f64), // without the one of this listing
            max_fds: line(&text("/proc/self/limits"), "Max open files").and_then(number),
            threads: line(&status, "Threads:").and_then(number),
            throttled_seconds: throttled(&text("/proc/self/cgroup"), text),
            start_seconds: start_ticks(&stat).and_then(|ticks| Some(boot()? + ticks / TICKS)),
        }
    }
}

/// For how long the container's CPU quota stopped its threads (cgroups(7)): `throttled_usec` in version 2, `throttled_time` in nanoseconds
/// in version 1. A container often sees its own group as the root, so the root is read too.
fn throttled(groups: &str, read: impl Fn(&str) -> String) -> Option<f64> {
    let groups = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    let mut files = Vec::new();
    for (controllers, group) in groups {
        if controllers.is_empty() {
            files.extend([format!("/sys/fs/cgroup{group}/cpu.stat"), "/sys/fs/cgroup/cpu.stat".to_owned()]);
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            files.extend([
                format!("/sys/fs/cgroup/cpu{group}/cpu.stat"),
                "/sys/fs/cgroup/cpu/cpu.stat".to_owned(),
            ]);
        }
    }
    files.iter().find_map(|file| {
        let stat = read(file);
        let micros = line(&stat, "throttled_usec ").and_then(number).map(|micros| micros / 1e6);
        micros.or_else(|| Some(number(line(&stat, "throttled_time ")?)? / 1e9))
    })
}

/// The rest of the line that begins with `start`.
fn line<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(start))
}

/// The first word, as a number.
fn number(text: &str) -> Option<f64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// The fields of `stat` from the third on. The second is the command in parentheses, which may itself contain spaces and parentheses.
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

fn cpu_ticks(stat: &str) -> Option<f64> {
    let mut fields = fields(stat)?.skip(14 - 3);
    let (user, system) = (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?);
    Some(user + system)
}

fn start_ticks(stat: &str) -> Option<f64> {
    fields(stat)?.nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 12345 1000 200";
        assert_eq!(cpu_ticks(stat), Some(300.0));
        assert_eq!(start_ticks(stat), Some(12345.0));
        assert_eq!(cpu_ticks("nonsense"), None);
        assert_eq!(start_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn throttling_is_read_from_both_versions_of_cgroups() {
        let at = |path: &'static str, stat: &'static str| {
            move |asked: &str| if asked == path { stat.to_owned() } else { String::new() }
        };
        let v2 = "usage_usec 5\nnr_throttled 3\nthrottled_usec 2500000\n";
        let groups = "0::/kubepods/pod1\n";
        assert_eq!(throttled(groups, at("/sys/fs/cgroup/kubepods/pod1/cpu.stat", v2)), Some(2.5));
        assert_eq!(throttled(groups, at("/sys/fs/cgroup/cpu.stat", v2)), Some(2.5));
        let v1 = "nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000\n";
        let groups = "4:memory:/a\n3:cpu,cpuacct:/docker/x\n0::/\n";
        assert_eq!(throttled(groups, at("/sys/fs/cgroup/cpu/docker/x/cpu.stat", v1)), Some(1.5));
        assert_eq!(throttled("nonsense\n", at("/sys/fs/cgroup/cpu.stat", v2)), None);
        assert_eq!(throttled(groups, at("/sys/fs/cgroup/cpu.stat", "usage_usec 5\n")), None, "no quota");
    }

    #[test]
    fn the_values_of_this_process_are_read() {
        let process = ProcessReading::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000.0), "{process:?}");
        assert!(process.open_fds.is_some_and(|fds| fds >= 3.0), "{process:?}");
        assert!(process.threads.is_some_and(|threads| threads >= 1.0), "{process:?}");
        assert!(process.cpu_seconds.is_some() && process.max_fds.is_some(), "{process:?}");
        assert!(process.start_seconds.is_some_and(|start| start > 1.6e9), "{process:?}");
    }
}
