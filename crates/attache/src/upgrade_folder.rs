//! The upgrade of attache inside its container: `attache run --upgrade-dir FOLDER` and `attache upgrade`.
//!
//! **Rule.** A container ends with its first process, so that process stays. It hands its sockets over to the new program, as on a host
//! ([`upgrade`](crate::upgrade)), and drains. From then on it passes signals on, waits for the process that serves, and ends in the same
//! way as that process. The new program is the file `attache` in the folder, which both containers have mounted (an emptyDir). Every
//! container that may write to the folder decides which program runs. So only attache's containers should have the folder, and attache
//! doesn't run a file that others may write.
//!
//! A container that is restarted runs the program of its image: a program that crashed is not started again by itself.

use std::{
    fs::{self, Permissions},
    io::{self, Write as _},
    iter,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, geteuid, getpid, kill_process},
};

use serde_json::json;

use crate::cli;

/// Longer than the hand-over itself may take.
const TIMEOUT: Duration = Duration::from_secs(90);
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The folder with the programs and with the name of the process that serves.
#[derive(Clone, Debug)]
pub(crate) struct UpgradeFolder(PathBuf);

/// The process that serves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServingProcess {
    pub(crate) pid: Pid,
    /// When it began, in ticks since the boot. So another process with the same number is not taken for it.
    begun: u64,
    version: String,
}

impl UpgradeFolder {
    /// # Errors
    /// The path is not a folder that can be written to.
    pub(crate) fn new(path: &Path) -> Result<Self, String> {
        let folder = Self(path.to_owned());
        let fail = |error: io::Error| format!("--upgrade-dir {}: {error}", path.display());
        folder.write("try", "").map_err(fail)?;
        fs::remove_file(path.join("try")).map_err(fail)?;
        Ok(folder)
    }

    /// The program that should take over; `None` if there is none in the folder.
    ///
    /// # Errors
    /// There is one, but it must not be run.
    pub(crate) fn program(&self) -> Result<Option<PathBuf>, String> {
        let file = self.0.join("attache");
        let about = match fs::symlink_metadata(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            about => about.map_err(|error| format!("{}: {error}", file.display()))?,
        };
        let own = about.uid() == geteuid().as_raw() || about.uid() == 0;
        if !about.is_file() || !own || about.mode() & 0o022 != 0 {
            return Err(format!(
                "{} is not a file that only attache's user may write: it is not run",
                file.display()
            ));
        }
        Ok(Some(file))
    }

    /// Notes that this process serves. Earlier ones that still drain come after it in the list.
    pub(crate) fn announce(&self) {
        let begun = begun(getpid()).unwrap_or_default();
        let own = ServingProcess { pid: getpid(), begun, version: VERSION.to_owned() };
        let before = self.running().into_iter().filter(|before| before.pid != getpid());
        let line =
            |ServingProcess { pid, begun, version }| format!("{} {begun} {version}\n", pid.as_raw_nonzero());
        let text: String = iter::once(own).chain(before).map(line).collect();
        if let Err(error) = self.write("active", &text) {
            tracing::warn!(%error, "the folder of upgrades can't be written to: `attache upgrade` won't find this process");
        }
    }

    /// The process that serves, if it said so and still runs.
    pub(crate) fn active(&self) -> Option<ServingProcess> {
        self.last().filter(ServingProcess::runs)
    }

    /// The last process that said that it serves; it may have ended.
    pub(crate) fn last(&self) -> Option<ServingProcess> {
        ServingProcess::parse(self.said().lines().next()?)
    }

    /// The process that serves, and earlier ones that still run.
    pub(crate) fn running(&self) -> Vec<ServingProcess> {
        self.said().lines().filter_map(ServingProcess::parse).filter(ServingProcess::runs).collect()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.0.join("active")).unwrap_or_default()
    }

    /// Notes the outcome of an upgrade. A program that did not take over is renamed to `attache.refused`.
    pub(crate) fn note(&self, outcome: &Result<u32, String>) {
        let written = match outcome {
            Ok(pid) => self.write("outcome", &format!("ok {pid}\n")),
            Err(why) => {
                let aside = fs::rename(self.0.join("attache"), self.0.join("attache.refused"));
                self.write("outcome", &format!("failed {why}\n")).and(aside.or(Ok(())))
            }
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the outcome of the upgrade can't be written");
        }
    }

    /// Writes a file in one step, so that a reader never sees a part.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let new = self.0.join(format!("{name}.{}", std::process::id()));
        fs::write(&new, text)?;
        fs::rename(&new, self.0.join(name))
    }

    fn install(&self, program: &Path) -> io::Result<()> {
        let new = self.0.join("attache.new");
        let _ = fs::remove_file(&new);
        fs::copy(program, &new)?;
        fs::set_permissions(&new, Permissions::from_mode(0o755))?;
        fs::rename(&new, self.0.join("attache"))
    }

    fn outcome(&self) -> Option<String> {
        fs::read_to_string(self.0.join("outcome")).ok()
    }
}

impl ServingProcess {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(Self {
            pid: Pid::from_raw(words.next()?.parse().ok().filter(|pid| *pid > 0)?)?,
            begun: words.next()?.parse().ok()?,
            version: words.next()?.to_owned(),
        })
    }

    pub(crate) fn runs(&self) -> bool {
        begun(self.pid) == Some(self.begun)
    }
}

