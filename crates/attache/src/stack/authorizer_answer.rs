//! What an authorizer that was asked changes of a request.

use std::rc::Rc;

use attache_authorization::external::{External, Granted};
use attache_config::model::Name;
use attache_telemetry::Reason;
use attache_wire::RequestHead;
use http::HeaderName;

use super::exit::Failure;

/// An authorizer that was asked, and what it changes.
pub(super) struct AuthorizerAnswer<'r> {
    pub(super) external: &'r External,
    /// `None` where it gave no answer that counts: `failure_mode: open`, or a dry run.
    pub(super) granted: Option<Box<Granted>>,
}

impl AuthorizerAnswer<'_> {
    /// Changes a request on its way up. Whatever was answered, nothing stays of what the client sent in the authorizer's name.
    pub(super) fn apply(&self, request: &mut RequestHead) -> Result<(), Failure> {
        let config = self.external.config();
        let nothing = Granted::default();
        let granted = self.granted.as_deref().unwrap_or(&nothing);
        granted.apply(config, request).map_err(|why| unavailable(&config.name, &why))
    }

    /// Fields that no trailer of the request brings back: the route's, and those that the authorizer takes out.
    pub(super) fn withheld(&self, of_route: &Rc<[HeaderName]>) -> Rc<[HeaderName]> {
        match self.granted.as_deref().map(Granted::removed) {
            None | Some([]) => Rc::clone(of_route),
            // Allocated for those requests alone of which an authorizer takes something out.
            Some(removed) => of_route.iter().chain(removed).cloned().collect(),
        }
    }
}

/// The call ends: the authorizer gave no answer that can be carried out.
pub(super) fn unavailable(name: &Name, why: &str) -> Failure {
    Failure { detail: format!("authorizer {name}: {why}"), ..Failure::from(Reason::AuthorizerUnavailable) }
}
