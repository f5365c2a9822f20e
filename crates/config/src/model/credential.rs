//! A secret that the application doesn't have and its requests are given.

use std::path::{Path, PathBuf};

use http::{HeaderName, header::AUTHORIZATION};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Name;

/// What requests to an upstream are given. It names the file of the secret and never holds the secret itself, so that no dump of
/// a config shows one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credential {
    /// Which header, and what of it is the secret.
    pub secret: Secret,
    /// What becomes of the same header where the application sent one. Default replace.
    pub existing: Existing,
    /// The file need not be there at the start; until it is, requests are answered with `no-credential`. Default false.
    pub may_come_late: bool,
    /// Health checks by HTTP and gRPC have it, too. Default false.
    pub health_checks: bool,
    /// Sent also where it isn't protected: in plaintext, or to a peer that isn't verified. Default false.
    pub in_clear: bool,
}

/// The header and the file of its secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Secret {
    /// `Authorization: Bearer TOKEN` (RFC 6750); the file holds the token.
    Bearer(PathBuf),
    /// `Authorization: Basic …` (RFC 7617); the file holds the password.
    Basic {
        /// User, without a colon.
        user: Name,
        /// File of the password.
        password: PathBuf,
    },
    /// A header of its own; the file holds the whole value.
    Header {
        /// The header.
        name: HeaderName,
        /// File of its value.
        value: PathBuf,
    },
}

impl Secret {
    /// The header that is set.
    pub fn header(&self) -> HeaderName {
        match self {
            Self::Bearer(_) | Self::Basic { .. } => AUTHORIZATION,
            Self::Header { name, .. } => name.clone(),
        }
    }

    /// The file of the secret.
    pub fn file(&self) -> &Path {
        match self {
            Self::Bearer(file) | Self::Basic { password: file, .. } | Self::Header { value: file, .. } => {
                file
            }
        }
    }
}

/// What becomes of a header that the application sent itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// The secret takes its place.
    #[default]
    Replace,
    /// It is kept, and the secret isn't sent.
    Keep,
}
