//! What Kubernetes does to a pod under load: a rolling restart of a called Service, and a newer attache in the pod.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lint does not see that these are helpers of tests"
)]

use attache_tests::{binary, script_alone};
use serde_json::Value;

/// What a script reports about attache.
fn said(script: &str, arguments: &[&str]) -> Value {
    let program = binary().display().to_string();
    let done = script_alone(script, &[&[program.as_str()], arguments].concat());
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&done.stderr)))
}

#[test]
fn during_a_rolling_restart_endpoint_slices_keep_work_away_from_ending_pods() {
    let by = said("rolling_restart.py", &["slices"]);
    assert!(by["requests"].as_u64().unwrap() > 100 && by["streams"].as_u64().unwrap() > 8, "{by:#}");
    for count in ["failed", "streams_cut"] {
        assert_eq!(by[count], 0, "{by:#}");
    }
    // Requests that were under way when the change arrived.
    assert!(by["begun_on_terminating"].as_u64().unwrap() <= 64, "{by:#}");
}

#[test]
fn an_upgrade_in_a_running_pod_fails_no_call_no_websocket_and_no_grpc_stream() {
    let seen = said("upgrade_in_pod.py", &[]);
    for count in ["failed", "websockets_failed", "grpc_failed", "probes_failed"] {
        assert_eq!(seen[count], 0, "{seen:#}");
    }
    for count in ["requests", "websocket_messages", "grpc_messages"] {
        assert!(seen[count].as_u64().unwrap() > 100, "{seen:#}");
    }
    let steps = &seen["steps"];
    assert_eq!(steps["can't serve"]["status"], 1, "{seen:#}");
    assert_eq!(steps["can't serve"]["active"], "1", "the old one continues to serve: {seen:#}");
    for step in ["first", "second"] {
        assert_eq!(steps[step]["status"], 0, "{seen:#}");
    }
    let active = ["first", "second"].map(|step| steps[step]["active"].as_str().unwrap());
    assert!(active[0] != "1" && active[1] != active[0], "{seen:#}");
    assert_eq!(seen["processes_before_the_end"], 3, "the processes before it finish their work: {seen:#}");
    assert_eq!(seen["ended"]["code"], 0, "SIGTERM to process 1 ends the pod: {seen:#}");
}

#[test]
fn a_container_ends_with_the_process_that_serves_though_others_have_not_drained() {
    let seen = said("upgrade_in_pod.py", &["--requests", "3000", "--crash"]);
    assert_eq!(seen["processes_before_the_end"], 3, "{seen:#}");
    assert!(seen["ended"]["code"].as_u64().is_some_and(|code| code != 0), "{seen:#}");
    assert!(seen["ended"]["seconds"].as_f64().unwrap() < 20.0, "{seen:#}");
}
