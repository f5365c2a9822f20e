//! What the end-to-end tests share: the real binary, and the real clients and servers around it.
//!
//! Every process that is started here is ended here, by its id. Servers get a free port on a loopback address of
//! their own, so that tests can run side by side.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub mod authority;
pub mod manifests;
pub mod pki;
pub mod pods;

/// No test depends on a time being short: this only bounds how long a broken one takes to fail.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A process that ends with the test.
#[derive(Debug)]
pub struct TestProcess {
    child: Child,
    log: PathBuf,
    dir: TempDir,
}

impl TestProcess {
    /// Starts `command` with its output in a file.
    pub fn start(command: &mut Command, dir: TempDir) -> Self {
        let log = dir.path().join("log");
        let out = fs::File::create(&log).expect("a log file");
        let err = out.try_clone().expect("a second handle");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e} (run `cargo xtask setup`)"));
        Self { child, log, dir }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal, for example `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status();
        assert!(status.is_ok_and(|s| s.success()), "kill -{name} {}", self.id());
    }

    /// Waits until it has ended and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child to wait for") {
                return status.code();
            }
            assert!(Instant::now() < end, "it doesn't end:\n{}", self.output());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `address` accepts connections.
    pub fn wait_for(&mut self, address: SocketAddr) {
        let end = Instant::now() + TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("ended with {status} before it listened on {address}:\n{}", self.output());
            }
            assert!(Instant::now() < end, "nothing listens on {address}:\n{}", self.output());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory in KiB, pages of the program's file included.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Resident memory in KiB that no file stands behind: what the process has allocated.
    pub fn allocated_kib(&self) -> u64 {
        self.status_kib("RssAnon:")
    }

    fn status_kib(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_default()
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.output());
        }
    }
}

/// A port that nobody listened on a moment ago, and that this process gives nobody else.
pub fn free_port() -> u16 {
    free_port_on(Ipv4Addr::LOCALHOST)
}

/// The same, on another loopback address. Not left to the kernel: it would give a port twice, and to clients of other tests.
pub fn free_port_on(ip: Ipv4Addr) -> u16 {
    /// Below those that clients get (`net.ipv4.ip_local_port_range`).
    const PORTS: std::ops::Range<u32> = 20_000..32_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes that run side by side begin at different places.
    let first = std::process::id().wrapping_mul(97);
    PORTS
        .map(|_| first.wrapping_add(GIVEN.fetch_add(1, Relaxed)) % PORTS.len() as u32 + PORTS.start)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind((ip, *port)).is_ok())
        .expect("a free port")
}

/// An IPv4 loopback address with a port.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

/// The program under test.
#[derive(Debug)]
pub struct Attache {
    /// Its process.
    pub process: TestProcess,
    /// The port that stands for `$PORT` in its config.
    pub port: u16,
    /// The port of `/metrics` and the probes.
    pub metrics: u16,
    /// The port that stands for `$ADMIN` in its config; without it there, the admin API is off, so that tests can run side by side.
    pub admin: u16,
}

impl Attache {
    /// Writes `config` to a file, with `$PORT` replaced by a free port, starts the program and waits until it is ready.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with environment variables.
    pub fn start_with(config: &str, variables: &[(&str, &str)]) -> Self {
        let (dir, port, metrics) = (tempfile::tempdir().expect("a folder"), free_port(), free_port());
        let file = dir.path().join("attache.yaml");
        let admin = free_port();
        // A config that says more of its metrics says where they are.
        let place = if config.contains("$METRICS") { "" } else { "metrics: 127.0.0.1:$METRICS\n" };
        let off = if config.contains("$ADMIN") { "" } else { "admin: off\n" };
        let text = format!("{place}{off}{config}")
            .replace("$PORT", &port.to_string())
            .replace("$ADMIN", &admin.to_string())
            .replace("$METRICS", &metrics.to_string());
        fs::write(&file, text).expect("a config file");
        let mut process = TestProcess::start(
            Command::new(binary()).arg("run").arg("-c").arg(&file).envs(variables.iter().copied()),
            dir,
        );
        process.wait_for(local(metrics));
        let end = Instant::now() + TIMEOUT;
        while !http_get(local(metrics), "/readyz").starts_with("HTTP/1.1 200") {
            assert!(Instant::now() < end, "not ready:\n{}", process.output());
            thread::sleep(Duration::from_millis(10));
        }
        Self { process, port, metrics, admin }
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        http_get(local(self.metrics), "/metrics")
    }

    /// The value of the first metric line that starts with `name` and contains every one of `labels`; 0 without one.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics();
        text.lines()
            .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// Where the program was built.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("ATTACHE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    let path = test.parent().and_then(Path::parent).map(|dir| dir.join("attache")).unwrap_or_default();
    assert!(path.exists(), "{} is not built: run `cargo build` first, or `cargo xtask test`", path.display());
    path
}

/// One request on a connection of its own, as text.
pub fn http_get(address: SocketAddr, path: &str) -> String {
    raw(address, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
}

/// Sends bytes, and reads until the other side closes.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut answer = Vec::new();
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Runs `curl` with these arguments, silent but for errors.
pub fn curl<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "", "--max-time", "120"])
        .args(arguments)
        .output()
        .expect("curl (run `cargo xtask setup`)")
}

/// The text that a program printed; it must have ended well.
pub fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs one of the scripts in `tests/scripts` to its end.
pub fn script(name: &str, arguments: &[&str]) -> Output {
    python(name).args(arguments).output().expect("python3 (run `cargo xtask setup`)")
}

/// Starts one of the scripts in `tests/scripts`, which listens on `address`.
pub fn script_server(name: &str, address: SocketAddr, arguments: &[&str]) -> TestProcess {
    let mut command = python(name);
    command.arg(address.ip().to_string()).arg(address.port().to_string()).args(arguments);
    let mut process = TestProcess::start(&mut command, tempfile::tempdir().expect("a folder"));
    process.wait_for(address);
    process
}

/// Starts one of the scripts in `tests/scripts` that listens on no port.
pub fn script_process(name: &str, arguments: &[&str]) -> TestProcess {
    TestProcess::start(python(name).args(arguments), tempfile::tempdir().expect("a folder"))
}

/// Checks manifests against the schemas of a version of Kubernetes (`1.29`), without a cluster: PyPI's kubernetes-validate.
pub fn kubernetes_validate(version: &str, files: &[PathBuf]) -> Output {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/kubernetes-validate");
    Command::new(&program)
        .args(["--strict", "--no-warn", "-k", version])
        .args(files)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error} (run `cargo xtask setup`)", program.display()))
}

fn python(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    // Debian's own, which has Debian's modules, not another that comes first on the PATH. What Debian hasn't is in `.python`.
    let mut command = Command::new("/usr/bin/python3");
    command.env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join(".python"));
    command.arg(path).env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    for proxy in ["http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env_remove(proxy);
    }
    command
}

/// One of the scripts in `tests/scripts`, for a Python that has the packages of PyPI which `cargo xtask setup` installs.
pub fn python_with_packages(name: &str) -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join("../target/python/bin/python");
    assert!(python.exists(), "{} is missing: run `cargo xtask setup`", python.display());
    let mut command = Command::new(python);
    command.arg(here.join("scripts").join(name)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A script in a network namespace of its own, where it may mount what it likes, too. Needs root.
pub fn script_alone(name: &str, arguments: &[&str]) -> Output {
    let python = python(name);
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]).arg(python.get_program()).args(python.get_args()).args(arguments);
    command.envs(python.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().expect("unshare")
}

/// nginx with this text inside `http { }`.
pub fn nginx(http: &str, address: SocketAddr) -> TestProcess {
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path().display().to_string();
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/f;\n\
         uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; client_max_body_size 0;\n{}\n}}\n",
        http.replace("$DIR", &at)
    );
    let file = dir.path().join("nginx.conf");
    fs::write(&file, config).expect("a config file");
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(&file).arg("-p").arg(dir.path());
    let mut process = TestProcess::start(&mut command, dir);
    process.wait_for(address);
    process
}

/// A Redis server.
pub fn redis(address: SocketAddr) -> TestProcess {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &address.port().to_string(), "--bind", &address.ip().to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir.path());
    let mut process = TestProcess::start(&mut command, dir);
    process.wait_for(address);
    process
}

/// A real DNS server (unbound) for the zone `test.`, whose answers a test can change while it runs.
#[derive(Debug)]
pub struct TestDns {
    process: TestProcess,
    /// Where it answers, over UDP and TCP.
    pub address: SocketAddr,
}

impl TestDns {
    /// Starts it with an empty zone.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (address, at) = (local(free_port()), dir.path().display().to_string());
        let config = format!(
            "server:\n  interface: 127.0.0.1@{port}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  \
             directory: \"{at}\"\n  pidfile: \"{at}/pid\"\n  logfile: \"\"\n  use-syslog: no\n  verbosity: 1\n  \
             do-not-query-localhost: no\n  local-zone: \"test.\" static\n  num-threads: 1\n  module-config: \"iterator\"\n\
             remote-control:\n  control-enable: yes\n  control-use-cert: no\n  control-interface: \"{at}/control\"\n",
            port = address.port(),
        );
        let file = dir.path().join("unbound.conf");
        fs::write(&file, config).expect("a config file");
        let mut command = Command::new("/usr/sbin/unbound");
        command.arg("-d").arg("-c").arg(&file);
        let mut process = TestProcess::start(&mut command, dir);
        process.wait_for(address);
        let dns = Self { process, address };
        let end = Instant::now() + TIMEOUT;
        while !dns.control(&["status"]).status.success() {
            assert!(Instant::now() < end, "unbound takes no commands:\n{}", dns.process.output());
            thread::sleep(Duration::from_millis(20));
        }
        dns
    }

    /// Replaces every record of `name`; each of `records` is for example `1 IN A 127.0.0.2`.
    pub fn set(&self, name: &str, records: &[&str]) {
        self.remove(name);
        for record in records {
            text(&self.control(&["local_data", name, record]));
        }
    }

    /// Removes every record of `name`: NXDOMAIN from now on.
    pub fn remove(&self, name: &str) {
        text(&self.control(&["local_data_remove", name]));
    }

    fn control(&self, arguments: &[&str]) -> Output {
        Command::new("/usr/sbin/unbound-control")
            .arg("-c")
            .arg(self.process.dir().join("unbound.conf"))
            .args(arguments)
            .output()
            .expect("unbound-control (run `cargo xtask setup`)")
    }
}

/// Calls `check` until it is true; the test fails when it never is.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !check() {
        assert!(Instant::now() < end, "it never came true: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
