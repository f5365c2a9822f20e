//! Everything that a client can ask for.

use std::rc::Rc;

use attache_http::{Body, Upgrade};
use attache_upstream::{Call, CallContext};
use attache_wire::{Request, RequestHead};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// An answer.
    Http,
    /// An answer that may turn the connection into something else. The upstream sees the request, and decides.
    Upgrade(Upgrade),
    /// A tunnel to the upstream, which sees nothing of the request.
    Connect,
    /// The same without a request: the client's bytes are not HTTP.
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

    /// The upgrade that is passed on.
    pub(super) const fn upgrade(&self) -> Option<&Upgrade> {
        match self {
            Self::Upgrade(upgrade) => Some(upgrade),
            Self::Http | Self::Connect | Self::Opaque => None,
        }
    }

    /// The call that all layers see. They treat a tunnel's like any other; only the upstream's end gives a connection for it.
    pub(super) fn call(&self, request: Request<Body>, context: Rc<CallContext>) -> Call {
        match self {
            Self::Http | Self::Upgrade(_) => Call::new(request, context),
            Self::Connect => Call::connection(request, context),
            Self::Opaque => Call::opaque(context),
        }
    }
}
