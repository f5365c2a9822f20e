//! Texts with a syntax of their own: one parser each, used by the checker for its diagnostics, by the raw types for the
//! value, and by the schema and the reference for their descriptions.

mod access;
mod address;
mod header;
mod observe;
mod pattern;
mod retry;
mod source;
mod units;
mod web;
mod words;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

pub(crate) use access::*;
pub(crate) use address::*;
pub(crate) use header::*;
pub(crate) use observe::*;
pub(crate) use pattern::*;
pub(crate) use retry::*;
pub(crate) use source::*;
pub(crate) use units::*;
pub(crate) use web::*;
pub(crate) use words::*;

use http::{HeaderName, HeaderValue, Method};

use crate::{
    effective::HIDDEN,
    model::{
        AddressMatch, HeaderMatch, HostPattern, IdentityMatch, LimitKey, Name, PathPattern, SanPattern,
        Template, TokenPlace, ValuePattern,
    },
};

/// Why a text can't be read.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// What is wrong; `{}` stands for the text itself.
    pub(crate) what: String,
    /// What would be right.
    pub(crate) help: String,
}

pub(crate) fn wrong<T>(what: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { what: what.into(), help: help.into() })
}

/// A type that is read from one text.
pub(crate) trait Text: Sized {
    /// Name of the syntax in the schema.
    const FORMAT: &'static str;
    /// What it is, with its article.
    const WHAT: &'static str;
    /// Texts that are right.
    const EXAMPLES: &'static [&'static str];
    /// A number of YAML is one, too.
    const NUMBERS: bool = false;

    fn parse(text: &str) -> Result<Self, Wrong>;
}

/// A text with a syntax of its own that stands for a value of the model.
pub(crate) trait Unit: Text {
    type Value;

    fn value(self) -> Self::Value;
    fn show(value: &Self::Value) -> String;
}

macro_rules! units {
    ($($text:ty => $value:ty, $show:expr;)*) => {
        $(impl Unit for $text {
            type Value = $value;

            fn value(self) -> $value {
                self.0
            }

            fn show(value: &$value) -> String {
                let show: fn(&$value) -> String = $show;
                show(value)
            }
        })*
    };
}

units! {
    Length => Duration, |time| show_duration(*time);
    Positive => Duration, |time| show_duration(*time);
    Window => Duration, |time| show_duration(*time);
    Timeout => Duration, |time| show_timeout(*time);
    Size => usize, |bytes| show_size(*bytes as u64);
    HeadSize => usize, |bytes| show_size(*bytes as u64);
    WindowSize => u32, |bytes| show_size((*bytes).into());
    Ratio => f64, |ratio| show_ratio(*ratio);
    HeaderText => HeaderName, |name| name.as_str().to_owned();
    Word => Name, |word| word.to_string();
    Label => Name, |word| word.to_string();
    File => PathBuf, |path| path.display().to_string();
    DnsServer => SocketAddr, ToString::to_string;
    SourceAddress => IpAddr, ToString::to_string;
    Host => Name, |name| name.to_string();
    HostAndPort => Name, |name| name.to_string();
    PathValue => Name, |path| path.to_string();
    RedirectScheme => Name, |scheme| scheme.to_string();
    UserName => Name, |name| name.to_string();
    MethodText => Method, ToString::to_string;
    MediaType => HeaderValue, |media| media.to_str().unwrap_or_default().to_owned();
    HostText => HostPattern, ToString::to_string;
    PathText => PathPattern, ToString::to_string;
    TemplateText => Template, ToString::to_string;
    Network => AddressMatch, ToString::to_string;
    IdentityText => IdentityMatch, |identity| match identity {
        IdentityMatch::Verified => "*".to_owned(),
        IdentityMatch::Name(name) => <SanText as Unit>::show(name),
    };
    HeaderMatchText => HeaderMatch, |name| match name {
        HeaderMatch::Exact(name) => name.to_string(),
        HeaderMatch::Prefix(prefix) => format!("{prefix}*"),
    };
    TokenFrom => TokenPlace, |place| match place {
        TokenPlace::Header(name, _) => format!("header:{name}"),
        TokenPlace::Cookie(name) => format!("cookie:{name}"),
        TokenPlace::Query(name) => format!("query:{name}"),
    };
    LimitBy => LimitKey, |key| match key {
        LimitKey::Route => "route".to_owned(),
        LimitKey::Client => "client".to_owned(),
        LimitKey::Identity => "identity".to_owned(),
        LimitKey::Header(name) => format!("header:{name}"),
    };
    SanText => SanPattern, |san| match san {
        SanPattern::Dns(name) => format!("dns:{name}"),
        SanPattern::Uri(_) | SanPattern::Subject(_) => san.to_string(),
    };
    // The hash of a public key: nothing to hide.
    Pin => [u8; 32], |pin| pin.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    // What is sent may be a password (Redis' AUTH).
    Octets => Arc<[u8]>, |bytes| format!("{HIDDEN} {} bytes", bytes.len());
}

/// A pattern, and whether it is inverted.
impl Unit for ValueText {
    type Value = (ValuePattern, bool);

    fn value(self) -> Self::Value {
        (self.value, self.not)
    }

    fn show((value, not): &Self::Value) -> String {
        format!("{}{value}", if *not { "!" } else { "" })
    }
}

macro_rules! parsers {
    ($($text:ty),* $(,)?) => {
        /// The parser of a format, without its value.
        pub(crate) fn parser_of(format: &str) -> Option<fn(&str) -> Result<(), Wrong>> {
            $(if format == <$text>::FORMAT {
                return Some(|text| <$text>::parse(text).map(drop));
            })*
            None
        }

        #[cfg(test)]
        pub(crate) fn all_texts() -> Vec<(&'static str, &'static [&'static str])> {
            vec![$((<$text>::FORMAT, <$text>::EXAMPLES)),*]
        }
    };
}

parsers![
    Length,
    Positive,
    Window,
    Timeout,
    Size,
    HeadSize,
    WindowSize,
    Ratio,
    Rate,
    LimitBy,
    Authority,
    Weight,
    Binds,
    SocketMode,
    MetricsAddress,
    AdminAddress,
    DnsServer,
    Source,
    SourceAddress,
    AddressRange,
    HostText,
    PathText,
    ValueText,
    SanText,
    IdentityText,
    Network,
    TokenFrom,
    HeaderText,
    HeaderMatchText,
    TemplateText,
    MediaType,
    MethodText,
    MethodOrAll,
    OriginText,
    MediaTypesText,
    Star,
    Condition,
    HedgeWhen,
    Octets,
    Hash,
    Pin,
    Label,
    LogPath,
    LogTemplateText,
    SyslogAddress,
    StatusRangeText,
    Otlp,
    AppUrlText,
    AppPath,
    JsonPointer,
    MetricName,
    Host,
    HostAndPort,
    RedirectScheme,
    PathValue,
    RewriteHost,
    File,
    Word,
    UserName,
    Pem,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_right() {
        for (format, examples) in all_texts() {
            let parse = parser_of(format).unwrap();
            for example in examples {
                parse(example).unwrap_or_else(|wrong| panic!("{format}: {example}: {wrong:?}"));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", index in 0usize..64) {
            let formats = all_texts();
            let (format, _) = formats[index % formats.len()];
            let _ = parser_of(format).unwrap()(&text);
        }
    }
}
