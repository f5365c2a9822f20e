//! Appends values to a line, each after a text that precedes it.
//!
//! This does not use `write!`: a line has twenty values and is written for each request, and the formatter needs several hundred
//! instructions for each value. There is one function for each kind of value, and it is called, not inlined; this keeps the code of a line
//! small.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use attache_wire::{chars, decimal};

use super::{escaping::UnquotedField, time::LogTimestamp};

/// Bytes that a field without quotes contains unescaped.
static PLAIN: [bool; 256] = but_quotes(0x21, 0x7e);
/// Bytes that a JSON string contains unescaped. Other bytes are examined character by character.
static PLAIN_JSON: [bool; 256] = but_quotes(0x20, 0x7e);

const fn but_quotes(from: usize, to: usize) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = from;
    while byte <= to {
        table[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    table
}

/// Appends a field of one word, escaped, or `-`. Bytes that aren't UTF-8 count as missing.
#[inline(never)]
pub(super) fn word(out: &mut Vec<u8>, before: &str, text: &[u8]) {
    out.extend_from_slice(before.as_bytes());
    if text.is_empty() {
        out.push(b'-');
    } else if chars::all(text, &PLAIN) {
        out.extend_from_slice(text);
    } else {
        escaped(out, text);
    }
}

#[cold]
fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    // Writing to a vector can't fail.
    let _ = write!(out, "{}", UnquotedField(std::str::from_utf8(text).unwrap_or_default()));
}

/// Appends a JSON string, or `null`.
#[inline(never)]
pub(super) fn json(out: &mut Vec<u8>, before: &str, text: Option<&[u8]>) {
    out.extend_from_slice(before.as_bytes());
    match text {
        Some(text) if chars::all(text, &PLAIN_JSON) => {
            out.push(b'"');
            out.extend_from_slice(text);
            out.push(b'"');
        }
        Some(text) => escaped_json(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

#[cold]
fn escaped_json(out: &mut Vec<u8>, text: &[u8]) {
    // Neither serialising a text nor writing to a vector can fail.
    let _ = super::json::write(out, &std::str::from_utf8(text).ok());
}

#[inline(never)]
pub(super) fn number(out: &mut Vec<u8>, before: &str, number: u64) {
    out.extend_from_slice(before.as_bytes());
    decimal(number, |digits| out.extend_from_slice(digits));
}

/// Appends whole microseconds as milliseconds, without zeros at the end.
#[inline(never)]
pub(super) fn millis(out: &mut Vec<u8>, before: &str, duration: Duration) {
    number(out, before, whole_millis(duration));
    let digits = fraction(duration);
    if digits != *b".000" {
        let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
        out.extend_from_slice(digits.get(..digits.len() - zeros).unwrap_or_default());
    }
}

/// The same with at least one digit after the decimal point, so that JSON readers take the number for a float.
pub(super) fn json_millis(out: &mut Vec<u8>, before: &str, duration: Duration) {
    millis(out, before, duration);
    if fraction(duration) == *b".000" {
        out.extend_from_slice(b".0");
    }
}

const fn whole_millis(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1000).saturating_add(duration.subsec_millis() as u64)
}

const fn fraction(duration: Duration) -> [u8; 4] {
    let micros = duration.subsec_micros() % 1000;
    [b'.', digit(micros / 100), digit(micros / 10), digit(micros)]
}

const fn digit(number: u32) -> u8 {
    b'0' + (number % 10) as u8
}

#[inline(never)]
pub(super) fn time(out: &mut Vec<u8>, time: LogTimestamp) {
    out.extend_from_slice(&time.text());
}

#[inline(never)]
pub(super) fn address(out: &mut Vec<u8>, before: &str, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [first, rest @ ..] = ip.octets();
            number(out, before, first.into());
            for octet in rest {
                number(out, ".", octet.into());
            }
            number(out, ":", address.port().into());
        }
        IpAddr::V6(_) => {
            let _ = write!(out, "{before}{address}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn values_are_those_of_the_formatter(
            text in ".{0,40}",
            micros in prop_oneof![0_u64..5_000, 0_u64..1 << 52],
            nanos in 0_u64..1000,
            ip in any::<IpAddr>(),
            port in any::<u16>(),
        ) {
            prop_assert_eq!(put(|out| word(out, "a=", text.as_bytes())), format!("a={}", UnquotedField(&text)));
            let shown = put(|out| super::super::json::write(out, &text).unwrap());
            prop_assert_eq!(put(|out| json(out, "a:", Some(text.as_bytes()))), format!("a:{shown}"));
            let duration = Duration::from_micros(micros) + Duration::from_nanos(nanos);
            let shown = micros as f64 / 1000.0;
            prop_assert_eq!(put(|out| millis(out, "a=", duration)), format!("a={shown}"));
            let shown = serde_json::to_string(&shown).unwrap();
            prop_assert_eq!(put(|out| json_millis(out, "a:", duration)), format!("a:{shown}"));
            let to = SocketAddr::new(ip, port);
            prop_assert_eq!(put(|out| address(out, "a=", to)), format!("a={to}"));
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_shown_as_missing() {
        assert_eq!(put(|out| word(out, " ", b"\xff")), " -");
        assert_eq!(put(|out| json(out, "", Some(b"\xff"))), "null");
    }
}
