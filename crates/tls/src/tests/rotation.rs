//! Files change while connections run, in the ways in which this happens in practice.

use std::{os::unix::fs::symlink, time::Duration};

use attache_config::model::{Identity, Trust};

use super::{
    client, identity,
    matrix::{H1, NAME, files},
    meet,
    pki::{CertificateAuthority, PkiFiles, Validity},
    server,
};
use crate::{Acceptor, Connector, FileWatcher, WatchStatus};

/// A server `orders` with serial 1, and its CA.
fn setup() -> (PkiFiles, CertificateAuthority) {
    let files = PkiFiles::new();
    let ca = CertificateAuthority::new("the CA");
    files.write("ca.pem", &ca.pem);
    files.put("orders", &ca.issue(&[NAME]));
    (files, ca)
}

/// The serial number of the certificate that the server shows.
async fn shown(connector: &Connector, acceptor: &Acceptor) -> u64 {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (stream, _accepted) = tokio::join!(connector.connect(NAME, ours), acceptor.accept(theirs));
    let stream = stream.unwrap();
    serial(stream.get_ref().1.peer_certificates().unwrap().first().unwrap())
}

fn serial(der: &[u8]) -> u64 {
    use x509_parser::prelude::FromDer;
    let (_, cert) = x509_parser::certificate::X509Certificate::from_der(der).unwrap();
    cert.raw_serial().iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn settle(watcher: &FileWatcher) {
    watcher.look();
    watcher.look();
}

#[tokio::test]
async fn a_renamed_pair_is_used_by_the_next_connection() {
    let (files, ca) = setup();
    let connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&acceptor);
    settle(&watcher);
    assert_eq!(watcher.status(), WatchStatus::default(), "nothing changed");
    files.put("new", &ca.issue_at(&[NAME], Validity::Now, 2));
    for kind in ["pem", "key"] {
        std::fs::rename(files.path(&format!("new.{kind}")), files.path(&format!("orders.{kind}"))).unwrap();
    }
    settle(&watcher);
    assert_eq!(shown(&connector, &acceptor).await, 2);
    assert_eq!(watcher.status(), WatchStatus { reloads: 1, ..WatchStatus::default() });
}

#[tokio::test]
async fn a_half_written_pair_leaves_the_old_one_serving_until_it_is_whole() {
    let (files, ca) = setup();
    let connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&acceptor);
    let new = ca.issue_at(&[NAME], Validity::Now, 2);
    // Key first, then half of the certificate, then all of it: each state stays for a while.
    files.write("orders.key", &new.key);
    settle(&watcher);
    assert_eq!(shown(&connector, &acceptor).await, 1);
    assert_eq!(watcher.status(), WatchStatus { reload_failures: 1, failing: 1, reloads: 0 });
    files.write("orders.pem", &new.certificate[..200]);
    settle(&watcher);
    watcher.look();
    assert_eq!(shown(&connector, &acceptor).await, 1);
    assert_eq!(
        watcher.status(),
        WatchStatus { reload_failures: 2, failing: 1, reloads: 0 },
        "once per content"
    );
    files.write("orders.pem", &new.certificate);
    settle(&watcher);
    assert_eq!(shown(&connector, &acceptor).await, 2);
    assert_eq!(watcher.status(), WatchStatus { reload_failures: 2, failing: 0, reloads: 1 });
}

#[tokio::test]
async fn a_change_is_not_used_before_it_has_settled() {
    let (files, ca) = setup();
    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&acceptor);
    let new = ca.issue_at(&[NAME], Validity::Now, 2);
    files.write("orders.key", &new.key);
    watcher.look();
    files.write("orders.pem", &new.certificate);
    watcher.look();
    watcher.look();
    assert_eq!(watcher.status(), WatchStatus { reloads: 1, ..WatchStatus::default() });
}

#[tokio::test]
async fn files_that_vanish_leave_the_last_good_ones_serving() {
    let (files, ca) = setup();
    let connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&acceptor);
    std::fs::remove_file(files.path("orders.key")).unwrap();
    settle(&watcher);
    assert_eq!(shown(&connector, &acceptor).await, 1);
    assert_eq!(watcher.status().failing, 1);
    files.put("orders", &ca.issue_at(&[NAME], Validity::Now, 2));
    settle(&watcher);
    assert_eq!(shown(&connector, &acceptor).await, 2);
    assert_eq!(watcher.status().failing, 0);
}

#[tokio::test]
async fn an_expired_replacement_is_refused() {
    let (files, ca) = setup();
    let connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&acceptor);
    for when in [Validity::Past, Validity::Future] {
        files.put("orders", &ca.issue_at(&[NAME], when, 2));
        settle(&watcher);
        assert_eq!(shown(&connector, &acceptor).await, 1);
    }
    assert_eq!(watcher.status(), WatchStatus { reload_failures: 2, failing: 1, reloads: 0 });
}

/// A Kubernetes secret volume: files are links through `..data`, which is swapped by a rename.
#[tokio::test]
async fn a_kubernetes_secret_volume_is_followed() {
    let (files, ca) = setup();
    let publish = |version: u64| {
        let folder = format!("..{version}");
        std::fs::create_dir(files.path(&folder)).unwrap();
        let pair = ca.issue_at(&[NAME], Validity::Now, version);
        files.write(&format!("{folder}/tls.crt"), &pair.certificate);
        files.write(&format!("{folder}/tls.key"), &pair.key);
        symlink(&folder, files.path("..data_tmp")).unwrap();
        std::fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
        if version > 2 {
            std::fs::remove_dir_all(files.path(&format!("..{}", version - 1))).unwrap();
        }
    };
    publish(2);
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), files.path(name)).unwrap();
    }
    let mut server = server(&files, "orders");
    server.identities =
        vec![Identity { certificate: files.path("tls.crt"), key: files.path("tls.key"), ocsp: None }];
    let connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server, H1).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&acceptor);
    for version in 3..6 {
        publish(version);
        settle(&watcher);
        assert_eq!(shown(&connector, &acceptor).await, version);
    }
    assert_eq!(watcher.status().reload_failures, 0);
}

