//! The one thread that writes: it alone may wait for a disk or a pipe.
//!
//! Lines are gathered for a moment and written together, so that a busy log costs one system call for many lines.
//! The first line after a pause is written at once.

use std::{
    io::{self, Write},
    sync::{Arc, atomic::Ordering::SeqCst, mpsc::Receiver},
    time::Duration,
};

use super::queue::Queue;
use crate::WorkerMetrics;

/// How long lines gather. It also bounds how often the writer falls asleep and has to be woken by a worker.
const GATHER: Duration = Duration::from_millis(20);

/// Bytes that are written at once, but for a single line that is longer.
const BATCH: usize = 64 << 10;

/// Opens the destination, and opens it again.
pub(super) type Open = Box<dyn FnMut() -> io::Result<Box<dyn Write>> + Send>;

pub(super) struct Writer {
    queue: Arc<Queue>,
    woken: Receiver<()>,
    open: Open,
    out: Option<Box<dyn Write>>,
    metrics: WorkerMetrics,
    /// The last write failed, perhaps within a line.
    failing: bool,
}

impl Writer {
    pub(super) fn new(queue: Arc<Queue>, woken: Receiver<()>, open: Open, metrics: WorkerMetrics) -> Self {
        Self { queue, woken, open, out: None, metrics, failing: false }
    }

    /// Writes until it is stopped and nothing is left.
    pub(super) fn run(mut self) {
        let queue = self.queue.clone();
        let mut lines = Vec::new();
        loop {
            // Both are read before the buffers are emptied: lines that came before are written, and to the old file.
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
                // A buffer that fills up meanwhile ends the wait.
                let _ = self.woken.recv_timeout(GATHER);
            } else {
                if lines.capacity() > BATCH {
                    lines = Vec::new();
                }
                queue.sleep(&self.woken, BATCH);
            }
        }
    }

    /// Writes lines in pieces that end with a line.
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
                // This is logged once and not for every line: the log's own disk is often the full one.
                if !self.failing {
                    tracing::error!(%error, "the access log can't be written; its lines are lost until it can");
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
            // The failed write may have left a part of a line, which must not run into this one.
            out.write_all(b"\n")?;
        }
        out.write_all(lines)?;
        out.flush()
    }

    /// The old destination stays where the new one can't be opened.
    fn reopen(&mut self) {
        match (self.open)() {
            Ok(out) => self.out = Some(out),
            Err(error) => {
                tracing::error!(%error, "the access log can't be opened again; the old file is kept");
            }
        }
    }
}

/// The length of the first piece: whole lines, and at least one.
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
