//! The demo's live table.

use std::{
    fmt::Write as _,
    sync::{Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use attache_upstream::SharedUpstream;

use serde_json::json;

use super::{traffic::AppStatistics, upstreams::DemoServer};

/// The data of the table.
pub(super) struct DemoView<'a> {
    pub(super) proxy: String,
    pub(super) dashboard: String,
    pub(super) upstream: &'a SharedUpstream,
    pub(super) servers: &'a [std::sync::Arc<DemoServer>],
    pub(super) seen: &'a Mutex<AppStatistics>,
    pub(super) colour: bool,
}

impl DemoView<'_> {
    /// The table as text, with `elapsed` and `total` in seconds. Without a total the demo runs until the program is ended.
    pub(super) fn render(&self, elapsed: u64, total: Option<u64>) -> String {
        let (bold, dim, red, green, end) = if self.colour {
            ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m")
        } else {
            ("", "", "", "", "")
        };
        let mut out = String::new();
        let time = match total {
            Some(total) => format!("{} s of {total} s", elapsed.min(total)),
            None => format!("{elapsed} s, Ctrl-C ends it"),
        };
        let _ = writeln!(
            out,
            "{bold}attache demo{end}  app -> http://{} -> upstream `{}`, {} endpoints   {dim}{time}{end}\n\n\
             {bold}dashboard: {}{end}\n",
            self.proxy,
            self.upstream.config.name,
            self.servers.len(),
            self.dashboard,
        );
        let _ =
            writeln!(out, "{dim}  server    endpoint           answers   failures   mean time   now{end}");
        let endpoints = self.upstream.endpoints.load();
        let (mut attempts, mut failures) = (0, 0);
        for server in self.servers {
            let (answered, failed) = (server.answered.load(Relaxed), server.failed.load(Relaxed));
            attempts += answered + failed;
            failures += failed;
            let mean = server.busy.load(Relaxed) as f64 / 1000.0 / (answered + failed).max(1) as f64;
            let label = server.address.to_string();
            let ejected = endpoints.endpoints.iter().any(|e| *e.label == *label && e.ejected.load(Relaxed));
            let now = if ejected { format!("{red}ejected{end}") } else { format!("{green}in use{end}") };
            let _ = writeln!(
                out,
                "  {:<9} {label:<17} {answered:>8} {failed:>10} {mean:>8.1} ms   {now}",
                server.name
            );
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (calls, failed) = (seen.calls, seen.failed);
        let (p50, p99) = (percentile(&mut seen.latencies, 50), percentile(&mut seen.latencies, 99));
        let share = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
        let retries = attempts.saturating_sub(calls);
        let _ = writeln!(
            out,
            "\n  the servers failed {bold}{failures}{end} of {attempts} attempts ({:.1} %)",
            share(failures, attempts)
        );
        let verdict = if failed == 0 { green } else { red };
        let _ = writeln!(
            out,
            "  the app saw        {verdict}{bold}{failed}{end} of {calls} calls fail ({:.2} %), p50 {p50:.1} ms, p99 {p99:.1} ms",
            share(failed, calls)
        );
        let _ = writeln!(
            out,
            "  attache            retried {retries} on another endpoint, took failing endpoints out of use, and sent the slow one fewer calls"
        );
        let _ = writeln!(
            out,
            "{dim}                     (the p99: each tenth answer of the slow server takes 400 ms; after 50 ms (`hedge`) attache asks another server too){end}"
        );
        if let Some(last) = &seen.last_failure {
            let _ = writeln!(out, "  last failure       {last}");
        }
        out
    }
}

impl DemoView<'_> {
    /// The same data as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        let servers: Vec<_> = self
            .servers
            .iter()
            .map(|server| {
                json!({
                    "name": server.name,
                    "address": server.address.to_string(),
                    "answers": server.answered.load(Relaxed),
                    "failures": server.failed.load(Relaxed),
                })
            })
            .collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (p50, p99) = (percentile(&mut seen.latencies, 50), percentile(&mut seen.latencies, 99));
        json!({
            "dashboard": self.dashboard,
            "servers": servers,
            "app": { "calls": seen.calls, "failed": seen.failed, "p50_ms": p50, "p99_ms": p99 },
        })
    }
}

/// A percentile in milliseconds.
fn percentile(latencies: &mut [u32], percent: usize) -> f64 {
    if latencies.is_empty() {
        return 0.0;
    }
    let rank = (latencies.len() - 1) * percent / 100;
    let (_, value, _) = latencies.select_nth_unstable(rank);
    f64::from(*value) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_order() {
        let mut values: Vec<u32> = (1..=101).rev().map(|n| n * 1000).collect();
        assert!((percentile(&mut values, 50) - 51.0).abs() < 1e-9);
        assert!((percentile(&mut values, 99) - 100.0).abs() < 1e-9);
        assert!(percentile(&mut [], 50).abs() < 1e-9);
    }
}