#[tokio::test]
async fn trust_and_client_certificates_are_followed_too() {
    let files = files();
    let mut server = server(&files, "orders");
    server.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    let mut client = client(&files);
    client.identity = Some(identity(&files, "web"));
    let connector = Connector::new(&client, H1).unwrap();
    let acceptor = Acceptor::new(&server, H1).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&connector);
    watcher.follow(&acceptor);
    assert!(meet(&connector, NAME, &acceptor).await.1.is_ok());

    // A new authority replaces the old one: first both are trusted, then the certificates change, then only the new one
    // is trusted.
    let new = CertificateAuthority::new("a new CA");
    let both = [std::fs::read_to_string(files.path("ca.pem")).unwrap(), new.pem.clone()].concat();
    files.write("ca.pem", both);
    settle(&watcher);
    files.put("orders", &new.issue(&[NAME]));
    settle(&watcher);
    assert!(meet(&connector, NAME, &acceptor).await.1.is_ok());
    files.put("web", &new.issue(&["spiffe://cluster.local/new"]));
    settle(&watcher);
    let accepted = meet(&connector, NAME, &acceptor).await.1.unwrap();
    assert_eq!(&*accepted.identities[0], "spiffe://cluster.local/new");
    files.write("ca.pem", &new.pem);
    settle(&watcher);
    assert!(meet(&connector, NAME, &acceptor).await.1.is_ok());
    assert_eq!(watcher.status().reload_failures, 0);

    // From then on a certificate that it did not sign is refused.
    let files2 = super::matrix::files();
    let mut old = client;
    old.identity = Some(identity(&files2, "web"));
    let connector = Connector::new(&old, H1).unwrap();
    assert!(meet(&connector, NAME, &acceptor).await.1.is_err());
}

#[tokio::test]
async fn fifty_rotations_under_handshakes_fail_none() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let (files, ca) = setup();
    files.put("web", &ca.issue_at(&["spiffe://d/web"], Validity::Now, 1));
    let mut server = server(&files, "orders");
    server.client_trust = Some(Trust::Files(vec![files.path("ca.pem")]));
    let mut client = client(&files);
    client.identity = Some(identity(&files, "web"));
    let connector = Connector::new(&client, H1).unwrap();
    let acceptor = Acceptor::new(&server, H1).unwrap();
    let watcher = FileWatcher::new(Duration::from_millis(1));
    watcher.follow(&connector);
    watcher.follow(&acceptor);
    let done = AtomicBool::new(false);
    let handshakes = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        let mut count = 0;
                        while !done.load(Ordering::Relaxed) {
                            let (answer, accepted) = meet(&connector, NAME, &acceptor).await;
                            assert_eq!(answer.unwrap(), b"hello");
                            assert_eq!(&*accepted.unwrap().identities[0], "spiffe://d/web");
                            count += 1;
                        }
                        count
                    })
                })
            })
            .collect();
        for turn in 0..50_u64 {
            for (name, san) in [("orders", NAME), ("web", "spiffe://d/web")] {
                let pair = ca.issue_at(&[san], Validity::Now, turn + 2);
                // Files are written in place, the key first, with checks in between: the worst case.
                files.write(&format!("{name}.key"), &pair.key);
                watcher.look();
                files.write(&format!("{name}.pem"), &pair.certificate);
                settle(&watcher);
            }
        }
        done.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<u32>()
    });
    assert_eq!(watcher.status(), WatchStatus { reloads: 100, reload_failures: 0, failing: 0 });
    assert!(handshakes > 50, "{handshakes}");
    assert_eq!(shown(&connector, &acceptor).await, 51);
}

#[tokio::test(start_paused = true)]
async fn the_watchers_task_finds_a_change_by_itself() {
    let (files, ca) = setup();
    let connector = Connector::new(&client(&files), H1).unwrap();
    let acceptor = Acceptor::new(&server(&files, "orders"), H1).unwrap();
    let watcher = FileWatcher::new(Duration::from_secs(1));
    watcher.follow(&acceptor);
    let task = tokio::spawn(watcher.clone().run(tokio::time::sleep));
    files.put("orders", &ca.issue_at(&[NAME], Validity::Now, 2));
    while watcher.status().reloads == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(shown(&connector, &acceptor).await, 2);
    task.abort();
}

#[test]
fn certificates_in_use_are_listed_once_and_dropped_ones_are_not() {
    let (files, _) = setup();
    let watcher = FileWatcher::default();
    let acceptors: Vec<_> = (0..2).map(|_| Acceptor::new(&server(&files, "orders"), H1).unwrap()).collect();
    for acceptor in &acceptors {
        watcher.follow(acceptor);
    }
    let listed = watcher.certificates();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].file.as_deref(), Some(files.path("orders.pem").as_path()));
    assert_eq!((&*listed[0].subject, &*listed[0].issuer), ("CN=orders.internal", "CN=the CA"));
    assert_eq!(listed[0].not_after, std::time::UNIX_EPOCH + Duration::from_secs(64_060_588_800));
    drop(acceptors);
    assert!(watcher.certificates().is_empty());
}
