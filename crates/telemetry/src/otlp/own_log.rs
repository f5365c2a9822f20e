//! Sends the program's own log to a collector: the entries of attache's own modules that the log's level allows.
//!
//! The log starts before there is a config. So the destination is a global variable that an export sets while it runs.

use std::{fmt, sync::Arc, time::SystemTime};

use arc_swap::ArcSwapOption;
use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use tokio::sync::mpsc;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::log_records::{OtlpRecord, ProgramLine};
use crate::metrics;

/// The queue of the running export.
static TO: ArcSwapOption<mpsc::WeakSender<OtlpRecord>> = ArcSwapOption::const_empty();

/// From now on the log is also sent to this queue, as long as it exists.
pub(super) fn take(queue: mpsc::WeakSender<OtlpRecord>) {
    TO.store(Some(Arc::new(queue)));
}

/// Passes log entries on.
pub(crate) struct OwnLog;

impl<S: Subscriber> Layer<S> for OwnLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        // Other crates, such as hyper, would log the export itself.
        if !about.target().starts_with("attache") {
            return;
        }
        let to = TO.load();
        let Some(queue) = to.as_ref().and_then(|queue| queue.upgrade()) else { return };
        let mut own = ProgramLine {
            at: SystemTime::now(),
            severity: match *about.level() {
                Level::ERROR => SeverityNumber::Error,
                Level::WARN => SeverityNumber::Warn,
                Level::INFO => SeverityNumber::Info,
                Level::DEBUG => SeverityNumber::Debug,
                Level::TRACE => SeverityNumber::Trace,
            },
            target: about.target(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut own);
        if queue.try_send(OtlpRecord::ProgramLine(Box::new(own))).is_err() {
            metrics().log_records("queue-full", 1);
        }
    }
}

impl Visit for ProgramLine {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.push((field.name(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name(), value.to_owned()));
    }
}
