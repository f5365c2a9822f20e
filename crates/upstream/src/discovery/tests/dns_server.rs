//! A tiny DNS server over UDP and TCP whose answers a test sets.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, SRV},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

/// The answer to one query.
#[derive(Clone)]
pub(super) enum DnsReply {
    Records(Vec<Record>),
    /// Answers, then additional records.
    With(Vec<Record>, Vec<Record>),
    Code(ResponseCode),
    /// The records over TCP, the truncation bit over UDP.
    Truncated(Vec<Record>),
    Silence,
}

#[derive(Clone, Default)]
struct Zone {
    replies: Arc<Mutex<HashMap<(String, RecordType), DnsReply>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// The server; it ends when this is dropped. A name it doesn't know is NXDOMAIN, a known name's other types are empty.
pub(super) struct DnsServer {
    pub(super) address: SocketAddr,
    zone: Zone,
    _tasks: JoinSet<()>,
}

impl DnsServer {
    pub(super) async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The same port may be taken for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let zone = Zone::default();
        let mut tasks = JoinSet::new();
        let udp_zone = zone.clone();
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                if let Some(reply) = udp_zone.reply(&buffer[..length], false) {
                    let _ = udp.send_to(&reply, from).await;
                }
            }
        });
        let tcp_zone = zone.clone();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                while let Ok(length) = stream.read_u16().await {
                    let mut query = vec![0; length.into()];
                    if stream.read_exact(&mut query).await.is_err() {
                        break;
                    }
                    let Some(reply) = tcp_zone.reply(&query, true) else { continue };
                    let _ = stream.write_u16(u16::try_from(reply.len()).unwrap()).await;
                    let _ = stream.write_all(&reply).await;
                }
            }
        });
        Self { address, zone, _tasks: tasks }
    }

    pub(super) fn set(&self, name: &str, kind: RecordType, reply: DnsReply) {
        self.zone.replies.lock().unwrap().insert((name.into(), kind), reply);
    }

    /// A records with this TTL.
    pub(super) fn a(&self, name: &str, ttl: u32, addresses: &[&str]) {
        self.set(
            name,
            RecordType::A,
            DnsReply::Records(addresses.iter().map(|ip| ip_record(name, ttl, ip)).collect()),
        );
    }

    /// The names asked for since the last call, with type and transport. A query that was repeated only because the
    /// machine is slow counts once.
    pub(super) fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.zone.asked.lock().unwrap());
        asked.dedup();
        asked
    }
}

pub(super) fn name(text: &str) -> Name {
    let mut name = Name::from_str_relaxed(text).unwrap();
    name.set_fqdn(true);
    name
}

pub(super) fn ip_record(owner: &str, ttl: u32, ip: &str) -> Record {
    let data = match ip.parse().unwrap() {
        IpAddr::V4(ip) => RData::A(ip.into()),
        IpAddr::V6(ip) => RData::AAAA(ip.into()),
    };
    Record::from_rdata(name(owner), ttl, data)
}

pub(super) fn alias(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

pub(super) fn srv(owner: &str, ttl: u32, numbers: (u16, u16, u16), target: &str) -> Record {
    let (priority, weight, port) = numbers;
    Record::from_rdata(name(owner), ttl, RData::SRV(SRV::new(priority, weight, port, name(target))))
}

impl Zone {
    fn reply(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        let question = query.queries.first()?.clone();
        let text = question.name().to_string();
        let text = text.strip_suffix('.').unwrap_or(&text).to_owned();
        let kind = question.query_type();
        self.asked.lock().unwrap().push(format!("{text} {kind} {}", if tcp { "tcp" } else { "udp" }));
        let replies = self.replies.lock().unwrap();
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.add_query(question);
        match replies.get(&(text.clone(), kind)) {
            Some(DnsReply::Silence) => return None,
            Some(DnsReply::Records(records)) => reply.insert_answers(records.clone()),
            Some(DnsReply::With(records, more)) => {
                reply.insert_answers(records.clone());
                reply.insert_additionals(more.clone());
            }
            Some(DnsReply::Code(code)) => reply.metadata.response_code = *code,
            Some(DnsReply::Truncated(records)) if tcp => reply.insert_answers(records.clone()),
            Some(DnsReply::Truncated(_)) => reply.metadata.truncation = true,
            None if replies.keys().any(|(known, _)| *known == text) => {}
            None => reply.metadata.response_code = ResponseCode::NXDomain,
        }
        reply.to_vec().ok()
    }
}
