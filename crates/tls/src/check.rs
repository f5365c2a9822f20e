//! Finds all files of a config that can't be used, without starting anything.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use attache_config::model::{self, Identity, TlsClient, TlsServer, Trust};
use rustls::{CertificateError, pki_types::UnixTime};

use crate::{
    files::{FilesSnapshot, Sources},
    identity, trust, words,
};

/// One file that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The file as the config names it; `None` if the problem is not in a file.
    pub file: Option<PathBuf>,
    /// What is wrong with it, and what to do.
    pub what: String,
}

impl FileProblem {
    fn of(file: &Path, what: impl Into<String>) -> Self {
        Self { file: Some(file.to_path_buf()), what: what.into() }
    }
}

/// Problems of the files of a listener's TLS.
pub fn server_files(settings: &TlsServer) -> Vec<FileProblem> {
    let mut found: Vec<_> = settings.identities.iter().flat_map(of_identity).collect();
    found.extend(settings.client_trust.as_ref().map(of_trust).unwrap_or_default());
    found.extend(of_crls(&settings.crls));
    found
}

/// Problems of the files of an upstream's TLS.
pub fn client_files(settings: &TlsClient) -> Vec<FileProblem> {
    let mut found: Vec<_> = settings.identity.iter().flat_map(of_identity).collect();
    if !settings.insecure {
        found.extend(of_trust(&settings.trust));
    }
    found.extend(of_crls(&settings.crls));
    found
}

/// The problem of a secret's file. A file that may come late is never missing.
pub fn credential_file(config: &model::Credential) -> Option<FileProblem> {
    if config.may_come_late {
        return None;
    }
    crate::credential::check(config).err().map(|what| FileProblem::of(config.secret.file(), what))
}

/// Certificates that attache shows to peers and that are not valid now: attache starts all the same, but peers will
/// refuse them.
pub fn untimely<'a>(shown: impl IntoIterator<Item = &'a Identity>, now: SystemTime) -> Vec<String> {
    shown
        .into_iter()
        .filter_map(|pair| {
            let leaf = identity::read(pair, &read(identity::files(pair))).ok()?.leaf;
            let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).ok()?);
            let unix = |at: SystemTime| {
                UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
            };
            let (not_before, not_after) = (unix(leaf.not_before), unix(leaf.not_after));
            let error = if now > not_after {
                CertificateError::ExpiredContext { time: now, not_after }
            } else if now < not_before {
                CertificateError::NotValidYetContext { time: now, not_before }
            } else {
                return None;
            };
            let words = words::of_certificate(&error)?;
            Some(format!("{}: {words}; peers refuse it: renew it", pair.certificate.display()))
        })
        .collect()
}

fn read(paths: impl IntoIterator<Item = PathBuf>) -> FilesSnapshot {
    FilesSnapshot::read(&Sources { paths: paths.into_iter().collect(), workload: None })
}

fn of_identity(pair: &Identity) -> Vec<FileProblem> {
    let files = read(identity::files(pair));
    let mut found = Vec::new();
    if let Err(what) = identity::check_chain(&pair.certificate, &files) {
        found.push(FileProblem::of(&pair.certificate, what));
    }
    if let Err(what) = identity::check_key(&pair.key, &files) {
        found.push(FileProblem::of(&pair.key, what));
    }
    // Whether the two belong together is known only if both can be read.
    if found.is_empty()
        && let Err(what) = identity::read(pair, &files)
    {
        let culprit = pair.ocsp.as_ref().filter(|ocsp| what.starts_with(&ocsp.display().to_string()));
        found.push(FileProblem::of(culprit.unwrap_or(&pair.key), what));
    }
    found
}

fn of_trust(wanted: &Trust) -> Vec<FileProblem> {
    match wanted {
        Trust::Spiffe => Vec::new(),
        Trust::System | Trust::Inline(_) => {
            let wrong = trust::roots(wanted, &read([])).err();
            wrong.map(|error| FileProblem { file: None, what: error.cause() }).into_iter().collect()
        }
        Trust::Files(paths) => {
            let files = read(paths.iter().cloned());
            let wrong = |path: &PathBuf| {
                let error = trust::roots(&Trust::Files(vec![path.clone()]), &files).err()?;
                Some(FileProblem::of(path, error.cause()))
            };
            paths.iter().filter_map(wrong).collect()
        }
    }
}

fn of_crls(paths: &[PathBuf]) -> Vec<FileProblem> {
    let files = read(paths.iter().cloned());
    let wrong = |path: &PathBuf| {
        let error = trust::crls(std::slice::from_ref(path), &files).err()?;
        Some(FileProblem::of(path, error.cause()))
    };
    paths.iter().filter_map(wrong).collect()
}
