//! Notations of what a request or a response has, and of rules about it.

use http::{HeaderName, HeaderValue, Method};

use crate::{
    model::{
        AccessHost, HashKey, HeaderMatch, IdentityMatch, LimitKey, MediaTypes, Name, PathPattern, RetryOn,
        SanPattern, StatusRange, Template, TokenPlace, ValuePattern,
    },
    text::{
        NotationError, NumberTexts, Syntax, TextNotation, Unit, access, header, observe, pattern, retry, web,
        words,
    },
};

notations! {
    /// A path to match.
    PathText: PathPattern = "attache-path-pattern", "a path", [
        "/v1/*", "/health", "/users/{id}", "/files/{rest...}", "~/v[0-9]+/.*"
    ] {
        read: pattern::path, show: ToString::to_string,
        pattern: r"\*|~{ANY}|(/{PATH_CHARACTER}*)*/\*|(/({PATH_CHARACTER}*|\{[A-Za-z_][0-9A-Za-z_]*(\.\.\.)?\}))+"
    }

    /// A path that is written into a request, with `{capture}` parts.
    PathValue: Name = "attache-path", "a path", ["/v2", "/customers/{id}"] {
        read: words::path, show: ToString::to_string,
        pattern: r"(/|\{({PATH_CHARACTER}|[/*])+\})(([/*]|{PATH_CHARACTER})|\{({PATH_CHARACTER}|[/*])+\})*"
    }

    /// What a header or query parameter must be, and whether that is inverted.
    ValueText: (ValuePattern, bool) = "attache-value-pattern", "a value", [
        "v1", "*", "beta-*", "*-canary", "~v[0-9]+", "!v1", "=*literally*"
    ] {
        read: pattern::value, show: |(value, not)| format!("{}{value}", if *not { "!" } else { "" }),
        pattern: r"!?(={ANY}|~{ANY}|\*?[^*]*|[^*]*\*)", numbers: NumberTexts::Any
    }

    /// A subject alternative name to match.
    SanText: SanPattern = "attache-san-pattern", "an identity", [
        "spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/*/sa/web", "dns:web.shop.svc",
        "*.shop.svc", "subject:CN=web,O=Shop"
    ] {
        read: pattern::san,
        show: |san| match san {
            SanPattern::Dns(name) => format!("dns:{name}"),
            SanPattern::Uri(_) | SanPattern::Subject(_) => san.to_string(),
        },
        pattern: "{IDENTITY}"
    }

    /// An identity, or `*` for any that was proven.
    IdentityText: IdentityMatch = "attache-identity-pattern", "an identity, or `*` for any that was proven", [
        "spiffe://cluster.local/ns/shop/**", "*.shop.svc", "*"
    ] {
        read: access::identity,
        show: |identity| match identity {
            IdentityMatch::Verified => "*".to_owned(),
            IdentityMatch::Name(name) => SanText::show(name),
        },
        pattern: r"\*|{IDENTITY}"
    }

    /// A header's name.
    HeaderText: HeaderName = "attache-header-name", "a header name", ["x-tenant"] {
        read: header::name, show: ToString::to_string, pattern: "{TOKEN}"
    }

    /// A header's name, or the begin of one.
    HeaderMatchText: HeaderMatch = "attache-header-names", "a header name, the begin of some, or `*` for all", [
        "x-tenant", "x-auth-*", "*"
    ] {
        read: header::names,
        show: |name| match name {
            HeaderMatch::Exact(name) => name.to_string(),
            HeaderMatch::Prefix(prefix) => format!("{prefix}*"),
        },
        pattern: "{TOKEN}"
    }

    /// A header's value with `%{variable}` parts.
    TemplateText: Template = "attache-template", "a header value", ["from %{client.address}", "v1"] {
        read: header::template, show: ToString::to_string,
        pattern: r"([^%{CONTROL}]|%%|%[^%{{CONTROL}]|%\{{VARIABLE}\})*%?", numbers: NumberTexts::Any
    }

    /// A content type.
    MediaType: HeaderValue = "attache-content-type", "a content type", ["application/json"] {
        read: header::media_type, show: |media| media.to_str().unwrap_or_default().to_owned(),
        pattern: r"[^{CONTROL}]*/[^{CONTROL}]*"
    }

    /// A protocol of `Upgrade`.
    UpgradeText: Name = "attache-upgrade", "a protocol of `Upgrade`", ["websocket"] {
        read: words::upgrade, show: ToString::to_string, pattern: "{TOKEN}(/{TOKEN})?"
    }

    /// A host of an access rule.
    AccessHostText: AccessHost = "attache-access-host", "a host, or an expression for the text of `Host`", [
        "orders.internal", "*.internal", "~orders\\.internal(:8080)?"
    ] {
        read: access::host, show: ToString::to_string, pattern: "~{ANY}|[^~]{ANY}"
    }

    /// A request method.
    MethodText: Method = "attache-method", "a method", ["GET", "POST"] {
        read: header::method, show: ToString::to_string, pattern: "{METHOD}"
    }

    /// A method, or `*` for all.
    MethodOrAll: Option<Method> = "attache-method-or-all", "a method, or `*` for all", ["GET", "PUT", "*"] {
        read: web::method_or_all, pattern: "{METHOD}"
    }

    /// Media types.
    MediaTypesText: MediaTypes = "attache-media-types", "a media type, or the begin or the end of some", [
        "application/json", "text/*", "*+json"
    ] {
        read: web::media_types, show: ToString::to_string,
        pattern: r"{MEDIA}+/\*|\*\+{MEDIA}+|{MEDIA}+/({MEDIA}|/)+"
    }

    /// What a consistent hash is taken over.
    Hash: HashKey = "attache-hash-key", "what is hashed", [
        "header:x-user", "cookie:session", "source", "path"
    ] {
        read: words::hash_key,
        show: |key| match key {
            HashKey::Header(name) => format!("header:{name}"),
            HashKey::Cookie(name) => format!("cookie:{name}"),
            HashKey::Source => "source".to_owned(),
            HashKey::Path => "path".to_owned(),
        },
        pattern: r"source|path|header:{TOKEN}|cookie:[!#-+\--:<>-~]+"
    }

    /// What a rate limit counts by.
    LimitBy: LimitKey = "attache-limit-key", "what is counted by", [
        "route", "client", "identity", "header:x-tenant"
    ] {
        read: words::limit_key,
        show: |key| match key {
            LimitKey::Route => "route".to_owned(),
            LimitKey::Client => "client".to_owned(),
            LimitKey::Identity => "identity".to_owned(),
            LimitKey::Header(name) => format!("header:{name}"),
        },
        pattern: "route|client|identity|header:{TOKEN}"
    }

    /// Where a token stands.
    TokenFrom: TokenPlace = "attache-token-place", "where a token stands", [
        "header:authorization", "header:x-jwt", "cookie:session", "query:access_token"
    ] {
        read: access::token_place,
        show: |place| match place {
            TokenPlace::Header(name, _) => format!("header:{name}"),
            TokenPlace::Cookie(name) => format!("cookie:{name}"),
            TokenPlace::Query(name) => format!("query:{name}"),
        },
        pattern: "header:{TOKEN}|(cookie|query):[0-9A-Za-z_.-]+"
    }

    /// A path on the port of the metrics.
    AppPath: Name = "attache-metrics-path", "a path on the port of the metrics", ["/app/health"] {
        read: observe::app_path, show: ToString::to_string, pattern: r"/[^?#\s]+"
    }

    /// The scheme of a redirect.
    RedirectScheme: Name = "attache-redirect-scheme", "`http` or `https`", ["https"] {
        read: words::redirect_scheme, show: ToString::to_string, pattern: "https?"
    }

    /// A condition for another attempt.
    Condition: RetryOn = "attache-retry-on", "a condition", [
        "connect-failure", "503", "header:x-retry", "grpc:unavailable"
    ] {
        read: retry::condition, show: ToString::to_string,
        pattern: r"{RETRY_WORD}|\+?0*[45][0-9]{2}|header:{TOKEN}|grpc:({GRPC_STATUS}|\+?0*([1-9]|1[0-6]))",
        numbers: NumberTexts::From(400, 599)
    }

    /// Statuses: one, a class, or from one to another.
    StatusRangeText: StatusRange = "attache-statuses", "a status, a class of statuses, or a range", [
        "404", "5xx", "500-504"
    ] {
        read: observe::statuses, show: ToString::to_string,
        pattern: r"\+?0*[1-5](xx|[0-9]{2}(-\+?0*[1-5][0-9]{2})?)", numbers: NumberTexts::From(100, 599)
    }
}
