//! A secret that attache adds to the application's requests, and that the application doesn't have.

use std::path::Path;

use http::header::AUTHORIZATION;

use super::prelude::*;

section! {
    "`credential`"
    /// A secret from a file that attache adds to requests. attache reads the file again when it changes, ignores white space at its end,
    /// and never logs its content. Exactly one of `bearer`, `basic` and `header`.
    pub struct Credential: Eq, Hash {
        /// `Authorization: Bearer TOKEN`.
        #[schema(examples = [json!({"file": "/secrets/token"})])]
        bearer(BearerSecret),
        /// `Authorization: Basic …`.
        #[schema(examples = [json!({"user": "shop", "password_file": "/secrets/password"})])]
        basic(BasicSecret),
        /// A header with the secret as its value.
        #[schema(examples = [json!({"name": "x-api-key", "file": "/secrets/key"})])]
        header(Spanned<HeaderSecret>),
        /// What happens if the application itself sends this header.
        existing: ExistingHeader = ExistingHeader::default(),
        /// The file may be missing at the start. Until it exists, requests are answered with `no-credential`. With `false`, a missing file
        /// is an error at the start.
        may_come_late: bool = false,
        /// Health checks by HTTP and gRPC send it, too. Only a credential of the upstream itself may have this key.
        health_checks: bool = false,
        /// The secret is also sent without protection: in plaintext, or to a peer whose certificate is not verified.
        /// Anyone who can read the network traffic can then read the secret.
        insecure_send_in_clear in in_clear: bool = false,
    }
    holds {
        /// The header and the file of its secret. The secret itself is never here, so that no dump of a config shows
        /// it.
        secret: Secret = Secret::Bearer(BearerSecret::default()),
    }
    shows Self::show_secret
    rules {
        one_of [bearer, basic, header]
            "a credential has exactly one secret"
            "exactly one of `bearer: { file: … }`, `basic: { user: …, password_file: … }` and `header: { name: …, file: … }`";
    }
}

section! {
    "`bearer`"
    /// A bearer token.
    pub struct BearerSecret: Eq, Hash {
        /// The file of the token, without `Bearer`.
        #[schema(examples = ["/secrets/token"])]
        file: PathBuf as File = PathBuf::new(),
    }
    requires file
}

section! {
    "`basic`"
    /// A user and password.
    pub struct BasicSecret: Eq, Hash {
        /// The user.
        user: Name as UserName = "".into(),
        /// The file of the password.
        #[schema(examples = ["/secrets/password"])]
        password_file: PathBuf as File = PathBuf::new(),
    }
    requires user, password_file
}

section! {
    "`header` of a credential"
    /// A header with the secret as its value.
    pub struct HeaderSecret: Eq, Hash {
        /// The header.
        #[schema(examples = ["x-api-key"])]
        name: HeaderName as HeaderText = AUTHORIZATION,
        /// The file of its whole value.
        #[schema(examples = ["/secrets/key"])]
        file: PathBuf as File = PathBuf::new(),
    }
    requires name, file
}

impl Credential {
    fn show_secret(&self, shown: &mut Object<String, Value>) {
        let (key, secret) = match &self.secret {
            Secret::Bearer(secret) => ("bearer", json!(secret)),
            Secret::Basic(secret) => ("basic", json!(secret)),
            Secret::Header(secret) => ("header", json!(secret)),
        };
        shown.insert(key.into(), secret);
    }
}

/// The header and the file of its secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Secret {
    /// `Authorization: Bearer TOKEN` (RFC 6750); the file holds the token.
    Bearer(BearerSecret),
    /// `Authorization: Basic …` (RFC 7617); the file holds the password.
    Basic(BasicSecret),
    /// A header of its own; the file holds the whole value.
    Header(HeaderSecret),
}

impl Secret {
    /// The header that is set.
    pub fn header(&self) -> HeaderName {
        match self {
            Self::Bearer(_) | Self::Basic(_) => AUTHORIZATION,
            Self::Header(header) => header.name.clone(),
        }
    }

    /// The file of the secret.
    pub fn file(&self) -> &Path {
        match self {
            Self::Bearer(bearer) => &bearer.file,
            Self::Basic(basic) => &basic.password_file,
            Self::Header(header) => &header.file,
        }
    }
}

/// What happens to a header that the application sent itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExistingHeader {
    /// The secret replaces it.
    #[default]
    Replace,
    /// The application's header is kept, and the secret is not sent.
    Keep,
}
