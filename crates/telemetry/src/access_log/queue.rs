//! The lines on their way from the workers to the writer.
//!
//! Each worker has a pair of buffers that only it and the writer use, and writes its lines into one of them. The writer takes all lines of
//! a buffer at once, by replacing it with an empty one. The writer holds only one buffer of a pair at a time, for these few instructions,
//! so the worker finds the other one free and never waits. A line costs no allocation. It wakes nobody while the writer works, and it
//! touches no memory that another worker writes to.
//!
//! Lines of one worker stay in order. Lines of several workers that the writer takes together are written worker by worker.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, TryLockError,
    atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
    mpsc::{Receiver, SyncSender, sync_channel},
};

/// How many bytes may wait for the writer; there is a limit because a client decides how long a line is. As many again may be on their way
/// to the destination.
pub(super) const QUEUE_BYTES: usize = 2 << 20;

/// What workers and the writer share.
pub(super) struct LogQueue {
    workers: Mutex<WorkerBuffers>,
    /// How many bytes may wait in one buffer: each worker has the same share.
    share: AtomicUsize,
    /// The writer sleeps until the next line wakes it.
    sleeping: AtomicBool,
    /// Holds at most one wake-up: a writer that is woken checks everything.
    wake: SyncSender<()>,
    /// The destination must be opened again.
    pub(super) reopen: AtomicBool,
    /// The writer must end.
    pub(super) stop: AtomicBool,
    /// Why the last write failed; `None` if it succeeded.
    pub(super) failure: Mutex<Option<String>>,
}

#[derive(Default)]
struct WorkerBuffers {
    buffers: Vec<Arc<Buffers>>,
    /// The writer has ended or is about to end: later lines are lost.
    closed: bool,
}

/// The pair of buffers of one worker.
pub(super) struct Buffers([Mutex<Buffer>; 2]);

#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    closed: bool,
}

/// What happened to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EnqueueResult {
    Waits,
    /// It waits, and has just made the buffer half full.
    HalfFull,
    Lost,
}

impl LogQueue {
    /// A queue, and the receiver that wakes the writer.
    pub(super) fn new() -> (Self, Receiver<()>) {
        let (wake, woken) = sync_channel(1);
        let queue = Self {
            workers: Mutex::default(),
            share: AtomicUsize::new(QUEUE_BYTES),
            sleeping: AtomicBool::new(false),
            wake,
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            failure: Mutex::default(),
        };
        (queue, woken)
    }

    /// Notes why the last write failed, or that it succeeded.
    pub(super) fn note_failure(&self, why: Option<String>) {
        *locked(&self.failure) = why;
    }

    /// Adds the buffers of one more worker, for as long as the worker keeps them.
    pub(super) fn join(&self) -> Arc<Buffers> {
        let mut workers = locked(&self.workers);
        let buffer = || Mutex::new(Buffer { lines: Vec::new(), closed: workers.closed });
        let buffers = Arc::new(Buffers([buffer(), buffer()]));
        workers.buffers.push(buffers.clone());
        self.share.store(QUEUE_BYTES / workers.buffers.len(), Relaxed);
        buffers
    }

    /// Adds the line that `write` appends. Returns false if the line was lost. It never waits.
    pub(super) fn add(&self, buffers: &Buffers, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let added = buffers.add(self.share.load(Relaxed), write);
        // The writer sets the flag and then checks for lines. If it did not find this line, it checked before the line was added; then the
        // buffer's lock makes the flag visible here.
        let wanted = self.sleeping.load(Relaxed) && self.sleeping.swap(false, SeqCst);
        if wanted || added == EnqueueResult::HalfFull {
            self.wake();
        }
        added != EnqueueResult::Lost
    }

    /// Makes the writer check everything soon.
    pub(super) fn wake(&self) {
        // If a wake-up is already there, the writer has not received it yet.
        let _ = self.wake.try_send(());
    }

    /// Passes the lines of each buffer to `write`, in `lines`, which `write` leaves empty. Returns false if there were no lines. With
    /// `last`, no lines are accepted any more.
    pub(super) fn take_all(
        &self,
        lines: &mut Vec<u8>,
        last: bool,
        mut write: impl FnMut(&mut Vec<u8>),
    ) -> bool {
        let mut any = false;
        for buffers in self.present(last) {
            for buffer in &buffers.0 {
                {
                    let mut buffer = locked(buffer);
                    buffer.closed |= last;
                    std::mem::swap(&mut buffer.lines, lines);
                }
                if !lines.is_empty() {
                    any = true;
                    write(lines);
                }
            }
        }
        any
    }

