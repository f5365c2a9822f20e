//! B3, in one header or in several (<https://github.com/openzipkin/b3-propagation>).
//!
//! Rule: a trace id has 16 or 32 hex digits; a shorter one is the end of a longer one that starts with zeros. Debug means sampled. A
//! context that can't be parsed counts as none.

use attache_wire::{Fields, KnownName, header};

use super::{IncomingContext, SpanId, TraceContext, TraceId, only, own};

const SINGLE: KnownName = header::B3;
const TRACE: KnownName = header::X_B3_TRACEID;
const SPAN: KnownName = header::X_B3_SPANID;
const PARENT: KnownName = header::X_B3_PARENTSPANID;
const SAMPLED: KnownName = header::X_B3_SAMPLED;
const FLAGS: KnownName = header::X_B3_FLAGS;

/// `TRACE-SPAN[-SAMPLED[-PARENT]]`, or `SAMPLED` alone.
pub(super) fn extract_single(headers: &Fields) -> IncomingContext {
    let Some(text) = only(headers, SINGLE) else { return IncomingContext::Nothing };
    let mut parts = text.split(|&b| b == b'-');
    let (first, second, decision, parent) = (parts.next(), parts.next(), parts.next(), parts.next());
    if parts.next().is_some() || parent.is_some_and(|parent| SpanId::parse(parent, true).is_none()) {
        return IncomingContext::Nothing;
    }
    let (Some(trace), Some(span)) = (first, second) else {
        return first.and_then(decided).map_or(IncomingContext::Nothing, IncomingContext::Decision);
    };
    let sampled = match decision {
        // The sender left the decision to us: the configured ratio decides, as for a trace that begins here.
        None => Some(false),
        Some(decision) => decided(decision),
    };
    context(trace, span, sampled)
}

pub(super) fn extract_multi(headers: &Fields) -> IncomingContext {
    let debug = only(headers, FLAGS) == Some(b"1");
    let sampled = if debug { Some(true) } else { only(headers, SAMPLED).and_then(decided) };
    match (only(headers, TRACE), only(headers, SPAN)) {
        (Some(trace), Some(span)) => context(trace, span, sampled.or(Some(false))),
        _ => sampled.map_or(IncomingContext::Nothing, IncomingContext::Decision),
    }
}

fn context(trace: &[u8], span: &[u8], sampled: Option<bool>) -> IncomingContext {
    match (TraceId::parse(trace, true), SpanId::parse(span, true), sampled) {
        (Some(trace), Some(parent), Some(sampled)) => {
            IncomingContext::Context(TraceContext { trace, parent, sampled, random: false })
        }
        _ => IncomingContext::Nothing,
    }
}

fn decided(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

const fn digit(sampled: bool) -> u8 {
    if sampled { 1 } else { 0 }
}

pub(super) fn inject_single(headers: &mut Fields, context: TraceContext) {
    if let Some(value) = own(&format!("{}-{}-{}", context.trace, context.parent, digit(context.sampled))) {
        headers.insert(SINGLE, value);
    }
}

pub(super) fn inject_multi(headers: &mut Fields, context: TraceContext) {
    // Our span replaces the sender's, so the id of the sender's parent is removed.
    headers.remove(PARENT);
    for (name, text) in [
        (TRACE, context.trace.to_string()),
        (SPAN, context.parent.to_string()),
        (SAMPLED, digit(context.sampled).to_string()),
    ] {
        if let Some(value) = own(&text) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE_ID: &str = "80f198ee56343ba864fe8b2a57d3eff7";

    fn headers(pairs: &[(KnownName, &str)]) -> Fields {
        let pair = |(name, value): &(KnownName, &str)| (*name, HeaderValue::from_str(value).unwrap());
        pairs.iter().map(pair).collect()
    }

    fn sampled(found: IncomingContext) -> Option<bool> {
        match found {
            IncomingContext::Nothing => None,
            IncomingContext::Decision(sampled) => Some(sampled),
            IncomingContext::Context(context) => Some(context.sampled),
        }
    }

    #[test]
    fn one_header_has_ids_or_only_a_decision() {
        let read = |text: &str| extract_single(&headers(&[(SINGLE, text)]));
        for (text, wanted) in [("1", true), ("0", false), ("d", true)] {
            assert_eq!(read(text), IncomingContext::Decision(wanted));
        }
        let span = "e457b5a2e4d86bd1";
        for (end, wanted) in
            [("-1", true), ("-d", true), ("-0", false), ("", false), ("-1-05e3ac9a4f6e3b90", true)]
        {
            let found = read(&format!("{TRACE_ID}-{span}{end}"));
            assert!(
                matches!(found, IncomingContext::Context(context) if context.trace.to_string() == TRACE_ID && context.sampled == wanted),
                "{end} {found:?}"
            );
        }
        let IncomingContext::Context(short) = read(&format!("64fe8b2a57d3eff7-{span}-1")) else { panic!() };
        assert_eq!(short.trace.to_string(), "000000000000000064fe8b2a57d3eff7");
        for bad in [
            "",
            "2",
            "-",
            "x-y",
            &format!("{TRACE_ID}-0000000000000000-1"),
            &format!("{TRACE_ID}-{span}-1-x"),
        ] {
            assert_eq!(read(bad), IncomingContext::Nothing, "{bad}");
        }
    }

    #[test]
    fn several_headers_say_the_same() {
        fn read(pairs: &[(KnownName, &str)]) -> Option<bool> {
            sampled(extract_multi(&headers(pairs)))
        }
        let span = (SPAN, "e457b5a2e4d86bd1");
        assert_eq!(read(&[(TRACE, TRACE_ID), span, (SAMPLED, "1")]), Some(true));
        assert_eq!(read(&[(TRACE, TRACE_ID), span, (SAMPLED, "false")]), Some(false));
        assert_eq!(read(&[(TRACE, TRACE_ID), span, (FLAGS, "1")]), Some(true));
        assert_eq!(read(&[(SAMPLED, "0")]), Some(false));
        assert_eq!(read(&[(TRACE, TRACE_ID)]), None);
        assert_eq!(read(&[(TRACE, "xyz"), span, (SAMPLED, "1")]), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for sampled in [true, false] {
            let (trace, parent) = (TraceId::new(), SpanId::new());
            let context = TraceContext { trace, parent, sampled, random: false };
            let mut written = headers(&[(PARENT, "05e3ac9a4f6e3b90")]);
            inject_single(&mut written, context);
            inject_multi(&mut written, context);
            assert_eq!(extract_single(&written), IncomingContext::Context(context));
            assert_eq!(extract_multi(&written), IncomingContext::Context(context));
            assert!(!written.contains_key(PARENT));
        }
    }
}
