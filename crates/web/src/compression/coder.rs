//! The three coders under one roof. Their windows are small: what is gained by larger ones costs memory for each answer.

use std::{
    fmt,
    io::{self, Write},
};

use attache_config::model::Coding;
use flate2::{Compression, write::GzEncoder};

/// Of gzip: a good part of the best ratio for a third of its time.
const GZIP: u32 = 5;
const ZSTD: i32 = 3;
/// 128 KiB.
const ZSTD_WINDOW_LOG: u32 = 17;
const BROTLI: u32 = 4;
/// 128 KiB.
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
    /// `None` where there is no memory for it.
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

    /// Returns everything that a reader needs to decode what was written so far.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(coder) => coder.flush(),
            Self::Zstd(coder) => coder.flush(),
            Self::Brotli(coder) => coder.flush(),
        }
    }

    /// What has come out so far.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Gzip(coder) => coder.get_mut(),
            Self::Zstd(coder) => coder.get_mut(),
            Self::Brotli(coder) => coder.get_mut(),
        })
    }

    /// The last of it.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(coder) => coder.finish(),
            Self::Zstd(coder) => coder.finish(),
            Self::Brotli(coder) => Ok(coder.into_inner()),
        }
    }
}