/// Whether a process runs; a zombie doesn't count.
pub(crate) fn runs(pid: Pid) -> bool {
    begun(pid).is_some()
}

/// The start time of a process: field 22 of `proc_pid_stat(5)`.
fn begun(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name in parentheses may contain any character.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// `attache upgrade`: this program takes over from the attache that serves.
pub(crate) fn upgrade(options: &cli::UpgradeArgs) -> Result<(), Box<dyn std::error::Error>> {
    let say = |line: String| -> io::Result<()> {
        if options.format.is_json() { Ok(()) } else { writeln!(io::stdout(), "{line}") }
    };
    let folder = UpgradeFolder(options.upgrade_dir.clone());
    let shown = options.upgrade_dir.display();
    let old = folder.active().ok_or_else(|| {
        format!(
            "{shown} names no attache that serves: it must run with --upgrade-dir, this container must have the same folder mounted, \
             and see its processes (kubectl debug --target=attache)"
        )
    })?;
    say(format!("attache {} serves as process {}", old.version, old.pid.as_raw_nonzero()))?;
    folder.install(Path::new("/proc/self/exe")).map_err(|error| format!("{shown}: {error}"))?;
    let _ = fs::remove_file(options.upgrade_dir.join("outcome"));
    kill_process(old.pid, Signal::USR2).map_err(|error| match error {
        Errno::PERM => {
            "the process that serves belongs to another user: run this as the same one (runAsUser: 1337)"
                .to_owned()
        }
        error => error.to_string(),
    })?;
    say(format!("attache {VERSION} was put into {shown} and is started there"))?;
    let end = Instant::now() + TIMEOUT;
    let outcome = loop {
        match folder.outcome() {
            Some(outcome) => break outcome,
            None if Instant::now() > end => {
                return Err(format!(
                    "there is no result after {TIMEOUT:?}; the log of attache's container says why"
                )
                .into());
            }
            None => sleep(Duration::from_millis(50)),
        }
    };
    match outcome.trim().split_once(' ') {
        Some(("ok", pid)) if options.format.is_json() => {
            let before = json!({ "version": old.version, "pid": old.pid.as_raw_nonzero().get() });
            let now = json!({ "version": VERSION, "pid": pid.parse::<u32>().ok() });
            Ok(writeln!(io::stdout(), "{:#}", json!({ "before": before, "now": now }))?)
        }
        Some(("ok", pid)) => Ok(say(format!(
            "attache {VERSION} serves as process {pid}; the one before it finishes what it has"
        ))?),
        Some((_, why)) => Err(format!("{why}; attache {} continues to serve", old.version).into()),
        None => Err(format!("the outcome in {shown} can't be read").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_identified_by_its_number_and_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let folder = UpgradeFolder::new(dir.path()).unwrap();
        assert_eq!(folder.active(), None);
        folder.announce();
        let active = folder.active().unwrap();
        assert_eq!(u32::try_from(active.pid.as_raw_nonzero().get()).unwrap(), std::process::id());
        for other in [
            format!("{} 1 0.1.0", std::process::id()),
            "0 0 x".into(),
            "-1 0 x".into(),
            "1".into(),
            String::new(),
        ] {
            folder.write("active", &other).unwrap();
            assert_eq!(folder.active(), None, "{other}");
        }
    }

    #[test]
    fn a_process_that_served_before_is_listed_as_long_as_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let folder = UpgradeFolder::new(dir.path()).unwrap();
        let mut before = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(before.id()).ok().and_then(Pid::from_raw).unwrap();
        folder
            .write("active", &format!("{} {} 0.0.9\n1 1 0.0.8\n", before.id(), begun(pid).unwrap()))
            .unwrap();
        folder.announce();
        let pids = || folder.running().iter().map(|active| active.pid).collect::<Vec<_>>();
        assert_eq!(pids(), [getpid(), pid]);
        assert_eq!(folder.active().unwrap().pid, getpid());
        before.kill().unwrap();
        eventually(|| !runs(pid));
        assert_eq!(pids(), [getpid()], "one that was not waited for has ended, too");
        before.wait().unwrap();
    }

    fn eventually(condition: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !condition() && Instant::now() < end {
            sleep(Duration::from_millis(10));
        }
        assert!(condition());
    }

    #[test]
    fn a_program_that_others_may_write_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let folder = UpgradeFolder::new(dir.path()).unwrap();
        assert_eq!(folder.program(), Ok(None));
        folder.install(Path::new("/bin/true")).unwrap();
        let program = folder.program().unwrap().unwrap();
        assert_eq!(program, dir.path().join("attache"));
        fs::set_permissions(&program, Permissions::from_mode(0o777)).unwrap();
        assert!(folder.program().is_err());
        fs::remove_file(&program).unwrap();
        std::os::unix::fs::symlink("/bin/true", &program).unwrap();
        assert!(folder.program().is_err(), "a link leads elsewhere");
        folder.note(&Err("why".into()));
        assert_eq!(folder.program(), Ok(None), "the file was renamed");
        assert_eq!(folder.outcome().unwrap(), "failed why\n");
        assert!(UpgradeFolder::new(Path::new("/no/such/folder")).unwrap_err().contains("/no/such/folder"));
    }
}
