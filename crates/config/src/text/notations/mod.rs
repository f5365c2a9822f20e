//! Every notation of one text, each declared once: its value, its name in the schema, what it is, examples; and how it is
//! read, how it is shown, which pattern an editor checks, and whether YAML's numbers are such texts, too.
//!
//! `pattern` refuses no text that `read` takes: a property test checks this. It may accept texts that only `read` can
//! refuse. Names in braces are [`grammar`](crate::text::grammar)'s. A notation has no `show` if `build` makes another
//! value from it.

macro_rules! notations {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $value:ty = $format:literal, $what:literal, [$($example:literal),*] {
            read: $read:expr $(, show: $show:expr)? $(, pattern: $pattern:literal)? $(, numbers: $numbers:expr)?
        }
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug)]
            pub(crate) struct $name;

            impl TextNotation for $name {
                type Value = $value;

                const SYNTAX: Syntax = Syntax {
                    format: $format,
                    what: $what,
                    examples: &[$($example),*],
                    pattern: concat!($($pattern)?),
                    numbers: [$($numbers,)? NumberTexts::None][0],
                    check: |text| Self::parse(text).map(drop),
                };

                fn parse(text: &str) -> Result<$value, NotationError> {
                    $read(text)
                }
            }

            $(impl Unit for $name {
                fn show(value: &$value) -> String {
                    let show: fn(&$value) -> String = $show;
                    show(value)
                }
            })?
        )+

        /// Those that are declared here.
        pub(super) static ALL: &[Syntax] = &[$($name::SYNTAX),+];
    };
}

mod addresses;
mod http;
mod values;

pub(crate) use self::{addresses::*, http::*, values::*};
use super::Syntax;

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Syntax> + Clone {
    [addresses::ALL, http::ALL, values::ALL].into_iter().flatten()
}
