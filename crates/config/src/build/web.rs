//! What browsers need. No origin may give every page the rights of the user.

use std::sync::Arc;

use crate::{
    diagnostic::Problems,
    model::{Cors, HeadersForm, Web},
    section::{Read, Section},
    shapes::{OneOrMany, OrOff},
};

/// An origin that no page has: a pattern that allows it allows every page.
const STRANGER: &str = "https://attache-stranger.invalid";

/// The keys of a route over those of its listener.
pub(crate) fn web(given: <Web as Section>::Rest, listener: &Web, problems: &mut Problems) -> Web {
    Web {
        cors: match given.cors {
            None => listener.cors.clone(),
            Some(OrOff::Off(_)) => None,
            Some(OrOff::On(raw)) => Some(Arc::new(self::cors(raw, problems))),
        },
        grpc_web: given.grpc_web.unwrap_or(listener.grpc_web),
        compression: match given.compression {
            None => listener.compression.clone(),
            Some(OrOff::Off(_)) => None,
            Some(OrOff::On(raw)) => Some(Arc::new(raw)),
        },
    }
}

fn cors(raw: Read<Cors>, problems: &mut Problems) -> Cors {
    let Read { section: mut cors, rest } = raw;
    for origin in rest.origins.map(OneOrMany::into_vec).unwrap_or_default() {
        let pattern = origin.value.0;
        if cors.credentials && (pattern.matches(STRANGER) || pattern.matches("null")) {
            problems.wrong(
                origin.at,
                "with `credentials` this lets every page act as its reader",
                "name the origins, such as `https://shop.test` or `https://*.shop.test`",
            );
        }
        cors.origins.push(pattern);
    }
    match rest.headers {
        None => {}
        Some(HeadersForm::All(_)) => cors.headers = None,
        Some(HeadersForm::These(names)) => {
            cors.headers = Some(names.into_vec().into_iter().map(|name| name.0).collect());
        }
    }
    cors
}
