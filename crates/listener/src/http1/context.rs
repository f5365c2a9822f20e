//! What a connection's requests have in common, and 1xx answers on their way to the client.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use attache_http::OnInformational;
use attache_wire::write;
use bytes::BytesMut;

use crate::live::Live;

/// 1xx answers that wait for a client that doesn't read; more are dropped, since nobody depends on them (RFC 9110 section 15.2).
const MOST: usize = 64 << 10;

/// 1xx answers that are to be written.
#[derive(Debug)]
pub(super) struct Hints {
    /// The request whose answer has not begun; they go before that alone.
    open: Cell<u64>,
    queue: RefCell<BytesMut>,
    live: Rc<Live>,
}

impl Hints {
    pub(super) fn new(live: Rc<Live>) -> Rc<Self> {
        Rc::new(Self { open: Cell::new(0), queue: RefCell::default(), live })
    }

    /// Where this request's 1xx answers go.
    pub(super) fn of_request(self: &Rc<Self>, request: u64) -> OnInformational {
        self.open.set(request);
        let this = self.clone();
        // One allocation per request: it knows its request, so that a late 1xx of an abandoned try can't reach the next.
        OnInformational::new(move |status, headers| {
            let fits = this.queue.borrow().len() < MOST;
            if this.open.get() == request && status.is_informational() && status.as_u16() > 101 && fits {
                write::informational(&mut this.queue.borrow_mut(), status, headers);
                this.live.wake();
            }
        })
    }

    /// The answer begins: no more of them.
    pub(super) fn close(&self) {
        self.open.set(0);
    }

    pub(super) fn waits(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    pub(super) fn take(&self) -> BytesMut {
        self.queue.take()
    }
}
