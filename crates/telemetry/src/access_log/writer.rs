//! The one thread that writes. Only this thread may wait for a disk or a pipe.
//!
//! Lines are collected for a short time and written together, so that a busy log needs one system call for many lines. The first line after
//! a pause is written at once.

use std::{
    io::{self, Write},
    sync::{Arc, atomic::Ordering::SeqCst, mpsc::Receiver},
    time::Duration,
};

use super::queue::LogQueue;
use crate::WorkerMetrics;

/// How long lines are collected. This also limits how often the writer falls asleep and must be woken by a worker.
const GATHER_TIME: Duration = Duration::from_millis(20);

/// The most bytes that are written at once; only a single longer line is an exception.
const BATCH: usize = 64 << 10;

/// Opens the destination, at the start and again later.
pub(super) type OpenDestination = Box<dyn FnMut() -> io::Result<Box<dyn Write>> + Send>;

pub(super) struct LogWriter {
    queue: Arc<LogQueue>,
    woken: Receiver<()>,
    open: OpenDestination,
    out: Option<Box<dyn Write>>,
    metrics: WorkerMetrics,
    /// The last write failed, perhaps in the middle of a line.
    failing: bool,
}

impl LogWriter {
    pub(super) fn new(
        queue: Arc<LogQueue>,
        woken: Receiver<()>,
        open: OpenDestination,
        metrics: WorkerMetrics,
    ) -> Self {
        Self { queue, woken, open, out: None, metrics, failing: false }
    }

    /// Writes until it is stopped and no line is left.
    pub(super) fn run(mut self) {
        let queue = self.queue.clone();
        let mut lines = Vec::new();
        loop {
            // Both are read before the buffers are emptied: earlier lines are written, and they are written to the old file.
            let stop = queue.stop.load(SeqCst);
            let reopen = queue.reopen.swap(false, SeqCst);
            let any = queue.take_all(&mut lines, stop, |lines| {
                self.write(lines);
                lines.clear();
            });
            if reopen {
                self.reopen();
            }
            if stop {
                return;
            }
            if any {
                // A buffer that becomes half full ends the wait.
                let _ = self.woken.recv_timeout(GATHER_TIME);
            } else {
                if lines.capacity() > BATCH {
                    lines = Vec::new();
                }
                queue.sleep(&self.woken, BATCH);
            }
        }
    }

    /// Writes lines in pieces that end at the end of a line.
    fn write(&mut self, lines: &[u8]) {
        let mut rest = lines;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece(rest));
            self.write_piece(piece);
            rest = after;
        }
    }

    fn write_piece(&mut self, lines: &[u8]) {
        match self.try_write(lines) {
            Ok(()) if self.failing => {
                self.failing = false;
                self.queue.note_failure(None);
                tracing::info!("the access log can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                let lost = lines.split(|byte| *byte == b'\n').count() - 1;
                self.metrics.access_log_dropped("write-failed", lost as u64);
                // This is logged once, not for every line: often the full disk is also the one that holds the log.
                if !self.failing {
                    tracing::error!(%error, "the access log can't be written; its lines are lost until this works again");
                    self.queue.note_failure(Some(error.to_string()));
                }
                self.failing = true;
            }
        }
    }

    fn try_write(&mut self, lines: &[u8]) -> io::Result<()> {
        let out = match &mut self.out {
            Some(out) => out,
            none => none.insert((self.open)()?),
        };
        if self.failing {
            // The failed write may have left a part of a line. The next line must not be joined to it.
            out.write_all(b"\n")?;
        }
        out.write_all(lines)?;
        out.flush()
    }

    /// If the new destination can't be opened, the old one stays in use.
    fn reopen(&mut self) {
        match (self.open)() {
            Ok(out) => self.out = Some(out),
            Err(error) => {
                tracing::error!(%error, "the access log can't be opened again; the old file is kept");
            }
        }
    }
}

/// The length of the first piece: complete lines, and at least one.
fn piece(lines: &[u8]) -> usize {
    let newline = |byte: &u8| *byte == b'\n';
    let within =
        lines.get(..BATCH).map_or(Some(lines.len()), |first| Some(first.iter().rposition(newline)? + 1));
    within.or_else(|| Some(lines.iter().position(newline)? + 1)).unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_a_line_and_a_long_line_is_one() {
        assert_eq!(piece(b"a\nb\n"), 4);
        let long = [vec![b'x'; BATCH], b"\nb\n".to_vec()].concat();
        assert_eq!(piece(&long), BATCH + 1);
        let many = b"1234567\n".repeat(BATCH / 8 + 1);
        assert_eq!(piece(&many), BATCH);
        let odd = b"12345678\n".repeat(BATCH / 9 + 1);
        assert_eq!(piece(&odd), BATCH / 9 * 9);
    }
}
