//! What a handshake costs, in full and resumed: `cargo bench -p attache-tls`.
//!
//! Both sides run on one thread over a pipe in memory, with mutual certificates (ECDSA P-256): no network, no system
//! calls, so only CPU time counts. The kinds are measured in turn, in ten rounds, and the best of each counts, because
//! other programs disturb a measurement. It prints times, and checks only that each handshake was of the right kind;
//! only the ratios within one run are meaningful.

#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a benchmark")]

use std::{fs, path::Path, sync::Arc, time::Duration};

use attache_tls::{Acceptor, Connector};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS12,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client::TlsStream};

const ROUNDS: usize = 10;
const HANDSHAKES: u32 = 50;
const NAME: &str = "api.test";

/// The client of a handshake.
enum BenchClient {
    /// attache, which speaks TLS 1.3 if the peer does.
    Ours(Connector),
    /// A client that has only TLS 1.2.
    Old(TlsConnector),
}

/// One kind of handshake.
struct HandshakeKind {
    version: &'static str,
    mutual: bool,
    resumed: bool,
    sides: Option<(BenchClient, Acceptor)>,
    best: Duration,
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut kinds: Vec<HandshakeKind> = Vec::new();
    for version in ["1.2", "1.3"] {
        for mutual in [false, true] {
            for resumed in [false, true] {
                kinds.push(HandshakeKind { version, mutual, resumed, sides: None, best: Duration::MAX });
            }
        }
    }
    for _ in 0..ROUNDS {
        for kind in &mut kinds {
            let new = || sides(dir.path(), kind.version, kind.mutual);
            // Sessions belong to a connector: a full handshake needs one that has none.
            let fresh: Vec<_> =
                if kind.resumed { Vec::new() } else { (0..HANDSHAKES).map(|_| new()).collect() };
            let kept = kind.sides.get_or_insert_with(new);
            if kind.resumed {
                // The session that the others resume.
                runtime.block_on(handshake(&kept.0, &kept.1));
            }
            let before = cpu();
            for at in 0..HANDSHAKES {
                let (client, acceptor) = fresh.get(at as usize).unwrap_or(kept);
                let was_resumed = runtime.block_on(handshake(client, acceptor));
                assert_eq!(was_resumed, kind.resumed, "another kind was measured");
            }
            kind.best = kind.best.min(cpu().saturating_sub(before) / HANDSHAKES);
        }
    }
    println!("CPU of both sides together, of the best of {ROUNDS} rounds of {HANDSHAKES}:");
    for pair in kinds.chunks(2) {
        let (full, resumed) = (&pair[0], &pair[1]);
        let mutual = if full.mutual { "mutual" } else { "server only" };
        let ratio = resumed.best.as_secs_f64() / full.best.as_secs_f64();
        println!(
            "TLS {}, {mutual}: full {} us, resumed {} us ({ratio:.2})",
            full.version,
            full.best.as_micros(),
            resumed.best.as_micros(),
        );
    }
}

/// One connection with a byte each way, so that TLS 1.3's tickets arrive. Returns whether the session was resumed.
async fn handshake(client: &BenchClient, acceptor: &Acceptor) -> bool {
    let (ours, theirs) = duplex(64 << 10);
    let client = async {
        let mut stream = client.connect(ours).await;
        stream.write_all(b"?").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let server = async {
        let mut accepted = acceptor.accept(theirs).await.unwrap();
        accepted.stream.read_exact(&mut [0]).await.unwrap();
        accepted.stream.write_all(b"!").await.unwrap();
        accepted.stream.shutdown().await.unwrap();
        accepted.handshake.kind == "resumed"
    };
    tokio::join!(client, server).1
}

/// CPU time of the calling thread (proc(5), schedstat).
fn cpu() -> Duration {
    // The kernel updates the CPU time of a running thread only with a tick, or when the thread yields.
    std::thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn sides(dir: &Path, version: &str, mutual: bool) -> (BenchClient, Acceptor) {
    let at = dir.display();
    let (own, ca) = if mutual {
        (format!(", certificate: {at}/web.crt, key: {at}/web.key"), format!(", client_ca: {at}/ca.crt"))
    } else {
        (String::new(), String::new())
    };
    let text = format!(
        "listeners: {{ l: {{ bind: '127.0.0.1:1', to: u, tls: {{ certificate: {at}/api.crt, key: {at}/api.key{ca} }} }} }}
upstreams: {{ u: {{ address: 'https://{NAME}', tls: {{ ca: {at}/ca.crt, min_version: '1.2'{own} }} }} }}"
    );
    let mut config = attache_config::parse(&text, None, &|_| None).unwrap();
    let server = config.listeners.remove(0).tls.unwrap();
    let client = config.upstreams.remove(0).tls.unwrap();
    let client = match version {
        "1.3" => BenchClient::Ours(Connector::new(&client, &[]).unwrap()),
        _ => BenchClient::Old(old(dir, mutual)),
    };
    (client, Acceptor::new(&server, &[]).unwrap())
}

impl BenchClient {
    async fn connect(&self, io: DuplexStream) -> TlsStream<DuplexStream> {
        match self {
            Self::Ours(connector) => connector.connect(NAME, io).await.unwrap(),
            Self::Old(connector) => connector.connect(ServerName::try_from(NAME).unwrap(), io).await.unwrap(),
        }
    }
}

fn old(dir: &Path, mutual: bool) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS12]).unwrap();
    let config = config.with_root_certificates(roots);
    let config = if mutual {
        let own = CertificateDer::from_pem_file(dir.join("web.crt")).unwrap();
        config
            .with_client_auth_cert(vec![own], PrivateKeyDer::from_pem_file(dir.join("web.key")).unwrap())
            .unwrap()
    } else {
        config.with_no_client_auth()
    };
    TlsConnector::from(Arc::new(config))
}

fn certificates(dir: &Path) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for name in ["api", "web"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([format!("{name}.test")]).unwrap();
        fs::write(dir.join(format!("{name}.crt")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
