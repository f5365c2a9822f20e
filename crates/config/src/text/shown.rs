//! The value of each text, and how it is shown.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method};

use super::{
    AppUrlText, DnsServer, File, HeadSize, HeaderMatchText, HeaderText, Host, HostAndPort, HostText,
    IdentityText, JsonPointer, Label, Length, LimitBy, LogTemplateText, MediaType, MethodText, MetricName,
    Network, Octets, PathText, PathValue, Pin, Positive, Ratio, RedirectScheme, SanText, SecretText, Size,
    SourceAddress, StatusRangeText, SyslogAddress, TemplateText, Timeout, TokenFrom, Unit, UserName,
    ValueText, Window, WindowSize, Word, show_duration, show_ratio, show_size, show_timeout,
};
use crate::{
    model::{
        AddressMatch, AppUrl, HeaderMatch, HostPattern, IdentityMatch, LimitKey, LogTemplate, Name,
        PathPattern, SanPattern, StatusRange, SyslogTo, Template, TokenPlace, ValuePattern,
    },
    shown::{HIDDEN, without_query},
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
    SecretText => Name, |_| HIDDEN.to_owned();
    StatusRangeText => StatusRange, ToString::to_string;
    SyslogAddress => SyslogTo, ToString::to_string;
    LogTemplateText => LogTemplate, ToString::to_string;
    JsonPointer => Name, |pointer| pointer.to_string();
    MetricName => Name, |name| name.to_string();
    AppUrlText => AppUrl, |url| format!("http://{}{}", url.authority, without_query(&url.path));
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
