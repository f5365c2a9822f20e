//! The files of one connector or acceptor, read together.
//!
//! All objects from files are made from one [`FilesSnapshot`]: the bytes that are compared are exactly the bytes that are
//! loaded, and a certificate and its key come from the same reading.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;

use crate::spiffe::{Svid, Workload};

/// The files, and the Workload API, from which a connector or acceptor is made.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) workload: Option<Workload>,
}

/// The bytes of a set of files at one time, or why they could not be read; and the SVID of that time.
pub(crate) struct FilesSnapshot {
    files: BTreeMap<PathBuf, Result<Vec<u8>, io::Error>>,
    svid: Option<Arc<Svid>>,
}

/// Larger than any certificate bundle in use; keeps a path like `/dev/zero` from filling the memory.
const MAX_FILE_BYTES: u64 = 16 << 20;

impl FilesSnapshot {
    pub(crate) fn read(sources: &Sources) -> Self {
        let files = sources.paths.iter().map(|path| (path.clone(), read(path))).collect();
        Self { files, svid: sources.workload.as_ref().and_then(Workload::current) }
    }

    /// The SVID, or what to do about its absence.
    pub(crate) fn svid(&self) -> Result<&Svid, &'static str> {
        self.svid
            .as_deref()
            .ok_or("there is no SVID: set SPIFFE_ENDPOINT_SOCKET to the SPIFFE agent's socket")
    }

    /// A file's bytes, or an error that names the file and what to do.
    pub(crate) fn get(&self, path: &Path) -> Result<&[u8], String> {
        match self.files.get(path) {
            Some(Ok(bytes)) if bytes.is_empty() => {
                Err(format!("{} is empty: was it written completely?", path.display()))
            }
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(format!("{}: {error}{}", path.display(), advice(error))),
            None => Err(format!("{} was not read", path.display())),
        }
    }

    /// Equal exactly when the contents (or the failures to read them) are.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for content in self.files.values() {
            match content {
                Ok(bytes) => {
                    context.update(&[0]);
                    context.update(&(bytes.len() as u64).to_be_bytes());
                    context.update(bytes);
                }
                Err(error) => {
                    context.update(&[1]);
                    context.update(format!("{:?}", error.kind()).as_bytes());
                }
            }
        }
        if let Some(svid) = &self.svid {
            context.update(&svid.digest);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
    }
    Ok(bytes)
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => ": check the path, and that the secret or volume is mounted",
        io::ErrorKind::PermissionDenied => ": the user that attache runs as must be able to read it",
        _ => "",
    }
}

/// A file's metadata, which is known without reading it. If it changes, the file must be read again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileStat {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Follows symbolic links; `None` if there is no file.
pub(crate) fn stat(path: &Path) -> Option<FileStat> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some(FileStat {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

impl FileStat {
    /// The metadata of a file that was last changed at this second.
    #[cfg(test)]
    pub(crate) fn at(second: i64) -> Self {
        Self { device: 0, inode: 0, size: 0, modified: (second, 0), changed: (second, 0) }
    }

    /// True if the last change is so recent that another change could have the same time stamp.
    pub(crate) fn is_fresh(&self, now_seconds: i64) -> bool {
        now_seconds.saturating_sub(self.changed.0.max(self.modified.0)) <= 2
    }
}

/// Adds the path to an error of a parser.
pub(crate) fn at(path: &Path, text: impl std::fmt::Display) -> String {
    format!("{}: {text}", path.display())
}

/// Describes an error in PEM, for people.
pub(crate) fn broken(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error as Pem;
    match error {
        Pem::MissingSectionEnd { .. } => {
            "cut off, the END line is missing: was it written completely?".into()
        }
        error => format!("broken PEM ({error})"),
    }
}
