//! Everything that a client can ask for.

use std::rc::Rc;

use attache_http::{Body, Upgrade};
use attache_upstream::{Call, CallContext};
use attache_wire::{Request, RequestHead};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A response.
    Http,
    /// A response that may switch the connection to another protocol. The upstream sees the request and decides.
    Upgrade(Upgrade),
    /// A tunnel to the upstream. The upstream sees no part of the request.
    Connect,
    /// A tunnel without a request: the client's bytes are not HTTP.
    Opaque,
}

impl Ask {
    /// What a request asks for.
    pub(super) fn of(request: &RequestHead) -> Self {
        match Upgrade::of(request) {
            None => Self::Http,
            Some(Upgrade::Connect) => Self::Connect,
            Some(upgrade) => Self::Upgrade(upgrade),
        }
    }

    /// The upgrade that is passed on, if there is one.
    pub(super) const fn upgrade(&self) -> Option<&Upgrade> {
        match self {
            Self::Upgrade(upgrade) => Some(upgrade),
            Self::Http | Self::Connect | Self::Opaque => None,
        }
    }

    /// The call that all layers see. They handle the call of a tunnel like any other; only the upstream returns a connection for it.
    pub(super) fn call(&self, request: Request<Body>, context: Rc<CallContext>) -> Call {
        match self {
            Self::Http | Self::Upgrade(_) => Call::new(request, context),
            Self::Connect => Call::connection(request, context),
            Self::Opaque => Call::opaque(context),
        }
    }
}
