//! `attache tap`: shows exchanges when they end.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, Read as _, Write as _},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{
    http,
    text::{Colour, ColourMode, clean, duration, field, list, millis},
};
use crate::cli;

/// The characters that are escaped in a query (RFC 3986 section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The most bytes of one line; a longer one is not from attache.
const LINE: u64 = 1 << 20;

pub(crate) fn tap(options: &cli::TapArgs) -> Result<(), Box<dyn std::error::Error>> {
    let target = &options.admin.admin;
    can_match(options)?;
    names_exist(options)?;
    let answer =
        http::send(target, "GET", &path(options), None).map_err(|error| http::unreachable(target, &error))?;
    if answer.status != 200 {
        return Err(http::refused(target, answer.status, &answer.text()?).into());
    }
    let (mut out, paint) = (io::stdout().lock(), ColourMode::stdout());
    let mut body = answer.body;
    let mut seen = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut body).take(LINE).read_line(&mut line)? == 0 {
            return Err("the stream has ended: attache has ended, or its admin API".into());
        }
        let text = line.trim_end();
        if text.is_empty() {
            continue;
        }
        let shown = if options.format.is_json() {
            text.to_owned()
        } else {
            show(&serde_json::from_str(text)?, options.headers, paint)
        };
        // If the reader of the output has ended (`| head`), that is no error.
        if writeln!(out, "{shown}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        seen += 1;
        if options.count.is_some_and(|count| seen >= count) {
            return Ok(());
        }
    }
}

/// Refuses a filter that no request can match: `tap` would wait for ever.
fn can_match(options: &cli::TapArgs) -> Result<(), String> {
    if let Some(method) = options.method.as_deref()
        && let Some(capitals) = cli::in_capitals(method)
    {
        return Err(format!("no request has the method `{method}`: write it in capitals, `{capitals}`"));
    }
    if let Some(path) = options.path.as_deref().filter(|path| !path.starts_with(['/', '*'])) {
        return Err(format!("no path begins with `{path}`: did you mean `/{path}`?"));
    }
    Ok(())
}

/// Returns the names in one object of the admin API.
type NameReader<'a> = &'a dyn Fn(&Value) -> Vec<String>;

