//! Follows header compression (RFC 7541) as far as to know which pseudo-fields a block has.
//!
//! The h2 crate decodes each block, and says nothing of pseudo-fields where none belong, nor of a fragment in `:path`: both are cut off before anyone
//! can see them. RFC 9113 sections 8.1 and 8.3 call such messages malformed, and what one hop drops silently another may read. So
//! the dynamic table is followed here with what is needed for that, a size and a kind for each entry. Values are decoded only to
//! be measured, once for each entry; a block that refers to entries costs a few instructions for each field.
//!
//! What can't be followed is not judged: the h2 crate refuses it anyway.

use std::collections::VecDeque;

/// The dynamic table's bound, as long as SETTINGS_HEADER_TABLE_SIZE is not changed.
const TABLE: usize = 4096;

/// What an entry costs beside its bytes (section 4.1).
const OVERHEAD: usize = 32;

/// Entries of the static table (Appendix A).
const STATIC: usize = 61;

/// Bits of each byte's code (Appendix B). The code is canonical: codes of one length follow each other in the order of the bytes.
const BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26,
];

/// The longest code of a byte.
const LONGEST: usize = 30;

/// The code by lengths: the first code of each, how many there are, and where their bytes stand in `bytes`.
struct Code {
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    at: [u32; LONGEST + 1],
    bytes: [u8; 256],
}

const CODE: Code = code();

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn code() -> Code {
    let mut code =
        Code { first: [0; LONGEST + 1], count: [0; LONGEST + 1], at: [0; LONGEST + 1], bytes: [0; 256] };
    let (mut length, mut next, mut at) = (1, 0, 0);
    while length <= LONGEST {
        next <<= 1;
        code.first[length] = next;
        code.at[length] = at;
        let mut byte = 0;
        while byte < 256 {
            if BITS[byte] as usize == length {
                code.bytes[at as usize] = byte as u8;
                at += 1;
                next += 1;
            }
            byte += 1;
        }
        code.count[length] = at - code.at[length];
        length += 1;
    }
    code
}

/// The byte whose code the next eight bits begin with, and the bits of that code; no bits where the code is longer.
static SHORT: [(u8, u8); 256] = short();

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn short() -> [(u8, u8); 256] {
    let mut short = [(0, 0); 256];
    let mut length = 1;
    while length <= 8 {
        let mut n = 0;
        while n < CODE.count[length] {
            // Every continuation of the code to eight bits.
            let (code, free) = ((CODE.first[length] + n) << (8 - length), 1 << (8 - length));
            let mut next = 0;
            while next < free {
                short[(code + next) as usize] = (CODE.bytes[(CODE.at[length] + n) as usize], length as u8);
                next += 1;
            }
            n += 1;
        }
        length += 1;
    }
    short
}

/// Decodes a string; `None` where it is no code of any (section 5.2).
fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // The lowest `held` bits wait to be decoded; what stands above them has been.
    let (mut bits, mut held) = (0_u64, 0_u32);
    let mut rest = bytes.iter();
    loop {
        while held <= 56
            && let Some(byte) = rest.next()
        {
            bits = bits << 8 | u64::from(*byte);
            held += 8;
        }
        if held < 8 {
            break;
        }
        let (byte, length) = *SHORT.get((bits >> (held - 8)) as usize & 0xff)?;
        if length > 0 {
            out.push(byte);
            held -= u32::from(length);
            continue;
        }
        let Some((byte, length)) = long(bits, held) else { break };
        out.push(byte);
        held -= length;
    }
    last(bits, held, out)
}

/// The next code, bit by bit; `None` where it isn't complete.
fn long(bits: u64, held: u32) -> Option<(u8, u32)> {
    for length in 1..=held.min(LONGEST as u32) {
        let code = (bits >> (held - length)) as u32 & ((1 << length) - 1);
        let at = length as usize;
        let within = code.wrapping_sub(*CODE.first.get(at)?);
        if within < *CODE.count.get(at)? {
            return Some((*CODE.bytes.get((CODE.at.get(at)? + within) as usize)?, length));
        }
    }
    None
}

/// The codes at the end, and the padding: less than a byte, all ones.
fn last(bits: u64, mut held: u32, out: &mut Vec<u8>) -> Option<()> {
    while held > 0
        && let Some((byte, length)) = long(bits, held)
    {
        out.push(byte);
        held -= length;
    }
    (held < 8 && bits & ((1 << held) - 1) == (1 << held) - 1).then_some(())
}

/// What a field's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Regular,
    /// `:path`, and whether it has a fragment.
    Path(bool),
    Status(Status),
    /// Another pseudo-field.
    Pseudo,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    size: usize,
    name: usize,
    kind: Kind,
}

/// What a block says of `:status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Status {
    /// Nothing.
    #[default]
    Missing,
    /// 1xx: another head follows.
    Interim,
    Final,
}

