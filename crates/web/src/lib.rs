//! What a route does for browsers: answers to CORS preflights, gRPC-Web (gRPC in a form that browsers can speak), and compression of
//! responses.
//!
//! A request passes this layer when its route is known, before authentication: a preflight carries no credentials. What its response needs
//! is kept in a [`ResponsePlan`]. Every response of the route uses it, also attache's own refusals: a page can read them only with the
//! headers of CORS.

mod compression;
mod cors;
mod grpc_web;

use std::sync::Arc;

use attache_config::model::{self, Coding};
use attache_http::Body;
use attache_wire::{Request, RequestHead, Response};

use compression::Compress;
use cors::{CorsPolicy, CorsResponse};
pub use cors::{Origin, PERMISSIONS};
use grpc_web::GrpcWeb;

/// The settings of a route for browsers.
#[derive(Debug)]
pub struct WebSettings {
    cors: Option<CorsPolicy>,
    grpc_web: bool,
    compression: Option<Arc<model::Compression>>,
}

/// What kind of request it is.
#[derive(Debug)]
pub enum RequestKind {
    /// A preflight, with its answer and whether the origin is allowed.
    Preflight(Response<Body>, Origin),
    /// Any other request, and what its response needs; `None` if it needs nothing.
    Request(Option<ResponsePlan>),
}

/// What a response needs on its way to the browser.
#[derive(Debug, Default)]
pub struct ResponsePlan {
    cors: Option<CorsResponse>,
    grpc_web: Option<GrpcWeb>,
    compress: Option<Compress>,
}

impl WebSettings {
    /// `None` if the config has no settings for browsers.
    pub fn new(config: &model::Web) -> Option<Self> {
        let model::Web { cors, grpc_web, compression } = config;
        let web = Self {
            cors: cors.as_deref().map(CorsPolicy::new),
            grpc_web: *grpc_web,
            compression: compression.clone(),
        };
        (web.cors.is_some() || web.grpc_web || web.compression.is_some()).then_some(web)
    }

    /// Examines a request that was checked.
    pub fn arrive(&self, head: &RequestHead) -> RequestKind {
        let mut back = ResponsePlan::default();
        if let Some(cors) = &self.cors {
            if let Some((answer, origin)) = cors.preflight(head) {
                return RequestKind::Preflight(answer, origin);
            }
            back.cors = Some(cors.shared(head));
        }
        if self.grpc_web {
            back.grpc_web = GrpcWeb::of(head);
        }
        back.compress = self.compression.as_ref().map(|config| Compress::of(config, head));
        let needed = back.cors.is_some() || back.grpc_web.is_some() || back.compress.is_some();
        RequestKind::Request(needed.then_some(back))
    }
}

impl ResponsePlan {
    /// The origin of the request, if the route has CORS settings.
    pub fn origin(&self) -> Option<Origin> {
        self.cors.as_ref().map(|shared| shared.origin)
    }

    /// Converts a request to the form that upstreams know. The rules have checked the original form.
    pub fn translate(&self, request: &mut Request<Body>) {
        if let Some(grpc_web) = &self.grpc_web {
            grpc_web.request(request);
        }
    }

    /// Converts a response to the form that the browser knows.
    /// Also returns the coding of the body, if it was compressed here.
    pub fn finish(self, mut response: Response<Body>) -> (Response<Body>, Option<Coding>) {
        if let Some(shared) = &self.cors {
            shared.mark(response.headers_mut());
        }
        if let Some(grpc_web) = self.grpc_web {
            grpc_web.response(&mut response);
        }
        let coding = self.compress.and_then(|compress| compress.response(&mut response));
        (response, coding)
    }
}
