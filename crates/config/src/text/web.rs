//! Texts of what browsers need: origins, and lists that may be `*`.

use http::Method;

use super::{NotationError, header, pattern::anchored, wrong};
use crate::model::{MediaTypes, OriginPattern};

pub(super) fn origin(text: &str) -> Result<OriginPattern, NotationError> {
    const HELP: &str = "scheme, host and, where it isn't the scheme's, port: `https://shop.test`";
    if text == "*" {
        return Ok(OriginPattern::Any);
    }
    if let Some(regex) = text.strip_prefix('~') {
        return anchored(regex).map(|regex| OriginPattern::Regex(regex.into()));
    }
    // The origin of pages without an origin.
    if text == "null" {
        return Ok(OriginPattern::Exact("null".into()));
    }
    let Some((scheme, host)) = text.split_once("://") else {
        return wrong("{} isn't an origin", HELP);
    };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let subdomains = name.strip_prefix('*');
    let name = subdomains.unwrap_or(name);
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_v6 = name.starts_with('[') && name.ends_with(']');
    let right = scheme
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || b"+-.".contains(&byte) || byte.is_ascii_digit())
        && scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && (is_v6 || (!name.is_empty() && name.bytes().all(of_name)))
        && subdomains.is_none_or(|name| name.len() > 1 && name.starts_with('.'))
        && port.is_none_or(|port| port.parse::<u16>().is_ok());
    if !right {
        return wrong("{} isn't an origin", HELP);
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return wrong(
            "{} has capital letters, which no browser sends",
            format!("`{}`", text.to_ascii_lowercase()),
        );
    }
    let usual = matches!((scheme, port), ("http", Some("80")) | ("https", Some("443")));
    if usual {
        return wrong("{} has the scheme's own port, which no browser sends", "leave it out");
    }
    Ok(match subdomains {
        Some(rest) => {
            let port = port.map_or_else(String::new, |port| format!(":{port}"));
            OriginPattern::Subdomains {
                begin: format!("{scheme}://").into(),
                end: format!("{rest}{port}").into(),
            }
        }
        None => OriginPattern::Exact(text.into()),
    })
}

pub(super) fn method_or_all(text: &str) -> Result<Option<Method>, NotationError> {
    if text == "*" { Ok(None) } else { header::method(text).map(Some) }
}

pub(super) fn media_types(text: &str) -> Result<MediaTypes, NotationError> {
    let text = text.to_ascii_lowercase();
    let right =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+/".contains(&byte));
    let named = match (text.strip_suffix("/*"), text.strip_prefix("*+")) {
        (Some(name), _) => !name.is_empty() && !name.contains('/') && right(name),
        (None, Some(suffix)) => !suffix.is_empty() && !suffix.contains('/') && right(suffix),
        (None, None) => {
            text.split_once('/').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()) && right(&text)
        }
    };
    if named {
        Ok(MediaTypes::of(&text))
    } else {
        wrong("{} isn't a media type", "such as `text/*`, `application/json` or `*+json`")
    }
}

pub(super) fn star(text: &str) -> Result<(), NotationError> {
    if text == "*" { Ok(()) } else { wrong("{} isn't `*`", "`*`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for right in [
            "https://shop.test",
            "http://localhost:3000",
            "https://*.shop.test:8443",
            "null",
            "*",
            "http://[::1]:80000",
            "chrome-extension://abc",
        ] {
            let parsed = origin(right);
            assert_eq!(parsed.is_ok(), !right.contains("80000"), "{right}: {parsed:?}");
        }
        for wrong in [
            "shop.test",
            "https://",
            "https://shop.test/",
            "https://*",
            "https://*shop.test",
            "https://a.*.test",
            "https://Shop.test",
            "https://shop.test:443",
            "https://shop.test#",
            "https://a@b",
            "https://a b",
            "**",
        ] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }
}
