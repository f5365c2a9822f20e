//! Active health checks against real servers: what is sent, what is logged, what is counted.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use attache_tests::{Attache, eventually, free_port, free_port_on, http_get, local, nginx, raw, redis};

#[test]
fn a_redis_is_checked_with_bytes_and_each_change_is_logged_with_its_cause() {
    let address = local(free_port());
    let server = redis(address);
    let config = format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', protocol: tcp, to: cache }} }}
upstreams:
  cache:
    address: 'tcp://{address}'
    health_check:
      tcp: {{ send: \"PING\\r\\n\", expect: '+PONG' }}
      interval: 200ms
      unhealthy_interval: 100ms
      timeout: 200ms
      unhealthy: 2"
    );
    let attache = Attache::start_with(&config, &[("ATTACHE_LOG", "info,attache_upstream=debug")]);
    let changes = |to: &str| attache.metric("attache_upstream_transitions_total", &["what=\"health\"", to]);
    assert!(raw(local(attache.port), b"PING\r\nQUIT\r\n").starts_with("+PONG"));
    assert_eq!(changes("to=\"unhealthy\""), 0.0);

    drop(server);
    eventually("its end is noticed", || changes("to=\"unhealthy\"") == 1.0);
    // Its end may come between two checks or in the middle of one.
    let log = attache.process.output();
    let line = log.lines().find(|line| line.contains("endpoint unhealthy")).unwrap();
    assert!(line.contains(&address.to_string()), "{line}");
    assert!(line.contains("why=\"connect: ") || line.contains("why=\"read: "), "{line}");

    // Another server answers on its port; a check that only connects would take it for a redis.
    let web = nginx(&format!("server {{ listen {address}; return 200 'web'; }}"), address);
    eventually("its answer is looked at", || attache.process.output().contains("without `+PONG`"));
    assert_eq!((changes("to=\"unhealthy\""), changes("to=\"healthy\"")), (1.0, 0.0));
    drop(web);

    let _server = redis(address);
    eventually("it is back", || changes("to=\"healthy\"") == 1.0);
    assert!(attache.process.output().contains("endpoint healthy"));
}

#[test]
fn a_page_that_fails_makes_its_endpoint_unhealthy_and_the_cause_is_its_status() {
    let (first, second) = (Ipv4Addr::new(127, 0, 0, 41), Ipv4Addr::new(127, 0, 0, 42));
    let port = free_port_on(first);
    let server = |ip: Ipv4Addr, status: u16| {
        let text = format!(
            "server {{ listen {ip}:{port}; location /healthz {{ return {status}; }} location / {{ return 200 'from {ip}'; }} }}"
        );
        nginx(&text, (ip, port).into())
    };
    let (_bad, _good) = (server(first, 503), server(second, 200));
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
upstreams:
  web:
    address: ['http://{first}:{port}', 'http://{second}:{port}']
    balance: round-robin
    health_check: {{ path: /healthz, interval: 200ms, unhealthy: 1 }}"
    ));
    eventually("the first probe decides", || {
        attache.metric("attache_upstream_endpoints", &["unhealthy"]) == 1.0
    });
    let log = attache.process.output();
    let line = log.lines().find(|line| line.contains("endpoint unhealthy")).unwrap();
    assert!(line.contains("status 503") && line.contains(&format!("{first}:{port}")), "{line}");
    for _ in 0..10 {
        assert!(http_get(local(attache.port), "/").ends_with(&format!("from {second}")));
    }
}

/// A server whose health the test controls. It sends all other bytes back.
fn moody() -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, healthy) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(true)));
    let flag = healthy.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let healthy = flag.clone();
            thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(n @ 1..) = stream.read(&mut bytes) {
                    let asked = bytes[..n].starts_with(b"PING");
                    let answer: &[u8] = match (asked, healthy.load(Relaxed)) {
                        (false, _) => &bytes[..n],
                        (true, true) => b"+PONG",
                        (true, false) => b"-LOADING",
                    };
                    if stream.write_all(answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, healthy)
}

#[test]
fn an_endpoint_that_turns_unhealthy_closes_its_opaque_connections_if_the_config_says_so() {
    for (key, closes) in [("", false), ("on_unhealthy: close", true)] {
        let (address, healthy) = moody();
        let attache = Attache::start(&format!(
            "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', protocol: tcp, to: cache }} }}
upstreams:
  cache:
    address: 'tcp://{address}'
    health_check: {{ tcp: {{ send: PING, expect: '+PONG' }}, interval: 200ms, unhealthy: 1 }}
    {key}"
        ));
        let mut client = TcpStream::connect(local(attache.port)).unwrap();
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        healthy.store(false, Relaxed);
        eventually("the check fails", || attache.metric("attache_upstream_endpoints", &["unhealthy"]) == 1.0);
        if closes {
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            let ended = ["reason=\"endpoint-unhealthy\""];
            eventually("it is counted", || attache.metric("attache_requests_total", &ended) == 1.0);
        } else {
            client.write_all(b"still").unwrap();
            client.read_exact(&mut [0; 5]).unwrap();
        }
    }
}
