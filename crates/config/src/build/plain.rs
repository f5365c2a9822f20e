//! Values of raw keys as values of model fields, so that a section is filled in by the list of its fields.

use std::time::Duration;

use crate::{
    model::{
        DnsFamily, EscapedSlashes, ForwardedMode, HalfClose, PathParameters, RetryMethods, TargetPolicy,
    },
    raw::{At, Txt},
    text::{HeadSize, Length, Positive, Ratio, Size, Timeout, WindowSize},
};

/// What a raw value is in the model.
pub(crate) trait Plain<T> {
    fn plain(self) -> T;
}

/// `fill!(model, raw, a, b)`: fields that the file gives replace the defaults.
macro_rules! fill {
    ($into:expr, $from:expr, $($field:ident),* $(,)?) => {
        {
            $(if let Some(value) = $from.$field {
                $into.$field = $crate::build::Plain::plain(value);
            })*
        }
    };
}
pub(crate) use fill;

impl<T, U: Plain<T>> Plain<T> for At<U> {
    fn plain(self) -> T {
        self.value.plain()
    }
}

macro_rules! plain {
    ($($from:ty => $into:ty: $how:expr;)*) => {
        $(impl Plain<$into> for $from {
            fn plain(self) -> $into {
                let how: fn($from) -> $into = $how;
                how(self)
            }
        })*
    };
}

plain! {
    Txt<Length> => Duration: |value| value.0.0;
    Txt<Positive> => Duration: |value| value.0.0;
    Txt<Timeout> => Duration: |value| value.0.0;
    Txt<Size> => usize: |value| value.0.0;
    Txt<HeadSize> => usize: |value| value.0.0;
    Txt<WindowSize> => u32: |value| value.0.0;
    Txt<Ratio> => f64: |value| value.0.0;
    u32 => u32: |value| value;
    u32 => u64: u64::from;
    u32 => usize: |value| value as usize;
    u16 => u16: |value| value;
    usize => usize: |value| value;
    bool => bool: |value| value;
    DnsFamily => DnsFamily: |value| value;
    EscapedSlashes => EscapedSlashes: |value| value;
    ForwardedMode => ForwardedMode: |value| value;
    HalfClose => HalfClose: |value| value;
    PathParameters => PathParameters: |value| value;
    RetryMethods => RetryMethods: |value| value;
    TargetPolicy => TargetPolicy: |value| value;
}
