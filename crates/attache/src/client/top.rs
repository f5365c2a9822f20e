//! `attache top`: a table that follows what happens, like htop. Without a terminal it prints itself once.
//!
//! The screen is the alternate one, written whole at each step: at one step a second nothing finer is worth its code. Keys are
//! read as bytes on a thread of their own; the terminal is given back however this ends.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Read as _, Write as _},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
};

use rustix::termios::{self, OptionalActions, Termios};
use serde_json::Value;

use super::{
    http,
    text::{Ink, Paint, clean, field, list, millis, percent, rate, span, table},
};
use crate::cli::{self, Sort, View};

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

pub(crate) fn top(options: &cli::Top) -> Result<(), Box<dyn std::error::Error>> {
    let mut shown = Shown { view: options.view, sort: options.sort };
    if options.once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        // The first look switches the counting of endpoints on, so theirs may still be empty.
        let (stats, upstreams) = look(options)?;
        let text = page(&stats, &upstreams, shown, Paint::stdout());
        io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    }
    let _screen = Screen::enter()?;
    let keys = keys();
    loop {
        let text = match look(options) {
            Ok((stats, upstreams)) => page(&stats, &upstreams, shown, Paint::stdout()),
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

fn look(options: &cli::Top) -> Result<(Value, Value), Box<dyn std::error::Error>> {
    let get = |path: &str| -> Result<Value, Box<dyn std::error::Error>> {
        Ok(serde_json::from_str(&http::fetch(&options.admin.admin, "GET", path)?)?)
    };
    Ok((get("/stats.json")?, get("/upstreams")?))
}

#[derive(Clone, Copy, Debug)]
struct Shown {
    view: View,
    sort: Sort,
}

impl Shown {
    fn key(&mut self, key: u8) {
        match key {
            b'u' => self.view = View::Upstreams,
            b'e' => self.view = View::Endpoints,
            b'r' => self.view = View::Routes,
            b'l' => self.view = View::Listeners,
            b'n' => self.sort = Sort::Name,
            b's' => self.sort = Sort::Rate,
            b'f' => self.sort = Sort::Failures,
            b'p' => self.sort = Sort::P99,
            _ => {}
        }
    }
}

fn help(shown: Shown) -> String {
    let paint = Paint::stdout();
    let mark = |key: &str, rest: &str, on: bool| {
        format!("{}{}", paint.ink(Ink::Bold, key), paint.ink(if on { Ink::Good } else { Ink::Dim }, rest))
    };
    [
        mark("u", "pstreams", shown.view == View::Upstreams),
        mark("e", "ndpoints", shown.view == View::Endpoints),
        mark("r", "outes", shown.view == View::Routes),
        mark("l", "isteners", shown.view == View::Listeners),
        paint.ink(Ink::Dim, "| by"),
        mark("n", "ame", shown.sort == Sort::Name),
        mark("s", "peed", shown.sort == Sort::Rate),
        mark("f", "ailures", shown.sort == Sort::Failures),
        mark("p", "99", shown.sort == Sort::P99),
        paint.ink(Ink::Dim, "|"),
        mark("q", "uit", false),
    ]
    .join(" ")
}

fn page(stats: &Value, upstreams: &Value, shown: Shown, paint: Paint) -> String {
    let lately = &stats["total"]["last_10s"];
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} {}  up {}  {}  success {}  p50 {}  p90 {}  p99 {}\n",
        paint.ink(Ink::Bold, "attache"),
        field(stats, "version"),
        span(stats["uptime_seconds"].as_u64().unwrap_or(0)),
        paint.ink(Ink::Bold, &rate(&lately["per_second"])),
        percent(&lately["success_rate"]),
        millis(&lately["p50_ms"]),
        millis(&lately["p90_ms"]),
        millis(&lately["p99_ms"]),
    );
    let (key, head) = match shown.view {
        View::Upstreams => ("upstreams", "upstream"),
        View::Endpoints => ("endpoints", "endpoint"),
        View::Routes => ("routes", "route"),
        View::Listeners => ("listeners", "listener"),
    };
    let mut rows: Vec<_> = list(stats, key).iter().collect();
    let number = |row: &Value, key: &str| row["last_10s"][key].as_f64().unwrap_or(-1.0);
    match shown.sort {
        Sort::Name => {}
        Sort::Rate => rows.sort_by(|a, b| number(b, "per_second").total_cmp(&number(a, "per_second"))),
        Sort::Failures => rows.sort_by(|a, b| number(b, "failed").total_cmp(&number(a, "failed"))),
        Sort::P99 => rows.sort_by(|a, b| number(b, "p99_ms").total_cmp(&number(a, "p99_ms"))),
    }
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let lately = &row["last_10s"];
            let failed = lately["failed"].as_u64().unwrap_or(0);
            let retries = lately["tries"].as_i64().unwrap_or(0) - lately["requests"].as_i64().unwrap_or(0);
            let (word, ink) = state(row, upstreams, shown.view);
            vec![
                (Ink::Plain, name(row, shown.view)),
                (Ink::Plain, rate(&lately["per_second"])),
                (Ink::Plain, percent(&lately["success_rate"])),
                (if failed > 0 { Ink::Bad } else { Ink::Dim }, failed.to_string()),
                (if retries > 0 { Ink::Warn } else { Ink::Dim }, retries.max(0).to_string()),
                (Ink::Plain, millis(&lately["p50_ms"])),
                (Ink::Plain, millis(&lately["p90_ms"])),
                (Ink::Plain, millis(&lately["p99_ms"])),
                (ink, word),
            ]
        })
        .collect();
    let head = [head, "requests", "success", "failed", "retries", "p50", "p90", "p99", "state"];
    out.push_str(&table(&head, &rows, paint));
    if rows.is_empty() {
        out.push_str("nothing yet\n");
    }
    out
}

