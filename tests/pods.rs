//! Two pods, as far as the network sees them: two network namespaces with a cable between them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{TestProcess, binary, eventually, text};

/// The application's user.
pub const APP: u32 = 1000;
/// attache's user, as in its image.
pub const ATTACHE: u32 = 1337;

/// A network namespace that ends with the process that holds it.
#[derive(Debug)]
pub struct Pod {
    holder: TestProcess,
    /// Its IPv4 address.
    pub v4: &'static str,
    /// Its IPv6 address.
    pub v6: &'static str,
}

/// A pod that calls, and one that is called.
pub fn pods() -> (Pod, Pod) {
    let (client, server) = (Pod::new("10.77.0.1", "fd77::1"), Pod::new("10.77.0.2", "fd77::2"));
    let (a, b) = (client.holder.id(), server.holder.id());
    let cable = format!("ip link add eth0 netns {a} type veth peer name eth0 netns {b}");
    text(&Command::new("sh").args(["-ec", &cable]).output().expect("sh"));
    for pod in [&client, &server] {
        let up = format!(
            "ip link set lo up; ip link set eth0 up
             ip addr add {}/24 dev eth0
             ip -6 addr add {}/64 dev eth0 nodad",
            pod.v4, pod.v6
        );
        text(&pod.run(0, "sh").args(["-ec", &up]).output().expect("sh"));
    }
    (client, server)
}

impl Pod {
    fn new(v4: &'static str, v6: &'static str) -> Self {
        let id = text(&Command::new("id").arg("-u").output().expect("id"));
        assert_eq!(
            id.trim(),
            "0",
            "interception needs a network namespace, and that needs root: run this test as root, or leave it out with `--skip interception`"
        );
        for (tool, package) in [
            ("/usr/sbin/nft", "nftables"),
            ("/usr/sbin/iptables-restore", "iptables"),
            ("/usr/bin/unshare", "util-linux"),
            ("/usr/sbin/ip", "iproute2"),
        ] {
            let there = fs::exists(tool).unwrap_or_default();
            assert!(there, "{tool} is missing: run `cargo xtask setup` (Debian package {package})");
        }
        let mut hold = Command::new("unshare");
        hold.args(["--net", "sleep", "infinity"]);
        let holder = TestProcess::start(&mut hold, folder());
        let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
        eventually("the namespace is there", || {
            fs::read_link(format!("/proc/{}/ns/net", holder.id())).is_ok_and(|ns| ns != own)
        });
        Self { holder, v4, v6 }
    }

    /// Its addresses, as they stand in a URL, with what a server binds.
    pub fn addresses(&self) -> [(&'static str, String); 2] {
        [(self.v4, self.v4.to_owned()), (self.v6, format!("[{}]", self.v6))]
    }

    /// A program inside, as a user (and the group of the same number).
    pub fn run(&self, user: u32, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net"]);
        if user != 0 {
            command.args([
                "setpriv",
                &format!("--reuid={user}"),
                &format!("--regid={user}"),
                "--clear-groups",
            ]);
        }
        command.arg(program);
        command
    }

    /// Starts a program inside, as the application's user.
    pub fn start(&self, program: &str, arguments: &[&str]) -> TestProcess {
        TestProcess::start(self.run(APP, program).args(arguments), folder())
    }

    /// curl, as the application's user.
    pub fn curl(&self, arguments: &[&str]) -> Output {
        self.curl_as(APP, arguments)
    }

    /// curl, as another user.
    pub fn curl_as(&self, user: u32, arguments: &[&str]) -> Output {
        let always = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"];
        self.run(user, "curl").args(always).args(arguments).output().expect("curl (run `cargo xtask setup`)")
    }

    /// Waits until something inside listens at an address such as `10.77.0.2:8080` or `[fd77::2]:8080`.
    pub fn wait_for(&self, what: &TestProcess, address: &str) {
        eventually(&format!("something listens at {address}: {}", what.output()), || {
            let listening = text(&self.run(0, "ss").args(["-Hltn"]).output().expect("ss"));
            listening.split_whitespace().any(|word| word == address)
        });
    }

    /// `attache intercept` inside, as root.
    pub fn intercept(&self, arguments: &[&str]) -> Output {
        let program = binary().display().to_string();
        self.run(0, &program).arg("intercept").args(arguments).output().expect("attache")
    }

    /// The rules that the kernel has, without what was counted.
    pub fn ruleset(&self) -> String {
        text(&self.run(0, "nft").args(["--stateless", "list", "ruleset"]).output().expect("nft"))
    }

    /// attache as its own user, ready, with this config.
    pub fn attache(&self, config: &str) -> TestProcess {
        let dir = folder();
        let file = dir.path().join("attache.yaml");
        fs::write(&file, format!("metrics: :15090\n{config}")).expect("a config file");
        readable(dir.path());
        let program = binary().display().to_string();
        let attache = TestProcess::start(self.run(ATTACHE, &program).arg("run").arg("-c").arg(&file), dir);
        eventually(&format!("attache is ready: {}", attache.output()), || {
            self.curl_as(ATTACHE, &["--fail", "http://127.0.0.1:15090/readyz"]).status.success()
        });
        attache
    }
}

/// Lets every user read what is in a folder.
pub fn readable(folder: &Path) {
    text(&Command::new("chmod").args(["-R", "a+rX"]).arg(folder).output().expect("chmod"));
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}
