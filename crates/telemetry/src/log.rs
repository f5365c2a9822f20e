//! The program's own log: what happened, for people, on standard error.
//!
//! Format: time, level, module, message, fields, on one line; colours only on a terminal. The thread that logs writes the line itself. So
//! this log is for rare events; what happens with every request belongs to the access log.

use std::{
    fmt,
    io::{self, IsTerminal},
};

use tracing::{
    Level, Metadata,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::RecordFields,
    fmt::{FormatFields, MakeWriter, format::Writer, time::FormatTime},
    layer::{Context, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

use crate::{access_log::LogTimestamp, escape::escape, otlp::OwnLog, warnings::Warnings};

/// Starts the log of the process, on standard error. `level` is a level (`off`, `error`, `warn`, `info`, `debug`, `trace`) or a filter like
/// `info,attache_upstream=debug`; empty means `info`. The command line decides where it comes from: a flag or `ATTACHE_LOG`.
///
/// It fails if the filter is invalid, or if a log was started before.
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
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colours)
        .with_timer(Clock)
        .fmt_fields(LogFieldFormat);
    let warnings = Warnings::default();
    let of_libraries = DnsLibraryFilter(handle.clone());
    let control = LogControl { filter: handle, warnings: warnings.clone() };
    Ok((
        tracing_subscriber::registry()
            .with(filter)
            .with(of_libraries)
            .with(lines)
            .with(warnings)
            .with(OwnLog),
        control,
    ))
}

fn filter(text: &str) -> Result<EnvFilter, LoggingError> {
    // A word that isn't a level would be taken for the name of a module, and would silence everything else.
    let word = text.trim();
    if !word.contains(['=', ',', '[', ':']) && word.parse::<LevelFilter>().is_err() {
        return Err(LoggingError::BadFilter { text: text.into(), cause: "it is not a level".into() });
    }
    EnvFilter::builder()
        .parse(word)
        .map_err(|error| LoggingError::BadFilter { text: text.into(), cause: error.to_string() })
}

/// Changes the level of the running log, and keeps its last warnings. It is cheap to clone and works from any thread.
#[derive(Clone, Debug)]
pub struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
    warnings: Warnings,
}

impl LogControl {
    /// Sets a level or a filter, as in [`init_logging`]. An invalid one changes nothing.
    pub fn set(&self, text: &str) -> Result<(), LoggingError> {
        self.filter.reload(filter(text)?).map_err(|_| LoggingError::NotStarted)
    }

    /// The filter that is in use.
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
    /// The filter is invalid.
    BadFilter {
        /// The text that was given.
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

/// Drops warnings of the DNS library, unless the log is finer than `info`. The library writes one for each answer that does not match its
/// question, so an attacker who forges answers could fill the log. The upstream whose name was looked up reports what a failed look-up
/// means.
struct DnsLibraryFilter(reload::Handle<EnvFilter, Registry>);

impl<S: tracing::Subscriber> Layer<S> for DnsLibraryFilter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_of_a_library(metadata) { Interest::sometimes() } else { Interest::always() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let is_finer =
            |filter: &EnvFilter| filter.max_level_hint().is_none_or(|most| most > LevelFilter::INFO);
        !is_of_a_library(metadata) || self.0.with_current(is_finer).unwrap_or(true)
    }
}

fn is_of_a_library(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == Level::WARN && metadata.target().starts_with("hickory_")
}

/// Writes the message, the fields, and then the other lines of the message.
///
/// The value of a field may come from a peer, so fields are escaped and can't start a new line. A message comes from attache. If it has
/// several lines (diagnostics of a config), they stay lines, and each is indented, so that none can be taken for an entry of the log.
struct LogFieldFormat;

impl<'w> FormatFields<'w> for LogFieldFormat {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { out: writer, first: true, rest: String::new(), result: Ok(()) };
        fields.record(&mut visitor);
        let Visitor { mut out, rest, result, .. } = visitor;
        result?;
        rest.split('\n').skip(1).try_for_each(|line| {
            out.write_str("\n    ")?;
            escaped(line, &mut out)
        })
    }
}

struct Visitor<'w> {
    out: Writer<'w>,
    first: bool,
    /// The lines of the message from the second on, each after a line feed.
    rest: String,
    result: fmt::Result,
}

impl Visitor<'_> {
    fn write(&mut self, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.out.write_char(' ')?;
        }
        let shown = format!("{value:?}");
        if field.name() != "message" {
            write!(self.out, "{}=", field.name())?;
            return escaped(&shown, &mut self.out);
        }
        let (line, rest) = shown.split_at(shown.find('\n').unwrap_or(shown.len()));
        self.rest.push_str(rest);
        escaped(line, &mut self.out)
    }
}

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_ok() {
            self.result = self.write(field, value);
        }
    }
}

fn escaped(text: &str, out: &mut Writer<'_>) -> fmt::Result {
    escape(text, |c| c.is_ascii_graphic() || c == ' ', out)
}

struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{}", LogTimestamp(std::time::SystemTime::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct CapturedLines(Arc<Mutex<Vec<u8>>>);

    impl CapturedLines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    impl io::Write for CapturedLines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn with_log(level: &str, run: impl FnOnce(&LogControl, &CapturedLines)) {
        let kept = CapturedLines::default();
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
    fn forged_answers_to_dns_questions_do_not_fill_the_log() {
        for (level, written) in [("info", false), ("debug", true)] {
            with_log(level, |control, kept| {
                tracing::warn!(target: "hickory_net::udp", "ignoring response with wrong message id");
                tracing::error!(target: "hickory_net::udp", "broken");
                let lines = kept.take();
                assert_eq!(lines.contains("wrong message id"), written, "{lines}");
                assert!(lines.contains("broken"), "{lines}");
                let kept = control.warnings().json(std::time::SystemTime::now()).to_string();
                assert_eq!(kept.contains("wrong message id"), written, "{kept}");
            });
        }
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
            tracing::error!(
                trigger = "a\nb",
                "not taken:\na.yaml:3:5: error: unknown key\u{1b}\n  3 |     too: a"
            );
            let lines = kept.take();
            let mut all = lines.trim_end().split('\n');
            // The fields must not be a part of the last line.
            assert!(
                all.next().is_some_and(|first| first.ends_with(r#"not taken: trigger="a\nb""#)),
                "{lines:?}"
            );
            let after: Vec<_> = all.collect();
            assert_eq!(
                after,
                ["    a.yaml:3:5: error: unknown key\\u{1b}", "      3 |     too: a"],
                "{lines:?}"
            );
        });
    }

    #[test]
    fn an_invalid_level_is_refused_with_the_valid_ones() {
        insta::assert_snapshot!(filter("loud").unwrap_err(), @r#"log level "loud" can't be read (it is not a level): write off, error, warn, info, debug or trace, or a filter like info,attache_upstream=debug"#);
        assert!(filter("attache=loud").is_err());
        assert!(filter("debug").is_ok() && filter(" info ").is_ok() && filter("off").is_ok());
    }
}
