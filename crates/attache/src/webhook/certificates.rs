//! The webhook's own certificate authority, for clusters without cert-manager.
//!
//! The authority is made once and kept (the API server trusts its certificate). The webhook's certificate is made each time, so the same
//! command renews it. Only their owner can read the keys. Each file is replaced as a whole.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::error::AnyError;

const DAY: Duration = Duration::from_hours(24);
/// How long the authority is valid, in days.
const AUTHORITY: u32 = 3650;

/// Writes `ca.crt`, `ca.key` (unless they exist), `tls.crt` and `tls.key`; returns a summary.
pub(super) fn write(folder: &Path, service: &str, namespace: &str, days: u16) -> Result<String, AnyError> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (ca, ca_key) = (folder.join("ca.crt"), folder.join("ca.key"));
    let kept = ca_key.exists();
    if kept != ca.exists() {
        return Err(
            format!("{}: one of ca.crt and ca.key is there without the other", folder.display()).into()
        );
    }
    let key = if kept {
        let pem = fs::read_to_string(&ca_key).map_err(|error| format!("{}: {error}", ca_key.display()))?;
        KeyPair::from_pem(&pem).map_err(|error| format!("{}: {error}", ca_key.display()))?
    } else {
        KeyPair::generate()?
    };
    let authority = authority();
    if !kept {
        put(&ca_key, &key.serialize_pem(), 0o600)?;
        put(&ca, &authority.self_signed(&key)?.pem(), 0o644)?;
    }

    let names = vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
        service.to_owned(),
    ];
    let own_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "attache webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, days.into());
    let own = params.signed_by(&own_key, &Issuer::new(authority, key))?;
    put(&folder.join("tls.key"), &own_key.serialize_pem(), 0o600)?;
    put(&folder.join("tls.crt"), &own.pem(), 0o644)?;
    Ok(format!(
        "{}: {}, and a certificate for {service}.{namespace}.svc that is valid for {days} days",
        folder.display(),
        if kept { "the existing authority" } else { "a new authority" }
    ))
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "attache webhook authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, AUTHORITY);
    params
}

fn valid(params: &mut CertificateParams, days: u32) {
    let epoch = date_time_ymd(1970, 1, 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Clocks of different machines differ a little.
    params.not_before = epoch + now.saturating_sub(Duration::from_mins(5));
    params.not_after = epoch + now + DAY * days;
}

fn put(file: &Path, text: &str, mode: u32) -> Result<(), AnyError> {
    let new = file.with_extension("new");
    let written = || -> io::Result<()> {
        let _ = fs::remove_file(&new);
        let mut open = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        open.write_all(text.as_bytes())?;
        fs::rename(&new, file)
    };
    Ok(written().map_err(|error| format!("{}: {error}", file.display()))?)
}
