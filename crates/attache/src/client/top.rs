//! `attache top`: a live table of the traffic, like htop. Without a terminal it prints the table once.
//!
//! It uses the alternate screen and writes all of it at each update: with one update per second, a finer method is not worth its code. A
//! separate thread reads keys as bytes. The terminal is restored however the program ends.

use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
};

use rustix::termios::{self, OptionalActions, Termios};
use serde_json::{Value, json};

use super::{
    failing::{fails_in_a_row, is_outage},
    http,
    text::{Colour, ColourMode, clean, field, list, millis, percent, rate, span, success_colour, table},
};
use crate::cli::{self, SortOrder, TopTable};

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

pub(crate) fn top(options: &cli::TopArgs) -> Result<(), Box<dyn std::error::Error>> {
    let mut shown = ShownTable { view: options.view, sort: options.sort };
    if options.format.is_json() {
        let (stats, upstreams) = look(options)?;
        writeln!(io::stdout(), "{:#}", json!({ "stats": stats, "upstreams": upstreams }))?;
        return Ok(());
    }
    if options.once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        // The first request switches the counting of endpoints on, so their counts may still be empty.
        let (stats, upstreams) = look(options)?;
        let text = page(&stats, &upstreams, shown, columns(), ColourMode::stdout());
        io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    }
    let _screen = Screen::enter()?;
    let keys = keys();
    loop {
        let text = match look(options) {
            Ok((stats, upstreams)) => page(&stats, &upstreams, shown, columns(), ColourMode::stdout()),
            Err(error) => format!("{error}\n"),
        };
        show(&format!("{text}\n{}", help(shown)))?;
        match keys.recv_timeout(options.interval) {
            Ok(b'q' | 3 | 4) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(key) => shown.key(key),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn look(options: &cli::TopArgs) -> Result<(Value, Value), Box<dyn std::error::Error>> {
    let get = |path: &str| -> Result<Value, Box<dyn std::error::Error>> {
        Ok(serde_json::from_str(&http::fetch(&options.admin.admin, "GET", path)?)?)
    };
    Ok((get("/stats.json")?, get("/upstreams")?))
}

#[derive(Clone, Copy, Debug)]
struct ShownTable {
    view: TopTable,
    sort: SortOrder,
}

impl ShownTable {
    fn key(&mut self, key: u8) {
        match key {
            b'u' => self.view = TopTable::Upstreams,
            b'e' => self.view = TopTable::Endpoints,
            b'r' => self.view = TopTable::Routes,
            b'l' => self.view = TopTable::Listeners,
            b'n' => self.sort = SortOrder::Name,
            b's' => self.sort = SortOrder::Rate,
            b'f' => self.sort = SortOrder::Failures,
            b'p' => self.sort = SortOrder::P99,
            _ => {}
        }
    }
}

fn help(shown: ShownTable) -> String {
    let paint = ColourMode::stdout();
    let mark = |key: &str, rest: &str, on: bool| {
        format!(
            "{}{}",
            paint.colour(Colour::Bold, key),
            paint.colour(if on { Colour::Good } else { Colour::Dim }, rest)
        )
    };
    [
        mark("u", "pstreams", shown.view == TopTable::Upstreams),
        mark("e", "ndpoints", shown.view == TopTable::Endpoints),
        mark("r", "outes", shown.view == TopTable::Routes),
        mark("l", "isteners", shown.view == TopTable::Listeners),
        paint.colour(Colour::Dim, "| by"),
        mark("n", "ame", shown.sort == SortOrder::Name),
        mark("s", "peed", shown.sort == SortOrder::Rate),
        mark("f", "ailures", shown.sort == SortOrder::Failures),
        mark("p", "99", shown.sort == SortOrder::P99),
        paint.colour(Colour::Dim, "|"),
        mark("q", "uit", false),
    ]
    .join(" ")
}

/// The width of the terminal, or the value of `COLUMNS`; a file has no limit.
fn columns() -> usize {
    let of_terminal =
        termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|n| *n > 0);
    let said = || std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    of_terminal.or_else(said).unwrap_or(usize::MAX)
}

/// The columns that are left out first if there is no room: the name, the rate, the success, the p99 and the state stay.
const DISPENSABLE: [usize; 4] = [6, 5, 4, 3];

/// Leaves columns out until the table fits; if that is not enough, the names are cut.
fn fit(head: &[&str], rows: &[Vec<(Colour, String)>], columns: usize, paint: ColourMode) -> String {
    let (mut head, mut rows) = (head.to_vec(), rows.to_vec());
    let width = |head: &[&str], rows: &[Vec<(Colour, String)>]| {
        let plain: Vec<Vec<_>> = rows
            .iter()
            .map(|row| row.iter().map(|(_, text)| (Colour::Plain, text.clone())).collect())
            .collect();
        table(head, &plain, ColourMode::none()).lines().map(|line| line.chars().count()).max().unwrap_or(0)
    };
    for column in DISPENSABLE {
        if width(&head, &rows) <= columns {
            break;
        }
        head.remove(column);
        for row in &mut rows {
            row.remove(column);
        }
    }
    let over = width(&head, &rows).saturating_sub(columns);
    let longest =
        rows.iter().filter_map(|row| row.first()).map(|(_, name)| name.chars().count()).max().unwrap_or(0);
    if over > 0 {
        let most = longest.saturating_sub(over).max(8);
        for (_, name) in rows.iter_mut().filter_map(|row| row.first_mut()) {
            *name = clean(name, most);
        }
    }
    table(&head, &rows, paint)
}

/// The first line, split into as many lines as the terminal needs.
fn wrapped(parts: &[String], widths: &[usize], columns: usize) -> String {
    let (mut out, mut used) = (String::new(), 0);
    for (part, width) in parts.iter().zip(widths) {
        if used > 0 && used + 2 + width > columns {
            out.push('\n');
            used = 0;
        } else if used > 0 {
            out.push_str("  ");
            used += 2;
        }
        out.push_str(part);
        used += width;
    }
    out
}

fn page(stats: &Value, upstreams: &Value, shown: ShownTable, columns: usize, paint: ColourMode) -> String {
    let lately = &stats["total"]["last_10s"];
    let mut out = String::new();
    let texts = [
        format!("attache {}", field(stats, "version")),
        format!("up {}", span(stats["uptime_seconds"].as_u64().unwrap_or(0))),
        rate(&lately["per_second"]),
        format!("success {}", percent(&lately["success_rate"])),
        format!("p50 {}", millis(&lately["p50_ms"])),
        format!("p90 {}", millis(&lately["p90_ms"])),
        format!("p99 {}", millis(&lately["p99_ms"])),
    ];
    let widths: Vec<usize> = texts.iter().map(|text| text.chars().count()).collect();
    let colours = [Colour::Bold, Colour::Plain, Colour::Bold, success_colour(&lately["success_rate"])];
    let parts: Vec<String> = texts
        .iter()
        .enumerate()
        .map(|(at, text)| paint.colour(colours.get(at).copied().unwrap_or(Colour::Plain), text))
        .collect();
    out.push_str(&wrapped(&parts, &widths, columns));
    out.push_str("\n\n");
    let (key, head) = match shown.view {
        TopTable::Upstreams => ("upstreams", "upstream"),
        TopTable::Endpoints => ("endpoints", "endpoint"),
        TopTable::Routes => ("routes", "route"),
        TopTable::Listeners => ("listeners", "listener"),
    };
    let unseen = unseen(stats, upstreams, shown.view);
    let mut rows: Vec<_> = list(stats, key).iter().chain(&unseen).collect();
    let number = |row: &Value, key: &str| row["last_10s"][key].as_f64().unwrap_or(-1.0);
    match shown.sort {
        SortOrder::Name => {}
        SortOrder::Rate => rows.sort_by(|a, b| number(b, "per_second").total_cmp(&number(a, "per_second"))),
        SortOrder::Failures => rows.sort_by(|a, b| number(b, "failed").total_cmp(&number(a, "failed"))),
        SortOrder::P99 => rows.sort_by(|a, b| number(b, "p99_ms").total_cmp(&number(a, "p99_ms"))),
    }
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let lately = &row["last_10s"];
            let failed = lately["failed"].as_u64().unwrap_or(0);
            let retries = lately["attempts"].as_i64().unwrap_or(0) - lately["requests"].as_i64().unwrap_or(0);
            let (word, colour) = state(row, upstreams, shown.view);
            vec![
                (Colour::Plain, name(row, shown.view)),
                (Colour::Plain, rate(&lately["per_second"])),
                (success_colour(&lately["success_rate"]), percent(&lately["success_rate"])),
                (if failed > 0 { Colour::Bad } else { Colour::Dim }, failed.to_string()),
                (if retries > 0 { Colour::Warn } else { Colour::Dim }, retries.max(0).to_string()),
                (Colour::Plain, millis(&lately["p50_ms"])),
                (Colour::Plain, millis(&lately["p90_ms"])),
                (Colour::Plain, millis(&lately["p99_ms"])),
                (colour, word),
            ]
        })
        .collect();
    let head = [head, "requests", "success", "failed", "retries", "p50", "p90", "p99", "state"];
    out.push_str(&fit(&head, &rows, columns, paint));
    if rows.is_empty() {
        out.push_str("nothing yet\n");
    }
    out
}

