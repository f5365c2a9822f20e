//! What the tests of this crate and `tests/fuzz` need beside the public interface: frames without a price, a check of all counts in a
//! connection's state, and header compression alone.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Connection, FloodLimitExceeded, FrameHeader, Meter,
    hpack::{Field, HpackDecoder, HpackEncoder, Tag},
};

/// Frames cost nothing: prices have tests of their own, and would end most of the test runs.
#[derive(Debug)]
pub struct Unlimited;

impl Meter for Unlimited {
    fn received(&mut self, _: FrameHeader) -> Result<(), FloodLimitExceeded> {
        Ok(())
    }

    fn charged(&mut self) -> Result<(), FloodLimitExceeded> {
        Ok(())
    }

    fn late(&mut self, _: FrameHeader) -> Result<(), FloodLimitExceeded> {
        Ok(())
    }

    fn sent(&mut self, _: usize) {}

    fn asked(&mut self) {}
}

/// Compares the counts in a connection's state with what they count.
///
/// # Panics
/// A count is wrong.
pub fn audit<I: AsyncRead + AsyncWrite + Unpin>(connection: &Connection<I>) {
    connection.shared().borrow().audit();
}

/// Compares the counts in the state of a connection that is no longer used.
///
/// # Panics
/// A count is wrong, or a stream is left.
pub fn audit_rest<I: AsyncRead + AsyncWrite + Unpin>(connection: &Connection<I>) {
    connection.shared().borrow().audit_rest();
}

/// Reads header blocks (RFC 7541).
#[derive(Debug, Default)]
pub struct HpackReader(HpackDecoder);

impl HpackReader {
    /// The fields of the next block, or `None` if it is not valid.
    pub fn read(&mut self, block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut all = Vec::new();
        self.0.decode(block, |field| all.push((field.name.to_vec(), field.value.to_vec()))).ok()?;
        Some(all)
    }
}

/// Writes header blocks (RFC 7541).
#[derive(Debug, Default)]
pub struct HpackWriter(HpackEncoder);

impl HpackWriter {
    /// The peer's SETTINGS_HEADER_TABLE_SIZE, in bytes.
    pub fn limit(&mut self, size: u32) {
        self.0.limit(size);
    }

    /// The next block with these fields.
    pub fn write(&mut self, fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.0.begin(&mut out);
        for (name, value) in fields {
            self.0.field(&mut out, Field { tag: Tag::of(name), name, value, sensitive: false });
        }
        out.to_vec()
    }
}
