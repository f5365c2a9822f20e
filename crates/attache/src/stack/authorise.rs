//! Decides who may do what. This layer comes before everything that costs or changes something.
//!
//! First it checks the request's token, if one is required; then the rules of the listener, then those of the route. All of them must allow
//! a request. The layer comes after the choice of the route, which has no effect of its own, so that one place knows both. It comes before
//! limits, mirrors, credentials and upstreams. HTTP, CONNECT and opaque connections pass through the same function.

use std::rc::Rc;

use attache_authorization::{
    AccessPolicy, Decision, Facts,
    jwt::{Claims, TokenError, TokenVerifier},
};
use attache_config::model::{JwtUse, Name};
use attache_http::Client;
use attache_routing::CompiledRoute;
use attache_telemetry::{Exchange, Reason};
use attache_wire::{Fields, RequestHead, header::WWW_AUTHENTICATE};
use http::HeaderValue;

use super::{ListenerStack, exit::CallFailure};

/// The request's claims, and the requirements for its token.
pub(super) struct TokenRequirement<'p> {
    wanted: &'p JwtUse,
    claims: Option<Rc<Claims>>,
}

impl ListenerStack {
    /// Allows a request to continue to its route, or says why it may not.
    pub(super) fn authorise<'r>(
        &'r self,
        request: &RequestHead,
        client: &Client,
        route: Option<&'r CompiledRoute>,
        exchange: &Exchange,
    ) -> Result<Option<TokenRequirement<'r>>, CallFailure> {
        let others = route.map_or_else(Vec::new, |found| self.table.other_rules(request, client, found));
        if let Some(found) = route {
            for other in others.iter().filter(|other| self.table.asks_more(other, found)) {
                self.refuse_in_doubt(found, other, exchange)?;
            }
        }
        let mut token = None;
        if let Some((wanted, policy, route)) = self.token(route) {
            let claims = match self.upstreams.verifier().verify(wanted, request) {
                Ok(claims) => claims,
                Err(error) => {
                    self.refuse(token_failure(error), policy, route, exchange)?;
                    None
                }
            };
            token = Some(TokenRequirement { wanted, claims });
        }
        let claims = token.as_ref().and_then(|token| token.claims.as_deref());
        let facts = Facts::of_request(request, client).with_claims(claims);
        self.ask(&facts, route, exchange)?;
        for other in others {
            if let Some(policy) = other.authorization() {
                self.decide(policy, &facts, Some(other), exchange)?;
            }
        }
        Ok(token)
    }

    /// Refuses a request if another reading of it leads to a route with a token or an authorizer that the found route doesn't have.
    #[cold]
    fn refuse_in_doubt(
        &self,
        found: &CompiledRoute,
        other: &CompiledRoute,
        exchange: &Exchange,
    ) -> Result<(), CallFailure> {
        // One of the two routes has rules; otherwise they would not differ.
        let Some(policy) = other.authorization().or_else(|| found.authorization()) else { return Ok(()) };
        let detail = format!(
            "another reading of the request leads to route {}, which asks for another token or another authorizer",
            other.name
        );
        let failure = CallFailure { detail, ..CallFailure::from(Reason::DeniedByRule) };
        self.refuse(failure, policy, Some(found), exchange)
    }

    /// Allows an opaque connection to continue to its route, or says why it may not.
    pub(super) fn authorise_connection(
        &self,
        client: &Client,
        route: Option<&CompiledRoute>,
        exchange: &Exchange,
    ) -> Result<(), CallFailure> {
        if let Some((wanted, policy, route)) = self.token(route)
            && wanted.required
        {
            // Opaque bytes have no token that attache could see.
            self.refuse(token_failure(TokenError::Missing), policy, route, exchange)?;
        }
        self.ask(&Facts::of_connection(client), route, exchange)
    }

    /// The requirements for tokens: those of the route, or else of the listener.
    fn token<'r>(
        &'r self,
        route: Option<&'r CompiledRoute>,
    ) -> Option<(&'r JwtUse, &'r AccessPolicy, Option<&'r CompiledRoute>)> {
        let of_route = route.and_then(|route| {
            let policy = route.authorization()?;
            Some((policy.jwt()?, policy, Some(route)))
        });
        of_route.or_else(|| {
            let policy = self.table.authorization()?;
            Some((policy.jwt()?, policy, None))
        })
    }

    fn ask(
        &self,
        facts: &Facts<'_>,
        route: Option<&CompiledRoute>,
        exchange: &Exchange,
    ) -> Result<(), CallFailure> {
        if let Some(policy) = self.table.authorization() {
            self.decide(policy, facts, None, exchange)?;
        }
        match route.and_then(|route| Some((route, route.authorization()?))) {
            Some((route, policy)) => self.decide(policy, facts, Some(route), exchange),
            None => Ok(()),
        }
    }

    fn decide(
        &self,
        policy: &AccessPolicy,
        facts: &Facts<'_>,
        route: Option<&CompiledRoute>,
        exchange: &Exchange,
    ) -> Result<(), CallFailure> {
        match policy.decide(facts) {
            Decision::Allowed(rule) => {
                self.allowed.count(&self.table, route, rule, &self.metrics);
                Ok(())
            }
            denied @ Decision::Denied(..) => self.deny(denied, policy, route, exchange),
        }
    }

    #[cold]
    fn deny(
        &self,
        denied: Decision<'_>,
        policy: &AccessPolicy,
        route: Option<&CompiledRoute>,
        exchange: &Exchange,
    ) -> Result<(), CallFailure> {
        let failure = CallFailure { detail: denied.to_string(), ..CallFailure::from(Reason::DeniedByRule) };
        self.refuse_by(denied.rule(), failure, policy, route, exchange)
    }

    /// Counts and refuses what a token or an authorizer does not allow.
    pub(super) fn refuse(
        &self,
        failure: CallFailure,
        policy: &AccessPolicy,
        route: Option<&CompiledRoute>,
        exchange: &Exchange,
    ) -> Result<(), CallFailure> {
        self.refuse_by(None, failure, policy, route, exchange)
    }

    /// Counts and refuses. In a dry run it only logs that it would refuse.
    fn refuse_by(
        &self,
        rule: Option<&Name>,
        failure: CallFailure,
        policy: &AccessPolicy,
        route: Option<&CompiledRoute>,
        exchange: &Exchange,
    ) -> Result<(), CallFailure> {
        let outcome = if policy.is_dry_run() { "would-deny" } else { "denied" };
        self.metrics.authorized(&self.listener.name, route.map(|route| &route.name), rule, outcome);
        let whose = route.map_or_else(
            || format!("listener {}", self.listener.name),
            |route| format!("route {}", route.name),
        );
        let detail = format!("{whose}: {}", failure.detail);
        if !policy.is_dry_run() {
            return Err(CallFailure { detail, ..failure });
        }
        tracing::info!(
            method = exchange.method.borrow().as_str(),
            path = exchange.path.borrow().as_str(),
            client = ?exchange.client,
            request_id = exchange.request_id.borrow().as_str(),
            "would be denied: {} ({detail})",
            failure.reason
        );
        Ok(())
    }
}

impl TokenRequirement<'_> {
    /// Removes the token from the request. The claims for the upstream replace anything that the client wrote there.
    pub(super) fn pass_on(&self, verifier: &TokenVerifier, request: &mut RequestHead) {
        verifier.pass_on(self.wanted, request, self.claims.as_deref());
    }
}

fn token_failure(error: TokenError) -> CallFailure {
    let (reason, detail, challenge) = match error {
        TokenError::Missing => (Reason::TokenMissing, String::from("the request has no token"), "Bearer"),
        TokenError::Invalid(why) => (Reason::TokenInvalid, why, "Bearer error=\"invalid_token\""),
        TokenError::NoKeys(why) => {
            return CallFailure { detail: why, ..CallFailure::from(Reason::NoTokenKeys) };
        }
    };
    let mut headers = Fields::new();
    // RFC 6750 section 3: the challenge for a missing or invalid token.
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    CallFailure { detail, headers: Some(Box::new(headers)), ..CallFailure::from(reason) }
}
