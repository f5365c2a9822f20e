//! What browsers need, as the file would write it.

use serde_json::{Value, json};

use super::strings;
use crate::{
    model::{Cors, Web},
    text::show_duration,
};

pub(super) fn compression(web: &Web) -> Value {
    web.compression.as_deref().map_or_else(|| "off".into(), |compression| json!(compression))
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
