//! `/tap`: exchanges when they end, as one JSON object per line, for as long as the client reads.
//!
//! Lines that are ready at the same time are sent together. An empty line every few seconds detects clients that have left. A client that
//! is too slow gets `{"dropped": N}`, the number of exchanges that it missed.

use std::{
    fmt::Write as _,
    task::{Context, Poll},
    time::Duration,
};

use attache_telemetry::{OpenTap, TapFilter, TapResult};
use bytes::Bytes;
use tokio::time::{Interval, interval};

use crate::query;

/// The content type of the stream (<https://github.com/ndjson/ndjson-spec>).
pub(crate) const CONTENT_TYPE: &str = "application/x-ndjson";

/// The time between two empty lines.
const ALIVE: Duration = Duration::from_secs(5);
/// The most bytes that are sent at once.
const BATCH: usize = 16 << 10;

/// The keys of a filter.
const KEYS: &str = "listener, route, upstream, endpoint, host, method, path (what it begins with), status (503 or 5xx), reason (a word, or any), \
slower (a duration such as 250ms), sample (one in N)";

/// Makes a filter from a query string. The error names the valid keys and values.
pub(crate) fn filter(query: Option<&str>) -> Result<TapFilter, String> {
    let mut filter = TapFilter::default();
    for (key, value) in query::pairs(query)? {
        let text = Some(value.clone()).filter(|value| !value.is_empty());
        match key.as_str() {
            "listener" => filter.listener = text,
            "route" => filter.route = text,
            "upstream" => filter.upstream = text,
            "endpoint" => filter.endpoint = text,
            "host" => filter.host = text,
            "method" => filter.method = text.map(|method| method.to_ascii_uppercase()),
            "path" => filter.path = text,
            "status" => {
                let known = match value.strip_suffix("xx") {
                    Some(class) => class.parse().is_ok_and(|class: u16| (1..=5).contains(&class)),
                    None => value.parse().is_ok_and(|status: u16| (100..=599).contains(&status)),
                };
                if text.is_some() && !known {
                    return Err(format!(
                        "status `{value}` is neither a status like 503 nor a class like 5xx"
                    ));
                }
                filter.status = text;
            }
            "reason" => {
                let known = |word: &str| {
                    word == "any" || attache_telemetry::Reason::ALL.iter().any(|r| r.as_str() == word)
                };
                if text.as_deref().is_some_and(|word| !known(word)) {
                    return Err(format!(
                        "there is no reason `{value}`: GET /reasons lists them; `any` matches every one"
                    ));
                }
                filter.reason = text;
            }
            "slower" => filter.slower = text.map(|text| attache_config::duration(&text)).transpose()?,
            "sample" => {
                filter.sample = value
                    .parse()
                    .map_err(|_| format!("sample `{value}` is not a number: 10 is one in ten exchanges"))?;
            }
            _ => return Err(format!("`{key}` is not a key of a filter. The keys are: {KEYS}")),
        }
    }
    Ok(filter)
}

/// The stream's body.
#[derive(Debug)]
pub(crate) struct TapLines {
    tapping: OpenTap,
    alive: Interval,
}

impl TapLines {
    pub(crate) fn new(tapping: OpenTap) -> Self {
        Self { tapping, alive: interval(ALIVE) }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut text = String::new();
        let mut ended = false;
        while text.len() < BATCH {
            match self.tapping.poll_next(cx) {
                Poll::Ready(Some(TapResult::Record(record))) => {
                    let _ = writeln!(text, "{}", record.json());
                }
                Poll::Ready(Some(TapResult::Dropped(dropped))) => {
                    let _ = writeln!(text, "{{\"dropped\":{dropped}}}");
                }
                Poll::Ready(None) => {
                    ended = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        // The first tick comes at once, so that the client sees that the stream works.
        if self.alive.poll_tick(cx).is_ready() {
            text.push('\n');
            // This registers for the next tick.
            let _ = self.alive.poll_tick(cx);
        }
        match (text.is_empty(), ended) {
            (false, _) => Poll::Ready(Some(text.into())),
            (true, true) => Poll::Ready(None),
            (true, false) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_filter_is_refused_with_the_valid_keys() {
        let read =
            filter(Some("upstream=orders&path=%2Fv1&status=5xx&slower=250ms&method=get&sample=10")).unwrap();
        assert_eq!(read.slower, Some(Duration::from_millis(250)));
        assert_eq!((read.method.as_deref(), read.sample), (Some("GET"), 10));
        assert_eq!(filter(Some("upstream=&status=&reason=")).unwrap(), TapFilter::default());
        for (query, part) in [
            ("colour=red", "listener, route"),
            ("status=bad", "5xx"),
            ("reason=bad", "/reasons"),
            ("slower=bad", "`ms`"),
            ("sample=bad", "one in ten"),
            ("path=%zz", "escape"),
        ] {
            let error = filter(Some(query)).unwrap_err();
            assert!(error.contains(part), "{query}: {error}");
        }
    }
}
