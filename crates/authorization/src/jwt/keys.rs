//! The keys that sign an issuer's tokens.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use attache_config::model::{JwtKeys, JwtProvider};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::unique::UniqueObject;

/// Counts key sets, so that a token which was verified with one set isn't accepted with the next.
static VERSIONS: AtomicU64 = AtomicU64::new(1);

/// An issuer's keys as they are now.
#[derive(Debug)]
pub struct IssuerKeys {
    now: ArcSwapOption<KeySet>,
    /// Why the last load failed; `None` if it succeeded.
    failure: ArcSwapOption<String>,
    wanted: AtomicBool,
    kept: Arc<AtomicBool>,
}

/// The right to refresh the keys. It is released when it is dropped.
#[derive(Debug)]
pub struct RefreshPermit(Arc<AtomicBool>);

impl Drop for RefreshPermit {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The usable keys of a JWK set.
#[derive(Debug)]
pub struct KeySet {
    pub(crate) version: u64,
    keys: Vec<VerificationKey>,
}

/// A JWK set as received. Each key is read separately, so that an unreadable one doesn't invalidate the others.
#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

#[derive(Debug)]
struct VerificationKey {
    id: Option<String>,
    decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
}

/// Why a text is not a usable JWK set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetError(pub String);

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeySetError {}

/// Why a token isn't accepted.
pub(crate) struct TokenRefusal {
    pub(crate) why: String,
    /// A newer key set may have the key.
    pub(crate) unknown_key: bool,
}

impl TokenRefusal {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), unknown_key: false }
    }
}

impl IssuerKeys {
    /// The keys of the config: a file is read; a set of an upstream is loaded later.
    pub(crate) fn new(config: &JwtProvider) -> Result<Self, KeySetError> {
        let set = match &config.keys {
            JwtKeys::Inline(text) => Some(KeySet::parse(text.as_bytes())?),
            JwtKeys::File(path) => {
                let read = std::fs::read(path)
                    .map_err(|error| KeySetError(format!("{} can't be read: {error}", path.display())))?;
                let of_file = |error| KeySetError(format!("{}: {error}", path.display()));
                Some(KeySet::parse(&read).map_err(of_file)?)
            }
            JwtKeys::Remote(_) => None,
        };
        Ok(Self {
            now: ArcSwapOption::new(set.map(Arc::new)),
            failure: ArcSwapOption::empty(),
            wanted: AtomicBool::new(false),
            kept: Arc::default(),
        })
    }

    /// The current keys; `None` before the first were loaded.
    pub(crate) fn get(&self) -> arc_swap::Guard<Option<Arc<KeySet>>> {
        self.now.load()
    }

    /// True if there are keys.
    pub fn are_there(&self) -> bool {
        self.now.load().is_some()
    }

    /// Replaces the keys. True if the load before has failed.
    pub fn put(&self, set: KeySet) -> bool {
        self.now.store(Some(Arc::new(set)));
        self.failure.swap(None).is_some()
    }

    /// Records that they could not be loaded; the old keys stay. True if the load before did not fail for the same
    /// cause.
    pub fn failed(&self, why: &str) -> bool {
        let before = self.failure.swap(Some(Arc::new(why.to_owned())));
        before.is_none_or(|before| *before != why)
    }

    /// Why the last load failed; `None` if it succeeded.
    pub fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// A token names an unknown key: requests that the set is loaded again.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// The right to refresh them; `None` while another task has it.
    pub fn refresh_permit(&self) -> Option<RefreshPermit> {
        (!self.kept.swap(true, Ordering::Acquire)).then(|| RefreshPermit(self.kept.clone()))
    }

    /// Whether the set should be loaded again. Clears the request.
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }
}

impl KeySet {
    /// Reads a JWK set (RFC 7517 section 5). Keys that aren't for signatures of known algorithms are left out, as the
    /// RFC requires; a symmetric key is not a public key, and is never used.
    ///
    /// # Errors It isn't a JWK set, or none of its keys is usable.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        if text.len() > JwtKeys::MAX_SET_BYTES {
            return Err(KeySetError(format!("longer than {} bytes", JwtKeys::MAX_SET_BYTES)));
        }
        let set: JwkSet =
            serde_json::from_slice(text).map_err(|error| KeySetError(format!("no JWK set: {error}")))?;
        let found = set.keys.len();
        let keys =
            set.keys.into_iter().filter_map(|key| VerificationKey::new(&serde_json::from_value(key).ok()?));
        let keys: Vec<VerificationKey> = keys.collect();
        if keys.is_empty() {
            let why = format!("none of its {found} keys verifies RS, PS, ES256, ES384 or EdDSA signatures");
            return Err(KeySetError(why));
        }
        Ok(Self { version: VERSIONS.fetch_add(1, Ordering::Relaxed), keys })
    }

    /// The claims of a token, and until when it is valid (Unix time).
    pub(crate) fn verify(
        &self,
        token: &str,
        config: &JwtProvider,
        now: Duration,
    ) -> Result<(Map<String, Value>, Duration), TokenRefusal> {
        let header = decode_header(token).map_err(|error| TokenRefusal::new(format!("no JWT: {error}")))?;
        let says = members_of_head(token)?;
        // Also if it is null, which the library treats as absent.
        if says.contains_key("crit") {
            return Err(TokenRefusal::new("it asks for extensions (`crit`) that are not known"));
        }
        // Both belong to encrypted tokens (RFC 7516): another reader would decrypt or unpack the payload first.
        if says.contains_key("enc") || says.contains_key("zip") {
            return Err(TokenRefusal::new("it says that it is encrypted or compressed (`enc`, `zip`)"));
        }
        let mut fitting = self.keys.iter().filter(|key| key.algorithms.contains(&header.alg)).filter(|key| {
            match (&header.kid, &key.id) {
                (Some(wanted), Some(id)) => wanted == id,
                // A token without `kid` may use any key, and a key without a name may be for any token (RFC 7515
                // section 4.1.4).
                (None, _) | (_, None) => true,
            }
        });
        let mut last = None;
        // A set has only a few keys. More would only make each verification slow.
        for key in fitting.by_ref().take(8) {
            match decode::<UniqueObject>(token, &key.decoding, &validation(config, header.alg)) {
                Ok(data) => return check_claims(data.claims.0, config, now),
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) => TokenRefusal::new(error.to_string()),
            None => {
                TokenRefusal { why: format!("no key for its `kid` and {:?}", header.alg), unknown_key: true }
            }
        })
    }
}

