//! HTTP/1.1: reuse, and everything that ends it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use attache_http::{Body, OnInformational};
use attache_telemetry::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::{SentPart, testing::*};

#[tokio::test(flavor = "local")]
async fn requests_one_after_the_other_share_a_connection() {
    let heads = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&heads);
    let server = serve(move |mut stream, _| {
        let seen = Rc::clone(&seen);
        async move {
            while let Some(head) = head(&mut stream).await {
                seen.borrow_mut().push(head);
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let upstream = to(&server, |_| {});
    for _ in 0..3 {
        let response = upstream.send(get("/a?b")).await.unwrap();
        assert_eq!(text(response).await, "ok");
    }
    assert_eq!(server.accepted.get(), 1);
    assert_eq!(heads.borrow()[2], "GET /a?b HTTP/1.1\r\nhost: service.example:80\r\n\r\n");
    assert_eq!(counts(&upstream), (1, 0));
}

#[tokio::test(flavor = "local")]
async fn the_exchange_learns_endpoint_and_attempts() {
    let server = answering(OK).await;
    let upstream = to(&server, |_| {});
    let call = get("/");
    let exchange = Rc::clone(&call.context.exchange);
    upstream.send(call).await.unwrap();
    assert_eq!(exchange.attempts.get(), 1);
    assert_eq!(exchange.endpoint.borrow().as_deref(), Some(server.address.to_string().as_str()));
}

#[tokio::test(flavor = "local")]
async fn the_connection_that_became_idle_last_is_used_first() {
    let server = serve(|mut stream, number| async move {
        while head(&mut stream).await.is_some() {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let upstream = to(&server, |_| {});
    let three = tokio::join!(upstream.send(get("/")), upstream.send(get("/")), upstream.send(get("/")));
    for response in [three.0, three.1, three.2] {
        text(response.unwrap()).await;
    }
    assert_eq!(server.accepted.get(), 3);
    let last = text(upstream.send(get("/")).await.unwrap()).await;
    for _ in 0..3 {
        assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, last);
    }
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_that_the_peer_closed_is_not_used() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    })
    .await;
    let upstream = to(&server, |_| {});
    for accepted in 1..4 {
        assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
        assert_eq!(server.accepted.get(), accepted);
        settle().await;
    }
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_with_bytes_before_a_request_is_not_used() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
        settle().await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong").await;
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = to(&server, |_| {});
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    // Waits in turns of the same length as the server's, so that its bytes arrive first also on a busy machine.
    for _ in 0..3 {
        settle().await;
    }
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    assert_eq!(server.accepted.get(), 2);
}

#[tokio::test(flavor = "local")]
async fn the_close_race_on_a_kept_connection_says_that_it_was_one() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
        head(&mut stream).await; // read, and closed without an answer
    })
    .await;
    let upstream = to(&server, |_| {});
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    let error = upstream.send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent, error.reused), (Reason::UpstreamReset, SentPart::Request, true));
    assert_eq!(counts(&upstream), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn a_new_connection_that_is_closed_without_an_answer_is_no_close_race() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
    })
    .await;
    let error = to(&server, |_| {}).send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent, error.reused), (Reason::UpstreamReset, SentPart::Request, false));
}

#[tokio::test(flavor = "local")]
async fn a_part_of_a_head_is_a_part_of_a_response() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncont").await.unwrap();
    })
    .await;
    let error = to(&server, |_| {}).send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::UpstreamReset, SentPart::Response));
}

#[tokio::test(flavor = "local")]
async fn what_is_not_http_and_a_head_above_the_limit_are_protocol_errors() {
    let server = answering("SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    let error = to(&server, |_| {}).send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::UpstreamProtocolError, SentPart::Response));

    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        let answer = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(10_000));
        let _ = stream.write_all(answer.as_bytes()).await;
        settle().await;
    })
    .await;
    let error = to(&server, |c| c.pool.headers_size = 8192).send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::UpstreamProtocolError, SentPart::Response));
}

