//! What attache does with names that have more than one spelling: header names, hosts, and parameters of a query.

use super::prelude::*;

section! {
    "`header_names` of `http`"
    /// Header names that some applications confuse with others. CGI, WSGI and similar interfaces make one variable of `X-User` and
    /// `X_User`, and some also of `X.User`. attache always compares all spellings of a header that a route or rule names, or that only this
    /// hop may write.
    pub struct HeaderNames: Copy, Eq {
        /// Names with `_`.
        underscores: OddNames = OddNames::default(),
        /// Names with characters other than letters, digits, `-` and `_`.
        others: OddNames = OddNames::default(),
    }
}

/// What happens to header fields with such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OddNames {
    /// Passed on.
    #[default]
    Keep,
    /// The field is removed before anything reads it, and counted in `attache_dropped_headers_total`.
    Drop,
    /// The request is refused with 400. In trailers the field is removed.
    Reject,
}

impl HeaderNames {
    /// What happens to a field with this name; `keep` for a usual one.
    pub fn of(self, name: &[u8]) -> OddNames {
        let mut found = OddNames::Keep;
        for byte in name {
            let own = match byte {
                b'_' => self.underscores,
                b'-' => OddNames::Keep,
                byte if byte.is_ascii_alphanumeric() => OddNames::Keep,
                _ => self.others,
            };
            match (found, own) {
                (_, OddNames::Reject) => return OddNames::Reject,
                (OddNames::Keep, own) => found = own,
                _ => {}
            }
        }
        found
    }

    /// Nothing is removed or refused.
    pub fn keeps_all(self) -> bool {
        self == Self::default()
    }
}

section! {
    "`host` of `http`"
    /// Spellings of a host. `app.test`, `app.test.` and `app.test:80` are one host (RFC 9110 section 4.2.3), and attache compares them as
    /// one; a proxy that compares texts does not.
    pub struct HostSpellings: Copy, Eq {
        /// A host with capital letters.
        capitals: Spelling = Spelling::default(),
        /// A host that ends with a dot, or with a colon without a port.
        trailing: Spelling = Spelling::default(),
        /// A host with the default port of its scheme.
        default_port: Spelling = Spelling::default(),
    }
}

/// What happens to a request whose host is written in this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spelling {
    /// It is passed on.
    #[default]
    Keep,
    /// It is refused with 400.
    Reject,
}

section! {
    "`query` of `http`"
    /// How `query` of a route's `match` reads a query. The upstream gets the query unchanged.
    pub struct QueryReading: Copy, Eq {
        /// What `;` between parameters means.
        semicolons: Semicolons = Semicolons::default(),
        /// `%61` and `+` in names and values are decoded. With `false` they are compared as they were sent.
        decode: bool = true,
        /// Names are compared without case.
        ignore_case: bool = false,
        /// Which value is compared if a parameter is given several times.
        repeated: Repeated = Repeated::default(),
    }
}

/// What `;` in a query means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Semicolons {
    /// An ordinary character (the URL standard).
    #[default]
    Keep,
    /// It separates parameters as `&` does (HTML 4).
    Separate,
}

/// Which value is compared if a parameter is given several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Repeated {
    /// One of its values is enough.
    #[default]
    Any,
    /// Its first value.
    First,
}

impl QueryReading {
    /// The parameters of a query that are not empty, with their names and values as they came.
    pub fn pairs(self, query: &str) -> impl Iterator<Item = (&str, &str)> {
        let separates = move |c: char| c == '&' || c == ';' && self.semicolons == Semicolons::Separate;
        let pairs = query.split(separates).filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_sign_of_a_name_decides() {
        let names = HeaderNames { underscores: OddNames::Drop, others: OddNames::Reject };
        for (name, expected) in [
            ("x-user", OddNames::Keep),
            ("X_User", OddNames::Drop),
            ("x.user", OddNames::Reject),
            ("x_u.ser", OddNames::Reject),
            ("x.u_ser", OddNames::Reject),
        ] {
            assert_eq!(names.of(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(HeaderNames::default().of(b"x_.y"), OddNames::Keep);
    }

    #[test]
    fn a_semicolon_separates_where_the_config_says_so() {
        let pairs = |semicolons, query: &str| {
            let reading = QueryReading { semicolons, ..QueryReading::default() };
            reading.pairs(query).map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(pairs(Semicolons::Keep, "a=1;b=2&&c"), "a:1;b=2 c:");
        assert_eq!(pairs(Semicolons::Separate, "a=1;b=2&;c"), "a:1 b:2 c:");
    }
}
