//! The resolver against a real server over UDP and TCP.

use std::{net::SocketAddr, path::PathBuf};

use attache_config::model::{Dns, DnsFamily};
use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};

use super::{
    dns_server::{DnsReply, DnsServer, alias, ip_record, srv},
    *,
};

/// A config that asks these servers and nothing else.
fn dns(servers: &[SocketAddr]) -> Dns {
    Dns {
        servers: servers.to_vec(),
        resolv_conf: PathBuf::from("/nonexistent/resolv.conf"),
        timeout: Duration::from_secs(30),
        attempts: 1,
        family: DnsFamily::V4Only,
        ..Dns::default()
    }
}

fn resolver(dns: &Dns) -> Resolver {
    Resolver::with(dns, "/nonexistent/hosts".as_ref(), |_| true).unwrap()
}

async fn look_up(dns: &Dns, host: &str) -> Result<LookupAnswer, LookupError> {
    resolver(dns).lookup(&dns_name(host)).await
}

fn addresses(answer: &LookupAnswer) -> Vec<String> {
    answer.found.iter().map(|found| found.address.to_string()).collect()
}

#[tokio::test]
async fn every_address_is_found_with_the_least_ttl_of_the_chain() {
    let server = DnsServer::start().await;
    let chain = vec![
        alias("www.shop.test", 300, "lb.shop.test"),
        ip_record("lb.shop.test", 20, "10.0.0.1"),
        ip_record("lb.shop.test", 60, "10.0.0.2"),
    ];
    server.set("www.shop.test", RecordType::A, DnsReply::Records(chain));
    let answer = look_up(&dns(&[server.address]), "www.shop.test").await.unwrap();
    assert_eq!(addresses(&answer), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!((answer.ttl, &*answer.found[0].host), (Duration::from_secs(20), "www.shop.test"));
}

#[tokio::test]
async fn an_alias_whose_target_is_not_in_the_answer_is_followed() {
    let server = DnsServer::start().await;
    server.set(
        "www.shop.test",
        RecordType::A,
        DnsReply::Records(vec![alias("www.shop.test", 30, "lb.shop.test")]),
    );
    server.a("lb.shop.test", 60, &["10.0.0.1"]);
    let answer = look_up(&dns(&[server.address]), "www.shop.test.").await.unwrap();
    assert_eq!(addresses(&answer), ["10.0.0.1:80"]);
    assert!(answer.ttl <= Duration::from_secs(30), "{:?}", answer.ttl);
}

#[tokio::test]
async fn nothing_is_cached_between_look_ups() {
    let server = DnsServer::start().await;
    let resolver = resolver(&dns(&[server.address]));
    server.a("orders.test", 3600, &["10.0.0.1"]);
    assert_eq!(addresses(&resolver.lookup(&dns_name("orders.test")).await.unwrap()), ["10.0.0.1:80"]);
    server.a("orders.test", 3600, &["10.0.0.2"]);
    assert_eq!(addresses(&resolver.lookup(&dns_name("orders.test")).await.unwrap()), ["10.0.0.2:80"]);
    server.set("orders.test", RecordType::A, DnsReply::Code(ResponseCode::NXDomain));
    assert_eq!(resolver.lookup(&dns_name("orders.test")).await.unwrap_err().reason, Reason::DnsNxdomain);
    server.a("orders.test", 3600, &["10.0.0.3"]);
    assert_eq!(addresses(&resolver.lookup(&dns_name("orders.test")).await.unwrap()), ["10.0.0.3:80"]);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let server = DnsServer::start().await;
    server.set("empty.test", RecordType::TXT, DnsReply::Silence);
    server.set("servfail.test", RecordType::A, DnsReply::Code(ResponseCode::ServFail));
    server.set("refused.test", RecordType::A, DnsReply::Code(ResponseCode::Refused));
    server.set("silent.test", RecordType::A, DnsReply::Silence);
    let dns = dns(&[server.address]);
    let impatient = Dns { timeout: Duration::from_millis(300), ..dns.clone() };
    for (name, reason) in [
        ("missing.test", Reason::DnsNxdomain),
        ("empty.test", Reason::DnsFailed),
        ("servfail.test", Reason::DnsFailed),
        ("refused.test", Reason::DnsFailed),
        ("silent.test", Reason::DnsTimeout),
        ("not..a.name", Reason::DnsFailed),
        ("", Reason::DnsFailed),
    ] {
        let dns = if reason == Reason::DnsTimeout { &impatient } else { &dns };
        let failure = look_up(dns, name).await.unwrap_err();
        assert_eq!(failure.reason, reason, "{name:?}: {failure:?}");
        assert!(!failure.detail.is_empty());
    }
}

#[tokio::test]
async fn a_failure_says_what_the_server_answered() {
    let server = DnsServer::start().await;
    server.set("down.test", RecordType::A, DnsReply::Code(ResponseCode::ServFail));
    server.set("silent.test", RecordType::A, DnsReply::Silence);
    let (at, closed) = (server.address, SocketAddr::from(([127, 0, 0, 1], closed_port().await)));
    for (server, name, detail) in [
        (at, "down.test.", format!("SERVFAIL from {at} for down.test. A")),
        (at, "silent.test.", format!("no answer from {at} in 300ms for silent.test. A")),
        (at, "missing.test.", "missing.test. does not exist (NXDOMAIN)".to_owned()),
        (closed, "a.test.", format!("refused by {closed}, asked for a.test. A: no DNS server listens there")),
    ] {
        let dns = Dns { timeout: Duration::from_millis(300), ..dns(&[server]) };
        assert_eq!(look_up(&dns, name).await.unwrap_err().detail, detail);
    }
}

/// A port where nothing listens.
async fn closed_port() -> u16 {
    tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_server_whose_port_is_closed_is_passed_over_at_once() {
    let server = DnsServer::start().await;
    server.a("orders.test", 30, &["10.0.0.1"]);
    let closed = SocketAddr::from(([127, 0, 0, 1], closed_port().await));
    let begun = Instant::now();
    let answer = look_up(&dns(&[closed, server.address]), "orders.test.").await.unwrap();
    assert_eq!(addresses(&answer), ["10.0.0.1:80"]);
    let failure = look_up(&dns(&[closed]), "orders.test.").await.unwrap_err();
    assert_eq!(failure.reason, Reason::DnsFailed);
    assert!(begun.elapsed() < Duration::from_secs(5), "the timeout is 30 s, not {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_record_of_another_name_is_no_answer() {
    let server = DnsServer::start().await;
    let records = vec![
        ip_record("evil.test", 30, "10.9.9.9"),
        alias("WWW.shop.test", 300, "lb.shop.test"),
        alias("evil.test", 300, "more.evil.test"),
        ip_record("more.evil.test", 30, "10.9.9.8"),
        ip_record("lb.shop.test", 60, "10.0.0.1"),
    ];
    server.set("www.shop.test", RecordType::A, DnsReply::Records(records));
    let answer = look_up(&dns(&[server.address]), "www.shop.test.").await.unwrap();
    assert_eq!((addresses(&answer), answer.ttl), (vec!["10.0.0.1:80".to_owned()], Duration::from_mins(1)));

    let foreign = vec![ip_record("evil.test", 30, "10.9.9.9")];
    server.set("api.shop.test", RecordType::A, DnsReply::Records(foreign));
    assert_eq!(
        look_up(&dns(&[server.address]), "api.shop.test.").await.unwrap_err().reason,
        Reason::DnsFailed
    );

    // A record of another service is no answer either.
    let foreign = vec![srv("_x._tcp.evil.test", 30, (1, 1, 80), "lb.shop.test")];
    server.set("_x._tcp.shop.test", RecordType::SRV, DnsReply::Records(foreign));
    let resolver = resolver(&dns(&[server.address]));
    let service = EndpointTarget::Srv { name: "_x._tcp.shop.test.".into() };
    assert!(resolver.lookup(&service).await.is_err());
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let server = DnsServer::start().await;
    let many: Vec<_> = (1..=200).map(|n| ip_record("many.test", 30, &format!("10.0.1.{n}"))).collect();
    server.set("many.test", RecordType::A, DnsReply::Truncated(many));
    assert_eq!(look_up(&dns(&[server.address]), "many.test.").await.unwrap().found.len(), 200);
    assert_eq!(server.asked(), ["many.test A udp", "many.test A tcp"]);
}

#[tokio::test]
async fn the_next_server_is_asked_after_servfail_and_then_remembered() {
    let (bad, good) = (DnsServer::start().await, DnsServer::start().await);
    good.a("orders.test", 30, &["10.0.0.1"]);
    bad.set("orders.test", RecordType::A, DnsReply::Code(ResponseCode::ServFail));
    let resolver = resolver(&dns(&[bad.address, good.address]));
    assert!(resolver.lookup(&dns_name("orders.test.")).await.is_ok());
    assert_eq!(bad.asked().len(), 1);
    assert!(resolver.lookup(&dns_name("orders.test.")).await.is_ok());
    assert!(bad.asked().is_empty(), "the server that answered is asked first");
}

#[tokio::test]
async fn the_next_server_is_asked_after_silence() {
    let (silent, good) = (DnsServer::start().await, DnsServer::start().await);
    good.a("orders.test", 30, &["10.0.0.1"]);
    silent.set("orders.test", RecordType::A, DnsReply::Silence);
    let dns =
        Dns { timeout: Duration::from_millis(300), attempts: 50, ..dns(&[silent.address, good.address]) };
    assert!(look_up(&dns, "orders.test.").await.is_ok());
}

#[tokio::test]
async fn search_domains_and_ndots_work_as_in_a_pod() {
    let server = DnsServer::start().await;
    let search = ["shop.svc.cluster.local", "svc.cluster.local"].map(model::Name::from);
    let dns = Dns { search: Some(search.into()), ndots: Some(2), ..dns(&[server.address]) };
    let asked = |server: &DnsServer| -> Vec<String> {
        server.asked().into_iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };

    server.a("orders.shop.svc.cluster.local", 30, &["10.0.0.1"]);
    let answer = look_up(&dns, "orders").await.unwrap();
    assert_eq!((&*answer.found[0].host, addresses(&answer)), ("orders", vec!["10.0.0.1:80".into()]));
    assert_eq!(asked(&server), ["orders.shop.svc.cluster.local"]);

    // Fewer dots than ndots: first the search domains, then the unchanged name.
    server.a("api.github.test", 30, &["10.0.0.2"]);
    server.a("github.test", 30, &["10.0.0.3"]);
    look_up(&dns, "github.test").await.unwrap();
    let walked = ["github.test.shop.svc.cluster.local", "github.test.svc.cluster.local", "github.test"];
    assert_eq!(asked(&server), walked);

    // As many dots as ndots: first the unchanged name.
    look_up(&dns, "api.github.test").await.unwrap();
    assert_eq!(asked(&server), ["api.github.test"]);

    // With a final dot: only the unchanged name.
    assert_eq!(look_up(&dns, "orders.").await.unwrap_err().reason, Reason::DnsNxdomain);
    assert_eq!(asked(&server), ["orders"]);

    // After SERVFAIL below a search domain the next name is tried. If nothing is found, SERVFAIL is reported rather
    // than NXDOMAIN.
    let fail = DnsReply::Code(ResponseCode::ServFail);
    server.set("billing.shop.svc.cluster.local", RecordType::A, fail.clone());
    assert_eq!(look_up(&dns, "billing").await.unwrap_err().reason, Reason::DnsFailed);
    server.a("billing.svc.cluster.local", 30, &["10.0.0.4"]);
    assert_eq!(addresses(&look_up(&dns, "billing").await.unwrap()), ["10.0.0.4:80"]);
}

#[tokio::test]
async fn families_are_asked_for_as_configured() {
    let server = DnsServer::start().await;
    let both = |name: &str| {
        server.a(name, 30, &["10.0.0.1"]);
        server.set(name, RecordType::AAAA, DnsReply::Records(vec![ip_record(name, 30, "2001:db8::1")]));
    };
    both("both.test");
    server.a("four.test", 30, &["10.0.0.4"]);
    let (v4, v6) = ("10.0.0.1:80", "[2001:db8::1]:80");
    for (family, want, four) in [
        (DnsFamily::Auto, vec![v4, v6], true),
        (DnsFamily::V4Only, vec![v4], true),
        (DnsFamily::V6Only, vec![v6], false),
        (DnsFamily::V4Preferred, vec![v4], true),
        (DnsFamily::V6Preferred, vec![v6], true),
    ] {
        let dns = Dns { family, ..dns(&[server.address]) };
        let answer = look_up(&dns, "both.test.").await.unwrap();
        assert_eq!((addresses(&answer), answer.gaps.len()), (want.iter().map(|a| (*a).into()).collect(), 0));
        assert_eq!(look_up(&dns, "four.test.").await.is_ok(), four, "{family:?}");
    }
    let auto = Dns { family: DnsFamily::Auto, ..dns(&[server.address]) };
    let without_v6 = Resolver::with(&auto, "/nonexistent/hosts".as_ref(), |ip| ip.is_ipv4()).unwrap();
    assert_eq!(addresses(&without_v6.lookup(&dns_name("both.test.")).await.unwrap()), [v4]);
    assert_eq!(addresses(&without_v6.lookup(&dns_name("localhost")).await.unwrap()), ["127.0.0.1:80"]);
}

#[tokio::test]
async fn one_family_that_fails_is_a_gap_and_not_a_failure() {
    let server = DnsServer::start().await;
    server.a("orders.test", 30, &["10.0.0.1"]);
    server.set("orders.test", RecordType::AAAA, DnsReply::Code(ResponseCode::ServFail));
    let dns = Dns { family: DnsFamily::Auto, ..dns(&[server.address]) };
    let answer = look_up(&dns, "orders.test.").await.unwrap();
    assert_eq!(addresses(&answer), ["10.0.0.1:80"]);
    assert_eq!(
        answer.gaps.iter().map(|gap| (&*gap.name, gap.v6)).collect::<Vec<_>>(),
        [("orders.test", Some(true))]
    );
}

#[tokio::test]
async fn srv_targets_come_from_additional_records_or_by_their_own_look_up() {
    let server = DnsServer::start().await;
    let service = "_pg._tcp.db.test";
    let records = vec![
        srv(service, 60, (10, 3, 5432), "pg-0.db.test"),
        srv(service, 60, (10, 1, 5433), "pg-1.db.test"),
        srv(service, 60, (20, 0, 5434), "pg-2.db.test"),
        srv(service, 60, (20, 0, 5435), "gone.db.test"),
    ];
    let more = vec![ip_record("pg-0.db.test", 40, "10.0.0.1")];
    server.set(service, RecordType::SRV, DnsReply::With(records, more));
    server.a("pg-1.db.test", 30, &["10.0.0.2"]);
    server.a("pg-2.db.test", 50, &["10.0.0.3"]);
    let resolver = resolver(&dns(&[server.address]));
    let answer = resolver.lookup(&EndpointTarget::Srv { name: service.into() }).await.unwrap();
    let found: Vec<_> = answer
        .found
        .iter()
        .map(|f| (f.address.to_string(), f.priority, f.weight, &*f.name, &*f.host))
        .collect();
    assert_eq!(
        found,
        [
            ("10.0.0.1:5432".into(), 10, 3, "pg-0.db.test", "db.test"),
            ("10.0.0.2:5433".into(), 10, 1, "pg-1.db.test", "db.test"),
            ("10.0.0.3:5434".into(), 20, 0, "pg-2.db.test", "db.test"),
        ]
    );
    assert_eq!(answer.ttl, Duration::from_secs(30));
    assert!(!server.asked().iter().any(|line| line.starts_with("pg-0")), "it was in the additional records");
}

#[tokio::test]
async fn a_service_without_targets_is_a_failure() {
    let server = DnsServer::start().await;
    server.set(
        "_x._tcp.none.test",
        RecordType::SRV,
        DnsReply::Records(vec![srv("_x._tcp.none.test", 60, (0, 0, 0), ".")]),
    );
    server.set(
        "_x._tcp.lost.test",
        RecordType::SRV,
        DnsReply::Records(vec![srv("_x._tcp.lost.test", 60, (0, 0, 1), "lost.test")]),
    );
    let resolver = resolver(&dns(&[server.address]));
    for (name, reason) in [
        ("_x._tcp.none.test", Reason::DnsFailed),
        ("_x._tcp.lost.test", Reason::DnsNxdomain),
        ("_x._tcp.missing.test", Reason::DnsNxdomain),
    ] {
        let failure = resolver.lookup(&EndpointTarget::Srv { name: name.into() }).await.unwrap_err();
        assert_eq!(failure.reason, reason, "{name}: {failure:?}");
    }
}

#[tokio::test]
async fn the_hosts_file_and_localhost_come_before_dns() {
    let server = DnsServer::start().await;
    server.a("orders.test", 30, &["10.0.0.1"]);
    server.a("localhost", 30, &["10.0.0.1"]);
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, "10.9.9.9 orders.test\n").unwrap();
    let resolver = Resolver::with(&dns(&[server.address]), &hosts, |_| true).unwrap();
    for (name, address) in
        [("orders.test", "10.9.9.9:80"), ("localhost", "127.0.0.1:80"), ("10.1.2.3", "10.1.2.3:80")]
    {
        assert_eq!(addresses(&resolver.lookup(&dns_name(name)).await.unwrap()), [address]);
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn resolv_conf_is_read_and_read_again_when_it_has_changed() {
    let server = DnsServer::start().await;
    server.a("orders.one.test", 30, &["10.0.0.1"]);
    server.a("orders.two.test", 30, &["10.0.0.2"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    let write = |text: &str, seconds| {
        std::fs::write(&file, text).unwrap();
        let modified = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    };
    write("search one.test\noptions ndots:3\n", 1000);
    let resolver = resolver(&Dns { resolv_conf: file.clone(), ..dns(&[server.address]) });
    assert_eq!(addresses(&resolver.lookup(&dns_name("orders")).await.unwrap()), ["10.0.0.1:80"]);
    write("search two.test\n", 2000);
    assert_eq!(addresses(&resolver.lookup(&dns_name("orders")).await.unwrap()), ["10.0.0.2:80"]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        addresses(&resolver.lookup(&dns_name("orders")).await.unwrap()),
        ["10.0.0.2:80"],
        "the last one stays"
    );
}

#[test]
fn it_runs_on_a_local_runtime() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let server = DnsServer::start().await;
        server.a("orders.test", 30, &["10.0.0.1"]);
        let config = dns(&[server.address]);
        let shared = shared_of(vec![source(dns_name("orders.test."))]);
        start(shared.clone(), Arc::new(resolver(&config)), &config).ready().await;
        assert_eq!(labels(&shared), ["10.0.0.1:80"]);
    });
}

#[tokio::test]
async fn endpoints_follow_the_answers_of_a_real_server() {
    let server = DnsServer::start().await;
    server.a("orders.test", 0, &["10.0.0.1", "10.0.0.2"]);
    let config = Dns { min_ttl: Duration::from_millis(100), ..dns(&[server.address]) };
    let shared = shared_of(vec![source(dns_name("orders.test."))]);
    let discovery = start(shared.clone(), Arc::new(resolver(&config)), &config);
    discovery.ready().await;
    assert_eq!(labels(&shared), ["10.0.0.1:80", "10.0.0.2:80"]);
    let kept = shared.endpoints.load().endpoints[1].clone();
    assert_eq!(kept.host.as_deref(), Some("orders.test"));

    // Waits for what must come, however long it takes.
    let until = async |done: &dyn Fn() -> bool| {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    server.a("orders.test", 0, &["10.0.0.3", "10.0.0.2"]);
    until(&|| labels(&shared) == ["10.0.0.2:80", "10.0.0.3:80"]).await;
    assert!(Arc::ptr_eq(&kept, &shared.endpoints.load().endpoints[0]));
    server.set("orders.test", RecordType::A, DnsReply::Code(ResponseCode::NXDomain));
    until(&|| shared.endpoints.load().failure == Some(Reason::DnsNxdomain)).await;
    assert_eq!(shared.endpoints.load().usable(), 2, "the last good answer serves");
    server.a("orders.test", 60, &["10.0.0.3"]);
    until(&|| shared.endpoints.load().failure.is_none()).await;
    assert_eq!(labels(&shared), ["10.0.0.3:80"]);
}