/// Parts of the config for which nothing has been counted yet.
fn unseen(stats: &Value, upstreams: &Value, view: TopTable) -> Vec<Value> {
    let upstreams = upstreams.as_array().map_or(&[][..], Vec::as_slice);
    let configured: Vec<Value> = match view {
        TopTable::Upstreams => upstreams.iter().map(|upstream| json!({ "upstream": upstream["name"] })).collect(),
        TopTable::Endpoints => upstreams
            .iter()
            .flat_map(|upstream| {
                let row = |endpoint: &Value| json!({ "upstream": upstream["name"], "endpoint": endpoint["address"] });
                list(upstream, "endpoints").iter().map(row).collect::<Vec<_>>()
            })
            .collect(),
        TopTable::Routes | TopTable::Listeners => Vec::new(),
    };
    let key = if view == TopTable::Upstreams { "upstreams" } else { "endpoints" };
    let known = |row: &Value| {
        list(stats, key)
            .iter()
            .any(|seen| seen["upstream"] == row["upstream"] && seen["endpoint"] == row["endpoint"])
    };
    configured.into_iter().filter(|row| !known(row)).collect()
}

fn name(row: &Value, view: TopTable) -> String {
    let text = match view {
        TopTable::Upstreams => field(row, "upstream").to_owned(),
        TopTable::Endpoints => format!("{} {}", field(row, "upstream"), field(row, "endpoint")),
        TopTable::Routes => field(row, "route").to_owned(),
        TopTable::Listeners => field(row, "listener").to_owned(),
    };
    clean(&text, 48)
}

