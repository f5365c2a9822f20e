//! The state machine by itself, for those who look for input that it does not stand: fuzz targets and property tests.

#![allow(
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "what it finds ends the test"
)]

use std::{cell::RefCell, rc::Rc};

use bytes::BytesMut;

use crate::{
    Caller, Error, Flooded, Head, Incomer, Meter, Settings,
    handle::{Shared, sides},
    hpack::{Decoder, Encoder, Field, Tag},
    state::{Asks, State},
};

/// Frames are free.
#[derive(Debug)]
pub struct Free;

impl Meter for Free {
    fn received(&mut self, _: Head) -> Result<(), Flooded> {
        Ok(())
    }

    fn charged(&mut self) -> Result<(), Flooded> {
        Ok(())
    }

    fn late(&mut self, _: Head) -> Result<(), Flooded> {
        Ok(())
    }

    fn sent(&mut self, _: usize) {}

    fn asked(&mut self) {}
}

/// One side of a connection without a socket.
#[derive(Debug)]
pub struct Machine {
    state: Shared,
    read: BytesMut,
}

impl Machine {
    pub fn server(settings: Settings) -> Self {
        Self::new(State::new(true, settings, Box::new(Free)))
    }

    pub fn client(settings: Settings) -> (Self, Caller) {
        let machine = Self::new(State::new(false, settings, Box::new(Free)));
        let caller = Caller::new(Rc::clone(&machine.state));
        (machine, caller)
    }

    fn new(state: State) -> Self {
        Self { state: Rc::new(RefCell::new(state)), read: BytesMut::new() }
    }

    #[cfg(test)]
    pub(crate) fn of(state: Shared) -> Self {
        Self { state, read: BytesMut::new() }
    }

    /// Takes bytes that came, and says what they changed.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.read.extend_from_slice(bytes);
        let mut state = self.state.borrow_mut();
        state.receive(&mut self.read);
        let path = 1 << Asks::Path as u8;
        if state.pongs & path != 0 {
            state.pongs &= !path;
            state.wanted_window = state.window.ponged().or(state.wanted_window);
        }
        if state.window.wants_ping() {
            state.ask(Asks::Path);
        }
        state.tell_window();
    }

    pub fn accept(&self) -> Option<Incomer> {
        let accepted = self.state.borrow_mut().take_request()?;
        let (send, body) = sides(&self.state, accepted.key);
        Some(Incomer { head: accepted.head, send, body, too_large: accepted.too_large })
    }

    /// Takes up to so many of the bytes that are to be written.
    pub fn write(&self, most: usize) -> Vec<u8> {
        let mut state = self.state.borrow_mut();
        let mut all = Vec::new();
        while all.len() < most && !state.out.is_empty() {
            let mut slices = [std::io::IoSlice::new(&[])];
            let n = state.out.slices(&mut slices);
            let piece = slices.get(..n).and_then(<[_]>::first).map_or(&[][..], |slice| slice);
            let piece = piece.get(..piece.len().min(most - all.len())).unwrap_or_default();
            let taken = piece.len();
            all.extend_from_slice(piece);
            state.out.advance(taken);
        }
        if !all.is_empty() {
            state.written = state.queued;
            state.serve_line();
        }
        all
    }

    pub fn say_goodbye(&self) {
        self.state.borrow_mut().say_goodbye();
    }

    pub fn shrink(&self) {
        let mut state = self.state.borrow_mut();
        state.shrink();
        state.tell_window();
    }

    /// The peer closed the connection.
    pub fn close(&self) {
        self.state.borrow_mut().fail(Error::closed());
    }

    pub fn end(&self) -> Option<Error> {
        self.state.borrow().end.clone()
    }

    /// All counts are what a recount says. Panics where one is not.
    pub fn audit(&self) {
        self.state.borrow().audit();
    }

    /// No stream is left, nothing is kept for one, and none waits. Panics where that is not so.
    pub fn audit_rest(&self) {
        self.audit();
        let state = self.state.borrow();
        assert!(state.streams.is_empty() && state.places.is_empty() && state.active == 0, "{state:?}");
        assert!(state.accepted.is_empty() && state.pending_resets == 0, "{state:?}");
    }
}

/// Reads blocks.
#[derive(Debug, Default)]
pub struct Reader(Decoder);

impl Reader {
    /// The fields of a block, or `None` where it is none.
    pub fn read(&mut self, block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut all = Vec::new();
        self.0.decode(block, |field| all.push((field.name.to_vec(), field.value.to_vec()))).ok()?;
        Some(all)
    }
}

/// Writes blocks.
#[derive(Debug, Default)]
pub struct Writer(Encoder);

impl Writer {
    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    pub fn limit(&mut self, size: u32) {
        self.0.limit(size);
    }

    /// A block with these fields.
    pub fn write(&mut self, fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.0.begin(&mut out);
        for (name, value) in fields {
            self.0.field(&mut out, Field { tag: Tag::of(name), name, value, sensitive: false });
        }
        out.to_vec()
    }
}
