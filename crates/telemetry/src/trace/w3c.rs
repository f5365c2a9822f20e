//! `traceparent` and `tracestate` (W3C Trace Context, levels 1 and 2).
//!
//! The rule is strict. `traceparent` must occur once, in lower case, with ids that aren't zero. A later version than 00 may have more after
//! another dash (section 3.2.4). Otherwise there is no context, and it is removed together with its `tracestate`. An invalid `tracestate`
//! is removed alone (section 3.3.1.3).

use attache_wire::{Fields, KnownName, header};

use super::{SpanId, TraceContext, TraceId, ids::hex, only, own};

const TRACEPARENT: KnownName = header::TRACEPARENT;
const TRACESTATE: KnownName = header::TRACESTATE;

/// Section 3.2.2.5: the only flag of level 1.
const SAMPLED: u8 = 1;
/// Level 2: the trace's id is random.
const RANDOM: u8 = 2;

/// Removes an invalid trace context. Returns the trace's id if there is a valid one.
pub fn check_trace_context(headers: &mut Fields) -> Option<TraceId> {
    if !headers.contains_key(TRACEPARENT) && !headers.contains_key(TRACESTATE) {
        return None;
    }
    let context = extract(headers);
    if context.is_none() {
        remove(headers);
    } else {
        check_state(headers);
    }
    context.map(|context| context.trace)
}

pub(super) fn remove(headers: &mut Fields) {
    headers.remove(TRACEPARENT);
    headers.remove(TRACESTATE);
}

/// Parses `version "-" trace-id "-" parent-id "-" trace-flags`; from version 01 on there may be more.
pub(super) fn extract(headers: &Fields) -> Option<TraceContext> {
    let text = only(headers, TRACEPARENT)?;
    let (known, more) = text.split_at_checked(55)?;
    if [2, 35, 52].iter().any(|at| known.get(*at) != Some(&b'-')) {
        return None;
    }
    let (version, trace, parent, flags) =
        (known.get(..2)?, known.get(3..35)?, known.get(36..52)?, known.get(53..)?);
    let version = hex(version, false)?;
    let right = version != 0xff && (more.is_empty() || (version != 0 && more.starts_with(b"-")));
    let flags = hex(flags, false)? as u8;
    let (trace, parent) = (TraceId::parse(trace, false)?, SpanId::parse(parent, false)?);
    right.then_some(TraceContext {
        trace,
        parent,
        sampled: flags & SAMPLED != 0,
        random: flags & RANDOM != 0,
    })
}

/// Writes a `traceparent` of version 00, and removes an invalid `tracestate`.
pub(super) fn inject(headers: &mut Fields, context: TraceContext) {
    let flags = if context.sampled { SAMPLED } else { 0 } | if context.random { RANDOM } else { 0 };
    // The text is moved into the header, not copied.
    let text = format!("00-{}-{}-{flags:02x}", context.trace, context.parent);
    if let Some(value) = own(&text) {
        headers.insert(TRACEPARENT, value);
    }
    check_state(headers);
}

/// Removes an invalid `tracestate`.
pub(super) fn check_state(headers: &mut Fields) {
    if !state_is_valid(headers) {
        headers.remove(TRACESTATE);
    }
}

pub(super) fn state(headers: &Fields) -> String {
    let lines = headers.get_all(TRACESTATE).filter_map(|line| line.to_str().ok());
    lines.collect::<Vec<_>>().join(",")
}

/// Section 3.3.1: at most 32 members. A key that occurs twice is passed on unchanged: services that know the key decide which of the two
/// counts.
fn state_is_valid(headers: &Fields) -> bool {
    let mut count = 0;
    for line in headers.get_all(TRACESTATE) {
        for member in line.as_bytes().split(|&b| b == b',') {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            let Some(at) = member.iter().position(|&b| b == b'=') else { return false };
            let (key, value) = member.split_at(at);
            count += 1;
            if count > 32 || !key_is_valid(key) || !value_is_valid(value.get(1..).unwrap_or_default()) {
                return false;
            }
        }
    }
    true
}

fn key_is_valid(key: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=256).contains(&key.len())
        && key.first().is_some_and(plain)
        && key.iter().all(|b| plain(b) || b"_-*/@".contains(b))
}

fn value_is_valid(value: &[u8]) -> bool {
    (1..=256).contains(&value.len())
        && value.last() != Some(&b' ')
        && value.iter().all(|b| matches!(b, 0x20..=0x7e) && !matches!(b, b',' | b'='))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(parents: &[&str], states: &[&str]) -> Fields {
        let mut headers = Fields::new();
        for parent in parents {
            headers.append(TRACEPARENT, HeaderValue::from_str(parent).unwrap());
        }
        for state in states {
            headers.append(TRACESTATE, HeaderValue::from_str(state).unwrap());
        }
        headers
    }

    #[test]
    fn a_valid_trace_context_is_unchanged_and_an_invalid_one_is_removed_completely() {
        let survives = |parents: &[&str]| {
            let mut headers = headers(parents, &["a=b"]);
            let before = headers.clone();
            let id = check_trace_context(&mut headers);
            assert!(headers.is_empty() || headers == before);
            assert_eq!(id.is_some(), !headers.is_empty());
            !headers.is_empty()
        };
        assert!(survives(&[GOOD]));
        assert!(survives(&[&GOOD.replacen("00", "cc", 1)]));
        assert!(survives(&[&format!("{}-what-the-future-brings", GOOD.replacen("00", "cc", 1))]));
        for bad in [
            &format!("{GOOD}-x"),
            &format!("{GOOD}."),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &GOOD.replace('-', "_"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "",
        ] {
            assert!(!survives(&[bad]), "{bad}");
        }
        assert!(!survives(&[GOOD, GOOD]));
        assert!(!survives(&[]));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let context = extract(&headers(&[GOOD], &[])).unwrap();
        assert!(context.sampled && !context.random);
        assert_eq!(context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        for (sampled, random) in [(true, true), (false, true), (false, false)] {
            let context = TraceContext { sampled, random, ..context };
            let mut written = Fields::new();
            inject(&mut written, context);
            assert_eq!(extract(&written), Some(context));
        }
    }

    #[test]
    fn an_invalid_tracestate_is_removed_alone() {
        let survives = |states: &[&str]| {
            let mut headers = headers(&[GOOD], states);
            assert!(check_trace_context(&mut headers).is_some());
            headers.contains_key(TRACESTATE)
        };
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let twice = [&["a=b,a=c"][..], &["a=b", "a=b"]];
        for good in [&["a=b, c@d/e=f g"][..], &["a=b", "c=d"], &["a=b,,c=d"], &[&many(32)], &["1a=b"]]
            .into_iter()
            .chain(twice)
        {
            assert!(survives(good), "{good:?}");
        }
        for bad in [&["a"][..], &["A=b"], &["a=b=c"], &["=b"], &["a="], &[&many(33)], &["a b=c"]] {
            assert!(!survives(bad), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_headers_cause_a_panic(parent in "[ -~]{0,80}", state in "[ -~]{0,80}") {
            let mut headers = headers(&[&parent], &[&state]);
            let _ = check_trace_context(&mut headers);
        }
    }
}
