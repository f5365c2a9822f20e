//! Adds the rules to the kernel, and removes them.

use std::{
    fmt, fs, io,
    io::Write,
    process::{Command, Stdio},
};

use super::{
    Options,
    iptables::{self, AddressFamily},
    kernel::{self, KernelRefusal},
    netlink, nft,
    rules::rules,
};

/// How the rules are sent to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables messages that attache itself writes. This needs no program.
    Netlink,
    /// The program `nft`.
    Nft,
    /// The programs `iptables-restore` and `ip6tables-restore`.
    Iptables,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Netlink => "nf_tables, by netlink",
            Self::Nft => "nft",
            Self::Iptables => "iptables",
        })
    }
}

/// A chosen backend, or the first one that works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// [`Backend::Netlink`]; [`Backend::Iptables`] if the kernel has no nf_tables.
    #[default]
    Auto,
    /// Only this one.
    Only(Backend),
}

/// Why the rules could not be changed. The old rules are still in place.
#[derive(Debug)]
pub enum Error {
    /// attache has no CAP_NET_ADMIN in the network namespace.
    NotPermitted(io::Error),
    /// This kernel has no nf_tables, or none for NAT of both address families (Linux 5.2 added it).
    NoNfTables(io::Error),
    /// The kernel refused one message.
    Refused {
        /// The content of the message.
        about: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// A program is missing.
    Missing(&'static str),
    /// A program could not be run, or its input or output failed.
    Run(String, io::Error),
    /// A program failed.
    Failed {
        /// The program.
        program: String,
        /// Its output.
        output: String,
    },
    /// There is neither nf_tables nor iptables.
    Neither,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted(_) => f.write_str(
                "not allowed to change the network rules: CAP_NET_ADMIN is needed. In a pod: `securityContext: { runAsUser: 0, \
                 runAsNonRoot: false, capabilities: { add: [NET_ADMIN], drop: [ALL] } }` for this init container alone; \
                 on a machine: run it as root",
            ),
            Self::NoNfTables(_) => f.write_str(
                "this kernel has no nf_tables for NAT (Linux 5.2 or later; modules nf_tables and nft_redir): use `--backend iptables` \
                 in an image that has iptables, or explicit ports instead of interception",
            ),
            Self::Refused { about, .. } => write!(f, "the kernel refused this, so nothing was changed: {about}"),
            Self::Missing(program) => write!(
                f,
                "`{program}` is not there: install it, or use `--backend netlink`, which needs no program"
            ),
            Self::Run(program, _) => write!(f, "`{program}` could not be run"),
            Self::Failed { program, output } => {
                write!(f, "`{program}` failed and changed nothing: {}", output.trim())
            }
            Self::Neither => f.write_str(
                "this kernel has no nf_tables for NAT, and there is no `iptables-restore`: use an image that has iptables, or explicit \
                 ports instead of interception",
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotPermitted(source)
            | Self::NoNfTables(source)
            | Self::Refused { source, .. }
            | Self::Run(_, source) => Some(source),
            Self::Missing(_) | Self::Failed { .. } | Self::Neither => None,
        }
    }
}

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const EPROTONOSUPPORT: i32 = 93;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;

impl From<KernelRefusal> for Error {
    fn from(KernelRefusal { about, source }: KernelRefusal) -> Self {
        let chain = about.starts_with("add chain");
        match source.raw_os_error() {
            Some(EPERM) => Self::NotPermitted(source),
            // Without nf_tables the kernel answers a batch with EOPNOTSUPP or EINVAL. Old kernels don't know a nat
            // chain for both families.
            Some(EPROTONOSUPPORT | EOPNOTSUPP | EAFNOSUPPORT) => Self::NoNfTables(source),
            Some(ENOENT | EINVAL) if chain || about.starts_with("begin") => Self::NoNfTables(source),
            _ => Self::Refused { about, source },
        }
    }
}

/// Adds the rules, and returns the backend that worked. Rules of an earlier call by the same backend are replaced.
pub fn apply(options: &Options, way: BackendChoice) -> Result<Backend, Error> {
    let rules = rules(options);
    let done = |backend| move |()| backend;
    match way {
        BackendChoice::Only(Backend::Netlink) => {
            Ok(kernel::send(&netlink::batch(&rules)).map(done(Backend::Netlink))?)
        }
        BackendChoice::Only(Backend::Nft) => {
            run("nft", &["-f", "-"], &nft::script(&rules)).map(done(Backend::Nft))
        }
        BackendChoice::Only(Backend::Iptables) => {
            for (family, saved) in saved()? {
                restore(family, &iptables::script(&rules, family, &saved))?;
            }
            Ok(Backend::Iptables)
        }
        BackendChoice::Auto => match apply(options, BackendChoice::Only(Backend::Netlink)) {
            Err(Error::NoNfTables(_)) => match apply(options, BackendChoice::Only(Backend::Iptables)) {
                Err(Error::Missing(_)) => Err(Error::Neither),
                result => result,
            },
            result => result,
        },
    }
}

/// Removes the rules of [`apply`], if there are any. [`BackendChoice::Auto`] removes the rules of every backend.
pub fn remove(way: BackendChoice) -> Result<(), Error> {
    match way {
        BackendChoice::Only(Backend::Netlink) => Ok(kernel::send(&netlink::remove())?),
        BackendChoice::Only(Backend::Nft) => run("nft", &["-f", "-"], &nft::remove()),
        BackendChoice::Only(Backend::Iptables) => {
            for (family, saved) in saved()? {
                if let Some(script) = iptables::remove(&saved) {
                    restore(family, &script)?;
                }
            }
            Ok(())
        }
        BackendChoice::Auto => {
            let nf_tables = remove(BackendChoice::Only(Backend::Netlink));
            match (nf_tables, remove(BackendChoice::Only(Backend::Iptables))) {
                // If the program is missing, it can't have been used here.
                (nf_tables, Err(Error::Missing(_))) => nf_tables,
                (Err(Error::NoNfTables(_)) | Ok(()), iptables) => iptables,
                (nf_tables, _) => nf_tables,
            }
        }
    }
}

/// What [`apply`] would do, as text; changes nothing.
pub fn dry_run(options: &Options, way: BackendChoice) -> Result<String, Error> {
    let rules = rules(options);
    match way {
        BackendChoice::Auto | BackendChoice::Only(Backend::Netlink) => {
            Ok(format!("# sent to the kernel by netlink, in one transaction\n{}", nft::script(&rules)))
        }
        BackendChoice::Only(Backend::Nft) => Ok(format!("# nft -f -\n{}", nft::script(&rules))),
        BackendChoice::Only(Backend::Iptables) => {
            let script = |family, saved: &str| Some(iptables::script(&rules, family, saved));
            Ok(saved()?
                .into_iter()
                .filter_map(|(family, saved)| shown(family, script(family, &saved)))
                .collect())
        }
    }
}

/// What [`remove`] would do, as text; changes nothing.
pub fn dry_run_remove(way: BackendChoice) -> Result<String, Error> {
    let iptables = || -> Result<String, Error> {
        Ok(saved()?
            .into_iter()
            .filter_map(|(family, saved)| shown(family, iptables::remove(&saved)))
            .collect())
    };
    let netlink = || format!("# sent to the kernel by netlink, in one transaction\n{}", nft::remove());
    match way {
        BackendChoice::Only(Backend::Netlink) => Ok(netlink()),
        BackendChoice::Only(Backend::Nft) => Ok(format!("# nft -f -\n{}", nft::remove())),
        BackendChoice::Only(Backend::Iptables) => iptables(),
        BackendChoice::Auto => match iptables() {
            Ok(iptables) => Ok(netlink() + &iptables),
            Err(Error::Missing(_)) => Ok(netlink()),
            Err(error) => Err(error),
        },
    }
}

fn shown(family: AddressFamily, script: Option<String>) -> Option<String> {
    Some(format!("# {}-restore --noflush --wait\n{}", family.program(), script?))
}

fn restore(family: AddressFamily, script: &str) -> Result<(), Error> {
    let program = match family {
        AddressFamily::V4 => "iptables-restore",
        AddressFamily::V6 => "ip6tables-restore",
    };
    run(program, &["--noflush", "--wait"], script)
}

/// The output of `iptables-save` for each address family of this namespace.
fn saved() -> Result<Vec<(AddressFamily, String)>, Error> {
    let families = AddressFamily::ALL.into_iter().filter(|&family| family == AddressFamily::V4 || has_ipv6());
    families
        .map(|family| {
            let program = match family {
                AddressFamily::V4 => "iptables-save",
                AddressFamily::V6 => "ip6tables-save",
            };
            Ok((family, output(program, &["-t", "nat"], "")?))
        })
        .collect()
}

fn has_ipv6() -> bool {
    let off = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    off.is_ok_and(|off| off.trim() == "0")
}

fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<(), Error> {
    output(program, arguments, input).map(drop)
}

fn output(program: &'static str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing(program),
        _ => Error::Run(program.to_owned(), error),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A program that ends before it has read its whole input explains this on its standard error.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if text.contains("ermission denied") || text.contains("not permitted") {
            return Err(Error::NotPermitted(io::Error::other(format!("{program}: {}", text.trim()))));
        }
        return Err(Error::Failed { program: program.to_owned(), output: text });
    }
    written.map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_kernel_is_explained_by_what_is_missing() {
        let error = |about: &str, number| {
            Error::from(KernelRefusal {
                about: about.to_owned(),
                source: io::Error::from_raw_os_error(number),
            })
        };
        assert!(matches!(error("begin a change", EPERM), Error::NotPermitted(_)));
        for (about, number) in [
            // gVisor; a kernel without the module; Linux before 5.2.
            ("open a netlink socket", EPROTONOSUPPORT),
            ("begin a change", EOPNOTSUPP),
            ("begin a change", EINVAL),
            ("add chain inet attache output (nat)", ENOENT),
        ] {
            assert!(matches!(error(about, number), Error::NoNfTables(_)), "{about}");
        }
        let refused = error("tcp dport 80 accept comment \"excluded port\"", ENOENT);
        assert!(
            refused
                .to_string()
                .ends_with("nothing was changed: tcp dport 80 accept comment \"excluded port\""),
            "{refused}"
        );
    }
}
