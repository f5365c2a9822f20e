//! Which of an upstream's endpoints a route's requests go to: those with labels, and the one of a session.

use super::prelude::*;

section! {
    "`subset`"
    /// Endpoints of an upstream by their labels.
    pub struct Subset: Eq {
        /// What an endpoint must have, all of it: `labels` of the upstream's addresses.
        #[schema(examples = [json!({"version": "v2"})])]
        labels: Vec<(Name, Name)> as Pairs<Word, Word> = Vec::new(),
        /// What becomes of requests where no endpoint has these labels.
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
    /// Any endpoint has them.
    Any,
}

impl Subset {
    /// Whether an endpoint with these labels is one of it.
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
    /// A session by a cookie that attache sets. Its value is encrypted: it shows no address, nobody else can make one, and it leads to
    /// endpoints of the route's upstream alone.
    pub struct SessionCookie: Eq {
        /// Its name.
        #[schema(default = (), examples = ["attache-session"])]
        name: Name as Word = "".into(),
        /// The secret that the value is encrypted with, the same for all processes that a client may reach. Of several, the first
        /// encrypts and all decrypt, so that a secret can be replaced while sessions last. Without it each process has one of its
        /// own: its sessions end with it, and no other process knows them.
        #[schema(examples = ["${SESSION_KEY}"])]
        key: Vec<Name> as List<SecretText> = Vec::new(),
        /// Requests below this path have a session, and browsers send the cookie with them alone.
        path: Name as PathValue = "/".into(),
        /// How long browsers keep it. Without it, until they are closed.
        ttl: Option<Duration> as Maybe<Positive> = None,
        /// A request whose endpoint can't serve is refused with 503 `no-healthy-endpoint`; otherwise another endpoint has it, and the
        /// session from then on.
        strict: bool = false,
    }
    requires name
}
