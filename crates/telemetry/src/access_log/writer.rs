//! The one thread that writes: it alone may wait for a disk or a pipe.
//!
//! Lines are gathered for a moment and written together, so that a busy log costs one system call for many lines.
//! The first line after a pause is written at once.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
        mpsc::Receiver,
    },
    thread,
    time::Duration,
};

use super::{Message, Shared};
use crate::WorkerMetrics;

/// How long lines gather. It also bounds how often the writer falls asleep and has to be woken by a worker.
const GATHER: Duration = Duration::from_millis(20);

/// Bytes that are written at once.
const BATCH: usize = 64 << 10;

/// Opens the destination, and opens it again.
pub(super) type Open = Box<dyn FnMut() -> io::Result<Box<dyn Write>> + Send>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    lines: Receiver<Message>,
    open: Open,
    out: Option<Box<dyn Write>>,
    metrics: WorkerMetrics,
    batch: Vec<u8>,
    batch_lines: u64,
    /// The last write failed, perhaps within a line.
    failing: bool,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        lines: Receiver<Message>,
        open: Open,
        metrics: WorkerMetrics,
    ) -> Self {
        Self {
            shared,
            lines,
            open,
            out: None,
            metrics,
            batch: Vec::with_capacity(BATCH),
            batch_lines: 0,
            failing: false,
        }
    }

    /// Writes until it is told to stop and nothing is left.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.lines.recv() {
            self.take(first);
            loop {
                // Read before the queue is emptied: lines that were queued before the request to end are written.
                let stop = self.shared.stop.load(SeqCst);
                let more = self.gather();
                if self.shared.reopen.swap(false, SeqCst) {
                    self.reopen();
                }
                self.write();
                if more {
                    continue;
                }
                if stop {
                    return;
                }
                // The word that woke us may have been for this, and there will be no other.
                if !self.shared.stop.load(SeqCst) {
                    break;
                }
            }
            thread::sleep(GATHER);
        }
    }

    /// Takes the queued lines; true if the batch was full before the queue was empty.
    fn gather(&mut self) -> bool {
        while self.batch.len() < BATCH {
            match self.lines.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => return false,
            }
        }
        true
    }

    fn take(&mut self, message: Message) {
        if let Message::Line(line) = message {
            self.shared.queued.fetch_sub(line.len(), Relaxed);
            self.batch.extend_from_slice(&line);
            self.batch_lines += 1;
        }
    }

    fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.try_write() {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("the access log can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.metrics.access_log_dropped("write-failed", self.batch_lines);
                // Said once and not for every line: a full disk is often the log's own.
                if !self.failing {
                    tracing::error!(%error, "the access log can't be written; its lines are lost until it can");
                }
                self.failing = true;
            }
        }
        self.batch.clear();
        self.batch_lines = 0;
    }

    fn try_write(&mut self) -> io::Result<()> {
        let out = match &mut self.out {
            Some(out) => out,
            none => none.insert((self.open)()?),
        };
        if self.failing {
            // The failed write may have left a part of a line, which must not run into this one.
            out.write_all(b"\n")?;
        }
        out.write_all(&self.batch)?;
        out.flush()
    }

    /// The old destination stays where the new one can't be opened.
    fn reopen(&mut self) {
        // What was gathered belongs to the old file.
        self.write();
        match (self.open)() {
            Ok(out) => self.out = Some(out),
            Err(error) => {
                tracing::error!(%error, "the access log can't be opened again; the old file is kept");
            }
        }
    }
}
