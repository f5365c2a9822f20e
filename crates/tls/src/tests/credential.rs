//! Secrets for the application's requests.

use attache_config::model::{
    BasicSecret, BearerSecret, Credential as Config, ExistingHeader, HeaderSecret, Secret,
};
use attache_telemetry::Reason;
use attache_wire::{Fields, header::AUTHORIZATION};
use http::HeaderValue;

use super::pki::PkiFiles;
use crate::{CredentialHeader, FileWatcher};

fn bearer(files: &PkiFiles) -> Config {
    Config { secret: Secret::Bearer(BearerSecret { file: files.path("token") }), ..Config::default() }
}

fn sent(credential: &CredentialHeader, before: &[(&'static str, &'static str)]) -> Vec<String> {
    let mut headers = Fields::new();
    for (name, value) in before {
        headers.append(*name, HeaderValue::from_static(value));
    }
    credential.apply(&mut headers).unwrap();
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[test]
fn each_kind_is_written_as_its_rfc_says() {
    let files = PkiFiles::new();
    files.write("token", "mF_9.B5f-4.1JqM\n");
    assert_eq!(
        sent(&CredentialHeader::new(&bearer(&files)).unwrap(), &[]),
        ["authorization: Bearer mF_9.B5f-4.1JqM"]
    );
    // RFC 7617 section 2.
    files.write("token", "open sesame\r\n");
    let basic = Secret::Basic(BasicSecret { user: "Aladdin".into(), password_file: files.path("token") });
    let basic = CredentialHeader::new(&Config { secret: basic, ..bearer(&files) }).unwrap();
    assert_eq!(sent(&basic, &[]), ["authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]);
    let name = "x-api-key".parse().unwrap();
    let header = Secret::Header(HeaderSecret { name, file: files.path("token") });
    let header = CredentialHeader::new(&Config { secret: header, ..bearer(&files) }).unwrap();
    assert_eq!(sent(&header, &[("x-api-key", "forged"), ("x-api-key", "twice")]), ["x-api-key: open sesame"]);
}

#[test]
fn the_applications_own_header_is_replaced_unless_the_config_keeps_it() {
    let files = PkiFiles::new();
    files.write("token", "ours");
    let own = [("authorization", "Bearer its-own")];
    let replace = CredentialHeader::new(&bearer(&files)).unwrap();
    assert_eq!(sent(&replace, &own), ["authorization: Bearer ours"]);
    let keep = CredentialHeader::new(&Config { existing: ExistingHeader::Keep, ..bearer(&files) }).unwrap();
    assert_eq!(sent(&keep, &own), ["authorization: Bearer its-own"]);
    assert_eq!(sent(&keep, &[]), ["authorization: Bearer ours"]);
}

#[test]
fn no_dump_shows_a_secret() {
    let files = PkiFiles::new();
    files.write("token", "hunter2");
    let config = bearer(&files);
    let credential = CredentialHeader::new(&config).unwrap();
    let mut headers = Fields::new();
    credential.apply(&mut headers).unwrap();
    assert!(headers.get(AUTHORIZATION).unwrap().is_sensitive(), "HPACK must never index it");
    let dump = format!("{config:?} {credential:?} {headers:?}");
    assert!(dump.contains("token") && !dump.contains("hunter2"), "{dump}");
}

#[test]
fn a_changed_file_is_followed_and_a_bad_one_keeps_the_last_good_secret() {
    let files = PkiFiles::new();
    files.write("token", "first");
    let credential = CredentialHeader::new(&bearer(&files)).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&credential);
    let look = || {
        watcher.look();
        watcher.look();
    };
    files.write("token", "second\n");
    look();
    assert_eq!(sent(&credential, &[]), ["authorization: Bearer second"]);
    for bad in ["", "\n", "two\nlines", "Bearer third", "with blank", "\u{7}"] {
        files.write("token", bad);
        look();
        assert_eq!(sent(&credential, &[]), ["authorization: Bearer second"], "{bad:?}");
        assert_eq!(watcher.status().failing, 1, "{bad:?}");
    }
    std::fs::remove_file(files.path("token")).unwrap();
    look();
    assert_eq!(sent(&credential, &[]), ["authorization: Bearer second"]);
    files.write("token", "third");
    look();
    assert_eq!(sent(&credential, &[]), ["authorization: Bearer third"]);
    assert_eq!((watcher.status().reloads, watcher.status().failing), (2, 0));
}

#[test]
fn a_missing_file_is_an_error_at_the_start_unless_it_may_come_late() {
    let files = PkiFiles::new();
    let error = CredentialHeader::new(&bearer(&files)).unwrap_err();
    assert_eq!(error.reason, Reason::NoCredential);
    assert!(error.to_string().contains(&files.arg("token")), "{error}");
    let late = CredentialHeader::new(&Config { may_come_late: true, ..bearer(&files) }).unwrap();
    let watcher = FileWatcher::default();
    watcher.follow(&late);
    watcher.look();
    assert_eq!(watcher.status().failing, 1, "it is missed");
    let mut headers = Fields::new();
    let error = late.apply(&mut headers).unwrap_err().to_string();
    assert!(headers.is_empty() && error.contains(&files.arg("token")), "{error}");
    files.write("token", "now");
    watcher.look();
    watcher.look();
    assert_eq!(sent(&late, &[]), ["authorization: Bearer now"]);
    assert_eq!(watcher.status().failing, 0);
}

#[test]
fn no_error_quotes_the_file() {
    let files = PkiFiles::new();
    for bad in ["hunter2 hunter2", "Bearer hunter2", "hunter2\nhunter2"] {
        files.write("token", bad);
        let error = format!("{0} {0:?}", CredentialHeader::new(&bearer(&files)).unwrap_err());
        assert!(!error.contains("hunter2"), "{error}");
    }
}
