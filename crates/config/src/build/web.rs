//! Keys for browsers. No pattern of origins may give every page the rights of the user.

use std::sync::Arc;

use crate::{
    diagnostic::Problems,
    model::{Cors, HeadersForm, OriginPattern, Web},
    section::{ParsedSection, Section},
    shapes::{OneOrMany, OrOff},
};

/// An origin that no page has: a pattern that allows it allows every page.
const STRANGER: &str = "https://attache-stranger.invalid";

/// The keys of a route over those of its listener.
pub(crate) fn web(given: <Web as Section>::Rest, listener: &Web, problems: &mut Problems) -> Web {
    Web {
        cors: match given.cors {
            None => listener.cors.clone(),
            Some(OrOff::Off(_)) => None,
            Some(OrOff::On(raw)) => Some(Arc::new(self::cors(raw, problems))),
        },
        grpc_web: given.grpc_web.unwrap_or(listener.grpc_web),
        compression: match given.compression {
            None => listener.compression.clone(),
            Some(OrOff::Off(_)) => None,
            Some(OrOff::On(raw)) => Some(Arc::new(raw)),
        },
    }
}

fn cors(raw: ParsedSection<Cors>, problems: &mut Problems) -> Cors {
    let ParsedSection { section: mut cors, rest } = raw;
    for origin in rest.origins.map(OneOrMany::into_vec).unwrap_or_default() {
        let pattern = origin.value.0;
        if cors.credentials && (pattern.matches(STRANGER) || pattern.matches("null")) {
            problems.wrong(
                origin.at,
                "with `credentials` this lets every page act as the user",
                "name the origins, such as `https://shop.test` or `https://*.shop.test`",
            );
        }
        if let OriginPattern::Regex(regex) = &pattern
            && let Some(mended) = escape_dots(regex.as_str())
        {
            problems.warn(
                origin.at,
                "a `.` in this regular expression matches any character: `shop.test` also allows `shopxtest`",
                format!(
                    "`~{}`",
                    mended.strip_prefix("^(?:").and_then(|it| it.strip_suffix(")$")).unwrap_or(&mended)
                ),
            );
        }
        cors.origins.push(pattern);
    }
    match rest.headers {
        None => {}
        Some(HeadersForm::All(_)) => cors.headers = None,
        Some(HeadersForm::These(names)) => {
            cors.headers = Some(names.into_vec().into_iter().map(|name| name.0).collect());
        }
    }
    cors
}

/// The regular expression with a backslash before each `.` that nothing repeats: in an origin, such a dot most likely
/// means itself. `None` if there is no such dot.
fn escape_dots(regex: &str) -> Option<String> {
    let mut mended = String::with_capacity(regex.len() + 4);
    let (mut escaped, mut class, mut any) = (false, false, false);
    let mut chars = regex.chars().peekable();
    while let Some(char) = chars.next() {
        let repeated = matches!(chars.peek(), Some('*' | '+' | '?' | '{'));
        if char == '.' && !escaped && !class && !repeated {
            mended.push('\\');
            any = true;
        }
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => class = true,
            ']' => class = false,
            _ => {}
        }
        mended.push(char);
    }
    any.then_some(mended)
}

#[cfg(test)]
mod tests {
    use super::escape_dots;

    #[test]
    fn a_dot_that_stands_for_itself_is_escaped() {
        for (regex, mended) in [
            (r"https://.*.shop.test", r"https://.*\.shop\.test"),
            (r"https://(a|b).shop\.test", r"https://(a|b)\.shop\.test"),
            (r"https://[a.]+.test", r"https://[a.]+\.test"),
            (r"https://[\].]x.test", r"https://[\].]x\.test"),
        ] {
            assert_eq!(escape_dots(regex).as_deref(), Some(mended), "{regex}");
        }
        for regex in
            [r"https://.*\.shop\.test", r"https://.+", r"https://.{3}\.test", r"https://[^.]+\.test", r"\[.?"]
        {
            assert_eq!(escape_dots(regex), None, "{regex}");
        }
    }
}
