//! Enumerations most of whose values are one word of the config.

/// Declares an enumeration: each of the rows is a value that is one word, with its description. `more` are the values
/// that are written in another way.
macro_rules! words {
    (
        $(#[$about:meta])+
        pub enum $type:ident {
            $($(#[doc = $doc:literal])+ $name:ident = $word:literal;)+
            more { $($(#[doc = $more:literal])+ $other:ident($value:ty);)+ }
        }
    ) => {
        $(#[$about])+
        pub enum $type {
            $($(#[doc = $doc])+ $name,)+
            $($(#[doc = $more])+ $other($value),)+
        }

        impl $type {
            /// The values that are one word: the word, and what it says.
            pub const WORDS: &[(&str, &str)] = &[$(($word, concat!($($doc),+)),)+];

            /// The value of a word.
            pub fn of(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// Its word, if it is one.
            pub const fn word(&self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($word),)+
                    $(Self::$other(_) => None,)+
                }
            }
        }
    };
}
pub(super) use words;
