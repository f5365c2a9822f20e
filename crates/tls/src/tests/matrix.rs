//! Each way to fail has its own reason, on both sides.

use attache_config::model::{SanPattern, TlsClient, TlsServer, TlsVersion, Trust};
use attache_telemetry::Reason;

use super::{
    client, identity, meet,
    pki::{CertificateAuthority, PkiFiles, Validity},
    server,
};
use crate::{Acceptor, Connector, Error};

pub(super) const H1: &[&[u8]] = &[b"http/1.1"];
pub(super) const H2: &[&[u8]] = &[b"h2"];
pub(super) const NAME: &str = "orders.internal";
pub(super) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// A server `orders` and its broken variants, a client `web` and its broken variants.
pub(super) fn files() -> PkiFiles {
    let files = PkiFiles::new();
    let (ca, other) = (CertificateAuthority::new("the CA"), CertificateAuthority::new("another CA"));
    files.write("ca.pem", &ca.pem);
    files.write("other-ca.pem", &other.pem);
    files.put("orders", &ca.issue(&[NAME, "127.0.0.1"]));
    files.put("untrusted", &other.issue(&[NAME]));
    files.put("elsewhere", &ca.issue(&["elsewhere.internal"]));
    files.put("expired", &ca.issue_at(&[NAME, WEB], Validity::Past, 2));
    files.put("future", &ca.issue_at(&[NAME, WEB], Validity::Future, 3));
    files.put("web", &ca.issue_at(&[WEB, "web.shop"], Validity::Now, 4));
    files.put("revoked", &ca.issue_at(&[WEB], Validity::Now, 5));
    files.put("stranger", &other.issue(&[WEB]));
    files.write("crl.pem", ca.revoke(5));
    files
}

async fn reasons(c: &TlsClient, s: &TlsServer, alpn: [&[&[u8]]; 2]) -> (Option<Reason>, Option<Reason>) {
    let (connector, acceptor) = (Connector::new(c, alpn[0]).unwrap(), Acceptor::new(s, alpn[1]).unwrap());
    let (client, server) = meet(&connector, NAME, &acceptor).await;
    let client = client.err().map(|reason| reason.unwrap_or(Reason::UpstreamReset));
    (client, server.err())
}

#[tokio::test]
async fn two_sides_that_agree_exchange_data() {
    let files = files();
    let mut server = server(&files, "orders");
    server.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    let mut client = client(&files);
    client.identity = Some(identity(&files, "web"));
    let (connector, acceptor) =
        (Connector::new(&client, &[b"h2", b"http/1.1"]).unwrap(), Acceptor::new(&server, H1).unwrap());
    let (answer, accepted) = meet(&connector, NAME, &acceptor).await;
    assert_eq!(answer.unwrap(), b"hello");
    let accepted = accepted.unwrap();
    assert_eq!(accepted.sni.as_deref(), Some(NAME));
    assert_eq!(accepted.alpn.as_deref(), Some(H1[0]));
    assert_eq!(accepted.identities.iter().map(|name| &**name).collect::<Vec<_>>(), [WEB, "web.shop"]);
}

#[tokio::test]
async fn an_address_is_verified_and_sends_no_server_name() {
    let files = files();
    let connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let (answer, accepted) = meet(&connector, "127.0.0.1", &acceptor).await;
    assert_eq!(answer.unwrap(), b"hello");
    assert_eq!(accepted.unwrap().sni, None);
    let (answer, _) = meet(&connector, "127.0.0.2", &acceptor).await;
    assert_eq!(answer, Err(Some(Reason::TlsNameMismatch)));
}