#[tokio::test(flavor = "local")]
async fn a_refused_connection_says_so_and_that_nothing_was_sent() {
    let server = answering(OK).await;
    let mut gone = server.address;
    gone.set_port(1);
    let upstream = upstream(config(), vec![endpoint(gone, None)]);
    let error = upstream.send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::ConnectRefused, SentPart::Nothing));
    assert!(error.detail().contains("refused"), "{}", error.detail());
    assert_eq!(counts(&upstream), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn early_hints_pass_in_order_and_before_the_response() {
    let server = answering(concat!(
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    ))
    .await;
    let heard = Rc::new(RefCell::new(Vec::new()));
    let to_hear = Rc::clone(&heard);
    let mut call = get("/");
    call.context_mut().on_informational =
        Some(OnInformational::new(move |status, headers: &attache_wire::Fields| {
            to_hear
                .borrow_mut()
                .push((status.as_u16(), headers.get("link").unwrap().to_str().unwrap().to_owned()));
        }));
    let response = to(&server, |_| {}).send(call).await.unwrap();
    assert_eq!(*heard.borrow(), [(103, "a".to_owned()), (103, "b".to_owned())]);
    assert_eq!(text(response).await, "ok");
}

#[tokio::test(flavor = "local")]
async fn a_flood_of_early_hints_leaves_other_tasks_their_turn() {
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2000);
    let answer = hints + "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let server = answering(answer.leak()).await;
    let turns = Rc::new(Cell::new(0));
    let others = Rc::clone(&turns);
    tokio::task::spawn_local(async move {
        loop {
            others.update(|turns| turns + 1);
            tokio::task::yield_now().await;
        }
    });
    // How many hints were passed on in each turn of the other task.
    let passed = Rc::new(RefCell::new(HashMap::new()));
    let to_pass = Rc::clone(&passed);
    let mut call = get("/");
    call.context_mut().on_informational = Some(OnInformational::new(move |_, _: &attache_wire::Fields| {
        *to_pass.borrow_mut().entry(turns.get()).or_insert(0) += 1;
    }));
    let response = to(&server, |_| {}).send(call).await.unwrap();
    assert_eq!(text(response).await, "ok");
    assert_eq!(passed.borrow().values().sum::<u32>(), 2000);
    assert!(passed.borrow().values().all(|hints| *hints <= 64), "{passed:?}");
}

#[tokio::test(flavor = "local")]
async fn an_http_1_0_answer_is_read_and_its_connection_is_not_used_again() {
    let server = answering("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok").await;
    let upstream = to(&server, |_| {});
    for accepted in 1..3 {
        assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
        assert_eq!(server.accepted.get(), accepted);
    }
}

