//! An answer is compressed only with a coding that the client accepts.

use std::cell::OnceCell;

use attache_http::Body;
use attache_web::{RequestKind, WebSettings};
use attache_wire::{Fields, RequestHead, Response};
use http::{HeaderValue, header};

thread_local! {
    static WEB: OnceCell<WebSettings> = const { OnceCell::new() };
}

/// The weight of a coding in thousandths, by RFC 9110 section 12.4.2; `None` if it isn't named, or its weight is not
/// valid. If a coding is named more than once, the lowest weight counts.
fn weight(lines: &[&str], coding: &str) -> Option<u16> {
    let mut lowest: Option<u16> = None;
    for member in lines.iter().flat_map(|line| line.split(',')) {
        let mut parts = member.split(';').map(str::trim);
        if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding)) {
            continue;
        }
        let given = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let text = given.unwrap_or("1");
        let well_formed = text.len() <= 5
            && match text.as_bytes() {
                [b'0' | b'1'] => true,
                [b'0', b'.', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
                [b'1', b'.', rest @ ..] => rest.iter().all(|&byte| byte == b'0'),
                _ => false,
            };
        if well_formed {
            let weight = text.parse::<f64>().ok().map(|weight| (weight * 1000.0).round() as u16);
            lowest = [lowest, weight].into_iter().flatten().min();
        }
    }
    lowest
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let (mut headers, mut lines) = (Fields::new(), Vec::new());
    for line in data.split(|&byte| byte == b'\n').take(4) {
        if let Ok(value) = HeaderValue::from_bytes(line)
            && let Ok(text) = value.to_str()
        {
            headers.append(header::ACCEPT_ENCODING, &value);
            lines.push(text.to_owned());
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let head = RequestHead { headers, ..RequestHead::default() };
    let coding = WEB.with(|web| {
        let web = web
            .get_or_init(|| WebSettings::new(&super::cors::config("compression: { min_size: 1B }")).unwrap());
        let RequestKind::Request(Some(back)) = web.arrive(&head) else { panic!("no way back") };
        let mut answer = Response::new(Body::full("a text that is long enough to be compressed"));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let (answer, coding) = back.finish(answer);
        let named = answer.headers().get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_vec());
        assert_eq!(named.as_deref(), coding.map(|coding| coding.as_str().as_bytes()));
        assert!(answer.headers().contains_key(header::VARY));
        coding
    });
    let any = weight(&lines, "*");
    let of = |coding: &str| {
        let alias = if coding == "gzip" { weight(&lines, "x-gzip") } else { None };
        weight(&lines, coding).or(alias).or(any).unwrap_or(0)
    };
    let best = ["gzip", "zstd", "br"].map(of).into_iter().max().unwrap_or(0);
    match coding {
        Some(coding) => assert!(
            of(coding.as_str()) > 0 && of(coding.as_str()) == best,
            "{coding:?} for {}",
            data.escape_ascii()
        ),
        None => {
            let identity = weight(&lines, "identity").or(any.filter(|&any| any == 0));
            assert!(
                best == 0 || identity.is_some_and(|identity| identity > best),
                "none for {}",
                data.escape_ascii()
            );
        }
    }
}
