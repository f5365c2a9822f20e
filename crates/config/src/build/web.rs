//! What browsers need: nothing that gives every page what the user may do.

use std::sync::Arc;

use crate::{
    diagnostic::Problems,
    model::{Compression, Cors, OriginPattern, Web},
    raw::{self, At, HeadersForm, OneOrMany, OrOff},
};

/// A page of nobody. What allows it allows every page.
const STRANGER: &str = "https://attache-stranger.invalid";

/// The keys of a route over those of its listener.
pub(crate) fn web(
    cors: Option<At<OrOff<Box<raw::Cors>>>>,
    grpc_web: Option<bool>,
    compression: Option<OrOff<Compression>>,
    listener: &Web,
    problems: &mut Problems,
) -> Web {
    Web {
        cors: match cors {
            None => listener.cors.clone(),
            Some(At { value: OrOff::Off(_), .. }) => None,
            Some(At { value: OrOff::On(raw), .. }) => Some(Arc::new(self::cors(*raw, problems))),
        },
        grpc_web: grpc_web.unwrap_or(listener.grpc_web),
        compression: match compression {
            None => listener.compression.clone(),
            Some(OrOff::Off(_)) => None,
            Some(OrOff::On(raw)) => Some(Arc::new(raw)),
        },
    }
}

fn cors(raw: raw::Cors, problems: &mut Problems) -> Cors {
    let credentials = raw.credentials.as_ref().is_some_and(|given| given.value);
    let origins = raw.origins.value.into_vec().into_iter().map(|origin| {
        let pattern = origin.value.0.0;
        if credentials && (pattern.matches(STRANGER) || pattern.matches("null")) {
            problems.wrong(
                origin.at,
                "with `credentials` this lets every page act as its reader",
                "name the origins, such as `https://shop.test` or `https://*.shop.test`",
            );
        }
        pattern
    });
    let origins: Vec<OriginPattern> = origins.collect();
    let methods = raw.methods.map(|methods| methods.into_vec().into_iter().map(|method| method.0.0));
    Cors {
        origins,
        methods: match methods {
            Some(methods) => methods.collect(),
            None => Some(Cors::METHODS.to_vec()),
        },
        headers: match raw.headers {
            None => Some(Vec::new()),
            Some(HeadersForm::All(_)) => None,
            Some(HeadersForm::These(names)) => {
                Some(names.into_vec().into_iter().map(|name| name.0.0).collect())
            }
        },
        expose: raw
            .expose
            .map(OneOrMany::into_vec)
            .unwrap_or_default()
            .into_iter()
            .map(|name| name.0.0)
            .collect(),
        credentials,
        max_age: raw.max_age.map(|age| age.0.0),
        private_network: raw.private_network.unwrap_or(false),
    }
}
