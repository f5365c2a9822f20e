//! Which of an upstream's endpoints a route's requests go to: those with labels, and the one of a session.

use super::prelude::*;

section! {
    "`subset`"
    /// Endpoints of an upstream by their labels.
    pub struct Subset: Eq {
        /// Labels of the upstream's addresses. An endpoint must have all of them.
        #[schema(examples = [json!({"version": "v2"})])]
        labels: Vec<(Name, Name)> as Pairs<Word, Word> = Vec::new(),
        /// What happens to requests if no endpoint has these labels.
        fallback: SubsetFallback = SubsetFallback::default(),
    }
    requires labels
}

/// Where a subset has no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SubsetFallback {
    /// Requests are refused with 503 `empty-subset`.
    #[default]
    None,
    /// Any endpoint gets them.
    Any,
}

impl Subset {
    /// Whether an endpoint with these labels belongs to the subset.
    pub fn holds(&self, labels: &[(Name, Name)]) -> bool {
        self.labels.iter().all(|wanted| labels.contains(wanted))
    }
}

/// As logs and `attache explain` write it.
impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{key}={value}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

section! {
    "`session_cookie`"
    /// A session by a cookie that attache sets. Its value is encrypted: it shows no address, it can't be forged, and it only selects
    /// endpoints of the route's upstream.
    pub struct SessionCookie: Eq {
        /// Its name.
        #[schema(default = (), examples = ["attache-session"])]
        name: Name as Word = "".into(),
        /// The secret that the value is encrypted with, the same for all processes that a client may reach. Of several, the first
        /// encrypts and all decrypt, so that a secret can be replaced while sessions last. Without this key each process makes its own
        /// secret: its sessions end with the process, and other processes can't read them.
        #[schema(examples = ["${SESSION_KEY}"])]
        key: Vec<Name> as List<SecretText> = Vec::new(),
        /// Only requests below this path have a session, and browsers send the cookie only with them.
        path: Name as PathValue = "/".into(),
        /// How long browsers keep the cookie. Without this key they keep it until they are closed.
        ttl: Option<Duration> as Optional<Positive> = None,
        /// If the session's endpoint can't serve, the request is refused with 503 `no-healthy-endpoint`. With `false`, another endpoint
        /// gets the request and the session.
        strict: bool = false,
    }
    requires name
}
