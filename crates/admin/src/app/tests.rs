use std::{net::SocketAddr, time::Duration};

use attache_config::model::{Adapter, AppMetrics, AppUrl, Expect};
use attache_telemetry::Metrics;
use http::HeaderValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// An application that gives this answer to everything. It may keep the connection open or close it.
async fn app(answer: String) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

fn response(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn url(address: SocketAddr) -> AppUrl {
    AppUrl { address, authority: address.to_string().into(), path: "/status".into() }
}

async fn adapted(address: SocketAddr, expect: Option<Expect>) -> (u16, String) {
    let app = AppMetricsHandle::default();
    let adapter = Adapter {
        path: "/health".into(),
        from: url(address),
        timeout: Duration::from_secs(5),
        checks: expect.is_some(),
        expect: expect.unwrap_or_default(),
    };
    app.put(AppMetricsSettings {
        app: MetricsPage { adapt: vec![adapter], ..MetricsPage::default() },
        ..AppMetricsSettings::default()
    });
    assert!(app.adapted("/other").await.is_none());
    let answer = app.adapted("/health").await.unwrap();
    (answer.status().as_u16(), answer.into_body())
}

fn expecting(json: &[(&str, &str)]) -> Expect {
    let json = json.iter().map(|(pointer, value)| ((*pointer).into(), (*value).into())).collect();
    Expect { json, ..Expect::default() }
}

#[tokio::test]
async fn a_probe_is_answered_according_to_the_application_s_answer() {
    let body = r#"{"status":"UP","db":{"ok":true},"n":3.0}"#;
    let up = app(response("200 OK", "application/json", body)).await;
    let json = [("/status", "UP"), ("/db/ok", "true"), ("/n", "3")];
    assert_eq!(adapted(up, Some(expecting(&json))).await, (200, "ok\n".into()));
    let (status, why) = adapted(up, Some(expecting(&[("/status", "DOWN")]))).await;
    assert_eq!(status, 503);
    assert!(why.contains("`/status` is \"UP\", not `DOWN`"), "{why}");
    assert!(adapted(up, Some(expecting(&[("/none", "1")]))).await.1.contains("there is no `/none`"));
    let failing = app(response("500 Oops", "text/plain", "x")).await;
    assert!(adapted(failing, Some(expecting(&[]))).await.1.contains("the status is 500"));
    assert_eq!(adapted(failing, None).await, (500, "x".into()));
    let html = app(response("200 OK", "text/html", "<html>")).await;
    assert!(adapted(html, Some(expecting(&json))).await.1.contains("isn't JSON"));
}

#[tokio::test]
async fn an_application_that_is_down_or_hangs_fails_the_probe_in_time() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(adapted(gone, Some(expecting(&[]))).await.0, 503);
    assert_eq!(adapted(gone, None).await.0, 502);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let answer = ask::ask(&url(silent.local_addr().unwrap()), "*/*", Duration::from_millis(20), 100).await;
    assert!(answer.is_err_and(|why| why.contains("20ms")));
    let large = app(response("200 OK", "text/plain", &"x".repeat(101))).await;
    assert!(ask::ask(&url(large), "*/*", Duration::from_secs(5), 100).await.is_err(), "larger than allowed");
}

async fn scraped(pages: Vec<AppMetrics>, open: bool) -> (String, String) {
    let app = AppMetricsHandle::default();
    app.put(AppMetricsSettings {
        app: MetricsPage { metrics: pages, ..MetricsPage::default() },
        ..AppMetricsSettings::default()
    });
    let answer = metrics(&Metrics::new(), &app, open).await;
    (answer.headers()["content-type"].to_str().unwrap().to_owned(), answer.into_body())
}

fn from(address: SocketAddr) -> AppMetrics {
    AppMetrics { from: url(address), timeout: Duration::from_secs(5), max_size: 1 << 20, gauges: Vec::new() }
}

#[tokio::test]
async fn the_application_s_metrics_come_after_attache_s() {
    let text = app(response("200 OK", "text/plain; version=0.0.4", "# TYPE jobs counter\njobs 3")).await;
    let json = app(response("200 OK", "application/json", r#"{"q":{"n":2.5},"up":true}"#)).await;
    let gauges =
        ["/q/n", "/up", "/none"].map(|at| (format!("app{}", at.replace('/', "_")).into(), at.into()));
    let pages = vec![from(text), AppMetrics { gauges: gauges.to_vec(), ..from(json) }];
    for open in [false, true] {
        // The text page can't be converted to OpenMetrics, so everything is text.
        let (kind, page) = scraped(pages.clone(), open).await;
        assert!(kind.starts_with("text/plain"), "{kind}");
        for line in ["jobs 3\n", "app_q_n 2.5\n", "app_up 1\n", "\nattache_panics_total 0\n"] {
            assert!(page.contains(line), "{line}\n{page}");
        }
        assert_eq!(page.matches("attache_app_scrape_success{").count(), 2);
        assert!(!page.contains("app_none") && !page.contains("# EOF"), "{page}");
    }
    let (kind, page) = scraped(pages[1..].to_vec(), true).await;
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(page.ends_with("# EOF\n") && page.contains("app_q_n 2.5\n"), "{page}");
}

#[tokio::test]
async fn an_open_page_stays_open_and_has_one_end() {
    let kind = "application/openmetrics-text; version=1.0.0";
    let open = app(response("200 OK", kind, "# TYPE jobs counter\njobs_total 3\n# EOF\n")).await;
    let (kind, page) = scraped(vec![from(open)], true).await;
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(page.ends_with("jobs_total 3\n# EOF\n"), "{page}");
    assert_eq!(page.matches("# EOF").count(), 1);
}

#[tokio::test]
async fn an_application_that_is_down_or_sends_invalid_lines_costs_only_its_own_metrics() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let html = app(response("200 OK", "text/html", "<html>\n")).await;
    let cut = app(response("200 OK", "application/openmetrics-text", "a 1\n")).await;
    for address in [gone, html, cut] {
        let (_, page) = scraped(vec![from(address)], true).await;
        assert!(page.contains("\nattache_panics_total 0\n"), "{page}");
        assert!(
            page.contains(&format!("attache_app_scrape_success{{from=\"{address}/status\"}} 0\n")),
            "{page}"
        );
        assert!(!page.contains("html"), "{page}");
    }
}

#[test]
fn openmetrics_is_sent_if_the_client_prefers_it() {
    let wants = |accept: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        wants_openmetrics(&headers)
    };
    // The value that Prometheus 2.42 and 3 send.
    assert!(wants(
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    ));
    assert!(wants(
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.4,*/*;q=0.2"
    ));
    assert!(!wants("text/plain;version=0.0.4,application/openmetrics-text;q=0.5"));
    assert!(!wants("application/openmetrics-text;version=2.0.0"));
    assert!(!wants("application/openmetrics-text;q=0"));
    assert!(!wants("*/*"));
}
