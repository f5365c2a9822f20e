use std::task::{Context, Waker};

use super::*;

fn bytes(len: usize) -> Bytes {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// Bodies of many lengths up to `most`, and trailers, come back unchanged.
async fn echoes(caller: &StreamOpener, most: usize) {
    for len in [0, 1, 1000, 5000, 70_000, most] {
        let (head, body, trailers) = exchange(caller, "/x", bytes(len)).await.unwrap();
        assert_eq!(
            (head.status, head.headers.get("x-path").unwrap().as_bytes()),
            (StatusCode::OK, &b"/x"[..])
        );
        assert!(body == bytes(len), "{len}");
        assert_eq!(trailers.unwrap().get("x-end").unwrap(), "yes");
    }
}

#[test]
fn both_sides_of_this_crate_understand_each_other() {
    run(async {
        let (ours, theirs) = socket();
        spawn_local(serve(theirs, SETTINGS));
        let caller = call(ours, SETTINGS);
        echoes(&caller, 3 << 20).await;
        assert!(exchange(&caller, "/cut", Bytes::new()).await.is_err_and(|error| error.is_remote()));
    });
}

#[test]
fn many_streams_share_the_connection_and_none_hangs() {
    run(async {
        let (ours, theirs) = socket();
        spawn_local(serve(theirs, SETTINGS));
        let caller = Rc::new(call(ours, SETTINGS));
        let mut all = tokio::task::JoinSet::new();
        for n in 0..80 {
            let caller = Rc::clone(&caller);
            all.spawn_local(async move {
                let body = bytes(n * 3000);
                let (_, echoed, _) = exchange(&caller, "/x", body.clone()).await.unwrap();
                assert!(echoed == body);
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn the_h2_crate_s_client_is_served() {
    run(async {
        let (ours, theirs) = socket();
        let server = spawn_local(serve(theirs, SETTINGS));
        let (mut client, connection) = h2::client::handshake(ours).await.unwrap();
        let driver = spawn_local(connection);
        for len in [0, 1, 100, 40_000, 200_000] {
            client = client.ready().await.unwrap();
            let request = http::Request::post("http://h/y?z").header("a", "b".repeat(3000)).body(()).unwrap();
            let (answer, mut send) = client.send_request(request, false).unwrap();
            spawn_local(async move {
                let mut body = bytes(len);
                while !body.is_empty() {
                    send.reserve_capacity(body.len());
                    let n = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                    send.send_data(body.split_to(n), false).unwrap();
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("of-request", HeaderValue::from_static("1"));
                send.send_trailers(trailers).unwrap();
            });
            let answer = answer.await.unwrap();
            assert_eq!(answer.status().as_u16(), 200);
            assert_eq!(answer.headers().get("x-path").unwrap(), "/y");
            let mut body = answer.into_body();
            let mut all = BytesMut::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                all.extend_from_slice(&data);
            }
            assert!(all == bytes(len));
            let trailers = body.trailers().await.unwrap().unwrap();
            assert_eq!(trailers.get("x-end").unwrap(), "yes");
            assert_eq!(trailers.get("of-request").unwrap(), "1");
        }
        client = client.ready().await.unwrap();
        let (mut answer, _) =
            client.send_request(http::Request::get("http://h/hints").body(()).unwrap(), true).unwrap();
        let hints = poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((hints.status().as_u16(), answer.await.unwrap().status().as_u16()), (103, 204));
        let (never, mut send) =
            client.send_request(http::Request::get("http://h/never").body(()).unwrap(), true).unwrap();
        send.send_reset(h2::Reason::CANCEL);
        drop((never, send, client));
        driver.await.unwrap().unwrap();
        server.await.unwrap().unwrap();
    });
}

#[test]
fn the_h2_crate_s_server_is_called() {
    run(async {
        let (ours, theirs) = socket();
        spawn_local(async move {
            let mut server = h2::server::handshake(theirs).await.unwrap();
            while let Some(request) = server.accept().await {
                let (request, mut respond) = request.unwrap();
                spawn_local(async move {
                    let answer =
                        http::Response::builder().header("x-path", request.uri().path()).body(()).unwrap();
                    let mut send = respond.send_response(answer, false).unwrap();
                    let mut body = request.into_body();
                    while let Some(data) = body.data().await {
                        let mut data = data.unwrap();
                        body.flow_control().release_capacity(data.len()).unwrap();
                        while !data.is_empty() {
                            send.reserve_capacity(data.len());
                            let n = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                            send.send_data(data.split_to(n), false).unwrap();
                        }
                    }
                    let trailers = [("x-end", "yes")].map(|(name, value)| {
                        (http::HeaderName::from_static(name), HeaderValue::from_static(value))
                    });
                    send.send_trailers(trailers.into_iter().collect()).unwrap();
                });
            }
        });
        let caller = call(ours, SETTINGS);
        echoes(&caller, 1 << 20).await;
        assert_eq!((caller.allowed().is_some(), caller.goes_away()), (true, false));
    });
}

#[test]
fn after_goaway_running_streams_end_and_then_the_connection() {
    run(async {
        let (ours, theirs) = socket();
        let server = spawn_local(async move {
            let mut connection = Connection::server(theirs, SETTINGS, Box::new(Unlimited));
            let mut requests = 0;
            poll_fn(|cx| {
                let polled = connection.poll(cx);
                while let Some(request) = connection.accept() {
                    requests += 1;
                    connection.say_goodbye();
                    spawn_local(echo(request));
                }
                polled
            })
            .await
            .map(|()| requests)
        });
        let caller = call(ours, SETTINGS);
        let (head, body, _) = exchange(&caller, "/x", bytes(100_000)).await.unwrap();
        assert_eq!((head.status, body.len()), (StatusCode::OK, 100_000));
        assert_eq!(server.await.unwrap().unwrap(), 1);
        assert!(caller.goes_away());
    });
}

#[test]
fn a_retired_client_ends_with_its_last_stream() {
    run(async {
        let (ours, theirs) = socket();
        let server = spawn_local(serve(theirs, SETTINGS));
        let caller = call(ours, SETTINGS);
        let running = spawn_local({
            let caller = caller.clone();
            async move { exchange(&caller, "/x", bytes(200_000)).await }
        });
        tokio::task::yield_now().await;
        caller.retire();
        assert_eq!(running.await.unwrap().unwrap().1.len(), 200_000);
        server.await.unwrap().unwrap();
    });
}

#[test]
fn a_reader_that_stops_delays_only_its_own_stream() {
    run(async {
        let (ours, theirs) = socket();
        spawn_local(serve(theirs, SETTINGS));
        let caller = call(ours, SETTINGS);
        let mut idle = Vec::new();
        for _ in 0..20 {
            let (send, received) = caller.open(&post("/x"), false).unwrap();
            let all = bytes(1 << 20);
            spawn_local(async move { send_all(&send, all, true).await });
            idle.push(received);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (_, body, _) = exchange(&caller, "/x", bytes(300_000)).await.unwrap();
        assert_eq!(body.len(), 300_000);
        drop(idle);
        let (_, body, _) = exchange(&caller, "/x", bytes(300_000)).await.unwrap();
        assert_eq!(body.len(), 300_000);
    });
}

#[test]
fn a_sender_that_waits_continues_when_the_server_stops_reading() {
    let (reads, _server) = tokio::io::duplex(100);
    let (writes, server) = tokio::io::duplex(100);
    let settings = Settings { send_buffer: 100, ..SETTINGS };
    let (mut connection, caller) =
        Connection::client(tokio::io::join(reads, writes), settings, Box::new(Unlimited));
    let (send, _received) = caller.open(&post("/"), false).unwrap();
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(send.poll_capacity(cx, 1000).is_pending(), "the connection's first frames fill the buffer");
    drop(server);
    assert!(connection.poll(cx).is_pending());
    connection.shared().borrow().audit();
    assert!(send.poll_capacity(cx, 1000).is_ready());
}
