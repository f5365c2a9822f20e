//! For every answer of a DNS server: only addresses in the answer are found, TLS verifies the name of the config, and
//! the look-up ends.

use std::{cell::RefCell, collections::HashSet, net::IpAddr, rc::Rc, time::Duration};

use attache_config::model::{Dns, DnsFamily, EndpointTarget};
use attache_upstream::discovery::{Lookup, LookupAnswer, LookupError, Resolver};
use hickory_resolver::proto::{op::Message, rr::RData};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::{Builder, Runtime},
    task::LocalSet,
};

/// The name that is looked up.
const NAME: &str = "app.test";
/// How long one query waits for an answer that never comes. Almost every query is answered, over loopback in far less
/// time than this.
const TIMEOUT: Duration = Duration::from_millis(50);
/// The longest time of a look-up, for every answer.
const END: Duration = Duration::from_secs(20);

struct DnsHarness {
    runtime: Runtime,
    tasks: LocalSet,
    resolver: Resolver,
    said: Rc<RefCell<Message>>,
}

thread_local! {
    static STAGE: DnsHarness = stage();
}

/// The answer to a query, with the present records. If it is cut for UDP, it is marked as truncated.
fn reply(query: &[u8], said: &Message, udp: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.response_code = said.metadata.response_code;
    reply.metadata.truncation = udp && said.metadata.truncation;
    reply.metadata.authoritative = said.metadata.authoritative;
    reply.add_query(query.queries.first()?.clone());
    reply.insert_answers(said.answers.clone());
    reply.insert_authorities(said.authorities.clone());
    reply.insert_additionals(said.additionals.clone());
    reply.to_vec().ok()
}

/// Answers the queries of one TCP connection.
async fn serve(mut stream: TcpStream, said: Rc<RefCell<Message>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; length.into()];
        if stream.read_exact(&mut query).await.is_err() {
            break;
        }
        let Some(reply) = reply(&query, &said.borrow(), false) else { break };
        let Ok(length) = u16::try_from(reply.len()) else { break };
        let _ = stream.write_u16(length).await;
        let _ = stream.write_all(&reply).await;
    }
}

fn stage() -> DnsHarness {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (tasks, said) = (LocalSet::new(), Rc::new(RefCell::new(Message::query())));
    let (udp, tcp) = runtime.block_on(async {
        loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                return (udp, tcp);
            }
        }
    });
    let mut dns = Dns { servers: vec![udp.local_addr().unwrap()], ..Dns::default() };
    (dns.resolv_conf, dns.search, dns.ndots) = ("/nonexistent".into(), Some(Vec::new()), Some(1));
    (dns.attempts, dns.timeout, dns.family) = (1, TIMEOUT, DnsFamily::V6Preferred);
    let over_udp = said.clone();
    tasks.spawn_local(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            let reply = reply(&buffer[..length], &over_udp.borrow(), true);
            if let Some(reply) = reply {
                let _ = udp.send_to(&reply, from).await;
            }
        }
    });
    let over_tcp = said.clone();
    tasks.spawn_local(async move {
        while let Ok((stream, _)) = tcp.accept().await {
            tokio::task::spawn_local(serve(stream, over_tcp.clone()));
        }
    });
    let resolver = runtime.block_on(async { Resolver::new(&dns) }).unwrap();
    DnsHarness { runtime, tasks, resolver, said }
}

fn holds(said: &Message, answer: Result<LookupAnswer, LookupError>) {
    let Ok(answer) = answer else { return };
    let known: HashSet<IpAddr> = said
        .answers
        .iter()
        .chain(&said.additionals)
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(a.0.into()),
            RData::AAAA(aaaa) => Some(aaaa.0.into()),
            _ => None,
        })
        .collect();
    assert!(!answer.found.is_empty());
    for found in &answer.found {
        assert!(known.contains(&found.address.ip()), "{found:?}");
        assert!(NAME == &*found.host, "{found:?}");
    }
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Ok(said) = Message::from_vec(data) else { return };
    // The message is too long for a datagram of the loopback device, or hickory can't write it.
    if !said.to_vec().is_ok_and(|bytes| bytes.len() < 4000) {
        return;
    }
    STAGE.with(|stage| {
        stage.said.replace(said.clone());
        let targets = [
            EndpointTarget::Dns { host: NAME.into(), port: 80 },
            EndpointTarget::Srv { name: format!("_http._tcp.{NAME}").into() },
        ];
        for target in targets {
            let look_up = async { tokio::time::timeout(END, stage.resolver.lookup(&target)).await };
            let answer = stage.tasks.block_on(&stage.runtime, look_up);
            holds(&said, answer.unwrap_or_else(|_| panic!("{target:?} is still looked up")));
        }
    });
}
