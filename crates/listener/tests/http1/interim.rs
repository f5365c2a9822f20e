//! Tests of 1xx responses, upgrades, and responses without a body.

use super::*;

/// Passes on two early hints, then answers; also for pipelined requests.
async fn hinting(request: HttpRequest) -> Response<Body> {
    if let Some(informational) = &request.on_informational {
        let mut headers = Fields::new();
        headers.insert("link", HeaderValue::from_static("</a.css>"));
        headers.insert("connection", HeaderValue::from_static("x"));
        informational.call(StatusCode::EARLY_HINTS, headers.clone());
        if request.request.uri().path() != "/now" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        informational.call(StatusCode::from_u16(110).unwrap(), Fields::new());
        // These are not passed on.
        informational.call(StatusCode::CONTINUE, Fields::new());
    }
    answer(request).await
}

#[test]
fn informational_responses_come_before_their_own_answer_also_when_pipelined() {
    run(async {
        let server = start(listener(), None, fun(hinting), fun(echo_bytes));
        let now = "GET /now HTTP/1.1\r\nHost: h\r\n\r\n";
        let answers = server.ask(format!("{GET}{now}{LAST}")).await;
        assert_eq!(
            statuses(&answers),
            ["103", "110", "200", "103", "110", "200", "103", "110", "200"],
            "{answers}"
        );
        assert!(answers.contains("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"), "{answers}");
        let old = server.ask("GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(statuses(&old), ["200"], "an HTTP/1.0 client can't take them: {old}");
    });
}

#[test]
fn a_late_hint_of_an_answered_request_is_dropped() {
    run(async {
        let http = fun(|request: HttpRequest| async move {
            let informational = request.on_informational.clone().unwrap();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                informational.call(StatusCode::EARLY_HINTS, Fields::new());
            });
            if request.request.uri().path() == "/z" {
                tokio::time::sleep(Duration::from_millis(30)).await;
                let mine = request.on_informational.as_ref().unwrap();
                mine.call(StatusCode::from_u16(110).unwrap(), Fields::new());
            }
            answer(request).await
        });
        let server = start(listener(), None, http, fun(echo_bytes));
        let answers = server.ask(format!("{GET}{LAST}")).await;
        // The second request's own late task sends its hint in time; the first request's task must not reach it.
        assert_eq!(statuses(&answers), ["200", "103", "110", "200"], "{answers}");
    });
}

#[test]
fn expect_100_is_answered_before_the_body_is_read() {
    run(async {
        let server = echo(listener());
        let mut client = server.connect().await;
        client
            .write_all(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut client, "100 Continue\r\n\r\n").await;
        client.write_all(b"ok").await.unwrap();
        read_until(&mut client, "PUT / [ok]").await;
    });
}

async fn upgrading(mut request: HttpRequest) -> Response<Body> {
    let connect = request.request.method() == http::Method::CONNECT;
    if request.request.uri().path() == "/no" {
        return text(200, "no");
    }
    let upgrade = request.upgrade.take().unwrap();
    tokio::task::spawn_local(async move {
        let mut io = upgrade.await.unwrap();
        let mut space = [0; 1000];
        while let Ok(n @ 1..) = io.read(&mut space).await {
            request.exchange.sent.set(request.exchange.sent.get() + n as u64);
            io.write_all(&space[..n]).await.unwrap();
        }
    });
    let status = if connect { 200 } else { 101 };
    http::Response::builder().status(status).header("upgrade", "echo").body(Body::empty()).unwrap()
}

#[test]
fn a_tunnel_gets_every_early_byte_and_is_one_exchange_to_its_end() {
    run(async {
        let server = start(listener(), None, fun(upgrading), fun(echo_bytes));
        for head in [
            "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
            "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        ] {
            let mut client = server.connect().await;
            client.write_all(format!("{head}GET \n\0early").as_bytes()).await.unwrap();
            read_until(&mut client, "GET \n\0early").await;
            client.write_all(b"late").await.unwrap();
            read_until(&mut client, "late").await;
            assert_eq!(server.connections.open(), 1);
            let before = server.done.borrow().len();
            drop(client);
            let done = server.finished(before + 1).await;
            assert_eq!((done[before].reason, done[before].sent), (None, 15));
            until(|| server.connections.open() == 0).await;
        }
    });
}

#[test]
fn after_a_declined_upgrade_the_connection_stays_http() {
    run(async {
        let server = start(listener(), None, fun(upgrading), fun(echo_bytes));
        let no = "GET /no HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n";
        let last = "GET /no HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let answers = server.ask(format!("{no}{no}{last}")).await;
        assert_eq!(statuses(&answers), ["200", "200", "200"], "{answers}");
    });
}

#[test]
fn a_101_without_an_upgrade_request_is_not_passed_on() {
    run(async {
        let http = fun(|_: HttpRequest| async {
            let mut answer = text(200, "");
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            answer
        });
        let server = start(listener(), None, http, fun(echo_bytes));
        let answers = server.ask(LAST).await;
        assert_eq!(statuses(&answers), ["502"], "{answers}");
    });
}

#[test]
fn head_and_304_are_complete_without_their_body() {
    run(async {
        let http = fun(|request: HttpRequest| async move {
            let status = if request.request.method() == http::Method::HEAD { 200 } else { 304 };
            text(status, "never sent")
        });
        let server = start(listener(), None, http, fun(echo_bytes));
        let head = "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";
        let answers = server.ask(format!("{head}{LAST}")).await;
        assert!(!answers.contains("never sent"));
        let reasons: Vec<_> = server.finished(2).await.iter().map(|d| d.reason).collect();
        assert_eq!(reasons, [None, None]);
    });
}
