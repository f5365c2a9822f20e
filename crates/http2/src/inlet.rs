//! Reads frames before the h2 crate does.
//!
//! Rules:
//! - Small DATA frames of a stream that came in one read go on as one frame. If the stream's reader is slow they wait longer: see
//!   [`Streams`].
//! - DATA that carries nothing and ends nothing is taken out: the h2 crate allows 100 of them in the life of a connection, and servers
//!   that flush send one with each answer.
//! - The padding of small DATA frames is taken off, so that they can be gathered, too. It counted for the windows (RFC 9113 section 6.9.1), which the h2
//!   crate does not know, and so it is given back to the peer here: see [`Outlet::give_back`](crate::Outlet::give_back).
//! - A message whose pseudo-fields stand where none belong, or whose `:path` has a fragment, gets a field more that the h2 crate knows as
//!   malformed (RFC 9113 sections 8.1, 8.2.2 and 8.3), and so resets its stream: see [`hpack`](crate::hpack).
//! - All else passes as it came, in place. The order of one stream's frames is never changed.

use std::{
    collections::{HashMap, HashSet},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    frame::{HEAD, Head, kind},
    gather::{ByNumber, FULL, MOST_PADDING, SMALL, Streams},
    hpack::{Blocks, Status},
};

/// Flags of HEADERS (RFC 9113 section 6.2).
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// Padding of one stream, and of all, that is given back at once. The windows are at least sixteen times as large.
const GIVE_BACK: u32 = 4 << 10;
const GIVE_BACK_ALL: u32 = 64 << 10;

/// Streams whose padding is remembered.
const MOST_PADDED: usize = 256;

/// Frames above this are too large for us to begin with (SETTINGS_MAX_FRAME_SIZE), which the h2 crate says.
const WHOLE: usize = 16 << 10;

/// Streams that are followed before those whose end never came are forgotten.
const MOST_OPEN: usize = 4096;

/// A head above this is too large for any limit.
const LONGEST_BLOCK: usize = 1 << 20;

/// `connection: x` without Huffman coding and not to be kept: a field that makes a message malformed (RFC 9113 section 8.2.2).
const MALFORMED: &[u8] = b"\x00\x0aconnection\x01x";

/// The inbound half of a connection.
#[derive(Debug)]
pub struct Inlet {
    streams: Rc<Streams>,
    /// Bytes that pass without a look: the rest of a payload, or of the preface.
    pass: usize,
    /// The begin of a frame that is looked at whole.
    part: Vec<u8>,
    /// What goes on before anything is read.
    out: BytesMut,
    /// Streams that hold bytes of the read that runs.
    touched: Vec<u32>,
    /// The highest stream that the peer may have opened.
    opened: u32,
    heads: Heads,
    /// Padding that was taken off, by stream: the peer's windows are smaller by it than the h2 crate knows.
    padding: HashMap<u32, u32, ByNumber>,
    /// The same for the connection's window, which no stream's end gives back.
    padding_of_all: u32,
    /// WINDOW_UPDATE frames that give it back.
    updates: BytesMut,
}

/// Where the messages' heads are followed.
#[derive(Debug, Default)]
struct Heads {
    blocks: Blocks,
    /// A block that came in several frames.
    begun: Vec<u8>,
    /// The HEADERS frame that was seen last opened its stream.
    opens: bool,
    /// It ends its stream.
    ends: bool,
    /// It is the end of a message whose body is open.
    trails: bool,
    /// Messages whose head has come and whose end has not. Only there HEADERS are trailers; elsewhere those of a client are an error of the
    /// stream, which the h2 crate knows.
    open: HashSet<u32, ByNumber>,
    /// The frame that comes next was judged already.
    judged: Option<bool>,
    /// What is read are requests.
    requests: bool,
}

impl Heads {
    /// A message's head has come, and its end has not.
    fn begin(&mut self, stream: u32, streams: &Streams) {
        if self.open.len() >= MOST_OPEN {
            // Streams that we have reset, whose end never came.
            self.open.retain(|stream| streams.has_reader(*stream));
            if self.open.len() >= MOST_OPEN {
                self.open.clear();
            }
        }
        self.open.insert(stream);
    }
}

impl Inlet {
    /// Reads what a client sends, from its preface on.
    pub fn of_client(streams: Rc<Streams>) -> Self {
        Self::new(streams, crate::PREFACE.len(), 0)
    }