    /// The workers' buffers, without those of workers that have ended and left no line. The list is copied: otherwise a worker that joins
    /// would wait for the destination.
    fn present(&self, last: bool) -> Vec<Arc<Buffers>> {
        let mut workers = locked(&self.workers);
        workers.closed |= last;
        workers.buffers.retain(|buffers| Arc::strong_count(buffers) > 1 || !buffers.is_empty());
        self.share.store(QUEUE_BYTES / workers.buffers.len().max(1), Relaxed);
        workers.buffers.clone()
    }

    /// Waits until there is a line or something else to do. Before that it releases memory above `kept` bytes.
    pub(super) fn sleep(&self, woken: &Receiver<()>, kept: usize) {
        self.sleeping.store(true, SeqCst);
        let idle = !self.stop.load(SeqCst)
            && !self.reopen.load(SeqCst)
            && self.present(false).iter().all(|buffers| buffers.rest(kept));
        if idle {
            let _ = woken.recv();
        }
        self.sleeping.store(false, SeqCst);
    }

    /// How many bytes wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let buffers = self.present(false);
        buffers.iter().flat_map(|buffers| &buffers.0).map(|buffer| locked(buffer).lines.len()).sum()
    }
}

impl Buffers {
    fn add(&self, share: usize, write: impl FnOnce(&mut Vec<u8>) -> bool) -> EnqueueResult {
        let mut buffer = self.free();
        let before = buffer.lines.len();
        if buffer.closed || before >= share {
            return EnqueueResult::Lost;
        }
        if !write(&mut buffer.lines) || buffer.lines.len() > share {
            buffer.lines.truncate(before);
            return EnqueueResult::Lost;
        }
        let half = share / 2;
        if before < half && buffer.lines.len() >= half {
            EnqueueResult::HalfFull
        } else {
            EnqueueResult::Waits
        }
    }

    /// The buffer that the writer doesn't hold.
    fn free(&self) -> MutexGuard<'_, Buffer> {
        loop {
            // The loop repeats only if the writer moved from the second buffer to the first between the two checks.
            for buffer in &self.0 {
                match buffer.try_lock() {
                    Ok(buffer) => return buffer,
                    Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => {}
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|buffer| locked(buffer).lines.is_empty())
    }

    /// Releases memory above `kept` bytes. Returns false if there are lines.
    fn rest(&self, kept: usize) -> bool {
        self.0.iter().all(|buffer| {
            let mut buffer = locked(buffer);
            let empty = buffer.lines.is_empty();
            if empty && buffer.lines.capacity() > kept {
                buffer.lines = Vec::new();
            }
            empty
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: usize) -> impl FnOnce(&mut Vec<u8>) -> bool {
        move |out| {
            out.extend(std::iter::repeat_n(b'x', bytes - 1));
            out.push(b'\n');
            true
        }
    }

    #[test]
    fn a_worker_writes_while_the_writer_holds_either_buffer() {
        let (queue, _woken) = LogQueue::new();
        let buffers = queue.join();
        for held in &buffers.0 {
            let _held = locked(held);
            assert!(queue.add(&buffers, line(10)));
        }
        assert_eq!(queue.len(), 20);
    }

    #[test]
    fn workers_have_equal_shares_and_the_share_of_an_ended_worker_is_free_again() {
        let (queue, woken) = LogQueue::new();
        let (first, second) = (queue.join(), queue.join());
        assert!(queue.add(&first, line(QUEUE_BYTES / 2)));
        assert!(!queue.add(&first, line(1)));
        assert!(queue.add(&second, line(1)));
        assert!(woken.try_recv().is_ok(), "it is more than half full");
        drop(second);
        assert!(queue.take_all(&mut Vec::new(), false, Vec::clear));
        assert!(!queue.take_all(&mut Vec::new(), false, Vec::clear));
        assert!(queue.add(&first, line(QUEUE_BYTES)));
    }

    #[test]
    fn a_line_that_could_not_be_written_leaves_nothing() {
        let (queue, _woken) = LogQueue::new();
        let buffers = queue.join();
        assert!(queue.add(&buffers, line(3)));
        assert!(!queue.add(&buffers, |out| {
            out.extend_from_slice(b"half a l");
            false
        }));
        assert!(!queue.add(&buffers, line(QUEUE_BYTES)));
        let mut lines = Vec::new();
        queue.take_all(&mut lines, true, |lines| assert_eq!(std::mem::take(lines), b"xx\n"));
        assert!(!queue.add(&buffers, line(3)), "the writer has ended");
        assert!(!queue.add(&queue.join(), line(3)), "later lines are not accepted");
    }
}
