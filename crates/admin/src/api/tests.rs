use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use attache_telemetry::{Exchange, Metrics, init_logging};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::Readiness;

#[derive(Default)]
struct Fake {
    drained: AtomicU32,
    quit: AtomicU32,
    reloaded: AtomicU32,
}

impl AdminTarget for Fake {
    fn config(&self) -> Value {
        json!({ "listeners": {} })
    }

    fn upstreams(&self) -> Value {
        json!([{ "name": "orders" }])
    }

    fn routes(&self) -> Value {
        json!([])
    }

    fn listeners(&self) -> Value {
        json!([])
    }

    fn certificates(&self) -> Value {
        json!([])
    }

    fn reloads(&self) -> Value {
        json!([])
    }

    fn drain(&self) {
        self.drained.fetch_add(1, SeqCst);
    }

    fn quit(&self) {
        self.quit.fetch_add(1, SeqCst);
    }

    fn reload(&self) -> Reloading {
        let good = self.reloaded.fetch_add(1, SeqCst) == 0;
        Box::pin(async move { if good { Ok("reloaded\n".into()) } else { Err("line 3: wrong\n".into()) } })
    }
}

struct Fixture {
    api: AdminApi,
    fake: Arc<Fake>,
}

fn fixture() -> Fixture {
    // A process has only one log: the tests share it, and only one of them changes it.
    static LOG: std::sync::OnceLock<LogControl> = std::sync::OnceLock::new();
    let (metrics, fake) = (Metrics::new(), Arc::<Fake>::default());
    let api = AdminApi {
        stats: Arc::new(Stats::new(&metrics)),
        state: AdminState { metrics, readiness: Readiness::new(), app: crate::AppMetricsHandle::default() },
        log: Some(LOG.get_or_init(|| init_logging("warn").unwrap()).clone()),
        proxy: fake.clone(),
        started: SystemTime::now(),
    };
    Fixture { api, fake }
}

fn ask_as(api: &AdminApi, method: &str, target: &str, header: (&str, &str)) -> AdminAnswer {
    let request = Request::builder().method(method).uri(target).header("host", "localhost:15000");
    let request = request.header(header.0, header.1).body(()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match reply(api, &request) {
            AdminReply::Whole(answer) => answer,
            AdminReply::Later(answer) => answer.await,
            AdminReply::Stream(_) => text(StatusCode::OK, "a stream"),
        }
    })
}

fn ask(api: &AdminApi, method: &str, target: &str) -> (u16, String) {
    let answer = ask_as(api, method, target, ("accept", "*/*"));
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
        let target = target.replace("=U", "=orders");
        let (status, _) = ask(&api, method, &target);
        assert!(matches!(status, 200 | 202) || target == "/readyz" && status == 503, "{line}: {status}");
        count += 1;
    }
    assert_eq!(count, 22);
}

#[test]
fn a_get_changes_nothing() {
    let Fixture { api, fake } = fixture();
    for target in ["/drain", "/quitquitquit", "/reload"] {
        for method in ["GET", "HEAD", "DELETE"] {
            assert_eq!(ask(&api, method, target).0, 405, "{method} {target}");
        }
    }
    assert_eq!(ask(&api, "GET", "/log?level=trace"), (200, "warn\n".into()));
    assert_eq!((fake.drained.load(SeqCst), fake.quit.load(SeqCst)), (0, 0));
}

#[test]
fn draining_and_quitting_are_posted() {
    let Fixture { api, fake } = fixture();
    assert_eq!(ask(&api, "POST", "/drain").0, 202);
    assert_eq!((fake.drained.load(SeqCst), fake.quit.load(SeqCst)), (1, 0));
    assert_eq!(ask(&api, "POST", "/quitquitquit").0, 202);
    assert_eq!((fake.drained.load(SeqCst), fake.quit.load(SeqCst)), (1, 1));
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let Fixture { api, fake } = fixture();
    let request = Request::post("/quitquitquit")
        .header("host", "localhost:15000")
        .header("origin", "http://evil.example")
        .body(())
        .unwrap();
    let AdminReply::Whole(answer) = reply(&api, &request) else { panic!("not refused") };
    assert_eq!(answer.status(), 403);
    assert_eq!(fake.quit.load(SeqCst), 0);
}

#[test]
fn config_and_upstreams_are_json() {
    let Fixture { api, .. } = fixture();
    let answer = ask_as(&api, "GET", "/upstreams", ("accept", "*/*"));
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(serde_json::from_str::<Value>(answer.body()).unwrap(), json!([{ "name": "orders" }]));
    assert_eq!(ask(&api, "POST", "/config").0, 405);
}

#[test]
fn an_invalid_log_level_is_refused_with_the_valid_ones() {
    let Fixture { api, .. } = fixture();
    for target in ["/log", "/log?", "/log?level=%", "/log?level=%ff", "/log?level=loud"] {
        assert_eq!(ask(&api, "POST", target).0, 400, "{target}");
    }
    assert_eq!(ask(&api, "GET", "/log").1, "warn\n");
}

#[test]
fn a_reload_says_whether_it_succeeded() {
    let Fixture { api, .. } = fixture();
    assert_eq!(ask(&api, "POST", "/reload"), (200, "reloaded\n".into()));
    assert_eq!(ask(&api, "POST", "/reload"), (422, "line 3: wrong\n".into()));
}

#[test]
fn a_browser_gets_the_dashboard_which_may_load_nothing_from_elsewhere() {
    let Fixture { api, .. } = fixture();
    let answer = ask_as(&api, "GET", "/", ("accept", "text/html,application/xhtml+xml,*/*;q=0.8"));
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let page = answer.into_body();
    assert!(!page.contains("http://") && !page.contains("https://"), "a reference to another origin");
    assert!(!page.contains("style=") && !page.contains("onclick"), "inline parts are refused by the policy");
    for file in page.split('"').filter(|part| part.starts_with('/') && part.contains('.')) {
        assert_eq!(ask(&api, "GET", file).0, 200, "{file}");
    }
    assert!(ask(&api, "GET", "/").1.starts_with("attache\n"), "curl gets text");
}

#[test]
fn failures_are_shown_with_all_details() {
    let Fixture { api, .. } = fixture();
    let exchange = Exchange::new("outbound".into(), "http1", None);
    exchange.path.replace("/v1/items".into());
    exchange.status.set(503);
    exchange.attempts.set(3);
    exchange.fail(Reason::ConnectRefused, "Connection refused (os error 111)");
    api.state.metrics.worker().request_finished(&exchange);
    let page: Value = serde_json::from_str(&ask(&api, "GET", "/failures").1).unwrap();
    let failure = &page["failures"][0];
    assert_eq!((&failure["reason"], &failure["attempts"]), (&json!("connect-refused"), &json!(3)));
    assert_eq!(failure["detail"], "Connection refused (os error 111)");
    let stats: Value = serde_json::from_str(&ask(&api, "GET", "/stats.json").1).unwrap();
    assert_eq!((&stats["total"]["failed"], &stats["total"]["requests"]), (&json!(1), &json!(1)));
}

#[test]
fn a_tap_with_an_invalid_filter_is_refused() {
    let Fixture { api, .. } = fixture();
    assert_eq!(ask(&api, "GET", "/tap?colour=red").0, 400);
    assert_eq!(ask(&api, "POST", "/tap").0, 405);
    assert_eq!(ask(&api, "GET", "/tap"), (200, "a stream".into()));
}

#[tokio::test]
async fn a_socket_that_other_machines_can_reach_is_refused() {
    let socket = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = serve_api(socket, fixture().api, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");
}
