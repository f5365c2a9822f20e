//! A file that lines are appended to. It is rotated when it is too large or too old.
//!
//! Rule: `FILE` becomes `FILE.1`, that becomes `FILE.2`, and so on; the oldest file is overwritten. A batch of lines is never split. If a
//! file can't be rotated, it keeps growing: a line in the wrong file is better than a lost one.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use attache_config::model::LogFile;

pub(super) struct RotatingFile {
    settings: LogFile,
    file: File,
    size: u64,
    since: SystemTime,
    /// Whether it is a regular file: a device or a pipe (`/dev/null`, `/dev/stderr`) is never rotated.
    rotates: bool,
    /// A rotation failed; this is logged once.
    rotation_failed: bool,
}

impl RotatingFile {
    pub(super) fn open(settings: &LogFile) -> io::Result<Self> {
        let file = append_to(&settings.path)?;
        let about = file.metadata()?;
        let since = about.created().or_else(|_| about.modified()).unwrap_or_else(|_| SystemTime::now());
        Ok(Self {
            settings: settings.clone(),
            file,
            size: about.len(),
            since,
            rotates: about.is_file(),
            rotation_failed: false,
        })
    }

    fn is_due(&self, more: u64) -> bool {
        let old = |age| self.since.elapsed().is_ok_and(|since| since >= age);
        self.rotates
            && self.size > 0
            && (self.settings.max_size.is_some_and(|most| self.size + more > most as u64)
                || self.settings.max_age.is_some_and(old))
    }

    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        for number in (1..self.settings.keep).rev() {
            match fs::rename(numbered(path, number), numbered(path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(path, numbered(path, 1))?;
        self.file = append_to(path)?;
        (self.size, self.since) = (0, SystemTime::now());
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.is_due(lines.len() as u64) {
            match self.rotate() {
                Ok(()) => self.rotation_failed = false,
                Err(error) if !self.rotation_failed => {
                    self.rotation_failed = true;
                    tracing::error!(%error, "the access log can't be rotated; it keeps growing");
                }
                Err(_) => {}
            }
        }
        let written = self.file.write(lines)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    // Other users must not read paths and client addresses.
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_device_is_never_rotated() {
        use std::os::unix::fs::FileTypeExt as _;

        let folder = tempfile::tempdir().unwrap();
        // A pipe stands for every device: if the test fails, it must not rename a device of this machine.
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let _reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut file =
            RotatingFile::open(&LogFile { max_size: Some(10), ..LogFile::at(path.clone()) }).unwrap();
        for line in ["11111\n", "22222\n", "33333\n"] {
            file.write_all(line.as_bytes()).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
        assert!(!numbered(&path, 1).exists());
    }

    #[test]
    fn a_full_file_is_rotated_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let settings = LogFile { max_size: Some(10), keep: 2, ..LogFile::at(path.clone()) };
        let mut file = RotatingFile::open(&settings).unwrap();
        for line in ["11111\n", "22222\n", "33333\n", "44444\n"] {
            file.write_all(line.as_bytes()).unwrap();
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        assert_eq!(read(&path), "44444\n");
        assert_eq!(read(&numbered(&path, 1)), "33333\n");
        assert_eq!(read(&numbered(&path, 2)), "22222\n");
        assert!(!numbered(&path, 3).exists());
        // A new process continues where the old one ended.
        let mut file = RotatingFile::open(&settings).unwrap();
        file.write_all(b"55555\n").unwrap();
        assert_eq!((read(&path), read(&numbered(&path, 1))), ("55555\n".into(), "44444\n".into()));
    }

    #[test]
    fn an_old_file_is_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let settings = LogFile { max_age: Some(Duration::from_secs(60)), ..LogFile::at(path.clone()) };
        let mut file = RotatingFile::open(&settings).unwrap();
        file.write_all(b"old\n").unwrap();
        file.write_all(b"old too\n").unwrap();
        file.since -= Duration::from_secs(61);
        file.write_all(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(numbered(&path, 1)).unwrap(), "old\nold too\n");
    }

    #[test]
    fn a_file_that_can_not_be_rotated_keeps_growing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let settings = LogFile { max_size: Some(4), keep: 1, ..LogFile::at(path.clone()) };
        let mut file = RotatingFile::open(&settings).unwrap();
        fs::create_dir_all(numbered(&path, 1).join("in the way")).unwrap();
        file.write_all(b"one\n").unwrap();
        file.write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
