//! What the connection's task shares with the code that runs for it: the body of the present request, and 1xx responses on their way to the
//! client.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use attache_http::{Informational, OnInformational};
use attache_wire::{Fields, write};
use bytes::BytesMut;
use http::StatusCode;

use super::client::Http1Io;
use crate::{registry::OpenConnection, respond::RespondContext};

/// How many bytes of 1xx responses wait for a client that doesn't read. More are dropped, because no client depends on them (RFC 9110
/// section 15.2).
const MAX_WAITING_BYTES: usize = 64 << 10;

/// One connection. It is one allocation, because memory per idle connection counts.
pub(super) struct ConnectionContext {
    pub(super) context: RespondContext,
    pub(super) client: RefCell<Http1Io>,
    /// The request whose response has not started; 1xx responses are only for that one.
    open: Cell<u64>,
    /// The 1xx responses that must be written. Boxed, because they are rare.
    hints: Cell<Option<Box<BytesMut>>>,
}

impl ConnectionContext {
    pub(super) fn new(context: RespondContext, client: Http1Io) -> Rc<Self> {
        let client = RefCell::new(client);
        Rc::new(Self { context, client, open: Cell::new(0), hints: Cell::default() })
    }

    pub(super) const fn live(&self) -> &Rc<OpenConnection> {
        self.context.live()
    }

    /// Passes on this request's 1xx responses. It knows its request, so a late one of an abandoned attempt can't reach the next request.
    pub(super) fn hints_of(self: &Rc<Self>, request: u64) -> OnInformational {
        self.open.set(request);
        OnInformational::of(self.clone(), request)
    }

    /// The final response begins: no more 1xx responses are written.
    pub(super) fn close_hints(&self) {
        self.open.set(0);
    }

    /// The 1xx responses that must be written.
    pub(super) fn take_hints(&self) -> Option<Box<BytesMut>> {
        self.hints.take()
    }
}

impl Informational for ConnectionContext {
    fn pass_on(&self, request: u64, status: StatusCode, headers: &Fields) {
        if self.open.get() != request || !status.is_informational() || status.as_u16() <= 101 {
            return;
        }
        let mut hints = self.hints.take().unwrap_or_default();
        if hints.len() < MAX_WAITING_BYTES {
            write::informational(&mut hints, status, headers);
            self.live().wake();
        }
        self.hints.set(Some(hints));
    }
}
