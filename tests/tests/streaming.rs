//! Large bodies in both directions: every byte arrives, and memory does not grow.

use std::{fs, process::Command};

use attache_tests::{Attache, curl, eventually, free_port, local, nginx, script_server, text};

const GIB: u64 = 1 << 30;

#[test]
fn a_gibibyte_down_and_up_with_flat_memory() {
    let (down, up) = (free_port(), free_port());
    let dir = tempfile::tempdir().unwrap();
    // A sparse file needs no disk space.
    fs::File::create(dir.path().join("large")).unwrap().set_len(GIB).unwrap();
    let root = dir.path().display();
    let _nginx =
        nginx(&format!("server {{ listen 127.0.0.1:{down}; root {root}; sendfile on; }}"), local(down));
    let _sink = script_server("sink_server.py", local(up), &[]);
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - {{ match: {{ path: /large }}, to: down, timeout: off }}
      - {{ match: {{ path: /sink }}, to: up, timeout: off }}
upstreams:
  down: http://127.0.0.1:{down}
  up: http://127.0.0.1:{up}"
    ));
    let warm = || {
        text(&curl(["-o", "/dev/null", "-r", "0-1048575", "-w", "%{size_download}", &attache.url("/large")]))
    };
    assert_eq!(warm(), "1048576");
    let before = attache.process.allocated_kib();

    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let size =
            text(&curl([version, "-o", "/dev/null", "-w", "%{size_download}", &attache.url("/large")]));
        assert_eq!(size, GIB.to_string(), "down {version}");
        let upload = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "head -c {GIB} /dev/zero | curl -sS {version} --noproxy '' -T - -H 'Expect:' {}",
                attache.url("/sink")
            ))
            .output()
            .unwrap();
        assert_eq!(text(&upload).trim(), GIB.to_string(), "up {version}");
    }
    // Memory for data in windows is free when the last stream has ended, and is returned a moment later.
    eventually(&format!("memory is within 24 MiB of the {before} KiB before"), || {
        attache.process.allocated_kib() < before + 24 * 1024
    });
}