#[tokio::test(flavor = "local")]
async fn responses_without_a_body_keep_the_connection() {
    let server = serve(|mut stream, _| async move {
        while let Some(head) = head(&mut stream).await {
            let answer = match head.split(' ').next().unwrap() {
                "HEAD" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
                "DELETE" => "HTTP/1.1 204 No Content\r\n\r\n",
                _ => "HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n",
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let upstream = to(&server, |_| {});
    for (method, status) in [("HEAD", 200), ("DELETE", 204), ("GET", 304), ("HEAD", 200)] {
        let request = http::Request::builder().method(method).uri("http://a/").body(Body::empty()).unwrap();
        let response = upstream.send(call(request)).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(text(response).await, "");
    }
    assert_eq!(server.accepted.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn connection_close_is_honoured() {
    let server = answering("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    let upstream = to(&server, |_| {});
    for accepted in 1..3 {
        assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
        assert_eq!(server.accepted.get(), accepted);
    }
}

#[tokio::test(flavor = "local")]
async fn a_dropped_call_closes_its_connection_and_gives_its_counts_back() {
    let closed = Rc::new(RefCell::new(0));
    let seen = Rc::clone(&closed);
    let server = serve(move |mut stream, _| {
        let seen = Rc::clone(&seen);
        async move {
            head(&mut stream).await;
            assert!(stream.read_u8().await.is_err());
            *seen.borrow_mut() += 1;
        }
    })
    .await;
    let upstream = to(&server, |_| {});
    assert!(timeout(Duration::from_millis(50), upstream.send(get("/"))).await.is_err());
    settle().await;
    assert_eq!((*closed.borrow(), counts(&upstream)), (1, (0, 0)));
}

#[tokio::test(flavor = "local")]
async fn a_client_s_proxy_header_is_sent_once_and_its_connection_is_not_shared() {
    use attache_config::model::ProxyProtocolOut;
    let firsts = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&firsts);
    let server = serve(move |mut stream, _| {
        let seen = Rc::clone(&seen);
        async move {
            let first = until(&mut stream, "\r\n").await.unwrap();
            seen.borrow_mut().push(first);
            while head(&mut stream).await.is_some() {
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let upstream = to(&server, |c| c.proxy_protocol = ProxyProtocolOut::V1);
    for port in [1000, 1000, 2000, 1000] {
        let mut call = get("/");
        call.context_mut().client = Rc::new(attache_http::Client {
            address: Some(([192, 0, 2, 1], port).into()),
            local: Some(([192, 0, 2, 9], 80).into()),
            ..Default::default()
        });
        assert_eq!(text(upstream.send(call).await.unwrap()).await, "ok");
    }
    assert_eq!(
        *firsts.borrow(),
        ["PROXY TCP4 192.0.2.1 192.0.2.9 1000 80\r\n", "PROXY TCP4 192.0.2.1 192.0.2.9 2000 80\r\n"]
    );
}

#[tokio::test(flavor = "local")]
async fn the_other_address_family_is_tried_when_the_first_fails() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else { return };
    let server = serve_on(listener, |mut stream, _| async move {
        while head(&mut stream).await.is_some() {
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    let dead = endpoint(([127, 0, 0, 1], 1).into(), Some("service.example"));
    let alive = endpoint(server.address, Some("service.example"));
    let upstream = upstream(config(), vec![dead, alive]);
    let call = get("/");
    let exchange = Rc::clone(&call.context.exchange);
    assert_eq!(text(upstream.send(call).await.unwrap()).await, "ok");
    assert_eq!(exchange.endpoint.borrow().as_deref(), Some(server.address.to_string().as_str()));
    assert_eq!(counts(&upstream), (1, 0));
}

#[tokio::test(flavor = "local")]
async fn the_other_address_family_races_a_connection_that_hangs() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else { return };
    let server = serve_on(listener, |mut stream, _| async move {
        while head(&mut stream).await.is_some() {
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    // A listener whose queue is full drops the handshake's first packet.
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let full = full.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(io)) = timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address)).await
    {
        filling.push(io);
    }
    let hangs = endpoint(address, Some("service.example"));
    let alive = endpoint(server.address, Some("service.example"));
    let upstream = upstream(config(), vec![hangs, alive]);
    let start = Instant::now();
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
    assert_eq!(counts(&upstream), (1, 0));
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_hangs_times_out() {
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let full = full.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(io)) = timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address)).await
    {
        filling.push(io);
    }
    let error = upstream(config(), vec![endpoint(address, None)]).send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::ConnectTimeout, SentPart::Nothing));
}

#[tokio::test(flavor = "local")]
async fn what_a_call_keeps_while_it_waits_is_bounded() {
    let server = answering(OK).await;
    let upstream = to(&server, |_| {});
    // Every running request has one of these futures: it must not keep what is not needed after the head was sent.
    let size = size_of_val(&upstream.send(get("/")));
    assert!(size <= 1700, "{size} bytes");
}

#[tokio::test(flavor = "local")]
async fn a_plaintext_address_for_a_tls_port_is_reported_as_such() {
    // Some servers send an alert, because they expect a handshake. Others close without a byte.
    for (answer, words) in [
        (&b"\x15\x03\x01\0\x02\x02\x46"[..], "the upstream speaks TLS: write `https://` in its address"),
        (b"", "if it expects TLS, write `https://` in its address"),
    ] {
        let server = serve(move |mut stream, _| async move {
            head(&mut stream).await;
            stream.write_all(answer).await.unwrap();
        })
        .await;
        let upstream = to(&server, |_| {});
        let error = upstream.send(get("/")).await.unwrap_err();
        assert!(error.detail().contains(words), "{}", error.detail());
    }
}

#[tokio::test(flavor = "local")]
async fn a_peer_that_has_sent_bytes_is_not_reported_to_expect_tls() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    })
    .await;
    let upstream = to(&server, |_| {});
    let error = upstream.send(get("/")).await.unwrap_err();
    assert!(!error.detail().contains("TLS"), "{}", error.detail());
}

#[tokio::test(flavor = "local")]
async fn the_error_about_a_peer_that_speaks_first_shows_its_first_bytes() {
    let server = serve(|mut stream, _| async move {
        stream.write_all(b"220 mail ESMTP\r\n").await.unwrap();
        head(&mut stream).await;
    })
    .await;
    let upstream = to(&server, |_| {});
    for _ in 0..3 {
        let error = upstream.send(get("/")).await.unwrap_err();
        assert_eq!(error.reason, Reason::UpstreamProtocolError);
        assert!(error.detail().contains("begins with `220 mail ESMTP"), "{}", error.detail());
    }
}
