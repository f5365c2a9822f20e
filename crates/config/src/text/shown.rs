//! The value that each text stands for, and how it is shown.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method};

use super::*;
use crate::{
    model::{
        AddressMatch, HeaderMatch, HostPattern, IdentityMatch, LimitKey, Name, PathPattern, SanPattern,
        Template, TokenPlace, ValuePattern,
    },
    shown::HIDDEN,
};

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
