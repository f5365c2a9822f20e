//! Counts the values of [`semantic`](super::semantic).

use std::{
    sync::{LazyLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use attache_config::model::Name;

use super::{
    WorkerMetrics,
    semantic::{BOUNDS, CELLS, SIZE_CELLS, SIZES},
    series::{Label, Series},
};
use crate::{
    Exchange, Reason,
    otlp::{method_word, version_word},
};

impl WorkerMetrics {
    /// Whether durations by the semantic conventions are used. It costs one relaxed load.
    pub fn semantic(&self) -> bool {
        self.0.registry.semantic.load(Relaxed)
    }

    /// Counts a request that ended; opaque connections don't count.
    pub(super) fn server_request(&self, exchange: &Exchange, total: Duration) {
        let version = version_word(exchange.protocol);
        if version.is_empty() {
            return;
        }
        let (route, upstream) = (exchange.route.borrow(), exchange.upstream.borrow());
        let (status, reason) = (exchange.status.get(), exchange.reason.get());
        let labels = [
            Label::Name(&exchange.listener),
            Label::from(route.as_ref()),
            Label::from(upstream.as_ref()),
            Label::Word(method_word(&exchange.method.borrow())),
            Label::Word(status_word(status)),
            Label::Word(version),
            Label::Word(if exchange.secure.get() { "https" } else { "http" }),
            // If a server answers with a 4xx, it is the client's error (semantic conventions, "error.type").
            Label::Word(match reason {
                Some(reason) => reason.as_str(),
                None if status >= 500 => status_word(status),
                None => "",
            }),
        ];
        let (received, sent) = (exchange.received.get(), exchange.sent.get());
        self.0.semantic.server.with(labels, |series| {
            observe(series, 0, &BOUNDS, micros(total));
            observe(series, CELLS, &SIZES, received);
            observe(series, CELLS + SIZE_CELLS, &SIZES, sent);
        });
    }

    /// Counts an attempt that ended: `status` is 0 if there was no response, and `reason` is why it failed.
    pub fn client_request(
        &self,
        upstream: &Name,
        exchange: &Exchange,
        version: &'static str,
        status: u16,
        reason: Option<Reason>,
        took: Duration,
    ) {
        // Opaque bytes are not a request.
        if exchange.method.borrow().is_empty() {
            return;
        }
        let labels = [
            Label::Name(upstream),
            Label::Word(method_word(&exchange.method.borrow())),
            Label::Word(status_word(status)),
            Label::Word(version),
            Label::Word(match reason {
                Some(reason) => reason.as_str(),
                None if status >= 400 => status_word(status),
                None if status == 0 => "_OTHER",
                None => "",
            }),
        ];
        self.0.semantic.client.with(labels, |series| observe(series, 0, &BOUNDS, micros(took)));
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// Counts one value of the histogram whose cells begin at `first`: a cell for each bound, one above them, and the sum.
fn observe<const L: usize, const C: usize>(series: &Series<L, C>, first: usize, bounds: &[u64], value: u64) {
    series.add(first + bounds.partition_point(|bound| *bound < value), 1);
    series.add(first + bounds.len() + 1, value);
}

/// A status as a static text; empty for 0 and for an invalid status.
fn status_word(status: u16) -> &'static str {
    static WORDS: LazyLock<Vec<String>> =
        LazyLock::new(|| (100..1000_u16).map(|status| status.to_string()).collect());
    let index = usize::from(status).checked_sub(100);
    index.and_then(|index| WORDS.get(index)).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_word() {
        assert_eq!(status_word(0), "");
        assert_eq!(status_word(99), "");
        assert_eq!(status_word(100), "100");
        assert_eq!(status_word(404), "404");
        assert_eq!(status_word(999), "999");
        assert_eq!(status_word(1000), "");
    }
}
