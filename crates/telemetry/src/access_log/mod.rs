//! The access log: one line for every finished request or opaque connection, written off the request path.
//!
//! A worker formats the line into a bounded buffer of its own (see `queue`). One writer thread empties the buffers. If a buffer is full,
//! the line is dropped and counted (`attache_access_log_dropped_total`): a slow disk may cost log lines, never requests.

mod escaping;
mod file;
mod filter;
mod json;
mod line;
mod names;
mod put;
mod queue;
mod syslog;
mod template;
mod time;
mod writer;

use std::{
    fmt, io,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering::SeqCst,
        mpsc::{Receiver, RecvTimeoutError, channel},
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
    queue::{Buffers, LogQueue},
    syslog::SyslogWriter,
    writer::{LogWriter, OpenDestination},
};
pub(crate) use self::{
    filter::passes,
    names::{LoggedHeaders, NamedHeaders},
    time::LogTimestamp,
};
use crate::{Exchange, Metrics, WorkerMetrics};

struct SharedLog {
    queue: Arc<LogQueue>,
    /// Disconnected when the writer has ended.
    ended: Mutex<Receiver<()>>,
}

/// The access log of the process, or none. It is cheap to clone.
#[derive(Clone)]
pub struct AccessLogHandle(Option<(Arc<SharedLog>, Arc<LogRules>)>);

/// Which lines are written, and in which form.
#[derive(Default)]
struct LogRules {
    format: LogFormat,
    filter: Vec<LogFilter>,
    names: LoggedHeaders,
}

impl LogRules {
    fn new(config: &model::AccessLog) -> Self {
        Self {
            format: config.format.clone(),
            filter: config.filter.clone(),
            names: LoggedHeaders::of(config.format.templates()),
        }
    }
}

impl AccessLogHandle {
    /// Opens the destination and starts the writer. Without a destination it does nothing.
    ///
    /// It fails if the file can't be opened for appending, or if no thread can be started.
    pub fn start(config: &model::AccessLog, metrics: &Metrics) -> Result<Self, AccessLogError> {
        let (open, path): (OpenDestination, _) = match &config.to {
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
        Self::start_with(open, LogRules::new(config), metrics)
            .map_err(|source| AccessLogError { path: path.cloned(), source })
    }

    /// Why lines are being lost now; `None` if they are written.
    pub fn failure(&self) -> Option<String> {
        let (shared, _) = self.0.as_ref()?;
        shared.queue.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No access log.
    pub const fn off() -> Self {
        Self(None)
    }

    fn start_with(mut open: OpenDestination, rules: LogRules, metrics: &Metrics) -> io::Result<Self> {
        // The file is opened once here, so that a wrong path is an error at the start and not a lost line later.
        drop(open()?);
        let (queue, woken) = LogQueue::new();
        let queue = Arc::new(queue);
        let (alive, ended) = channel();
        let (of_writer, metrics) = (Arc::clone(&queue), metrics.clone());
        thread::Builder::new().name("access-log".into()).spawn(move || {
            let _alive = alive;
            LogWriter::new(of_writer, woken, open, metrics.worker()).run();
        })?;
        let shared = SharedLog { queue, ended: Mutex::new(ended) };
        Ok(Self(Some((Arc::new(shared), Arc::new(rules)))))
    }

    /// The logger of one worker. Its `metrics` count the lines that are dropped.
    pub fn logger(&self, metrics: &WorkerMetrics) -> AccessLogger {
        AccessLogger(self.0.as_ref().map(|(shared, rules)| {
            Rc::new(Logger {
                buffers: shared.queue.join(),
                queue: Arc::clone(&shared.queue),
                rules: Arc::clone(rules),
                metrics: metrics.clone(),
            })
        }))
    }

    /// Opens the file again after it was renamed (log rotation). If that fails, the old one is kept.
    pub fn reopen(&self) {
        if let Some((shared, _)) = &self.0 {
            shared.queue.reopen.store(true, SeqCst);
            shared.queue.wake();
        }
    }

    /// Writes the queued lines and ends the writer. Returns false if that takes longer than `wait`. It blocks. Later lines are lost.
    pub fn close(&self, wait: Duration) -> bool {
        let Some((shared, _)) = &self.0 else { return true };
        shared.queue.stop.store(true, SeqCst);
        shared.queue.wake();
        let ended = shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(ended.recv_timeout(wait), Err(RecvTimeoutError::Disconnected))
    }
}

/// The access log as one worker uses it. It is cheap to clone, and stays on its thread.
#[derive(Clone)]
pub struct AccessLogger(Option<Rc<Logger>>);

struct Logger {
    queue: Arc<LogQueue>,
    buffers: Arc<Buffers>,
    rules: Arc<LogRules>,
    metrics: WorkerMetrics,
}

impl AccessLogger {
    /// Keeps those headers of a request that log lines contain. If there are none, it does nothing.
    pub fn note_request(&self, exchange: &Exchange, headers: &Fields) {
        if let Some(logger) = &self.0 {
            logger.rules.names.note_request(&exchange.noted, headers);
        }
    }

    /// Keeps those headers of a response that log lines contain. If there are none, it does nothing.
    pub fn note_response(&self, exchange: &Exchange, headers: &Fields) {
        if let Some(logger) = &self.0 {
            logger.rules.names.note_response(&exchange.noted, headers);
        }
    }

    /// Writes the line of a finished exchange that took `total`. It never waits: if the queue is full, the line is dropped and counted.
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
        let LogRules { format, names, .. } = &*self.rules;
        let now = SystemTime::now();
        let write = |out: &mut Vec<u8>| line::write(out, format, names, exchange, total, now).is_ok();
        if !self.queue.add(&self.buffers, write) {
            self.metrics.access_log_dropped("queue-full", 1);
        }
    }
}

/// Why the access log could not be started.
#[derive(Debug)]
pub struct AccessLogError {
    /// The file, if there is one.
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

impl fmt::Debug for AccessLogHandle {
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