    /// Reads what a server sends.
    pub fn of_server(streams: Rc<Streams>) -> Self {
        // The streams are ours, so none of them is unknown.
        Self::new(streams, 0, u32::MAX)
    }

    fn new(streams: Rc<Streams>, pass: usize, opened: u32) -> Self {
        let heads = Heads { requests: opened == 0, ..Heads::default() };
        Self {
            streams,
            pass,
            part: Vec::new(),
            out: BytesMut::new(),
            touched: Vec::new(),
            opened,
            heads,
            padding: HashMap::default(),
            padding_of_all: 0,
            updates: BytesMut::new(),
        }
    }

    /// Frames of ours wait for an [`Outlet`](crate::Outlet).
    pub(crate) fn has_updates(&self) -> bool {
        !self.updates.is_empty()
    }

    pub(crate) fn take_updates(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(&std::mem::take(&mut self.updates));
    }

    /// The highest stream that the client opened.
    pub const fn opened(&self) -> u32 {
        self.opened
    }

    /// Reads into `buf` what goes on. `watch` is told the head of each frame, and may end the connection.
    pub fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut R,
        buf: &mut ReadBuf<'_>,
        mut watch: impl FnMut(Head) -> io::Result<()>,
    ) -> Poll<io::Result<()>> {
        self.streams.register(cx);
        let start = buf.filled().len();
        while buf.remaining() > 0 {
            self.release_due();
            if self.give(buf) {
                break;
            }
            ready!(Pin::new(&mut *io).poll_read(cx, buf))?;
            let read = buf.filled().get(start..).unwrap_or_default();
            if read.is_empty() {
                // The end: what was begun is passed on, so that the h2 crate sees that it is cut.
                let part = std::mem::take(&mut self.part);
                self.out.extend_from_slice(&part);
                self.give(buf);
                break;
            }
            let clean = self.pass_clean(read, &mut watch)?;
            if clean < read.len() {
                // Seldom: a copy of what does not pass as it is.
                let rest = read.get(clean..).unwrap_or_default().to_vec();
                buf.set_filled(start + clean);
                self.rewrite(&rest, &mut watch)?;
                self.end_of_read();
                self.give(buf);
            }
            if buf.filled().len() > start {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives what waits to go on; false where nothing does.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.out.is_empty() {
            return false;
        }
        let n = self.out.len().min(buf.remaining());
        buf.put_slice(self.out.get(..n).unwrap_or_default());
        self.out.advance(n);
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
        true
    }

    /// How many bytes pass as they are.
    fn pass_clean(
        &mut self,
        bytes: &[u8],
        watch: &mut impl FnMut(Head) -> io::Result<()>,
    ) -> io::Result<usize> {
        if !self.part.is_empty() {
            return Ok(0);
        }
        let mut at = 0;
        while at < bytes.len() {
            if self.pass > 0 {
                let n = self.pass.min(bytes.len() - at);
                self.pass -= n;
                at += n;
                continue;
            }
            let head = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEAD>());
            let Some(head) = head.map(Head::parse) else { break };
            if self.streams.is_due() || self.is_rewritten(head) {
                break;
            }
            if is_block(head) {
                let Some(payload) = bytes.get(at + HEAD..at + HEAD + head.length) else { break };
                self.see(head, watch)?;
                if self.judge(head, payload) {
                    self.heads.judged = Some(true);
                    break;
                }
                at += HEAD + head.length;
                continue;
            }
            self.see(head, watch)?;
            self.pass = head.length;
            at += HEAD;
        }
        Ok(at)
    }

    fn see(&mut self, head: Head, watch: &mut impl FnMut(Head) -> io::Result<()>) -> io::Result<()> {
        let (heads, ends) = (&mut self.heads, head.ends_stream());
        match head.kind {
            kind::HEADERS => {
                heads.opens = head.stream > self.opened;
                heads.ends = ends;
                heads.trails = if ends { heads.open.remove(&head.stream) } else { false };
                self.opened = self.opened.max(head.stream);
                if heads.requests && heads.opens && !ends {
                    heads.begin(head.stream, &self.streams);
                }
            }
            kind::DATA | kind::RST_STREAM if ends || head.kind == kind::RST_STREAM => {
                heads.open.remove(&head.stream);
                if !self.padding.is_empty() {
                    self.padding.remove(&head.stream);
                }
            }
            _ => {}
        }
        watch(head)
    }

    /// Whether a message is malformed with this frame.
    fn judge(&mut self, head: Head, payload: &[u8]) -> bool {
        let heads = &mut self.heads;
        let Some((_, fragment)) = fragment(head, payload) else {
            heads.blocks.lose();
            return false;
        };
        let seen = if head.flags & END_HEADERS == 0 || head.kind == kind::CONTINUATION {
            if head.kind == kind::HEADERS {
                heads.begun.clear();
            }
            heads.begun.extend_from_slice(fragment);
            if heads.begun.len() > LONGEST_BLOCK {
                heads.blocks.lose();
                heads.begun = Vec::new();
            }
            if head.flags & END_HEADERS == 0 {
                return false;
            }
            heads.blocks.read(&std::mem::take(&mut heads.begun))
        } else {
            heads.blocks.read(fragment)
        };
        let Some(seen) = seen else { return false };
        if heads.requests {
            return if heads.opens {
                seen.fragment
            } else {
                heads.trails && (seen.of_request || seen.has_status())
            };
        }
        // Of a server: any number of 1xx, then the head, then trailers.
        let trails = heads.trails || heads.open.contains(&head.stream);
        if !trails && !heads.ends && seen.status == Status::Final {
            heads.begin(head.stream, &self.streams);
        }
        seen.of_request || (trails && seen.has_status())
    }

    fn is_rewritten(&self, head: Head) -> bool {
        match head.kind {
            kind::DATA if is_small(head) && !head.ends_stream() => {
                head.stream <= self.opened && head.stream > 0
            }
            kind::DATA | kind::HEADERS | kind::RST_STREAM => self.streams.holds(head.stream),
            _ => false,
        }
    }

    fn rewrite(
        &mut self,
        mut bytes: &[u8],
        watch: &mut impl FnMut(Head) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.pass > 0 {
                let (now, later) = bytes.split_at(self.pass.min(bytes.len()));
                self.out.extend_from_slice(now);
                self.pass -= now.len();
                bytes = later;
                continue;
            }
            if self.part.is_empty() {
                self.release_due();
            }
            if self.part.len() < HEAD {
                bytes = self.gather_part(bytes, HEAD);
                let Some(head) = self.part.first_chunk::<HEAD>() else { return Ok(()) };
                let head = Head::parse(head);
                if self.heads.judged.is_none() {
                    self.see(head, watch)?;
                }
                let whole = match head.kind {
                    kind::DATA => self.is_rewritten(head) && is_small(head),
                    _ => is_block(head) && head.length <= WHOLE,
                };
                if !whole {
                    if self.is_rewritten(head) {
                        // What is held of its stream goes before it.
                        self.emit(head.stream, false);
                    }
                    if head.length > bytes.len() {
                        // Nothing can go on in the midst of a frame, and its end may be long in coming.
                        self.end_of_read();
                    }
                    self.out.extend_from_slice(&self.part);
                    self.part.clear();
                    self.pass = head.length;
                    continue;
                }
            }
            let Some(head) = self.part.first_chunk::<HEAD>() else { return Ok(()) };
            let head = Head::parse(head);
            bytes = self.gather_part(bytes, HEAD + head.length);
            if self.part.len() < HEAD + head.length {
                return Ok(());
            }
            let part = std::mem::take(&mut self.part);
            if is_block(head) {
                self.pass_block(head, part.get(HEAD..).unwrap_or_default());
                self.part = part;
                self.part.clear();
                continue;
            }
            let Some(data) = self.without_padding(head, part.get(HEAD..).unwrap_or_default()) else {
                // More padding than there are bytes, which the h2 crate says.
                self.emit(head.stream, false);
                self.out.extend_from_slice(&part);
                continue;
            };
            let waiting = self.streams.hold(head.stream, data);
            self.part = part;
            self.part.clear();
            if head.ends_stream() {
                self.emit(head.stream, true);
            } else if waiting >= FULL {
                self.emit(head.stream, false);
            } else if waiting > 0 && !self.touched.contains(&head.stream) {
                self.touched.push(head.stream);
            }
        }
        Ok(())
    }

    /// The data of a whole frame. What its padding took from the windows will be given back.
    fn without_padding<'a>(&mut self, head: Head, payload: &'a [u8]) -> Option<&'a [u8]> {
        if !head.is_padded() {
            return Some(payload);
        }
        let (padding, rest) = payload.split_first()?;
        let data = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
        let taken = (payload.len() - data.len()) as u32;
        self.padding_of_all += taken;
        if self.padding_of_all >= GIVE_BACK_ALL {
            let all = std::mem::take(&mut self.padding_of_all);
            self.give_window(0, all);
        }
        if head.ends_stream() {
            return Some(data);
        }
        if self.padding.len() >= MOST_PADDED && !self.padding.contains_key(&head.stream) {
            for (stream, taken) in std::mem::take(&mut self.padding) {
                self.give_window(stream, taken);
            }
        }
        let of_stream = self.padding.entry(head.stream).or_default();
        *of_stream += taken;
        if *of_stream >= GIVE_BACK
            && let Some(all) = self.padding.remove(&head.stream)
        {
            self.give_window(head.stream, all);
        }
        Some(data)
    }

    /// Writes what gives this many bytes back to a window; 0 is the connection.
    fn give_window(&mut self, stream: u32, bytes: u32) {
        let head = Head { length: 4, kind: kind::WINDOW_UPDATE, flags: 0, stream };
        self.updates.extend_from_slice(&head.bytes());
        self.updates.extend_from_slice(&bytes.to_be_bytes());
    }

    /// Passes a frame of a message's head on, whole, with what makes it malformed where it is.
    fn pass_block(&mut self, head: Head, payload: &[u8]) {
        if head.kind == kind::HEADERS {
            // What is held of its stream goes before it.
            self.emit(head.stream, false);
        }
        let malformed = match self.heads.judged.take() {
            Some(malformed) => malformed,
            None => self.judge(head, payload),
        };
        let (head, payload, more) = match fragment(head, payload) {
            Some((priority, fragment)) if malformed => {
                let length = priority.len() + fragment.len() + MALFORMED.len();
                (Head { length, flags: head.flags & !PADDED, ..head }, [priority, fragment], MALFORMED)
            }
            _ => (head, [payload, &[]], [].as_slice()),
        };
        self.out.extend_from_slice(&head.bytes());
        for part in payload {
            self.out.extend_from_slice(part);
        }
        self.out.extend_from_slice(more);
    }

    /// Takes bytes into the part until it has this many.
    fn gather_part<'a>(&mut self, bytes: &'a [u8], wanted: usize) -> &'a [u8] {
        let (now, later) = bytes.split_at(wanted.saturating_sub(self.part.len()).min(bytes.len()));
        self.part.extend_from_slice(now);
        later
    }

    /// What a read brought goes on, except for streams whose readers are slow.
    fn end_of_read(&mut self) {
        while let Some(stream) = self.touched.pop() {
            if !self.streams.is_slow(stream) {
                self.emit(stream, false);
            }
        }
    }

    /// Held bytes whose time has come, between two frames.
    fn release_due(&mut self) {
        if self.pass == 0 && self.streams.is_due() {
            for stream in self.streams.take_due() {
                if !self.streams.is_slow(stream) {
                    self.emit(stream, false);
                }
            }
        }
    }

    /// Passes the held bytes of a stream on, as one frame.
    fn emit(&mut self, stream: u32, ends: bool) {
        let bytes = self.streams.release(stream);
        if bytes.is_empty() && !ends {
            return;
        }
        let head = Head { length: bytes.len(), kind: kind::DATA, flags: u8::from(ends), stream };
        self.out.extend_from_slice(&head.bytes());
        self.out.extend_from_slice(&bytes);
    }
}

/// A frame with a part of a message's head.
const fn is_block(head: Head) -> bool {
    head.kind == kind::HEADERS || head.kind == kind::CONTINUATION
}

/// Of a frame with a part of a message's head: the priority, if it has one, and the part, without padding.
fn fragment(head: Head, payload: &[u8]) -> Option<(&[u8], &[u8])> {
    if head.kind == kind::CONTINUATION {
        return Some((&[], payload));
    }
    let (padding, rest) = if head.is_padded() {
        let (padding, rest) = payload.split_first()?;
        (usize::from(*padding), rest)
    } else {
        (0, payload)
    };
    let priority = if head.flags & PRIORITY == 0 { 0 } else { 5 };
    rest.get(..rest.len().checked_sub(padding)?)?.split_at_checked(priority)
}

/// What it carries is small, padding aside.
const fn is_small(head: Head) -> bool {
    head.length < SMALL || (head.is_padded() && head.length < SMALL + MOST_PADDING)
}

#[cfg(test)]
mod tests;
