//! External authorization: another service decides about a request or connection.
//!
//! **Rule.** The service gets the request as the upstream would get it, after the token and the rules have allowed it.
//! Its answer decides: a denial is sent to the client with its status, body and headers; a permission may change headers
//! and parameters.
//! Without an answer the request is refused, unless the config has `failure_mode: open`.
//!
//! **Trust.** Only headers of `upstream_headers` pass from an answer to the upstream. Headers of these names from the
//! client are removed, whatever the service answers. So an upstream can trust them.
//!
//! **Source.** `envoy.service.auth.v3` and Envoy's `ext_authz` filter, in its gRPC and its HTTP form, and for opaque connections its
//! network filter of the same name. Differences are in docs/authorization.md.

mod messages;
mod query;
mod question;
#[cfg(test)]
mod tests;
mod verdict;

use attache_config::model::{Authorizer, AuthorizerProtocol};
use attache_rpc::UpstreamService;

pub use question::{AuthorizerQuestion, BodyExcerpt};
pub use verdict::{AllowedChanges, AuthorizerVerdict, Denial};

/// A longer answer counts as no answer. A denial may carry a page for people.
const MAX_ANSWER_BYTES: usize = 1 << 20;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The client of one authorizer, on one worker.
#[derive(Debug)]
pub struct ExternalAuthorizer {
    config: Authorizer,
    service: UpstreamService,
}

impl ExternalAuthorizer {
    /// `service` is the upstream in the config, without retries.
    pub const fn new(config: Authorizer, service: UpstreamService) -> Self {
        Self { config, service }
    }

    /// Its part of the config.
    pub const fn config(&self) -> &Authorizer {
        &self.config
    }

    /// Asks the service.
    ///
    /// # Errors
    /// Why there is no answer, for the operator.
    pub async fn ask(&self, question: &AuthorizerQuestion<'_>) -> Result<AuthorizerVerdict, String> {
        let Self { config, service } = self;
        let verdict = match &config.protocol {
            AuthorizerProtocol::Grpc => {
                let message = question.message(config);
                let answer: messages::CheckResponse = service
                    .unary(CHECK, &message, question.listener, config.timeout, MAX_ANSWER_BYTES)
                    .await?;
                AuthorizerVerdict::of_message(answer, config)
            }
            AuthorizerProtocol::Http { path_prefix } => {
                let Some(request) = question.http_request(config, path_prefix, service)? else {
                    return Ok(AuthorizerVerdict::unaskable());
                };
                let answer =
                    service.ask(request, question.listener, config.timeout, MAX_ANSWER_BYTES).await?;
                AuthorizerVerdict::of_http(answer, config)
            }
        };
        verdict.map(|verdict| verdict.to(question.request))
    }
}