/// The present state of the upstream or the endpoint.
fn state(row: &Value, upstreams: &Value, view: TopTable) -> (String, Colour) {
    // What callers see comes before the results of health checks.
    let fails = is_outage(row);
    if matches!(view, TopTable::Routes | TopTable::Listeners) {
        return if fails { ("failing".to_owned(), Colour::Bad) } else { (String::new(), Colour::Plain) };
    }
    let name = field(row, "upstream");
    let found = upstreams.as_array().into_iter().flatten().find(|upstream| field(upstream, "name") == name);
    let Some(upstream) = found else { return (String::new(), Colour::Plain) };
    match view {
        TopTable::Upstreams if field(&upstream["breaker"], "state") == "open" => {
            ("open".to_owned(), Colour::Bad)
        }
        TopTable::Upstreams if field(upstream, "kind") != "on-demand" => {
            let (usable, all) = (upstream["usable"].as_u64().unwrap_or(0), list(upstream, "endpoints").len());
            match usable as usize {
                _ if fails => (format!("{usable}/{all} failing"), Colour::Bad),
                0 => (format!("0/{all} up"), Colour::Bad),
                usable if usable == all => (format!("{usable}/{all} up"), Colour::Good),
                usable => (format!("{usable}/{all} up"), Colour::Warn),
            }
        }
        TopTable::Upstreams if fails => ("failing".to_owned(), Colour::Bad),
        TopTable::Endpoints => {
            let address = field(row, "endpoint");
            let hosts = list(upstream, "hosts").iter().flat_map(|host| list(host, "endpoints"));
            let mut endpoints = list(upstream, "endpoints").iter().chain(hosts);
            let found = endpoints.find(|endpoint| field(endpoint, "address") == address);
            let state = found.map_or("gone", |endpoint| field(endpoint, "state"));
            // Its calls are counted only while a client asks for them; consecutive failures are always known.
            let fails = fails || found.is_some_and(fails_in_a_row);
            match state {
                "healthy" if fails => ("failing".to_owned(), Colour::Bad),
                "healthy" => (state.to_owned(), Colour::Good),
                state => (state.to_owned(), Colour::Bad),
            }
        }
        _ => (String::new(), Colour::Plain),
    }
}

/// Writes the screen, cut to its size.
fn show(text: &str) -> io::Result<()> {
    let size = termios::tcgetwinsize(io::stdout())
        .map_or((24, 80), |size| (size.ws_row.max(4), size.ws_col.max(20)));
    let (rows, columns) = (usize::from(size.0), usize::from(size.1));
    let mut screen = "\x1b[H".to_owned();
    let lines: Vec<_> = text.lines().collect();
    // The last line is the help; it stays.
    let body = lines.len().saturating_sub(1).min(rows.saturating_sub(1));
    let visible = lines.iter().take(body).chain(lines.last());
    for (index, line) in visible.enumerate() {
        if index > 0 {
            screen.push_str("\r\n");
        }
        screen.push_str(&cut(line, columns));
        screen.push_str("\x1b[0m\x1b[K");
    }
    screen.push_str("\x1b[J");
    let mut out = io::stdout().lock();
    out.write_all(screen.as_bytes())?;
    out.flush()
}

