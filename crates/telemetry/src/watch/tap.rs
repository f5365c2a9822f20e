//! Follows exchanges when they end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{ExchangeRecord, TAPPED, Watch, lock};
use crate::Exchange;

/// The most taps at once.
const MAX_TAPS: usize = 8;
/// How many records may wait for a reader.
const QUEUE: usize = 256;

/// Which exchanges are followed: those that match every condition that is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TapFilter {
    /// The listener's name.
    pub listener: Option<String>,
    /// The route's name.
    pub route: Option<String>,
    /// The upstream's name.
    pub upstream: Option<String>,
    /// The last attempt's endpoint, as text.
    pub endpoint: Option<String>,
    /// Host or SNI.
    pub host: Option<String>,
    /// The method, in capitals.
    pub method: Option<String>,
    /// The prefix of the path.
    pub path: Option<String>,
    /// The status: `503`, or a class such as `5xx`.
    pub status: Option<String>,
    /// The reason; `any` means every reason.
    pub reason: Option<String>,
    /// The shortest time that it took.
    pub slower: Option<Duration>,
    /// One exchange out of this many; 0 and 1 mean all.
    pub sample: u64,
}

impl TapFilter {
    pub(super) fn meets(&self, exchange: &Exchange, total: Duration) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let named = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted.as_str()) == found)
        };
        is(&self.listener, &exchange.listener)
            && named(&self.route, exchange.route.borrow().as_deref())
            && named(&self.upstream, exchange.upstream.borrow().as_deref())
            && named(&self.endpoint, exchange.endpoint.borrow().as_deref())
            && is(&self.host, &exchange.host.borrow())
            && is(&self.method, &exchange.method.borrow())
            && self.path.as_ref().is_none_or(|prefix| exchange.path.borrow().starts_with(prefix.as_str()))
            && self.status.as_ref().is_none_or(|status| status_is(status, exchange.outcome()))
            && self.reason.as_ref().is_none_or(|wanted| {
                exchange.reason.get().is_some_and(|reason| wanted == "any" || reason.as_str() == wanted)
            })
            && self.slower.is_none_or(|slower| total >= slower)
    }
}

/// Whether a status matches `503` or `5xx`.
fn status_is(wanted: &str, status: u16) -> bool {
    match wanted.strip_suffix("xx") {
        Some(class) => class.parse() == Ok(status / 100),
        None => wanted.parse() == Ok(status),
    }
}

#[derive(Debug)]
pub(super) struct Tap {
    filter: TapFilter,
    queue: mpsc::Sender<Box<ExchangeRecord>>,
    met: AtomicU64,
    dropped: AtomicU64,
}

/// An open tap. It ends when this is dropped.
#[derive(Debug)]
pub struct OpenTap {
    watch: Watch,
    tap: Arc<Tap>,
    queue: mpsc::Receiver<Box<ExchangeRecord>>,
    said: u64,
}

/// What a tap returns.
#[derive(Debug)]
pub enum TapResult {
    /// An exchange that ended.
    Record(Box<ExchangeRecord>),
    /// How many exchanges were dropped since the last report, because more came than were read.
    Dropped(u64),
}

pub(super) fn begin(watch: &Watch, filter: TapFilter) -> Option<OpenTap> {
    let _turn = lock(&watch.0.changing);
    let mut taps = Vec::clone(&watch.0.taps.load());
    if taps.len() >= MAX_TAPS {
        return None;
    }
    let (sender, queue) = mpsc::channel(QUEUE);
    let tap = Arc::new(Tap { filter, queue: sender, met: AtomicU64::new(0), dropped: AtomicU64::new(0) });
    taps.push(tap.clone());
    watch.0.taps.store(Arc::new(taps));
    watch.0.flags.fetch_or(TAPPED, Relaxed);
    Some(OpenTap { watch: watch.clone(), tap, queue, said: 0 })
}

impl OpenTap {
    /// Waits for the next item. The future may be dropped while it waits.
    pub async fn next(&mut self) -> Option<TapResult> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Returns the next item, or registers for a wake-up.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<TapResult>> {
        let dropped = self.tap.dropped.load(Relaxed);
        if dropped > self.said {
            let news = dropped - self.said;
            self.said = dropped;
            return Poll::Ready(Some(TapResult::Dropped(news)));
        }
        self.queue.poll_recv(cx).map(|record| record.map(TapResult::Record))
    }
}

impl Drop for OpenTap {
    fn drop(&mut self) {
        let shared = &self.watch.0;
        let _turn = lock(&shared.changing);
        let mut taps = Vec::clone(&shared.taps.load());
        taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        if taps.is_empty() {
            shared.flags.fetch_and(!TAPPED, Relaxed);
        }
        shared.taps.store(Arc::new(taps));
    }
}

/// Gives an exchange that ended to the taps that want it.
#[cold]
pub(super) fn offer(taps: &[Arc<Tap>], exchange: &Exchange, total: Duration) {
    for tap in taps {
        if !tap.filter.meets(exchange, total) {
            continue;
        }
        let met = tap.met.fetch_add(1, Relaxed);
        if tap.filter.sample > 1 && met % tap.filter.sample != 0 {
            continue;
        }
        // Memory is allocated only here: when there is a reader, and room in its queue.
        match tap.queue.try_reserve() {
            Ok(room) => room.send(Box::new(ExchangeRecord::of(exchange, total))),
            Err(_) => {
                tap.dropped.fetch_add(1, Relaxed);
            }
        }
    }
}
