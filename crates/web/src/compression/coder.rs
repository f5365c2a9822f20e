//! The three coders behind one interface. Their windows are small: larger ones compress a little better, but cost memory for each response.

use std::{
    fmt,
    io::{self, Write},
};

use attache_config::model::Coding;
use flate2::{Compression, write::GzEncoder};

/// The level of gzip: most of the best compression for a third of its time.
const GZIP: u32 = 5;
const ZSTD: i32 = 3;
/// The window of zstd: 128 KiB.
const ZSTD_WINDOW_LOG: u32 = 17;
const BROTLI: u32 = 4;
/// The window of brotli: 128 KiB.
const BROTLI_WINDOW_LOG: u32 = 17;

pub(super) enum Coder {
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
}

impl fmt::Debug for Coder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coder").finish_non_exhaustive()
    }
}

impl Coder {
    /// `None` if there is no memory for it.
    pub(super) fn new(coding: Coding) -> Option<Self> {
        Some(match coding {
            Coding::Gzip => Self::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::new(GZIP)))),
            Coding::Zstd => {
                let mut coder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD).ok()?;
                coder.window_log(ZSTD_WINDOW_LOG).ok()?;
                Self::Zstd(Box::new(coder))
            }
            Coding::Br => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                4 << 10,
                BROTLI,
                BROTLI_WINDOW_LOG,
            ))),
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(coder) => coder.write_all(bytes),
            Self::Zstd(coder) => coder.write_all(bytes),
            Self::Brotli(coder) => coder.write_all(bytes),
        }
    }

    /// Writes out everything that a reader needs to decode the input so far.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(coder) => coder.flush(),
            Self::Zstd(coder) => coder.flush(),
            Self::Brotli(coder) => coder.flush(),
        }
    }

    /// Takes the output so far.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Gzip(coder) => coder.get_mut(),
            Self::Zstd(coder) => coder.get_mut(),
            Self::Brotli(coder) => coder.get_mut(),
        })
    }

    /// Ends the stream and takes the rest of the output.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(coder) => coder.finish(),
            Self::Zstd(coder) => coder.finish(),
            Self::Brotli(coder) => Ok(coder.into_inner()),
        }
    }
}