/// Refuses a name that doesn't exist: `tap` would wait for ever.
fn names_exist(options: &cli::TapArgs) -> Result<(), Box<dyn std::error::Error>> {
    let known =
        |page: &str, of: &dyn Fn(&Value) -> Vec<String>| -> Result<Vec<String>, Box<dyn std::error::Error>> {
            let page: Value = serde_json::from_str(&http::fetch(&options.admin.admin, "GET", page)?)?;
            Ok(page.as_array().into_iter().flatten().flat_map(of).collect())
        };
    let name = |value: &Value| vec![field(value, "name").to_owned()];
    let routes = |listener: &Value| {
        list(listener, "routes").iter().map(|route| field(route, "name").to_owned()).collect::<Vec<_>>()
    };
    let asked: [(&str, &Option<String>, &str, NameReader<'_>); 3] = [
        ("upstream", &options.upstream, "/upstreams", &name),
        ("listener", &options.listener, "/listeners", &name),
        ("route", &options.route, "/routes", &routes),
    ];
    for (what, wanted, page, of) in asked {
        let Some(wanted) = wanted else { continue };
        let known = known(page, of)?;
        if !known.contains(wanted) {
            return Err(no_such(what, wanted, &known).into());
        }
    }
    Ok(())
}

fn no_such(what: &str, wanted: &str, known: &[String]) -> String {
    let help = match attache_config::nearest(wanted, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", known.join(", ")),
    };
    format!("there is no {what} `{wanted}`; {help}")
}

fn path(options: &cli::TapArgs) -> String {
    let slower = options.slower.map(duration);
    let sample = options.sample.map(|sample| sample.to_string());
    let status = options.status.as_ref().map(|status| status.to_ascii_lowercase());
    let keys = [
        ("listener", &options.listener),
        ("route", &options.route),
        ("upstream", &options.upstream),
        ("endpoint", &options.endpoint),
        ("host", &options.host),
        ("method", &options.method),
        ("path", &options.path),
        ("status", &status),
        ("reason", &options.reason),
        ("slower", &slower),
        ("sample", &sample),
    ];
    let mut path = "/tap?".to_owned();
    for (key, value) in keys {
        if let Some(value) = value {
            let _ = write!(path, "{key}={}&", utf8_percent_encode(value, ESCAPED));
        }
    }
    path.pop();
    path
}

fn show(record: &Value, headers: bool, paint: ColourMode) -> String {
    if let Some(dropped) = record.get("dropped") {
        let text = format!(
            "({dropped} more were dropped: they came faster than they could be shown; filter, or --sample)"
        );
        return paint.colour(Colour::Warn, &text);
    }
    let status = record["status"].as_u64();
    let colour = match (status, field(record, "reason")) {
        (Some(500..), _) => Colour::Bad,
        (Some(400..), _) => Colour::Warn,
        (None, reason) if !reason.is_empty() => Colour::Bad,
        (Some(_), _) => Colour::Good,
        (None, _) => Colour::Plain,
    };
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { clean(text, 200) };
    // Only the time of day is shown: the date is today.
    let clock = field(record, "time").get(11..23).unwrap_or_default();
    let mut line = format!(
        "{} {} {:>4} {}{} {} {} {}",
        paint.colour(Colour::Dim, clock),
        paint.colour(colour, &status.map_or("---".to_owned(), |status| status.to_string())),
        or_dash(field(record, "method")),
        or_dash(field(record, "host")),
        clean(field(record, "path"), 200),
        paint.colour(Colour::Bold, &millis(&record["total_ms"])),
        paint.colour(Colour::Dim, "→"),
        or_dash(field(record, "upstream")),
    );
    if let Some(endpoint) = record["endpoint"].as_str() {
        let _ = write!(line, " {}", paint.colour(Colour::Dim, &clean(endpoint, 80)));
    }
    if let Some(attempts) = record["attempts"].as_u64().filter(|attempts| *attempts > 1) {
        let _ = write!(line, " {}", paint.colour(Colour::Warn, &format!("{attempts} attempts")));
    }
    let reason = field(record, "reason");
    if !reason.is_empty() {
        let _ = write!(line, " {}", paint.colour(colour, reason));
    }
    let detail = field(record, "detail");
    if !detail.is_empty() {
        let _ = write!(line, " {}", paint.colour(Colour::Dim, &format!("({})", clean(detail, 200))));
    }
    if headers {
        for (key, mark) in [("request_headers", '>'), ("response_headers", '<')] {
            for pair in list(record, key) {
                let part = |at: usize| clean(pair[at].as_str().unwrap_or_default(), 300);
                let _ = write!(
                    line,
                    "\n    {}",
                    paint.colour(Colour::Dim, &format!("{mark} {}: {}", part(0), part(1)))
                );
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_one_readable_line() {
        let record = json!({
            "time": "2026-11-21T08:00:00.123Z", "status": 503, "reason": "connect-refused", "detail": "Connection refused (os error 111)",
            "method": "GET", "host": "orders.internal", "path": "/v1/\u{1b}items", "upstream": "orders", "endpoint": "10.0.0.8:80",
            "attempts": 3, "total_ms": 1002.5, "request_headers": [["accept", "*/*"], ["authorization", "(hidden)"]],
        });
        insta::assert_snapshot!(show(&record, true, ColourMode::none()), @r"
        08:00:00.123 503  GET orders.internal/v1/\u{1b}items 1.0 s → orders 10.0.0.8:80 3 attempts connect-refused (Connection refused (os error 111))
            > accept: */*
            > authorization: (hidden)
        ");
        assert!(show(&json!({ "dropped": 7 }), false, ColourMode::none()).starts_with("(7 more"));
    }

    #[test]
    fn a_name_that_does_not_exist_is_an_error_with_the_existing_ones() {
        let known = ["orders".to_owned(), "users".to_owned()];
        assert_eq!(
            no_such("upstream", "ordres", &known),
            "there is no upstream `ordres`; did you mean `orders`?"
        );
        assert_eq!(
            no_such("upstream", "zzz", &known),
            "there is no upstream `zzz`; there are: orders, users"
        );
    }

    #[test]
    fn a_filter_is_escaped_in_the_query() {
        assert_eq!(utf8_percent_encode("/a b&c=%", ESCAPED).to_string(), "%2Fa%20b%26c%3D%25");
    }
}