/// Cuts a line to this many columns; colour codes need none.
fn cut(line: &str, columns: usize) -> String {
    let (mut out, mut width, mut code) = (String::new(), 0, false);
    for c in line.chars() {
        code |= c == '\x1b';
        if code {
            out.push(c);
            code = !c.is_ascii_alphabetic();
        } else if width < columns {
            out.push(c);
            width += 1;
        }
    }
    out
}

/// The keys that are pressed.
fn keys() -> mpsc::Receiver<u8> {
    let (sender, keys) = mpsc::channel();
    thread::spawn(move || {
        for key in io::stdin().lock().bytes().map_while(Result::ok) {
            if sender.send(key).is_err() {
                return;
            }
        }
    });
    keys
}

/// The alternate screen, with keys not echoed. Dropping it restores the terminal.
struct Screen(Termios);

impl Screen {
    fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let screen = Self(before);
        let mut out = io::stdout();
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout();
        let _ = out.write_all(LEAVE.as_bytes());
        let _ = out.flush();
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_by_what_was_asked_for() {
        let row = |name: &str, rate: f64, failed: u64| {
            json!({ "upstream": name, "last_10s": { "per_second": rate, "requests": 10, "attempts": 12, "failed": failed,
                "success_rate": 0.5, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0 },
                "outage": (failed > 0).then(|| json!({ "failed": failed })) })
        };
        let stats = json!({ "version": "0.1.0", "uptime_seconds": 5, "total": {},
            "upstreams": [row("a", 1.0, 9), row("b", 200.0, 0)] });
        let upstreams = json!([
            { "name": "a", "kind": "configured", "usable": 1, "endpoints": [{}, {}], "breaker": { "state": "closed" } },
            { "name": "b", "kind": "configured", "usable": 0, "endpoints": [{}], "breaker": { "state": "open" } },
        ]);
        let shown = ShownTable { view: TopTable::Upstreams, sort: SortOrder::Rate };
        insta::assert_snapshot!(page(&stats, &upstreams, shown, usize::MAX, ColourMode::none()), @r"
        attache 0.1.0  up 5s  0.0/s  success -  p50 -  p90 -  p99 -

        upstream  requests  success  failed  retries     p50     p90     p99        state
        b            200/s  50.00 %       0        2  1.0 ms  2.0 ms  3.0 ms         open
        a            1.0/s  50.00 %       9        2  1.0 ms  2.0 ms  3.0 ms  1/2 failing
        ");
        let shown = ShownTable { sort: SortOrder::Failures, ..shown };
        let text = page(&stats, &upstreams, shown, usize::MAX, ColourMode::none());
        assert!(text.find("\na ") < text.find("\nb "), "{text}");
    }

    #[test]
    fn sixty_columns_are_enough_for_the_p99_and_the_state() {
        let row = |name: &str| {
            json!({ "upstream": name, "last_10s": { "per_second": 1234.0, "requests": 10, "attempts": 12, "failed": 3,
                "success_rate": 0.5, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3000.0 } })
        };
        let stats = json!({ "version": "0.1.0", "uptime_seconds": 90_000, "total": {},
            "upstreams": [row("orders"), row("a-name-that-is-far-too-long-for-a-narrow-terminal")] });
        let upstreams =
            json!([{ "name": "orders", "usable": 0, "endpoints": [{}], "breaker": { "state": "open" } }]);
        let shown = ShownTable { view: TopTable::Upstreams, sort: SortOrder::Rate };
        for columns in [60, 80] {
            let text = page(&stats, &upstreams, shown, columns, ColourMode::none());
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
            assert!(text.contains("p99") && text.contains("state") && text.contains("3.0 s"), "{text}");
            assert!(text.contains("open"), "{text}");
        }
    }

    #[test]
    fn an_endpoint_without_counts_is_shown() {
        let upstreams =
            json!([{ "name": "a", "endpoints": [{ "address": "127.0.0.1:1", "state": "healthy" }] }]);
        let shown = ShownTable { view: TopTable::Endpoints, sort: SortOrder::Rate };
        let text = page(&json!({}), &upstreams, shown, usize::MAX, ColourMode::none());
        assert!(text.contains("a 127.0.0.1:1") && text.contains("healthy"), "{text}");
    }

    #[test]
    fn colour_codes_take_no_columns() {
        assert_eq!(cut("\x1b[31mabcdef\x1b[0m", 3), "\x1b[31mabc\x1b[0m");
    }
}
