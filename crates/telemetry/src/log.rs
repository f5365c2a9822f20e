//! The program's own log: what happened, for people, on standard error.
//!
//! Format: time, level, where, message, fields, on one line; colours only on a terminal. Lines are written by the thread that has
//! something to say. That is meant for rare events; what happens with every request belongs to the access log.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal},
};

use tracing_subscriber::{
    EnvFilter, Registry,
    field::MakeExt,
    fmt::{MakeWriter, format, format::Writer, time::FormatTime},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::{access_log::Timestamp, escape::escape, otlp::OwnLog, warnings::Warnings};

/// Starts the log of the process, on standard error. `level` is a level (`off`, `error`, `warn`, `info`, `debug`, `trace`) or a filter like
/// `info,attache_upstream=debug`; empty means `info`. Where it comes from, flag or `ATTACHE_LOG`, is the command line's business.
///
/// Fails if the filter can't be read, or if a log was started before.
pub fn init_logging(level: &str) -> Result<LogControl, LoggingError> {
    let level = if level.trim().is_empty() { "info" } else { level };
    let (subscriber, control) = subscriber(level, io::stderr, io::stderr().is_terminal())?;
    subscriber.try_init().map_err(|_| LoggingError::AlreadyStarted)?;
    Ok(control)
}

fn subscriber<W>(
    text: &str,
    writer: W,
    colours: bool,
) -> Result<(impl tracing::Subscriber + Send + Sync + 'static, LogControl), LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(text)?);
    // The value of a field may come from a peer, so fields are escaped and can't start a new line. A message is ours:
    // where it has lines (diagnostics of a config), they stay lines, each indented, so that none can be taken for an
    // entry of the log.
    let fields = format::debug_fn(|out, field, value| {
        if field.name() == "message" {
            return write!(Lines(out), "{value:?}");
        }
        write!(out, "{}=", field.name())?;
        write!(Escaped(out), "{value:?}")
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colours)
        .with_timer(Clock)
        .fmt_fields(fields.delimited(" "));
    let warnings = Warnings::default();
    let control = LogControl { filter: handle, warnings: warnings.clone() };
    Ok((tracing_subscriber::registry().with(filter).with(lines).with(warnings).with(OwnLog), control))
}

fn filter(text: &str) -> Result<EnvFilter, LoggingError> {
    // A word that is no level would be taken for the name of a module, and silence the rest.
    let word = text.trim();
    if !word.contains(['=', ',', '[', ':'])
        && word.parse::<tracing_subscriber::filter::LevelFilter>().is_err()
    {
        return Err(LoggingError::BadFilter { text: text.into(), cause: "it is no level".into() });
    }
    EnvFilter::builder()
        .parse(word)
        .map_err(|error| LoggingError::BadFilter { text: text.into(), cause: error.to_string() })
}

/// Changes the level of the running log, and knows its last warnings. Cheap to clone, works from any thread.
#[derive(Clone, Debug)]
pub struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
    warnings: Warnings,
}

impl LogControl {
    /// Takes a level or a filter, as [`init_logging`] does. One that can't be read changes nothing.
    pub fn set(&self, text: &str) -> Result<(), LoggingError> {
        self.filter.reload(filter(text)?).map_err(|_| LoggingError::NotStarted)
    }

    /// The filter that is in force.
    pub fn get(&self) -> String {
        self.filter.with_current(EnvFilter::to_string).unwrap_or_default()
    }

    /// The last warnings and errors.
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }
}

/// Why the log could not be started or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoggingError {
    /// The filter can't be read.
    BadFilter {
        /// What was given.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The process has a log already.
    AlreadyStarted,
    /// The log has ended.
    NotStarted,
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadFilter { text, cause } => write!(
                f,
                "log level {text:?} can't be read ({cause}): write off, error, warn, info, debug or trace, \
                 or a filter like info,attache_upstream=debug"
            ),
            Self::AlreadyStarted => f.write_str("the log was started twice"),
            Self::NotStarted => f.write_str("the log has ended"),
        }
    }
}

impl std::error::Error for LoggingError {}

/// Passes text on with its controls escaped.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(text, |c| c.is_ascii_graphic() || c == ' ', self.0)
    }
}

/// Passes the lines of a message on, the second and those after it indented, with all other controls escaped.
struct Lines<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Lines<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                self.0.write_str("\n    ")?;
            }
            escape(line, |c| c.is_ascii_graphic() || c == ' ', self.0)?;
        }
        Ok(())
    }
}

struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{}", Timestamp(std::time::SystemTime::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn with_log(level: &str, run: impl FnOnce(&LogControl, &Kept)) {
        let kept = Kept::default();
        let writer = kept.clone();
        let (subscriber, control) = subscriber(level, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || run(&control, &kept));
    }

    #[test]
    fn a_line_is_compact_and_has_its_fields() {
        with_log("info", |_, kept| {
            tracing::warn!(upstream = "orders", "no endpoint");
            tracing::debug!("too fine");
            let line = kept.take();
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.ends_with('Z') && time.len() == 24, "{time}");
            insta::assert_snapshot!(rest.trim(), @r#"WARN attache_telemetry::log::tests: no endpoint upstream="orders""#);
        });
    }

    #[test]
    fn the_level_changes_while_running_and_a_bad_one_changes_nothing() {
        with_log("warn", |control, kept| {
            tracing::info!("before");
            control.set("info").unwrap();
            tracing::info!("between");
            control.set("no such level").unwrap_err();
            control.set("loud").unwrap_err();
            assert_eq!(control.get(), "info");
            tracing::info!("after");
            let lines = kept.take();
            assert!(
                !lines.contains("before") && lines.contains("between") && lines.contains("after"),
                "{lines}"
            );
        });
    }

    #[test]
    fn a_filter_may_name_a_crate() {
        with_log("warn,attache_telemetry=debug", |_, kept| {
            tracing::debug!("fine");
            tracing::info!(target: "hyper", "other");
            let lines = kept.take();
            assert!(lines.contains("fine") && !lines.contains("other"), "{lines}");
        });
    }

    #[test]
    fn a_peer_can_not_forge_a_line_of_the_log() {
        with_log("info", |_, kept| {
            tracing::warn!(error = "bad\nINFO all is well \u{1b}[2J", "refused");
            tracing::warn!(error = %"bad\nINFO all is well \u{1b}[2J", "refused");
            let lines = kept.take();
            assert_eq!(lines.matches('\n').count(), 2, "{lines:?}");
            assert!(!lines.contains('\u{1b}'), "{lines:?}");
        });
    }

    #[test]
    fn a_message_of_several_lines_stays_lines_and_none_looks_like_an_entry() {
        with_log("info", |_, kept| {
            tracing::error!("not taken:\na.yaml:3:5: error: unknown key\u{1b}\n  3 |     too: a");
            let lines = kept.take();
            let after: Vec<_> = lines.trim_end().split('\n').skip(1).collect();
            assert_eq!(
                after,
                ["    a.yaml:3:5: error: unknown key\\u{1b}", "      3 |     too: a"],
                "{lines:?}"
            );
        });
    }

    #[test]
    fn an_unreadable_level_says_what_can_be_written() {
        insta::assert_snapshot!(filter("loud").unwrap_err(), @r#"log level "loud" can't be read (it is no level): write off, error, warn, info, debug or trace, or a filter like info,attache_upstream=debug"#);
        assert!(filter("attache=loud").is_err());
        assert!(filter("debug").is_ok() && filter(" info ").is_ok() && filter("off").is_ok());
    }
}
