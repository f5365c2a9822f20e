//! Routes that answer: redirects and direct responses.

use attache_config::model::{Name, Redirect, Respond};
use attache_http::Body;
use attache_wire::{
    RequestHead, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};

use crate::{
    Captures,
    rewrite::{CaptureNames, PathTemplate},
};

/// An answer without an upstream.
#[derive(Debug)]
pub(crate) enum DirectAnswer {
    Redirect {
        status: StatusCode,
        scheme: Option<Name>,
        host: Option<Name>,
        path: Option<PathTemplate>,
        strip_query: bool,
    },
    Respond {
        status: StatusCode,
        body: Bytes,
        content_type: HeaderValue,
    },
}

impl DirectAnswer {
    pub(crate) fn redirect(redirect: &Redirect, names: &CaptureNames<'_>) -> Self {
        Self::Redirect {
            status: redirect.status,
            scheme: redirect.scheme.clone(),
            host: redirect.host.clone(),
            path: redirect.path.as_ref().map(|path| PathTemplate::new(path, names)),
            strip_query: redirect.strip_query,
        }
    }

    pub(crate) fn respond_with(respond: &Respond) -> Self {
        Self::Respond {
            status: respond.status,
            body: Bytes::copy_from_slice(&respond.body),
            content_type: respond.content_type.clone(),
        }
    }

    pub(crate) fn uses_captures(&self) -> bool {
        matches!(self, Self::Redirect { path: Some(path), .. } if path.uses_captures())
    }

    pub(crate) fn respond(&self, request: &RequestHead, captures: &Captures) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        match self {
            Self::Redirect { status, .. } => {
                *response.status_mut() = *status;
                // It consists of checked parts and escaped text, so it is always a valid value.
                if let Ok(location) = HeaderValue::try_from(self.location(request, captures)) {
                    response.headers_mut().insert(LOCATION, location);
                }
            }
            Self::Respond { status, body, content_type } => {
                *response.status_mut() = *status;
                // RFC 9110 sections 15.3.5 and 15.4.5: these have no content.
                if matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
                    return response;
                }
                if !body.is_empty() {
                    response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
                }
                if request.method == Method::HEAD {
                    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                } else {
                    *response.body_mut() = Body::full(body.clone());
                }
            }
        }
        response
    }

    /// `scheme://host/path?query`. If the scheme changes, the request's port is dropped, because the two schemes use
    /// different ports; `host` may name a port. A request without a host gets a relative reference.
    fn location(&self, request: &RequestHead, captures: &Captures) -> String {
        let Self::Redirect { scheme, host, path, strip_query, .. } = self else { return String::new() };
        let uri = &request.uri;
        let asked = uri.scheme_str().unwrap_or("http");
        let scheme = scheme.as_deref().unwrap_or(asked);
        let host = match (host, uri.authority()) {
            (Some(host), _) => Some(&**host),
            (None, Some(authority)) if scheme == asked => Some(authority.as_str()),
            (None, Some(authority)) => Some(authority.host()),
            (None, None) => None,
        };
        let mut location = String::new();
        if let Some(host) = host {
            location.push_str(scheme);
            location.push_str("://");
            location.push_str(host);
        }
        match path {
            Some(path) => location.push_str(&path.render(captures)),
            None => location.push_str(uri.path()),
        }
        if let Some(query) = uri.query().filter(|_| !strip_query) {
            location.push('?');
            location.push_str(query);
        }
        if host.is_none() {
            // `//name` would name another host (RFC 3986 section 4.2).
            location.replace_range(..location.len() - location.trim_start_matches('/').len(), "/");
        }
        location
    }
}
