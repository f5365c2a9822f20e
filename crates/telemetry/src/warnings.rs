//! The last warnings and errors of the program's own log, for the admin API and `attache status`.
//!
//! Rule: entries with the same text are one entry with a count. At most [`PER_PLACE`] entries come from one place in the code, and at most
//! [`MAX_ENTRIES`] are kept in all. The oldest are removed first. So a message that repeats with different numbers doesn't displace other
//! messages.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use serde_json::{Value, json};
use tracing::{Event, Level, Metadata, Subscriber, callsite::Identifier, field::Field};
use tracing_subscriber::layer::{Context, Layer};

use crate::{escape::escape, rfc3339};

/// The most entries in all.
const MAX_ENTRIES: usize = 64;
/// The most entries of one place in the code.
const PER_PLACE: usize = 8;
/// The most bytes of one entry; a long list of diagnostics is cut.
const MAX_ENTRY_BYTES: usize = 2000;

/// The last warnings. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<VecDeque<Warning>>>);

#[derive(Clone, Debug)]
struct Warning {
    place: Identifier,
    level: Level,
    target: &'static str,
    text: String,
    first: SystemTime,
    last: SystemTime,
    count: u64,
}

impl Warnings {
    /// For the admin API: the newest first.
    pub fn json(&self, now: SystemTime) -> Value {
        let mut all: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        all.sort_by_key(|warning| std::cmp::Reverse(warning.last));
        all.iter()
            .map(|warning| {
                json!({
                    "first": rfc3339(warning.first),
                    "last": rfc3339(warning.last),
                    "last_ago_seconds": now.duration_since(warning.last).unwrap_or_default().as_secs(),
                    "count": warning.count,
                    "level": warning.level.as_str().to_ascii_lowercase(),
                    "target": warning.target,
                    "text": warning.text,
                })
            })
            .collect()
    }

    fn note(&self, metadata: &'static Metadata<'static>, text: String, now: SystemTime) {
        // A worker never waits for a reader.
        let Ok(mut all) = self.0.try_lock() else { return };
        let (place, target) = (metadata.callsite(), metadata.target());
        if let Some(at) = all.iter().position(|known| known.place == place && known.text == text)
            && let Some(mut known) = all.remove(at)
        {
            (known.count, known.last) = (known.count + 1, now);
            all.push_back(known);
            return;
        }
        if all.iter().filter(|known| known.place == place).count() >= PER_PLACE
            && let Some(oldest) = all.iter().position(|known| known.place == place)
        {
            all.remove(oldest);
        } else if all.len() >= MAX_ENTRIES {
            all.pop_front();
        }
        let level = *metadata.level();
        all.push_back(Warning { place, level, target, text, first: now, last: now, count: 1 });
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let mut text = WarningText::default();
        event.record(&mut text);
        self.note(event.metadata(), text.whole(), SystemTime::now());
    }
}

/// The message, followed by the fields.
#[derive(Default)]
struct WarningText {
    message: String,
    fields: String,
}

impl WarningText {
    fn whole(mut self) -> String {
        self.message.push_str(&self.fields);
        if self.message.len() > MAX_ENTRY_BYTES {
            let end =
                (0..=MAX_ENTRY_BYTES).rev().find(|end| self.message.is_char_boundary(*end)).unwrap_or(0);
            self.message.truncate(end);
            self.message.push('…');
        }
        self.message
    }
}

impl tracing::field::Visit for WarningText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let shown = format!("{value:?}");
        // A message comes from attache and may have several lines; a field may come from a peer.
        if field.name() == "message" {
            let _ = escape(&shown, |c| c.is_ascii_graphic() || c == ' ' || c == '\n', &mut self.message);
        } else {
            let _ = write!(self.fields, " {}=", field.name());
            let _ = escape(&shown, |c| c.is_ascii_graphic() || c == ' ', &mut self.fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn with_warnings(run: impl FnOnce()) -> Value {
        let warnings = Warnings::default();
        let subscriber = tracing_subscriber::registry().with(warnings.clone());
        tracing::subscriber::with_default(subscriber, run);
        warnings.json(SystemTime::now())
    }

    #[test]
    fn warnings_and_errors_are_kept_with_their_fields_and_counts() {
        let all = with_warnings(|| {
            tracing::info!("not kept");
            for _ in 0..3 {
                tracing::warn!(upstream = "orders", "no endpoint");
            }
            tracing::error!(error = %"bad\nline", "not taken:\na.yaml:1:1");
        });
        assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
        let newest = (&all[0]["level"], &all[0]["text"], &all[0]["count"]);
        assert_eq!(
            newest,
            (&json!("error"), &json!("not taken:\na.yaml:1:1 error=bad\\u{a}line"), &json!(1))
        );
        assert_eq!(
            (&all[1]["text"], &all[1]["count"]),
            (&json!("no endpoint upstream=\"orders\""), &json!(3))
        );
    }

    #[test]
    fn one_place_does_not_displace_others_and_a_text_is_bounded() {
        let all = with_warnings(|| {
            tracing::warn!("rare");
            for number in 0..1000 {
                tracing::warn!("again {number}");
            }
            tracing::warn!("{}", "long".repeat(MAX_ENTRY_BYTES));
        });
        let all = all.as_array().cloned().unwrap_or_default();
        assert_eq!(all.len(), PER_PLACE + 2);
        assert!(
            all.iter().any(|one| one["text"] == "rare") && all.iter().any(|one| one["text"] == "again 999")
        );
        assert!(
            all.iter().all(|one| one["text"].as_str().is_some_and(|text| text.len() <= MAX_ENTRY_BYTES + 3))
        );
    }
}
