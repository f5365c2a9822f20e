//! What browsers need, as the file would write it.

use serde_json::{Value, json};

use super::strings;
use crate::{
    model::{Compression, Cors, Web},
    text::{show_duration, show_size},
};

pub(super) fn compression(web: &Web) -> Value {
    let Some(compression) = web.compression.as_deref() else { return "off".into() };
    let Compression { codings, types, min_size, max_responses } = compression;
    json!({
        "codings": codings,
        "types": strings(types),
        "min_size": show_size(*min_size as u64),
        "max_responses": max_responses,
    })
}

pub(super) fn cors(web: &Web) -> Value {
    let Some(cors) = web.cors.as_deref() else { return "off".into() };
    let Cors { origins, methods, headers, expose, credentials, max_age, private_network } = cors;
    json!({
        "origins": origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "methods": methods.as_ref().map_or_else(|| vec!["*".to_owned()], strings),
        "headers": headers.as_ref().map_or_else(|| vec!["*".to_owned()], strings),
        "expose": strings(expose),
        "credentials": credentials,
        "max_age": max_age.map(show_duration),
        "private_network": private_network,
    })
}
