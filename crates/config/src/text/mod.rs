//! Texts with their own syntax: one parser each, used by the checker for its diagnostics, by the sections for the
//! value, and by the schema and the reference for their descriptions.

mod access;
mod address;
mod header;
mod observe;
mod pattern;
mod retry;
mod shown;
mod source;
mod units;
mod web;
mod words;

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

/// A text with its own syntax for a value of the model.
pub(crate) trait Unit: Text {
    type Value;

    fn value(self) -> Self::Value;
    fn show(value: &Self::Value) -> String;
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
    SecretText,
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
