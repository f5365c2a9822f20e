//! Tokens (JWT, RFC 7519; JWS, RFC 7515): which are accepted, and their claims.
//!
//! **Rule.** The key decides how a token is verified, never the token: each key of the set is for one family of
//! algorithms, HMAC and `none` are never accepted, and `jwk`, `jku`, `x5u` and `x5c` in a token's head are ignored. A
//! token must name the provider's issuer, one of the configured audiences, and an end in the future (`exp` is
//! required); its begin (`nbf`), if any, must have passed. A token that asks for extensions (`crit`) is refused, since
//! attache knows none (RFC 7515 section 4.1.11). A request with two tokens in place of one is refused, and so is a
//! token with a member twice in one object.
//!
//! A verified token is remembered until it ends or the keys change, so that a token which a client sends with every
//! request is verified only once on each worker. It is found by a hash with a random key of the process, and then
//! compared as a whole: a cryptographic digest of a typical token would cost as much as the rest of a call.

#[cfg(test)]
mod attack_table_tests;
#[cfg(test)]
mod attack_tests;
mod claims;
mod keys;
mod place;
#[cfg(test)]
mod several_tests;
mod unique;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attache_config::model::{JwtProvider, JwtUse, TokenPlace};
use attache_http::remove_fields;
use attache_wire::RequestHead;
use http::HeaderName;

pub(crate) use self::claims::ClaimForm;
pub use self::{
    claims::Claims,
    keys::{IssuerKeys, KeySet, KeySetError, RefreshPermit},
};

/// The most tokens of one provider that one worker remembers, and the most bytes of them.
const REMEMBERED: usize = 1024;
const REMEMBERED_BYTES: usize = 1 << 20;

/// One issuer of tokens, shared by all workers.
#[derive(Debug)]
pub struct Issuer {
    /// Its part of the config.
    pub config: JwtProvider,
    /// Its keys.
    pub keys: IssuerKeys,
}

/// Why a request's token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// There is none, and one is required.
    Missing,
    /// The token is not valid; the text is for the operator.
    Invalid(String),
    /// The issuer's keys are not available yet.
    NoKeys(String),
}

/// Verifies tokens on one worker.
#[derive(Debug)]
pub struct TokenVerifier {
    issuers: Vec<(Arc<Issuer>, RefCell<TokenCache>)>,
}

#[derive(Debug, Default)]
struct TokenCache {
    version: u64,
    tokens: HashMap<Box<str>, (Rc<Claims>, Duration)>,
    /// The bytes of all tokens that were added since it was empty.
    bytes: usize,
}

impl TokenVerifier {
    /// A verifier for these issuers, in the config's order.
    pub fn new(issuers: &[Arc<Issuer>]) -> Self {
        Self { issuers: issuers.iter().map(|issuer| (issuer.clone(), RefCell::default())).collect() }
    }

