use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use attache_telemetry::{Metrics, init_logging};
use serde_json::json;

use super::*;
use crate::Readiness;

struct Fixture {
    api: Api,
    drained: Arc<AtomicU32>,
    quit: Arc<AtomicU32>,
}

fn fixture() -> Fixture {
    // One log a process: the tests share it, and only one of them changes it.
    static LOG: std::sync::OnceLock<LogControl> = std::sync::OnceLock::new();
    let (drained, quit) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let count = |counter: &Arc<AtomicU32>| -> Arc<dyn Fn() + Send + Sync> {
        let counter = Arc::clone(counter);
        Arc::new(move || {
            counter.fetch_add(1, SeqCst);
        })
    };
    let api = Api {
        state: AdminState {
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            app: crate::App::default(),
        },
        log: LOG.get_or_init(|| init_logging("warn").unwrap()).clone(),
        config: Arc::new(|| json!({ "listeners": [] })),
        upstreams: Arc::new(|| json!([{ "name": "orders" }])),
        drain: count(&drained),
        quit: count(&quit),
    };
    Fixture { api, drained, quit }
}

fn ask(api: &Api, method: &str, target: &str) -> (u16, String) {
    let request =
        Request::builder().method(method).uri(target).header("host", "localhost:15000").body(()).unwrap();
    let answer = answer(api, &request);
    (answer.status().as_u16(), answer.into_body())
}

#[test]
fn every_line_of_the_index_is_answered() {
    let Fixture { api, .. } = fixture();
    let (status, index) = ask(&api, "GET", "/");
    assert_eq!(status, 200);
    let mut count = 0;
    for line in index.lines().filter(|line| line.starts_with("GET") || line.starts_with("POST")) {
        let mut words = line.split_ascii_whitespace();
        let (method, target) = (words.next().unwrap(), words.next().unwrap().replace("=L", "=warn"));
        let (status, _) = ask(&api, method, &target);
        assert!(matches!(status, 200 | 202) || target == "/readyz" && status == 503, "{line}: {status}");
        count += 1;
    }
    assert_eq!(count, 9);
}

#[test]
fn a_get_changes_nothing() {
    let Fixture { api, drained, quit } = fixture();
    for target in ["/drain", "/quitquitquit"] {
        for method in ["GET", "HEAD", "DELETE"] {
            assert_eq!(ask(&api, method, target).0, 405, "{method} {target}");
        }
    }
    assert_eq!(ask(&api, "GET", "/log?level=trace"), (200, "warn\n".into()));
    assert_eq!((drained.load(SeqCst), quit.load(SeqCst)), (0, 0));
}

#[test]
fn draining_and_quitting_are_posted() {
    let Fixture { api, drained, quit } = fixture();
    assert_eq!(ask(&api, "POST", "/drain").0, 202);
    assert_eq!((drained.load(SeqCst), quit.load(SeqCst)), (1, 0));
    assert_eq!(ask(&api, "POST", "/quitquitquit").0, 202);
    assert_eq!((drained.load(SeqCst), quit.load(SeqCst)), (1, 1));
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let Fixture { api, quit, .. } = fixture();
    let request = Request::post("/quitquitquit")
        .header("host", "localhost:15000")
        .header("origin", "http://evil.example")
        .body(())
        .unwrap();
    assert_eq!(answer(&api, &request).status(), 403);
    assert_eq!(quit.load(SeqCst), 0);
}

#[test]
fn config_and_upstreams_are_json() {
    let Fixture { api, .. } = fixture();
    let request = Request::get("/upstreams").header("host", "localhost").body(()).unwrap();
    let answer = answer(&api, &request);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(serde_json::from_str::<Value>(answer.body()).unwrap(), json!([{ "name": "orders" }]));
    assert_eq!(ask(&api, "POST", "/config").0, 405);
}

#[test]
fn a_level_that_can_not_be_read_is_refused_with_what_can() {
    let Fixture { api, .. } = fixture();
    for target in ["/log", "/log?", "/log?level=%", "/log?level=%ff", "/log?level=loud"] {
        assert_eq!(ask(&api, "POST", target).0, 400, "{target}");
    }
    assert_eq!(ask(&api, "GET", "/log").1, "warn\n");
}

#[test]
fn escapes_in_a_level_are_read() {
    assert_eq!(percent_decoded("info%2Ca%3ddebug").as_deref(), Some("info,a=debug"));
    assert_eq!(percent_decoded("info,a=debug").as_deref(), Some("info,a=debug"));
    for broken in ["%", "%2", "%zz", "%ff", "%+1"] {
        assert_eq!(percent_decoded(broken), None, "{broken}");
    }
}

#[tokio::test]
async fn a_socket_that_others_reach_is_refused() {
    let socket = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = serve_api(socket, fixture().api, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");
}
