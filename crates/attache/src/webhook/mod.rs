//! `attache webhook`: the admission webhook's server, its certificates and its registration.
//!
//! [`attache_kubernetes::review`] makes the answers; this module serves them over TLS. It follows the files of the certificate and the key,
//! so the program that renews them (cert-manager, `attache webhook certificates`, a Secret) needs no restart. Everything that a client may
//! send is limited in size and time, and all clients together are limited in connections and bytes. A client that sends nothing loses its
//! permit to one that does ([`attache_rpc::server::ConnectionPermits`]).
//!
//! After SIGTERM it continues to serve for a while, because API servers send reviews until the Service's endpoints are withdrawn
//! everywhere. By default, a refused review means a pod without attache.

mod certificates;
mod metrics;
mod serve;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use attache_kubernetes::manifest::{self, WebhookTrust};
use clap::{Args, Subcommand};

use crate::error::AnyError;

/// `attache webhook`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct WebhookArgs {
    #[command(subcommand)]
    command: Option<WebhookCommand>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum WebhookCommand {
    /// Make a certificate authority, and a certificate for the webhook's Service. A second run renews the certificate.
    Certificates(CertificatesArgs),
    /// Print the MutatingWebhookConfiguration that tells the API server of the webhook.
    Manifest(ManifestArgs),
}

/// The Service of the webhook.
#[derive(Debug, Args)]
struct ServiceName {
    /// Name of the webhook's Service.
    #[arg(long, value_name = "NAME", default_value = "attache-webhook")]
    service: String,
    /// Its namespace.
    #[arg(long, value_name = "NAMESPACE", default_value = "attache")]
    namespace: String,
}

/// `attache webhook certificates`
#[derive(Debug, Args)]
struct CertificatesArgs {
    /// Folder for ca.crt, ca.key, tls.crt and tls.key.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    #[command(flatten)]
    service: ServiceName,
    /// Days that the certificate is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..))]
    days: u16,
}

/// `attache webhook manifest`
#[derive(Debug, Args)]
struct ManifestArgs {
    #[command(flatten)]
    service: ServiceName,
    /// The certificate authority of the webhook's certificate, PEM.
    #[arg(long, value_name = "FILE", required_unless_present = "cert_manager")]
    ca: Option<PathBuf>,
    /// Name of cert-manager's Certificate; cert-manager then adds the authority.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "ca")]
    cert_manager: Option<String>,
    /// Create no pods while the webhook can't be reached (default: pods are created without attache).
    #[arg(long)]
    fail: bool,
    /// Every namespace except those that opt out (default: only those that opt in).
    #[arg(long)]
    every_namespace: bool,
}

/// Runs the command.
pub(crate) fn run(options: &WebhookArgs) -> Result<(), AnyError> {
    match &options.command {
        None => serve::run(&options.serve),
        Some(WebhookCommand::Certificates(options)) => {
            let ServiceName { service, namespace } = &options.service;
            let said = certificates::write(&options.folder, service, namespace, options.days)?;
            Ok(writeln!(io::stderr(), "{said}")?)
        }
        Some(WebhookCommand::Manifest(options)) => {
            let trust = match (&options.ca, &options.cert_manager) {
                (Some(file), _) => WebhookTrust::Bundle(authority(file)?),
                (None, Some(certificate)) => WebhookTrust::CertManager(certificate.clone()),
                (None, None) => {
                    return Err(
                        "give --ca or --cert-manager: the authority of the webhook's certificate".into()
                    );
                }
            };
            let webhook = manifest::WebhookManifest {
                service: options.service.service.clone(),
                namespace: options.service.namespace.clone(),
                trust,
                fail: options.fail,
                every_namespace: options.every_namespace,
            };
            Ok(io::stdout().write_all(webhook.configuration().as_bytes())?)
        }
    }
}

/// Reads a PEM file. A file that contains a key must not be published.
fn authority(file: &Path) -> Result<String, AnyError> {
    let pem = fs::read_to_string(file).map_err(|error| format!("--ca {}: {error}", file.display()))?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") || pem.contains("PRIVATE KEY") {
        return Err(
            format!("--ca {}: it must contain certificates in PEM and nothing else", file.display()).into()
        );
    }
    Ok(pem)
}