fn name(row: &Value, view: View) -> String {
    let text = match view {
        View::Upstreams => field(row, "upstream").to_owned(),
        View::Endpoints => format!("{} {}", field(row, "upstream"), field(row, "endpoint")),
        View::Routes => field(row, "route").to_owned(),
        View::Listeners => field(row, "listener").to_owned(),
    };
    clean(&text, 48)
}

/// What the upstream, or the endpoint, is like now.
fn state(row: &Value, upstreams: &Value, view: View) -> (String, Ink) {
    let name = field(row, "upstream");
    let found = upstreams.as_array().into_iter().flatten().find(|upstream| field(upstream, "name") == name);
    let Some(upstream) = found else { return (String::new(), Ink::Plain) };
    match view {
        View::Upstreams if field(&upstream["breaker"], "state") == "open" => ("open".to_owned(), Ink::Bad),
        View::Upstreams if field(upstream, "kind") != "on-demand" => {
            let (usable, all) = (upstream["usable"].as_u64().unwrap_or(0), list(upstream, "endpoints").len());
            let ink = if usable as usize == all { Ink::Good } else { Ink::Warn };
            (format!("{usable}/{all} up"), ink)
        }
        View::Endpoints => {
            let address = field(row, "endpoint");
            let hosts = list(upstream, "hosts").iter().flat_map(|host| list(host, "endpoints"));
            let endpoints = list(upstream, "endpoints").iter().chain(hosts);
            let state =
                endpoints.filter(|e| field(e, "address") == address).map(|e| field(e, "state")).next();
            let state = state.unwrap_or("gone");
            (state.to_owned(), if state == "healthy" { Ink::Good } else { Ink::Bad })
        }
        _ => (String::new(), Ink::Plain),
    }
}

/// Writes the screen, cut to what fits.
fn show(text: &str) -> io::Result<()> {
    let size = termios::tcgetwinsize(io::stdout())
        .map_or((24, 80), |size| (size.ws_row.max(4), size.ws_col.max(20)));
    let (rows, columns) = (usize::from(size.0), usize::from(size.1));
    let mut screen = "\x1b[H".to_owned();
    let lines: Vec<_> = text.lines().collect();
    // The last line is the help: it stays.
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

/// At most so many columns; colour codes take none.
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

/// Keys as they are pressed.
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

/// The alternate screen with keys unechoed; dropping it gives the terminal back.
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
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_is_sorted_by_what_was_asked_for() {
        let row = |name: &str, rate: f64, failed: u64| {
            json!({ "upstream": name, "last_10s": { "per_second": rate, "requests": 10, "tries": 12, "failed": failed,
                "success_rate": 0.5, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0 } })
        };
        let stats = json!({ "version": "0.1.0", "uptime_seconds": 5, "total": {},
            "upstreams": [row("a", 1.0, 9), row("b", 200.0, 0)] });
        let upstreams = json!([
            { "name": "a", "kind": "configured", "usable": 1, "endpoints": [{}, {}], "breaker": { "state": "closed" } },
            { "name": "b", "kind": "configured", "usable": 0, "endpoints": [{}], "breaker": { "state": "open" } },
        ]);
        let shown = Shown { view: View::Upstreams, sort: Sort::Rate };
        insta::assert_snapshot!(page(&stats, &upstreams, shown, Paint::plain()), @r"
        attache 0.1.0  up 5s  0.0/s  success -  p50 -  p90 -  p99 -

        upstream  requests  success  failed  retries     p50     p90     p99   state
        b            200/s  50.00 %       0        2  1.0 ms  2.0 ms  3.0 ms    open
        a            1.0/s  50.00 %       9        2  1.0 ms  2.0 ms  3.0 ms  1/2 up
        ");
        let shown = Shown { sort: Sort::Failures, ..shown };
        let text = page(&stats, &upstreams, shown, Paint::plain());
        assert!(text.find("\na ") < text.find("\nb "), "{text}");
    }

    #[test]
    fn colours_take_no_room() {
        assert_eq!(cut("\x1b[31mabcdef\x1b[0m", 3), "\x1b[31mabc\x1b[0m");
    }
}
