//! Resumption, and sessions that must not be resumed.

use attache_config::model::{TlsClient, TlsServer, Trust};
use attache_telemetry::Reason;
use rustls::{HandshakeKind, NamedGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    REQUEST, answer, client, identity,
    matrix::{H1, NAME, files},
    meet,
    pki::{CertificateAuthority, Validity},
    server,
};
use crate::{Acceptor, Connector, FileWatcher};

/// The kind of the client's handshake.
async fn kind(connector: &Connector, acceptor: &Acceptor) -> HandshakeKind {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let calling = async {
        let mut stream = connector.connect(NAME, ours).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        stream.get_ref().1.handshake_kind().unwrap()
    };
    let (kind, accepted) = tokio::join!(calling, answer(acceptor, theirs));
    accepted.unwrap();
    kind
}

fn mutual(files: &super::PkiFiles) -> (TlsClient, TlsServer) {
    let mut server = server(files, "orders");
    server.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    let mut client = client(files);
    client.identity = Some(identity(files, "web"));
    (client, server)
}

#[tokio::test]
async fn a_second_connection_resumes_the_session_on_any_clone_of_either_side() {
    let files = files();
    let (client, server) = mutual(&files);
    let acceptor = Acceptor::new(&server, H1).unwrap();
    let connector = Connector::new(&client, H1).unwrap();
    assert_eq!(kind(&connector, &acceptor).await, HandshakeKind::Full);
    assert_eq!(kind(&connector.clone(), &acceptor.clone()).await, HandshakeKind::Resumed);
    assert_eq!(kind(&connector.offering(&[]), &acceptor).await, HandshakeKind::Resumed);
    let another = Connector::new(&client, H1).unwrap();
    assert_eq!(
        kind(&another, &acceptor).await,
        HandshakeKind::Full,
        "another connector has its own sessions"
    );
}

#[tokio::test]
async fn a_session_outlives_its_servers_certificate_by_at_most_one_connection() {
    let files = files();
    let ca = CertificateAuthority::new("the CA");
    files.write("ca.pem", &ca.pem);
    files.put("orders", &ca.issue_at(&[NAME], Validity::Seconds(3600), 1));
    let mut connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&acceptor);
    assert_eq!(kind(&connector, &acceptor).await, HandshakeKind::Full);
    assert_eq!(kind(&connector, &acceptor).await, HandshakeKind::Resumed);
    files.put("orders", &ca.issue(&[NAME]));
    watcher.look();
    watcher.look();
    connector.now = || std::time::SystemTime::now() + std::time::Duration::from_secs(7200);
    let (answer, _) = meet(&connector, NAME, &acceptor).await;
    assert_eq!(answer, Err(Some(Reason::TlsExpired)), "the session's certificate has expired");
    assert_eq!(kind(&connector, &acceptor).await, HandshakeKind::Full, "no other old session is tried");
    assert_eq!(kind(&connector, &acceptor).await, HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_session_is_not_resumed_under_a_new_identity_or_new_roots() {
    let files = files();
    let (client, server) = mutual(&files);
    let acceptor = Acceptor::new(&server, H1).unwrap();
    let connector = Connector::new(&client, H1).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&connector);
    kind(&connector, &acceptor).await;
    for kind in ["pem", "key"] {
        std::fs::copy(files.path(&format!("orders.{kind}")), files.path(&format!("web.{kind}"))).unwrap();
    }
    watcher.look();
    watcher.look();
    let (_, accepted) = meet(&connector, NAME, &acceptor).await;
    assert_eq!(&*accepted.unwrap().identities[0], NAME, "the new identity is shown, not the session's");
}

#[tokio::test]
async fn a_resumed_client_is_verified_with_the_present_trust() {
    let files = files();
    let (client, server) = mutual(&files);
    let acceptor = Acceptor::new(&server, H1).unwrap();
    let connector = Connector::new(&client, H1).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&acceptor);
    assert_eq!(kind(&connector, &acceptor).await, HandshakeKind::Full);
    assert_eq!(kind(&connector, &acceptor).await, HandshakeKind::Resumed);
    // The client's authority is no longer trusted; the ticket is still valid.
    std::fs::copy(files.path("other-ca.pem"), files.path("ca.pem")).unwrap();
    watcher.look();
    watcher.look();
    assert_eq!(watcher.status().reloads, 1);
    let (_, accepted) = meet(&connector, NAME, &acceptor).await;
    assert_eq!(accepted.err(), Some(Reason::TlsUntrusted));
}

#[tokio::test]
async fn the_post_quantum_exchange_is_used_where_both_have_it() {
    let files = files();
    let connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (stream, _accepted) = tokio::join!(connector.connect(NAME, ours), acceptor.accept(theirs));
    let group = stream.unwrap().get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}
