//! The checked configuration: what everything behind the parser works with.
//!
//! Rule: *parse, don't validate*. A value of these types is complete and consistent: every default is filled in, every
//! reference is an index that exists, units are in the types. Nothing behind this module checks again or has its own
//! default.

mod access_log;
mod affinity;
mod app;
mod authorization;
mod authorizer;
mod balance;
mod breaker;
mod config;
mod credential;
mod edits;
mod ejection;
mod global_limit;
mod health_check;
mod identity;
mod jwt;
mod listener;
mod load;
mod matching;
mod methods;
mod otlp;
mod overload;
mod policy;
mod pool;
mod program;
mod route;
mod spellings;
mod tls;
mod tracing;
mod upgrades;
mod upstream;
mod web;
mod words;

use prelude::*;

pub use access_log::*;
pub use affinity::*;
pub use app::*;
pub use authorization::*;
pub use authorizer::*;
pub use balance::*;
pub use breaker::*;
pub use config::*;
pub use credential::*;
pub use edits::*;
pub use ejection::*;
pub use global_limit::*;
pub use health_check::*;
pub use identity::*;
pub use jwt::*;
pub use listener::*;
pub use load::*;
pub use matching::*;
pub use methods::*;
pub use otlp::*;
pub use overload::*;
pub use policy::*;
pub use pool::*;
pub use program::*;
pub use route::*;
pub use spellings::*;
pub use tls::*;
pub use tracing::*;
pub use upgrades::*;
pub use upstream::*;
pub use web::*;

/// The words of a declaration: every notation, and the types of values.
mod prelude {
    pub(super) use std::{
        fmt,
        net::{IpAddr, SocketAddr},
        path::PathBuf,
        sync::Arc,
        time::Duration,
    };

    pub(super) use http::{HeaderName, HeaderValue, Method, StatusCode};
    pub(super) use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
    pub(super) use serde::{Deserialize, Serialize, Serializer};
    pub(super) use serde_json::{Map as Object, Value, json};

    pub(super) use super::{words::words, *};
    pub(super) use crate::{redaction::*, section::*, shapes::*, text::*};
}

/// An index into [`Config::upstreams`]; the parser makes only valid ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub usize);

impl Serialize for UpstreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ConfigReference::Upstream(self.0).show().serialize(serializer)
    }
}

/// A name that is cheap to clone into labels and logs.
pub type Name = Arc<str>;