#[tokio::test]
async fn what_is_wrong_with_the_servers_certificate_is_told_apart() {
    let files = files();
    for (name, reason) in [
        ("untrusted", Reason::TlsUntrusted),
        ("elsewhere", Reason::TlsNameMismatch),
        ("expired", Reason::TlsExpired),
        ("future", Reason::TlsNotYetValid),
    ] {
        let found = reasons(&client(&files), &server(&files, name), [H1, H1]).await;
        assert_eq!(found, (Some(reason), Some(Reason::TlsHandshakeFailed)), "{name}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_clients_certificate_is_told_apart_in_both_versions() {
    let files = files();
    let mut server = server(&files, "orders");
    server.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    server.crls = vec![files.path("crl.pem")];
    for min_version in [TlsVersion::V12, TlsVersion::V13] {
        for (own, reason) in [
            (None, Reason::TlsNoClientCertificate),
            (Some("stranger"), Reason::TlsUntrusted),
            (Some("expired"), Reason::TlsExpired),
            (Some("future"), Reason::TlsNotYetValid),
            (Some("revoked"), Reason::TlsRevoked),
        ] {
            let mut client = client(&files);
            client.identity = own.map(|own| identity(&files, own));
            client.min_version = min_version;
            let found = reasons(&client, &server, [H1, H1]).await;
            assert_eq!(
                found,
                (Some(Reason::TlsNoClientCertificate), Some(reason)),
                "{own:?} {min_version:?}"
            );
        }
    }
}

/// The error text of each side of a failed handshake.
async fn words(c: &TlsClient, s: &TlsServer) -> [String; 2] {
    let (connector, acceptor) = (Connector::new(c, H1).unwrap(), Acceptor::new(s, H1).unwrap());
    let (near, far) = tokio::io::duplex(1 << 16);
    let (client, server) = tokio::join!(connector.connect(NAME, near), acceptor.accept(far));
    [client.err().map(|error| error.to_string()), server.err().map(|error| error.to_string())]
        .map(Option::unwrap_or_default)
}

#[tokio::test]
async fn an_authority_of_the_right_name_and_another_key_is_told_from_an_unknown_one() {
    let files = files();
    let namesake = CertificateAuthority::new("the CA");
    files.put("namesake", &namesake.issue(&[NAME, WEB]));
    let [said, _] = words(&client(&files), &server(&files, "namesake")).await;
    for part in ["in the name of \"CN=the CA\"", "another key", "`ca:` to the upstream's"] {
        assert!(said.contains(part), "{said}");
    }
    let [said, _] = words(&client(&files), &server(&files, "untrusted")).await;
    assert!(said.contains("issued by \"CN=another CA\", which is not trusted"), "{said}");

    // The same of a client.
    let mut server = server(&files, "orders");
    server.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    for (own, parts) in [
        (
            "namesake",
            ["the client's certificate was issued in the name of", "`client_ca:` to the listener's"],
        ),
        (
            "stranger",
            ["the client's certificate was issued by \"CN=another CA\"", "`client_ca:` to the listener's"],
        ),
    ] {
        let mut client = client(&files);
        client.identity = Some(identity(&files, own));
        let [_, said] = words(&client, &server).await;
        assert!(parts.iter().all(|part| said.contains(part)), "{own}: {said}");
    }
}

#[tokio::test]
async fn no_protocol_in_common_is_told_by_both_sides() {
    let files = files();
    let found = reasons(&client(&files), &server(&files, "orders"), [H2, H1]).await;
    assert_eq!(found, (Some(Reason::TlsAlpn), Some(Reason::TlsAlpn)));
    // A server without ALPN speaks HTTP/1.1: this works for a client that offers it, but not for a client that needs
    // h2.
    let found = reasons(&client(&files), &server(&files, "orders"), [H2, &[]]).await;
    assert_eq!(found.0, Some(Reason::TlsAlpn));
    let found = reasons(&client(&files), &server(&files, "orders"), [&[b"h2", b"http/1.1"], &[]]).await;
    assert_eq!(found, (None, None));
}

#[tokio::test]
async fn a_pin_must_be_the_leafs_even_where_nothing_else_is_verified() {
    let files = files();
    let pin = {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let der = CertificateDer::from_pem_file(files.path("untrusted.pem")).unwrap();
        crate::certificate::spki_sha256(&der).unwrap()
    };
    let mut client = client(&files);
    client.insecure = true;
    client.pins = vec![[7; 32], pin];
    assert_eq!(reasons(&client, &server(&files, "untrusted"), [H1, H1]).await, (None, None));
    let found = reasons(&client, &server(&files, "orders"), [H1, H1]).await;
    assert_eq!(found.0, Some(Reason::TlsPinMismatch));
    // A pin does not replace the chain.
    client.insecure = false;
    let found = reasons(&client, &server(&files, "untrusted"), [H1, H1]).await;
    assert_eq!(found.0, Some(Reason::TlsUntrusted));
}

#[tokio::test]
async fn insecure_trusts_every_peer_but_only_if_it_is_set() {
    let files = files();
    let mut client = client(&files);
    client.trust = Trust::System;
    client.insecure = true;
    assert_eq!(reasons(&client, &server(&files, "expired"), [H1, H1]).await, (None, None));
}

#[tokio::test]
async fn the_configured_name_replaces_the_upstreams_own() {
    let files = files();
    let mut client = client(&files);
    client.name = Some("elsewhere.internal".into());
    assert_eq!(reasons(&client, &server(&files, "elsewhere"), [H1, H1]).await, (None, None));
}

#[tokio::test]
async fn inline_roots_are_trusted() {
    let files = files();
    let mut client = client(&files);
    client.trust = Trust::Inline(std::fs::read_to_string(files.path("ca.pem")).unwrap().into());
    assert_eq!(reasons(&client, &server(&files, "orders"), [H1, H1]).await, (None, None));
}

fn uri(pattern: &str) -> Vec<SanPattern> {
    vec![SanPattern::Uri(pattern.into())]
}

#[tokio::test]
async fn a_client_that_is_not_allowed_is_disconnected_or_told_so() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use crate::ClientAdmission;

    let files = files();
    let mut server = server(&files, "orders");
    server.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    let mut client = client(&files);
    client.identity = Some(identity(&files, "web"));
    for (allow, deny, admitted) in [
        (uri("spiffe://cluster.local/ns/shop/sa/*"), Vec::new(), true),
        (uri("spiffe://cluster.local/ns/other/**"), Vec::new(), false),
        (Vec::new(), uri("spiffe://cluster.local/ns/shop/**"), false),
        (uri("spiffe://cluster.local/**"), uri(WEB), false),
    ] {
        (server.allow, server.deny) = (allow, deny);
        let found = reasons(&client, &server, [H1, H1]).await;
        assert_eq!(found.1, (!admitted).then_some(Reason::DeniedIdentity), "{:?}", server.allow);
    }

    let connector = Connector::new(&client, H1).unwrap();
    let acceptor = Acceptor::new(&server, H1).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (mut stream, admission) =
        tokio::join!(async { connector.connect(NAME, ours).await.unwrap() }, acceptor.admit(theirs));
    let ClientAdmission::Denied { mut connection, error } = admission.unwrap() else { panic!("admitted") };
    insta::assert_snapshot!(error, @r#"denied-identity: client "spiffe://cluster.local/ns/shop/sa/web" is refused by `tls.deny`: spiffe://cluster.local/ns/shop/sa/web"#);
    connection.stream.write_all(b"403").await.unwrap();
    connection.stream.shutdown().await.unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).await.unwrap();
    assert_eq!(told, "403");
}

#[tokio::test]
async fn an_optional_client_certificate_may_be_left_out_unless_names_are_demanded() {
    let files = files();
    let mut server = server(&files, "orders");
    server.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    server.client_optional = true;
    assert_eq!(reasons(&client(&files), &server, [H1, H1]).await, (None, None));
    let mut wrong = client(&files);
    wrong.identity = Some(identity(&files, "stranger"));
    assert_eq!(reasons(&wrong, &server, [H1, H1]).await.1, Some(Reason::TlsUntrusted));
    server.allow = uri("spiffe://cluster.local/**");
    assert_eq!(reasons(&client(&files), &server, [H1, H1]).await.1, Some(Reason::DeniedIdentity));
}

#[tokio::test]
async fn rules_about_names_without_a_ca_are_refused_at_the_start() {
    let files = files();
    let mut server = server(&files, "orders");
    server.deny = uri(WEB);
    assert!(Acceptor::new(&server, H1).is_err());
}

#[tokio::test]
async fn the_error_about_a_peer_without_tls_asks_whether_it_speaks_plaintext() {
    use tokio::io::AsyncWriteExt;

    let files = files();
    let connector = Connector::new(&client(&files), H1).unwrap();
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = connector.connect(NAME, ours).await.map(drop).unwrap_err();
    insta::assert_snapshot!(error, @"tls-handshake-failed: received corrupt message of type InvalidContentType (the peer's bytes are not TLS: for a plaintext port write `http://` or `tcp://` in the address)");
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    drop(theirs);
    let error = connector.connect(NAME, ours).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("is the port really TLS?"), "{error}");

    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error: Error = acceptor.accept(ours).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("does it speak plaintext?"), "{error}");
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error_and_not_an_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let files = files();
    let connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (stream, accepted) = tokio::join!(connector.connect(NAME, ours), acceptor.accept(theirs));
    let (mut stream, mut accepted) = (stream.unwrap(), accepted.unwrap());
    accepted.stream.write_all(b"half of it").await.unwrap();
    accepted.stream.flush().await.unwrap();
    drop(accepted);
    let mut got = Vec::new();
    let error = stream.read_to_end(&mut got).await.unwrap_err();
    assert_eq!((got.as_slice(), error.kind()), (b"half of it".as_slice(), std::io::ErrorKind::UnexpectedEof));
    assert_eq!(crate::reason_of(&error), None, "a connection cut short is not about TLS");
}