    /// The claims of the request's token; `None` if it has none and needs none.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn verify(&self, wanted: &JwtUse, request: &RequestHead) -> Result<Option<Rc<Claims>>, TokenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.verify_at(wanted, request, now)
    }

    fn verify_at(
        &self,
        wanted: &JwtUse,
        request: &RequestHead,
        now: Duration,
    ) -> Result<Option<Rc<Claims>>, TokenError> {
        let mut failed: Option<TokenError> = None;
        for (issuer, remembered) in self.wanted(wanted) {
            let token = match place::find(&issuer.config.from, request) {
                Ok(None) => continue,
                Ok(Some(token)) => token,
                Err(why) => return Err(TokenError::Invalid(why.to_owned())),
            };
            let claims = issuer.claims(token, &mut remembered.borrow_mut(), now);
            match claims {
                Ok(claims) => {
                    self.check_others(wanted, request, token, now)?;
                    return Ok(Some(claims));
                }
                // Missing keys are the more accurate reason.
                Err(error) if matches!(failed, Some(TokenError::NoKeys(_))) => drop(error),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None if wanted.required => Err(TokenError::Missing),
            None => Ok(None),
        }
    }

    /// A second, invalid token must not pass beside a valid one: the upstream may read the invalid one.
    fn check_others(
        &self,
        wanted: &JwtUse,
        request: &RequestHead,
        verified: &str,
        now: Duration,
    ) -> Result<(), TokenError> {
        if wanted.providers.len() < 2 {
            return Ok(());
        }
        let found = |issuer: &Issuer| place::find(&issuer.config.from, request);
        for (issuer, _) in self.wanted(wanted) {
            let token = match found(issuer) {
                Ok(Some(token)) if token != verified => token,
                Ok(_) => continue,
                Err(why) => return Err(TokenError::Invalid(why.to_owned())),
            };
            // Several issuers may use the same place: one of them must accept the token.
            let is_accepted = self.wanted(wanted).any(|(issuer, remembered)| {
                found(issuer) == Ok(Some(token))
                    && issuer.claims(token, &mut remembered.borrow_mut(), now).is_ok()
            });
            if !is_accepted {
                let name = &issuer.config.name;
                let why = format!("{name}: there is a second token, which no issuer accepts");
                return Err(TokenError::Invalid(why));
            }
        }
        Ok(())
    }

    /// The issuers that the rules accept.
    fn wanted(&self, wanted: &JwtUse) -> impl Iterator<Item = &(Arc<Issuer>, RefCell<TokenCache>)> {
        wanted.providers.iter().filter_map(|&index| self.issuers.get(index))
    }

    /// Removes tokens that are not forwarded from a request, and sets the headers of claims.
    pub fn pass_on(&self, wanted: &JwtUse, request: &mut RequestHead, claims: Option<&Claims>) {
        for (issuer, _) in self.wanted(wanted) {
            if !issuer.config.forward {
                place::remove(&issuer.config.from, request);
            }
        }
        let claimed: Vec<HeaderName> = self.claim_headers(wanted).cloned().collect();
        remove_fields(&mut request.headers, &claimed);
        let Some(claims) = claims else { return };
        for (name, claim) in &claims.issuer.config.claim_headers {
            if let Some(value) = claims.header(claim) {
                request.headers.insert(name, value);
            }
        }
    }

    /// Headers that may contain tokens of the used issuers. Other spellings of these headers, and trailers with these
    /// names, are removed.
    pub fn token_headers(&self, wanted: &JwtUse) -> impl Iterator<Item = &HeaderName> {
        self.wanted(wanted).flat_map(|(issuer, _)| &issuer.config.from).filter_map(|place| match place {
            TokenPlace::Header(name, _) => Some(name),
            TokenPlace::Cookie(_) | TokenPlace::Query(_) => None,
        })
    }

    /// Headers for claims of the used issuers. No client may send them.
    pub fn claim_headers(&self, wanted: &JwtUse) -> impl Iterator<Item = &HeaderName> {
        self.wanted(wanted).flat_map(|(issuer, _)| issuer.config.claim_headers.iter().map(|(name, _)| name))
    }
}

impl Issuer {
    /// An issuer with the keys of the config; keys of an upstream are loaded later.
    ///
    /// # Errors The config doesn't have a valid JWK set.
    pub fn new(config: JwtProvider) -> Result<Self, KeySetError> {
        Ok(Self { keys: IssuerKeys::new(&config)?, config })
    }

    fn claims(
        self: &Arc<Self>,
        token: &str,
        remembered: &mut TokenCache,
        now: Duration,
    ) -> Result<Rc<Claims>, TokenError> {
        let name = &self.config.name;
        if token.len() > JwtProvider::MAX_TOKEN_BYTES {
            let most = JwtProvider::MAX_TOKEN_BYTES;
            return Err(TokenError::Invalid(format!("{name}: the token is longer than {most} bytes")));
        }
        let keys = self.keys.get();
        let Some(keys) = keys.as_ref() else {
            self.keys.want();
            return Err(TokenError::NoKeys(format!("{name}: its keys are not there yet")));
        };
        if remembered.version != keys.version {
            *remembered = TokenCache { version: keys.version, ..TokenCache::default() };
        }
        match remembered.tokens.get(token) {
            Some((claims, until)) if now <= *until => return Ok(claims.clone()),
            Some(_) => drop(remembered.tokens.remove(token)),
            None => {}
        }
        let verified = keys.verify(token, &self.config, now);
        let (claims, until) = verified.map_err(|error| {
            if error.unknown_key {
                self.keys.want();
            }
            TokenError::Invalid(format!("{name}: {}", error.why))
        })?;
        let claims = Rc::new(Claims { issuer: self.clone(), all: claims });
        if remembered.tokens.len() >= REMEMBERED || remembered.bytes + token.len() > REMEMBERED_BYTES {
            remembered.tokens.clear();
            remembered.bytes = 0;
        }
        remembered.bytes += token.len();
        remembered.tokens.insert(token.into(), (claims.clone(), until));
        Ok(claims)
    }
}
