//! An error about a file names the file and says what to do.

use attache_config::model::Trust;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};

use super::{
    client, identity,
    matrix::{H1, NAME, files},
    meet,
    pki::{CertificateAuthority, PkiFiles, Validity},
    server,
};
use crate::{Acceptor, Connector};

fn complaint(files: &PkiFiles, name: &str) -> String {
    let error = Acceptor::new(&server(files, name), H1).map(drop).unwrap_err().to_string();
    error.replace(files.path("").to_str().unwrap(), "/certs/")
}

#[test]
fn a_server_without_its_files_does_not_start_and_says_why() {
    let files = files();
    insta::assert_snapshot!(complaint(&files, "missing"), @"tls-no-identity: /certs/missing.pem: No such file or directory (os error 2): check the path, and that the secret or volume is mounted");

    files.write("empty.pem", "");
    insta::assert_snapshot!(complaint(&files, "empty"), @"tls-no-identity: /certs/empty.pem is empty: was it written completely?");

    files.write("text.pem", "hello");
    insta::assert_snapshot!(complaint(&files, "text"), @"tls-no-identity: /certs/text.pem: no certificate in it: expected PEM with BEGIN CERTIFICATE, leaf first");

    let whole = std::fs::read(files.path("orders.pem")).unwrap();
    files.write("half.pem", &whole[..whole.len() / 2]);
    insta::assert_snapshot!(complaint(&files, "half"), @"tls-no-identity: /certs/half.pem: cut off, the END line is missing: was it written completely?");

    files.write("other.pem", &whole);
    std::fs::copy(files.path("web.key"), files.path("other.key")).unwrap();
    insta::assert_snapshot!(complaint(&files, "other"), @"tls-no-identity: /certs/other.key is not the key of the first certificate in /certs/other.pem: replace both together, leaf first");

    files.write("swapped.pem", std::fs::read(files.path("orders.key")).unwrap());
    insta::assert_snapshot!(complaint(&files, "swapped"), @"tls-no-identity: /certs/swapped.pem: it is a private key: expected PEM with BEGIN CERTIFICATE, leaf first");

    files.write("keyless.pem", &whole);
    files.write("keyless.key", &whole);
    insta::assert_snapshot!(complaint(&files, "keyless"), @"tls-no-identity: /certs/keyless.key: it is a certificate: expected a private key as PEM with PKCS#8, PKCS#1 or SEC1");

    files.write("locked.pem", &whole);
    files.write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    insta::assert_snapshot!(complaint(&files, "locked"), @"tls-no-identity: /certs/locked.key: the key is encrypted: decrypt it with `openssl pkey`");
}

#[test]
fn trust_that_can_not_be_read_is_refused() {
    let files = files();
    let mut client = client(&files);
    for (name, says) in [("gone.pem", "No such file"), ("orders.key", "it is a private key")] {
        client.trust = Trust::Files(vec![files.path(name)]);
        let error = Connector::new(&client, H1).map(drop).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(name), "{error}");
    }
    client.trust = Trust::Inline("nothing".into());
    assert!(Connector::new(&client, H1).is_err());
}

#[tokio::test]
async fn keys_of_every_kind_are_read() {
    let files = PkiFiles::new();
    let ca = CertificateAuthority::new("the CA");
    files.write("ca.pem", &ca.pem);
    for (name, algorithm) in
        [("p256", &PKCS_ECDSA_P256_SHA256), ("ed25519", &PKCS_ED25519), ("rsa", &PKCS_RSA_SHA256)]
    {
        files
            .put(name, &ca.issue_with(&[NAME], Validity::Now, 1, &KeyPair::generate_for(algorithm).unwrap()));
    }
    // The same keys in the older forms: SEC1 and PKCS#1.
    for (from, to, command) in [("p256", "sec1", "ec"), ("rsa", "pkcs1", "rsa")] {
        let mut arguments =
            vec![command.to_owned(), "-in".into(), files.arg(&format!("{from}.key")), "-out".into()];
        arguments.push(files.arg(&format!("{to}.key")));
        if command == "rsa" {
            arguments.push("-traditional".into());
        }
        let done = std::process::Command::new("openssl").args(arguments).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        std::fs::copy(files.path(&format!("{from}.pem")), files.path(&format!("{to}.pem"))).unwrap();
    }
    let head = |name: &str| std::fs::read_to_string(files.path(name)).unwrap();
    assert!(head("sec1.key").contains("BEGIN EC PRIVATE KEY"));
    assert!(head("pkcs1.key").contains("BEGIN RSA PRIVATE KEY"));
    let connector = Connector::new(&client(&files), H1).unwrap();
    for name in ["p256", "ed25519", "rsa", "sec1", "pkcs1"] {
        let acceptor = Acceptor::new(&server(&files, name), H1).unwrap();
        let (answer, _) = meet(&connector, NAME, &acceptor).await;
        assert_eq!(answer.unwrap(), b"hello", "{name}");
    }
}

#[test]
fn a_client_certificate_is_loaded_whole_or_not_at_all() {
    let files = files();
    let mut client = client(&files);
    let mut pair = identity(&files, "web");
    pair.key = files.path("orders.key");
    client.identity = Some(pair);
    let error = Connector::new(&client, H1).map(drop).unwrap_err().to_string();
    assert!(error.contains("is not the key of the first certificate"), "{error}");
}