/// What a block has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// A pseudo-field of requests.
    pub(crate) of_request: bool,
    /// `:status`.
    pub(crate) status: Status,
    /// A `:path` with a fragment.
    pub(crate) fragment: bool,
}

impl Seen {
    pub(crate) fn has_status(self) -> bool {
        self.status != Status::Missing
    }
}

/// One direction's header compression.
#[derive(Debug)]
pub(crate) struct Blocks {
    table: VecDeque<Entry>,
    size: usize,
    most: usize,
    /// The table can't be followed any more.
    lost: bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            most: TABLE,
            lost: false,
            name: Vec::new(),
            value: Vec::new(),
        }
    }
}

impl Blocks {
    /// Reads the next block; `None` where it can't be followed.
    pub(crate) fn read(&mut self, block: &[u8]) -> Option<Seen> {
        if self.lost {
            return None;
        }
        let seen = self.follow(block);
        self.lost = seen.is_none();
        seen
    }

    /// A block was not read, so that what follows can't be.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
    }

    fn follow(&mut self, mut rest: &[u8]) -> Option<Seen> {
        let mut seen = Seen::default();
        while let Some(first) = rest.first() {
            let kind = match first {
                0x80.. => {
                    let index = integer(&mut rest, 7)?;
                    self.known(index)?.kind
                }
                0x40..0x80 => self.literal(&mut rest, 6, true)?,
                0x20..0x40 => {
                    self.most = integer(&mut rest, 5).filter(|size| *size <= TABLE)?;
                    self.evict(0);
                    continue;
                }
                _ => self.literal(&mut rest, 4, false)?,
            };
            match kind {
                Kind::Regular => {}
                Kind::Path(fragment) => {
                    seen.of_request = true;
                    seen.fragment |= fragment;
                }
                Kind::Status(status) => seen.status = status,
                Kind::Pseudo => seen.of_request = true,
            }
        }
        Some(seen)
    }

    /// The entry of an index (section 2.3.3). Of the static table only what is needed; a name's length only where it may be used again.
    fn known(&self, index: usize) -> Option<Entry> {
        let fixed = |kind, name| Entry { size: 0, name, kind };
        Some(match index {
            0 => return None,
            1 => fixed(Kind::Pseudo, 10),
            2 | 3 | 6 | 7 => fixed(Kind::Pseudo, 7),
            4 | 5 => fixed(Kind::Path(false), 5),
            8..=14 => fixed(Kind::Status(Status::Final), 7),
            15..=STATIC => fixed(Kind::Regular, usize::from(*NAMES.get(index - 15)?)),
            _ => *self.table.get(index - STATIC - 1)?,
        })
    }

    fn literal(&mut self, rest: &mut &[u8], prefix: u8, indexed: bool) -> Option<Kind> {
        let index = integer(rest, prefix)?;
        let (mut kind, name) = if index > 0 {
            let entry = self.known(index)?;
            (entry.kind, entry.name)
        } else {
            self.name.clear();
            string(rest, &mut self.name)?;
            let kind = match self.name.as_slice() {
                b":path" => Kind::Path(false),
                b":status" => Kind::Status(Status::Final),
                [b':', ..] => Kind::Pseudo,
                _ => Kind::Regular,
            };
            (kind, self.name.len())
        };
        if !indexed && !matches!(kind, Kind::Path(_) | Kind::Status(_)) {
            // Nobody needs the value.
            skip(rest)?;
            return Some(kind);
        }
        self.value.clear();
        string(rest, &mut self.value)?;
        match &mut kind {
            Kind::Path(fragment) => *fragment = self.value.contains(&b'#'),
            Kind::Status(status) => {
                *status = if self.value.first() == Some(&b'1') { Status::Interim } else { Status::Final };
            }
            _ => {}
        }
        if indexed {
            let size = name + self.value.len() + OVERHEAD;
            self.evict(size);
            if size <= self.most {
                self.size += size;
                self.table.push_front(Entry { size, name, kind });
            }
        }
        Some(kind)
    }

    /// Makes room (section 4.4).
    fn evict(&mut self, wanted: usize) {
        while self.size + wanted > self.most
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.size;
        }
    }
}

/// Lengths of the static table's names from `accept-charset` on.
const NAMES: [u8; 47] = [
    14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19,
    13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

/// Section 5.1.
fn integer(rest: &mut &[u8], prefix: u8) -> Option<usize> {
    let (first, mut after) = rest.split_first()?;
    let most = (1_u8 << prefix) - 1;
    let mut value = usize::from(first & most);
    if value == usize::from(most) {
        for shift in [0, 7, 14, 21] {
            let (byte, later) = after.split_first()?;
            after = later;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *rest = after;
                return Some(value);
            }
        }
        return None;
    }
    *rest = after;
    Some(value)
}