#[tokio::test]
async fn certificates_are_picked_by_server_name() {
    let files = files();
    let ca = CertificateAuthority::new("the CA");
    files.write("ca.pem", &ca.pem);
    files.put("first", &ca.issue(&["first.internal"]));
    files.put("exact", &ca.issue(&["a.shop.internal"]));
    files.put("wild", &ca.issue(&["*.shop.internal"]));
    let mut server = server(&files, "first");
    server.identities.extend([identity(&files, "wild"), identity(&files, "exact")]);
    let connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server, H1).unwrap();
    for (name, reason) in [
        ("first.internal", None),
        ("a.shop.internal", None),
        ("B.shop.internal", None),
        ("a.b.shop.internal", Some(Reason::TlsNameMismatch)),
        ("unknown.internal", Some(Reason::TlsNameMismatch)),
    ] {
        let (answer, _) = meet(&connector, name, &acceptor).await;
        assert_eq!(answer.err().flatten(), reason, "{name}");
    }
}

#[tokio::test]
async fn peers_do_not_replace_a_valid_chain() {
    let files = files();
    let mut client = client(&files);
    // No certificate has the name that is called, so only `peers` could allow them.
    client.name = Some("called.internal".into());
    client.peers = vec![SanPattern::Dns(NAME.into())];
    for (certificate, reason) in [
        ("orders", None),
        ("expired", Some(Reason::TlsExpired)),
        ("stranger", Some(Reason::TlsUntrusted)),
        ("elsewhere", Some(Reason::TlsNameMismatch)),
    ] {
        let found = reasons(&client, &server(&files, certificate), [H1, H1]).await;
        assert_eq!(found.0, reason, "{certificate}");
    }
}
