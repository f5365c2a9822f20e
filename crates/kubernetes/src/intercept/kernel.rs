//! Sends a batch of nf_tables messages to the kernel, and reads the kernel's verdict.
//!
//! The kernel executes a batch as a whole and acknowledges each message that asks for it. If it refuses one, it undoes
//! all and reports which one and why.

use std::{
    io::{self, ErrorKind, Read},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::netlink::Batch;

const AF_NETLINK: i32 = 16;
const NETLINK_NETFILTER: i32 = 12;
/// `NLMSG_ERROR`, which also acknowledges.
const VERDICT: u16 = 2;
/// The kernel answers before `send` returns, so this timeout should never pass.
const TIMEOUT: Duration = Duration::from_secs(5);
const HEADER: usize = 16;

/// What the kernel refused.
#[derive(Debug)]
pub(crate) struct KernelRefusal {
    /// The content of the refused message.
    pub(crate) about: String,
    pub(crate) source: io::Error,
}

/// Sends a batch and waits for the verdict.
pub(crate) fn send(batch: &Batch) -> Result<(), KernelRefusal> {
    let fail = |about: &str, source| KernelRefusal { about: about.to_owned(), source };
    let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_NETFILTER)))
        .map_err(|e| fail("open a netlink socket", e))?;
    // A batch is one packet; a verdict has up to 36 bytes and a copy of the refused message. The kernel reduces the
    // size to its own limits.
    let size = batch.bytes.len() * 4 + (64 << 10);
    let sized = socket.set_send_buffer_size(size).and_then(|()| socket.set_recv_buffer_size(size));
    sized.and_then(|()| socket.set_read_timeout(Some(TIMEOUT))).map_err(|e| fail("prepare the socket", e))?;
    socket.send(&batch.bytes).map_err(|e| fail("send the rules", e))?;
    // Without the messages for the batch's begin and end.
    let mut left = batch.about.len() - 2;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let read = match (&socket).read(&mut buffer) {
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(fail("read the kernel's answer", e)),
        };
        for (sequence, error) in verdicts(buffer.get(..read).unwrap_or_default()) {
            if error != 0 {
                let about = batch.about.get(sequence as usize).map_or("change the rules", String::as_str);
                return Err(fail(about, io::Error::from_raw_os_error(error.saturating_neg())));
            }
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}

/// The sequence number and the error number (0 or negative) of each verdict.
fn verdicts(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let u32_at = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let mut found = Vec::new();
    while let Some(length) = u32_at(bytes, 0) {
        let length = (length as usize).max(HEADER);
        let kind = bytes.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
        if let (Some(VERDICT), Some(sequence), Some(error)) = (kind, u32_at(bytes, 8), u32_at(bytes, HEADER))
        {
            found.push((sequence, error.cast_signed()));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(sequence: u32, error: i32) -> Vec<u8> {
        let mut bytes = 36_u32.to_ne_bytes().to_vec();
        bytes.extend(VERDICT.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(error.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes
    }

    #[test]
    fn several_verdicts_in_one_packet_are_all_read() {
        let bytes = [verdict(1, 0), verdict(2, -1), verdict(3, -2)].concat();
        assert_eq!(verdicts(&bytes), [(1, 0), (2, -1), (3, -2)]);
    }

    #[test]
    fn a_cut_packet_ends_the_reading() {
        let bytes = verdict(1, 0);
        for cut in 0..bytes.len() {
            assert!(verdicts(bytes.get(..cut).unwrap_or_default()).len() <= 1);
        }
    }
}