/// The members of the head.
fn members_of_head(token: &str) -> Result<Map<String, Value>, TokenRefusal> {
    let head = token.split('.').next().unwrap_or_default();
    let text = URL_SAFE_NO_PAD.decode(head).map_err(|error| TokenRefusal::new(format!("no JWT: {error}")))?;
    let members = serde_json::from_slice::<UniqueObject>(&text);
    members.map(|members| members.0).map_err(|error| TokenRefusal::new(format!("no JWT: {error}")))
}

fn validation(config: &JwtProvider, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[&config.issuer]);
    validation.required_spec_claims = HashSet::from(["exp".to_owned(), "iss".to_owned()]);
    if config.audiences.is_empty() {
        validation.validate_aud = false;
    } else {
        validation.set_audience(&config.audiences);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    validation.validate_nbf = true;
    validation.leeway = config.clock_skew.as_secs();
    validation
}

/// Checks the claims again after the library, which uses the system's clock; a remembered token is checked by `until`.
fn check_claims(
    claims: Map<String, Value>,
    config: &JwtProvider,
    now: Duration,
) -> Result<(Map<String, Value>, Duration), TokenRefusal> {
    // `iss` must be one text: a list of issuers is not valid (RFC 7519 section 4.1.1).
    if claims.get("iss").and_then(Value::as_str) != Some(&*config.issuer) {
        return Err(TokenRefusal::new("its `iss` is another"));
    }
    let end = claims.get("exp").and_then(Value::as_f64).filter(|end| end.is_finite() && *end >= 0.0);
    // A time that no clock reaches counts as "never ends".
    let end = end.ok_or_else(|| TokenRefusal::new("its `exp` is no time"))?.min(1e15);
    let until = Duration::from_secs_f64(end).saturating_add(config.clock_skew);
    if until < now {
        return Err(TokenRefusal::new("it has expired"));
    }
    Ok((claims, until))
}

/// True for an Ed25519 key for which anybody can find signatures: a point with at most eight multiples (RFC 8032
/// section 5.1). aws-lc accepts any point.
fn is_of_small_order(x: &str) -> bool {
    /// The y coordinates of such points, without the sign of x; also those above the field's prime.
    const POINTS: [&str; 7] = [
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU",
        "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o",
        "7P_______________________________________38",
        "7f_______________________________________38",
        "7v_______________________________________38",
    ];
    let Ok(mut point) = URL_SAFE_NO_PAD.decode(x) else { return false };
    if let Some(last) = point.last_mut() {
        *last &= 0x7f;
    }
    let y = URL_SAFE_NO_PAD.encode(point);
    POINTS.contains(&&*y)
}

impl VerificationKey {
    fn new(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let signs = match &common.public_key_use {
            Some(PublicKeyUse::Signature) | None => true,
            Some(_) => false,
        };
        let verifies = common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key)
                if key.curve == EllipticCurve::Ed25519 && !is_of_small_order(&key.x) =>
            {
                vec![Algorithm::EdDSA]
            }
            _ => return None,
        };
        if let Some(only) = &common.key_algorithm {
            let only = only.to_string().parse::<Algorithm>().ok();
            algorithms.retain(|algorithm| Some(*algorithm) == only);
        }
        if algorithms.is_empty() {
            return None;
        }
        Some(Self { id: common.key_id.clone(), decoding: DecodingKey::from_jwk(jwk).ok()?, algorithms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The points whose order divides eight, in hexadecimal digits, as other libraries list them.
    const SMALL: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    #[test]
    fn each_point_of_small_order_is_known_with_either_sign() {
        for text in SMALL {
            let bytes = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
            let mut point: Vec<u8> = (0..32).map(bytes).collect();
            assert!(is_of_small_order(&URL_SAFE_NO_PAD.encode(&point)), "{text}");
            point[31] ^= 0x80;
            assert!(is_of_small_order(&URL_SAFE_NO_PAD.encode(&point)), "{text} with the other sign");
            point[30] ^= 1;
            assert!(!is_of_small_order(&URL_SAFE_NO_PAD.encode(&point)), "{text} with another byte");
        }
    }
}
