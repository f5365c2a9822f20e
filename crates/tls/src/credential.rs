//! A secret of the application's requests: read from a file, followed when it changes, put into one header.
//!
//! Rule: the last good secret stays in use when the file becomes unusable (missing, empty, not valid as a header's
//! value), as with certificates. White space at the file's end is not a part of it: editors and `echo` put a line's end
//! there. The value is marked sensitive, so that `Debug` doesn't show it and HPACK keeps it out of its tables (RFC 7541
//! section 7.1.3); no error and no log line contains a byte of it.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Weak},
};

use attache_config::model::{self, BasicSecret, ExistingHeader};
use attache_telemetry::Reason;
use attache_wire::Fields;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};

use crate::{
    Error,
    files::{FilesSnapshot, Sources, at},
    live::{BuiltConfig, Follow, Reloadable},
};

/// A header with a secret that follows its file. Clones share one secret.
#[derive(Clone)]
pub struct CredentialHeader {
    live: Arc<Reloadable<Option<HeaderValue>>>,
    name: HeaderName,
    existing: ExistingHeader,
    file: Arc<PathBuf>,
}

/// There is no secret yet.
#[derive(Clone, Debug)]
pub struct NoCredential(Arc<PathBuf>);

impl fmt::Display for NoCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no secret in {} yet", self.0.display())
    }
}

impl std::error::Error for NoCredential {}

/// Whether the file holds a secret that can be used now.
pub(crate) fn check(config: &model::Credential) -> Result<(), String> {
    let files =
        FilesSnapshot::read(&Sources { paths: vec![config.secret.file().to_path_buf()], workload: None });
    value(&config.secret, &files).map(drop)
}

impl CredentialHeader {
    /// Reads the file. The error says which, and what is wrong with it; a file that may come late need not be there.
    pub fn new(config: &model::Credential) -> Result<Self, Error> {
        let file = config.secret.file().to_path_buf();
        let sources = Sources { paths: vec![file.clone()], workload: None };
        let secret = config.secret.clone();
        let build = Box::new(move |files: &FilesSnapshot| {
            let value = value(&secret, files).map_err(|why| Error::new(Reason::NoCredential, why))?;
            Ok(BuiltConfig { config: Some(value), certificates: Vec::new() })
        });
        let may_come_late = config.may_come_late;
        let live = Reloadable::new_or(sources, build, |error| {
            if !may_come_late {
                return Err(error);
            }
            tracing::warn!("{error}: requests that need it are refused until it comes");
            Ok(BuiltConfig { config: None, certificates: Vec::new() })
        })?;
        Ok(Self { live, name: config.secret.header(), existing: config.existing, file: Arc::new(file) })
    }

    /// Replaces the headers of this name by the secret, or keeps them if the config says so.
    ///
    /// # Errors
    /// There is no secret yet: the request must not be sent.
    pub fn apply(&self, headers: &mut Fields) -> Result<(), NoCredential> {
        if self.existing == ExistingHeader::Keep && headers.contains_key(&self.name) {
            return Ok(());
        }
        let set = self.live.with(|value| value.as_ref().map(|value| headers.insert(&self.name, value)));
        set.ok_or_else(|| NoCredential(self.file.clone()))
    }

    pub(crate) fn follow(&self) -> Weak<dyn Follow> {
        let live: Arc<dyn Follow> = self.live.clone();
        Arc::downgrade(&live)
    }
}

impl fmt::Debug for CredentialHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialHeader")
            .field("name", &self.name)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

fn value(secret: &model::Secret, files: &FilesSnapshot) -> Result<HeaderValue, String> {
    let file = secret.file();
    let wrong = |what: &str| at(file, what);
    let bytes = files.get(file)?.trim_ascii_end();
    if bytes.is_empty() {
        return Err(wrong("there is only white space in it: was it written completely?"));
    }
    let text = match secret {
        model::Secret::Bearer(_) => {
            if bytes.get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"bearer ")) {
                return Err(wrong("expected the token alone, without `Bearer`"));
            }
            if !bytes.iter().all(u8::is_ascii_graphic) {
                return Err(wrong(
                    "a bearer token has visible ASCII characters only, and no blank (RFC 6750 section 2.1)",
                ));
            }
            [b"Bearer ", bytes].concat()
        }
        model::Secret::Basic(BasicSecret { user, .. }) => {
            if bytes.iter().any(u8::is_ascii_control) {
                return Err(wrong(
                    "a password has no control characters and no line's end within (RFC 7617 section 2)",
                ));
            }
            let pair = [user.as_bytes(), b":", bytes].concat();
            [b"Basic ".as_slice(), STANDARD.encode(&pair).as_bytes()].concat()
        }
        model::Secret::Header(_) => bytes.to_vec(),
    };
    let mut value = HeaderValue::from_bytes(&text)
        .map_err(|_| wrong("this can't be a header's value: one line without control characters"))?;
    value.set_sensitive(true);
    Ok(value)
}
