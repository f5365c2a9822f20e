//! The access log: one line for every finished request or opaque connection, written off the request path.
//!
//! A worker formats the line and hands it to one writer thread through a bounded queue. A full queue drops the line and
//! counts it (`attache_access_log_dropped_total`): a slow disk may cost log lines, never requests.
//!
//! The queue is `std::sync::mpsc::sync_channel`: one array that is allocated once, a `try_send` of one
//! compare-and-swap, and a plain thread can wait on it. (tokio's allocates blocks as it goes and is made for tasks that
//! wait.) Its inner lock is touched only to wake a sleeping writer, and the writer sleeps at most once in 20 ms. One
//! queue for all workers keeps the lines nearly in order, which is what people expect of a log; those who want no
//! shared cache line leave the log off.

mod escaping;
mod file;
mod filter;
mod line;
mod names;
mod syslog;
mod template;
mod time;
mod writer;

use std::{
    cell::RefCell,
    fmt, io,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use attache_config::model::{self, LogFilter, LogFormat, LogTarget};
use attache_wire::Fields;

#[cfg(test)]
pub(crate) use self::line::write as write_line;
use self::{
    file::RotatingFile,
    syslog::SyslogWriter,
    writer::{Open, Writer},
};
pub(crate) use self::{
    filter::passes,
    names::{NamedHeaders, Names},
    time::Timestamp,
};
use crate::{Exchange, Metrics, WorkerMetrics};

/// Lines that may wait for the writer.
const QUEUE_LINES: usize = 8192;

/// Bytes that may wait for the writer, since a client decides how long a line is.
const QUEUE_BYTES: usize = 4 << 20;

enum Message {
    /// One line with its end.
    Line(Box<[u8]>),
    /// Look at the flags.
    Wake,
}

struct Shared {
    queue: SyncSender<Message>,
    /// Bytes of the lines in the queue.
    queued: AtomicUsize,
    reopen: AtomicBool,
    stop: AtomicBool,
    /// Disconnected once the writer has ended.
    ended: Mutex<Receiver<()>>,
}

/// The access log of the process, or none. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog(Option<(Arc<Shared>, Arc<Rules>)>);

/// What is written, and how.
#[derive(Default)]
struct Rules {
    format: LogFormat,
    filter: Vec<LogFilter>,
    names: Names,
}

impl Rules {
    fn new(config: &model::AccessLog) -> Self {
        Self {
            format: config.format.clone(),
            filter: config.filter.clone(),
            names: Names::of(config.format.templates()),
        }
    }
}

impl AccessLog {
    /// Opens the destination and starts the writer; without a destination it does nothing at all.
    ///
    /// Fails if the file can't be opened for appending, or no thread can be started.
    pub fn start(config: &model::AccessLog, metrics: &Metrics) -> Result<Self, AccessLogError> {
        let (open, path): (Open, _) = match &config.to {
            LogTarget::Off => return Ok(Self::off()),
            LogTarget::Stdout => (Box::new(|| Ok(Box::new(io::stdout()))), None),
            LogTarget::File(file) => {
                let settings = file.clone();
                (Box::new(move || Ok(Box::new(RotatingFile::open(&settings)?))), Some(&file.path))
            }
            LogTarget::Syslog(server) => {
                let settings = server.clone();
                (Box::new(move || Ok(Box::new(SyslogWriter::new(&settings)))), None)
            }
        };
        Self::start_with(open, Rules::new(config), metrics)
            .map_err(|source| AccessLogError { path: path.cloned(), source })
    }

    /// No access log.
    pub const fn off() -> Self {
        Self(None)
    }

    fn start_with(mut open: Open, rules: Rules, metrics: &Metrics) -> io::Result<Self> {
        // Opened once here, so that a wrong path is an error at start and not a line lost later.
        drop(open()?);
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let (alive, ended) = channel();
        let shared = Arc::new(Shared {
            queue,
            queued: AtomicUsize::new(0),
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            ended: Mutex::new(ended),
        });
        let (of_writer, metrics) = (Arc::clone(&shared), metrics.clone());
        thread::Builder::new().name("access-log".into()).spawn(move || {
            let _alive = alive;
            Writer::new(of_writer, lines, open, metrics.worker()).run();
        })?;
        Ok(Self(Some((shared, Arc::new(rules)))))
    }

    /// What one worker writes its lines with; lines that are dropped are counted by its `metrics`.
    pub fn logger(&self, metrics: &WorkerMetrics) -> AccessLogger {
        AccessLogger(self.0.as_ref().map(|(shared, rules)| {
            Rc::new(Logger {
                shared: Arc::clone(shared),
                rules: Arc::clone(rules),
                metrics: metrics.clone(),
                buffer: RefCell::default(),
            })
        }))
    }

    /// Opens the file again after it was renamed (log rotation). If that fails, the old one is kept.
    pub fn reopen(&self) {
        if let Some((shared, _)) = &self.0 {
            shared.reopen.store(true, SeqCst);
            shared.wake();
        }
    }

    /// Writes what is queued and ends the writer; false if that took longer than `wait`. Blocks. Lines that come later are lost.
    pub fn close(&self, wait: Duration) -> bool {
        let Some((shared, _)) = &self.0 else { return true };
        shared.stop.store(true, SeqCst);
        shared.wake();
        let ended = shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(ended.recv_timeout(wait), Err(RecvTimeoutError::Disconnected))
    }
}

impl Shared {
    fn wake(&self) {
        // A full queue needs no waking: the writer checks the flags after every batch.
        let _ = self.queue.try_send(Message::Wake);
    }
}

/// One worker's way to the access log. Cheap to clone, stays on its thread.
#[derive(Clone)]
pub struct AccessLogger(Option<Rc<Logger>>);

struct Logger {
    shared: Arc<Shared>,
    rules: Arc<Rules>,
    metrics: WorkerMetrics,
    buffer: RefCell<Vec<u8>>,
}

impl AccessLogger {
    /// Keeps the headers of a request that lines name; without any it does nothing.
    pub fn note_request(&self, exchange: &Exchange, headers: &Fields) {
        if let Some(logger) = &self.0 {
            logger.rules.names.note_request(&exchange.noted, headers);
        }
    }

    /// Keeps the headers of a response that lines name; without any it does nothing.
    pub fn note_response(&self, exchange: &Exchange, headers: &Fields) {
        if let Some(logger) = &self.0 {
            logger.rules.names.note_response(&exchange.noted, headers);
        }
    }

    /// Writes the line of a finished exchange that took `total`. Never waits: a line that finds the queue full is dropped and counted.
    pub fn write(&self, exchange: &Exchange, total: Duration) {
        if let Some(logger) = &self.0
            && filter::passes(&logger.rules.filter, exchange, total)
        {
            logger.write(exchange, total);
        }
    }
}

impl Logger {
    fn write(&self, exchange: &Exchange, total: Duration) {
        let buffer = &mut *self.buffer.borrow_mut();
        buffer.clear();
        let written =
            line::write(buffer, &self.rules.format, &self.rules.names, exchange, total, SystemTime::now());
        // One allocation of the exact size, since the line leaves this thread while the buffer stays.
        if written.is_err() || !self.send(buffer.as_slice().into()) {
            self.metrics.access_log_dropped("queue-full", 1);
        }
    }

    fn send(&self, line: Box<[u8]>) -> bool {
        let bytes = line.len();
        if self.shared.queued.fetch_add(bytes, Relaxed) + bytes <= QUEUE_BYTES {
            match self.shared.queue.try_send(Message::Line(line)) {
                Ok(()) => return true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
        self.shared.queued.fetch_sub(bytes, Relaxed);
        false
    }
}

/// The access log could not be started.
#[derive(Debug)]
pub struct AccessLogError {
    /// The file, where there is one.
    pub path: Option<PathBuf>,
    source: io::Error,
}

impl fmt::Display for AccessLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(
                f,
                "the access log {} can't be opened for appending ({}): create its folder, or change `access_log.to`",
                path.display(),
                self.source
            ),
            None => write!(f, "the access log can't be started: {}", self.source),
        }
    }
}

impl std::error::Error for AccessLogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "AccessLog(on)" } else { "AccessLog(off)" })
    }
}

impl fmt::Debug for AccessLogger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "AccessLogger(on)" } else { "AccessLogger(off)" })
    }
}

#[cfg(test)]
mod tests;