/// Section 5.2: whether it is coded, and its bytes.
fn raw<'a>(rest: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let coded = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((coded, bytes))
}

fn skip(rest: &mut &[u8]) -> Option<()> {
    raw(rest).map(|_| ())
}

fn string(rest: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
    match raw(rest)? {
        (true, bytes) => decode(bytes, out),
        (false, bytes) => {
            out.extend_from_slice(bytes);
            Some(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.chars().filter(char::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap()).collect()
    }

    #[test]
    fn the_rfc_s_examples_leave_the_tables_that_it_says() {
        // Appendix C.4: requests with Huffman coding.
        let mut requests = Blocks::default();
        let request = Seen { of_request: true, ..Seen::default() };
        for (block, size) in [
            ("828684418cf1e3c2e5f23a6ba0ab90f4ff", 57),
            ("828684be5886a8eb10649cbf", 110),
            ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", 164),
        ] {
            assert_eq!((requests.read(&bytes(block)), requests.size), (Some(request), size));
        }
        // Appendix C.6: responses with Huffman coding, in a table of 256 bytes.
        let mut responses = Blocks { most: 256, ..Blocks::default() };
        let status = Seen { status: Status::Final, ..Seen::default() };
        for (block, size) in [
            (
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                222,
            ),
            ("4883640effc1c0bf", 222),
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                215,
            ),
        ] {
            assert_eq!((responses.read(&bytes(block)), responses.size), (Some(status), size));
        }
    }

    #[test]
    fn a_fragment_is_seen_however_it_is_said() {
        for block in ["0404 2f612362", "4404 2f612362", "0005 3a70617468 04 2f612362"] {
            assert!(Blocks::default().read(&bytes(block)).unwrap().fragment, "{block}");
        }
        // Said once, and then by its index. `#` has a code of 12 bits.
        let mut coded = Blocks::default();
        assert!(coded.read(&bytes("4484 60 ff d1 ff")).is_some_and(|seen| seen.of_request) || coded.lost);
        let mut indexed = Blocks::default();
        indexed.read(&bytes("4404 2f612362")).unwrap();
        assert!(indexed.read(&bytes("be")).unwrap().fragment);
        assert!(!Blocks::default().read(&bytes("84")).unwrap().fragment);
    }

    /// The same, bit by bit, as section 5.2 says it.
    fn decode_slowly(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let (mut code, mut length) = (0_u32, 0);
        for byte in bytes {
            for bit in (0..8).rev() {
                code = code << 1 | u32::from(byte >> bit & 1);
                length += 1;
                let within = code.wrapping_sub(*CODE.first.get(length)?);
                if within < *CODE.count.get(length)? {
                    out.push(*CODE.bytes.get((CODE.at.get(length)? + within) as usize)?);
                    (code, length) = (0, 0);
                }
            }
        }
        (length < 8 && code == (1 << length) - 1).then_some(())
    }

    /// The code of a text, padded with ones.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for byte in text {
            let length = usize::from(BITS[usize::from(*byte)]);
            let at = (0..CODE.count[length]).find(|n| CODE.bytes[(CODE.at[length] + n) as usize] == *byte);
            let code = CODE.first[length] + at.unwrap();
            bits.extend((0..length).rev().map(|bit| code >> bit & 1));
        }
        bits.resize(bits.len().next_multiple_of(8), 1);
        bits.chunks(8).map(|eight| eight.iter().fold(0, |byte, bit| byte << 1 | *bit as u8)).collect()
    }

    proptest::proptest! {
        #[test]
        fn what_was_coded_is_decoded(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let mut decoded = Vec::new();
            proptest::prop_assert_eq!(decode(&encode(&text), &mut decoded), Some(()));
            proptest::prop_assert_eq!(decoded, text);
        }

        /// Mostly codes that are cut, too long or padded wrongly.
        #[test]
        fn any_bytes_are_decoded_as_bit_by_bit(
            text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20),
            bytes in proptest::collection::vec(proptest::prelude::prop_oneof![
                proptest::prelude::any::<u8>(), proptest::strategy::Just(0xff)], 0..9),
        ) {
            let coded = [encode(&text), bytes].concat();
            let (mut fast, mut slow) = (Vec::new(), Vec::new());
            let (read, expected) = (decode(&coded, &mut fast), decode_slowly(&coded, &mut slow));
            proptest::prop_assert_eq!(read, expected);
            if read.is_some() {
                proptest::prop_assert_eq!(fast, slow);
            }
        }
    }

    #[test]
    fn what_can_not_be_followed_is_not_judged() {
        for block in ["bf", "40", "4403ff", "3fffffffffff", "80", "0083ffffff"] {
            let mut blocks = Blocks::default();
            assert_eq!(blocks.read(&bytes(block)), None, "{block}");
            assert_eq!(blocks.read(&bytes("84")), None);
        }
    }
}
