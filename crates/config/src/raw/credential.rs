//! `credential:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Txt};
use crate::{
    model,
    text::{File, HeaderText, UserName},
};

/// A secret from a file that requests are given on their way up. The file is followed when it changes, white space at its end
/// doesn't count, and its content is never logged. Exactly one of `bearer`, `basic` and `header`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`credential`")]
pub(crate) struct Credential {
    /// `Authorization: Bearer TOKEN`.
    #[schemars(extend("examples" = [{"file": "/secrets/token"}]))]
    pub(crate) bearer: Option<At<BearerSecret>>,
    /// `Authorization: Basic …`.
    #[schemars(extend("examples" = [{"user": "shop", "password_file": "/secrets/password"}]))]
    pub(crate) basic: Option<At<BasicSecret>>,
    /// A header of its own.
    #[schemars(extend("examples" = [{"name": "x-api-key", "file": "/secrets/key"}]))]
    pub(crate) header: Option<At<HeaderSecret>>,
    /// What becomes of the same header where the application sends one itself.
    #[schemars(extend("default" = model::Existing::default()))]
    pub(crate) existing: Option<model::Existing>,
    /// The file need not be there at the start. Until it is, requests are answered with `no-credential`; without this key a
    /// missing file is an error at the start.
    #[schemars(extend("default" = false))]
    pub(crate) may_come_late: Option<bool>,
    /// Health checks by HTTP and gRPC have it, too. Only that of the upstream itself.
    #[schemars(extend("default" = false))]
    pub(crate) health_checks: Option<bool>,
    /// The secret is sent also where it isn't protected: in plaintext, or to a peer whose certificate isn't verified. Whoever
    /// reads the network has it then.
    #[schemars(extend("default" = false))]
    pub(crate) insecure_send_in_clear: Option<At<bool>>,
}

/// A bearer token.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`bearer`")]
pub(crate) struct BearerSecret {
    /// The file of the token, without `Bearer`.
    #[schemars(extend("examples" = ["/secrets/token"]))]
    pub(crate) file: Txt<File>,
}

/// A user and password.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`basic`")]
pub(crate) struct BasicSecret {
    /// The user.
    pub(crate) user: Txt<UserName>,
    /// The file of the password.
    #[schemars(extend("examples" = ["/secrets/password"]))]
    pub(crate) password_file: Txt<File>,
}

/// A header of its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "`header` of a credential")]
pub(crate) struct HeaderSecret {
    /// The header.
    #[schemars(extend("examples" = ["x-api-key"]))]
    pub(crate) name: At<Txt<HeaderText>>,
    /// The file of its whole value.
    #[schemars(extend("examples" = ["/secrets/key"]))]
    pub(crate) file: Txt<File>,
}
