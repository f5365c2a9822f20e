//! Makes an endpoint of the application available under another path, with another status and meaning.

use attache_config::model::{Adapter, Expect};
use http::{StatusCode, header::CONTENT_TYPE};
use serde_json::Value;

use super::{AppAnswer, ask::ask};
use crate::answer::{AdminAnswer, text};

pub(super) async fn answer(adapter: &Adapter) -> AdminAnswer {
    let asked = ask(&adapter.from, "application/json, */*;q=0.5", adapter.timeout, Adapter::MAX_SIZE).await;
    match (adapter.checks, asked) {
        (false, Ok(told)) => {
            let mut answer = text(told.status, told.body);
            match told.content_type {
                Some(content_type) => answer.headers_mut().insert(CONTENT_TYPE, content_type),
                None => answer.headers_mut().remove(CONTENT_TYPE),
            };
            answer
        }
        (false, Err(why)) => text(StatusCode::BAD_GATEWAY, format!("{}: {why}\n", adapter.from.authority)),
        (true, asked) => match asked.and_then(|told| check(&adapter.expect, &told)) {
            Ok(()) => text(adapter.expect.ok, "ok\n"),
            Err(why) => {
                let (authority, path) = (&adapter.from.authority, &adapter.from.path);
                text(adapter.expect.failed, format!("http://{authority}{path}: {why}\n"))
            }
        },
    }
}

/// Compares the application's answer with the expected one. The error says what differs.
fn check(expect: &Expect, told: &AppAnswer) -> Result<(), String> {
    let status = told.status.as_u16();
    if !expect.status.iter().any(|range| range.contains(status)) {
        return Err(format!("the status is {status}"));
    }
    if expect.json.is_empty() {
        return Ok(());
    }
    let body: Value =
        serde_json::from_str(&told.body).map_err(|error| format!("the body isn't JSON ({error})"))?;
    for (pointer, wanted) in &expect.json {
        let found = body.pointer(pointer).ok_or_else(|| format!("there is no `{pointer}`"))?;
        let same = match found {
            Value::String(text) => **text == **wanted,
            // In JSON, 3 and 3.0 are the same number.
            Value::Number(number) => {
                number.to_string() == **wanted
                    || number
                        .as_f64()
                        .zip(wanted.parse().ok())
                        .is_some_and(|(a, b): (f64, f64)| (a - b).abs() == 0.0)
            }
            Value::Bool(truth) => **wanted == *if *truth { "true" } else { "false" },
            Value::Null => **wanted == *"null",
            Value::Array(_) | Value::Object(_) => false,
        };
        if !same {
            return Err(format!("`{pointer}` is {found}, not `{wanted}`"));
        }
    }
    Ok(())
}
