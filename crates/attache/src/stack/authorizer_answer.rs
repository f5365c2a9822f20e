//! The changes of a request that an authorizer demands.

use std::rc::Rc;

use attache_authorization::external::{AllowedChanges, ExternalAuthorizer};
use attache_config::model::Name;
use attache_telemetry::Reason;
use attache_wire::RequestHead;
use http::HeaderName;

use super::exit::CallFailure;

/// An authorizer that was asked, and the changes that it demands.
pub(super) struct AuthorizerAnswer<'r> {
    pub(super) external: &'r ExternalAuthorizer,
    /// `None` if its answer does not count: `failure_mode: open`, or a dry run.
    pub(super) granted: Option<Box<AllowedChanges>>,
}

impl AuthorizerAnswer<'_> {
    /// Changes a request for the upstream. In any case it removes everything that the client sent in the authorizer's name.
    pub(super) fn apply(&self, request: &mut RequestHead) -> Result<(), CallFailure> {
        let config = self.external.config();
        let nothing = AllowedChanges::default();
        let granted = self.granted.as_deref().unwrap_or(&nothing);
        granted.apply(config, request).map_err(|why| unavailable(&config.name, &why))
    }

    /// Fields that must not come back as trailers of the request: the route's, and those that the authorizer removes.
    pub(super) fn withheld(&self, of_route: &Rc<[HeaderName]>) -> Rc<[HeaderName]> {
        match self.granted.as_deref().map(AllowedChanges::removed) {
            None | Some([]) => Rc::clone(of_route),
            // Allocated only for requests from which an authorizer removes something.
            Some(removed) => of_route.iter().chain(removed).cloned().collect(),
        }
    }
}

/// The call ends, because the authorizer gave no answer that attache can apply.
pub(super) fn unavailable(name: &Name, why: &str) -> CallFailure {
    CallFailure {
        detail: format!("authorizer {name}: {why}"),
        ..CallFailure::from(Reason::AuthorizerUnavailable)
    }
}
