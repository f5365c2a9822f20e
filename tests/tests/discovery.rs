//! Servers that are found through a real DNS server, whose answers change while traffic runs.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use attache_tests::{
    Attache, TestDns, curl, eventually, free_port_on, http_get, local, nginx, redis, script, script_server,
    text,
};

const fn loopback(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

fn named(last: u8, port: u16) -> attache_tests::TestProcess {
    let ip = loopback(last);
    nginx(
        &format!("server {{ listen {ip}:{port}; return 200 'from {last}'; }}"),
        SocketAddr::new(IpAddr::V4(ip), port),
    )
}

fn config(dns: &TestDns, upstream: &str) -> String {
    format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
dns: {{ servers: ['{}'], search: [test] }}
upstreams: {{ orders: '{upstream}' }}",
        dns.address
    )
}

#[test]
fn traffic_follows_the_answers_and_no_request_is_lost() {
    let port = free_port_on(loopback(21));
    let (_first, _second) = (named(21, port), named(22, port));
    let dns = TestDns::start();
    dns.set("orders.test", &["1 IN A 127.0.0.21"]);
    let attache = Attache::start(&config(&dns, &format!("http://orders.test:{port}")));
    let ask = || text(&curl([&attache.url("/")]));
    assert_eq!(ask(), "from 21");

    // Load runs during the change.
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = {
        let (stop, done, url) = (stop.clone(), done.clone(), attache.url("/"));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let answer = text(&curl(["--fail", &url]));
                assert!(answer.starts_with("from 2"), "{answer}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    dns.set("orders.test", &["1 IN A 127.0.0.21", "1 IN A 127.0.0.22"]);
    eventually("both endpoints answer", || ask() == "from 22");
    dns.set("orders.test", &["1 IN A 127.0.0.22"]);
    eventually("the removed endpoint is no longer used", || (0..20).all(|_| ask() == "from 22"));
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
    assert!(done.load(Ordering::Relaxed) > 0);
}

/// gRPC, WebSocket and Redis servers move to another address while their clients come and go. Only DNS shows the change.
#[test]
fn every_protocol_follows_its_servers_to_another_address() {
    let ports: Vec<u16> = (0..3).map(|_| free_port_on(loopback(31))).collect();
    let servers = |last: u8| {
        let at = |port| SocketAddr::new(IpAddr::V4(loopback(last)), port);
        (
            redis(at(ports[0])),
            script_server("ws_server.py", at(ports[1]), &[]),
            script_server("grpc_server.py", at(ports[2]), &[]),
        )
    };
    let names = ["redis.test", "ws.test", "grpc.test"];
    let dns = TestDns::start();
    let move_to =
        |last: u8| names.iter().for_each(|name| dns.set(name, &[&format!("1 IN A 127.0.0.{last}")]));
    move_to(31);
    let first = servers(31);
    let cache = free_port_on(loopback(1));
    let attache = Attache::start(&format!(
        "listeners:
  outbound:
    bind: 127.0.0.1:$PORT
    routes:
      - {{ match: {{ host: ws.internal }}, to: ws }}
    to: grpc
  cache: {{ bind: '127.0.0.1:{cache}', protocol: tcp, to: cache }}
admin: 127.0.0.1:$ADMIN
dns: {{ servers: ['{}'] }}
upstreams:
  cache: tcp://redis.test:{}
  ws: http://ws.test:{}
  grpc: http://grpc.test:{}",
        dns.address, ports[0], ports[1], ports[2]
    ));
    let redis_cli = |arguments: &[&str]| {
        let mut command = std::process::Command::new("redis-cli");
        command.args(["-p", &cache.to_string()]).args(arguments);
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
    };
    let all_work = || {
        let ws = format!("ws://ws.internal:{}/", attache.port);
        let ws = script("ws_client.py", &[&ws, "127.0.0.1"]);
        assert!(text(&ws).contains("101 messages echoed"));
        let grpc = script("grpc_client.py", &[&format!("127.0.0.1:{}", attache.port), "grpc.internal"]);
        assert!(text(&grpc).contains("ok"));
    };
    assert_eq!(redis_cli(&["set", "where", "first"]), "OK");
    all_work();

    let _second = servers(32);
    move_to(32);
    eventually("redis is the second one", || redis_cli(&["get", "where"]).is_empty());
    // Each name is looked up at a time of its own.
    eventually("the others are too", || {
        let upstreams = http_get(local(attache.admin), "/upstreams");
        !upstreams.contains("127.0.0.31") && upstreams.contains("127.0.0.32")
    });
    // A call that still went to the first servers would now fail.
    drop(first);
    assert_eq!(redis_cli(&["set", "where", "second"]), "OK");
    all_work();
}

#[test]
fn a_name_that_vanishes_keeps_its_last_good_answer() {
    let port = free_port_on(loopback(23));
    let _server = named(23, port);
    let dns = TestDns::start();
    dns.set("orders.test", &["1 IN A 127.0.0.23"]);
    let attache = Attache::start(&config(&dns, &format!("http://orders.test:{port}")));
    assert_eq!(text(&curl([&attache.url("/")])), "from 23");
    dns.remove("orders.test");
    eventually("the failed look-up is counted", || {
        attache.metric("attache_dns_lookups_total", &["outcome=\"dns-nxdomain\""]) > 0.0
    });
    assert_eq!(text(&curl([&attache.url("/")])), "from 23");
}

#[test]
fn a_name_that_never_existed_is_reported() {
    let dns = TestDns::start();
    let attache = Attache::start(&config(&dns, "http://nobody.test:80"));
    let answer = text(&curl(["-i", &attache.url("/")])).to_lowercase();
    assert!(
        answer.starts_with("http/1.1 503") && answer.contains("x-attache-reason: dns-nxdomain"),
        "{answer}"
    );
    dns.set("nobody.test", &["1 IN A 127.0.0.1"]);
}

#[test]
fn srv_records_give_hosts_and_ports() {
    let port = free_port_on(loopback(24));
    let _server = named(24, port);
    let dns = TestDns::start();
    dns.set("pod-0.test", &["1 IN A 127.0.0.24"]);
    dns.set("_http._tcp.orders.test", &[&format!("1 IN SRV 0 1 {port} pod-0.test.")]);
    let attache = Attache::start(&config(&dns, "srv://_http._tcp.orders.test"));
    assert_eq!(text(&curl([&attache.url("/")])), "from 24");
}

#[test]
fn search_domains_complete_short_names() {
    let port = free_port_on(loopback(25));
    let _server = named(25, port);
    let dns = TestDns::start();
    dns.set("short.test", &["1 IN A 127.0.0.25"]);
    let attache = Attache::start(&config(&dns, &format!("http://short:{port}")));
    assert_eq!(text(&curl([&attache.url("/")])), "from 25");
}

#[test]
fn the_forward_proxy_finds_any_name() {
    let port = free_port_on(loopback(26));
    let _server = named(26, port);
    let dns = TestDns::start();
    dns.set("any.test", &["1 IN A 127.0.0.26"]);
    let attache = Attache::start(&format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT' }} }}
dns: {{ servers: ['{}'] }}
upstreams: {{ anywhere: {{ address: authority }} }}",
        dns.address
    ));
    let proxy = attache.url("");
    assert_eq!(text(&curl(["--proxy", &proxy, &format!("http://any.test:{port}/")])), "from 26");
    assert_eq!(text(&curl(["--proxy", &proxy, "-p", &format!("http://any.test:{port}/")])), "from 26");
    let answer = text(&curl(["--proxy", &proxy, "-i", "http://none.test/"])).to_lowercase();
    assert!(answer.contains("x-attache-reason: dns-nxdomain"), "{answer}");
}
