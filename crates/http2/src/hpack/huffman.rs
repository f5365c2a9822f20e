//! The Huffman code of strings (RFC 7541 section 5.2 and Appendix B).

/// The length in bits of each byte's code (Appendix B). The code is canonical: codes of the same length are consecutive, in the order of
/// their bytes.
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

/// The longest code of a byte, in bits.
const MAX_CODE_BITS: usize = 30;

/// The code by lengths: the first code of each length, how many codes have that length, and where their bytes are in `bytes`.
struct HuffmanCode {
    first: [u32; MAX_CODE_BITS + 1],
    count: [u32; MAX_CODE_BITS + 1],
    at: [u32; MAX_CODE_BITS + 1],
    bytes: [u8; 256],
}

const CODE: HuffmanCode = code();

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn code() -> HuffmanCode {
    let mut code = HuffmanCode {
        first: [0; MAX_CODE_BITS + 1],
        count: [0; MAX_CODE_BITS + 1],
        at: [0; MAX_CODE_BITS + 1],
        bytes: [0; 256],
    };
    let (mut length, mut next, mut at) = (1, 0, 0);
    while length <= MAX_CODE_BITS {
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

/// For each value of the next eight bits: the byte whose code they begin with, and the length of that code. The length is 0 if the code is
/// longer than eight bits.
static SHORT: [(u8, u8); 256] = short();

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn short() -> [(u8, u8); 256] {
    let mut short = [(0, 0); 256];
    let mut length = 1;
    while length <= 8 {
        let mut n = 0;
        while n < CODE.count[length] {
            // Every way to extend the code to eight bits.
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

/// Codes of up to eight bits are looked up as long as at least this many bits are held; then more bits are read.
const AHEAD: u32 = 8;

/// Decodes a string into `out`, replacing its contents. `None` if the string is invalid (section 5.2).
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // The shortest code has five bits.
    out.resize(bytes.len() * 8 / 5 + 1, 0);
    let mut slots = out.iter_mut();
    // The lowest `held` bits are still to be decoded; the bits above them have been decoded.
    let (mut bits, mut held) = (0_u64, 0_u32);
    let mut rest = bytes;
    loop {
        if let Some((four, after)) = rest.split_first_chunk()
            && held <= 32
        {
            bits = bits << 32 | u64::from(u32::from_be_bytes(*four));
            held += 32;
            rest = after;
        } else if held < MAX_CODE_BITS as u32
            && let Some((byte, after)) = rest.split_first()
        {
            bits = bits << 8 | u64::from(*byte);
            held += 8;
            rest = after;
            continue;
        }
        if held < AHEAD {
            break;
        }
        while held >= AHEAD {
            let (byte, length) = *SHORT.get((bits >> (held - 8)) as usize & 0xff)?;
            if length == 0 {
                break;
            }
            *slots.next()? = byte;
            held -= u32::from(length);
        }
        if held < AHEAD {
            continue;
        }
        // The code is longer than eight bits, and there may not be enough bits for it yet.
        match long(bits, held) {
            Some((byte, length)) => {
                *slots.next()? = byte;
                held -= length;
            }
            None if rest.is_empty() || held >= MAX_CODE_BITS as u32 => break,
            None => {}
        }
    }
    // The last codes, and the padding: less than a byte, all ones.
    while held > 0
        && let Some((byte, length)) = long(bits, held)
    {
        *slots.next()? = byte;
        held -= length;
    }
    let free = slots.len();
    out.truncate(out.len() - free);
    (held < 8 && bits & ((1 << held) - 1) == (1 << held) - 1).then_some(())
}

/// Decodes the next code bit by bit; `None` if it isn't complete.
fn long(bits: u64, held: u32) -> Option<(u8, u32)> {
    for length in 1..=held.min(MAX_CODE_BITS as u32) {
        let code = (bits >> (held - length)) as u32 & ((1 << length) - 1);
        let at = length as usize;
        let within = code.wrapping_sub(*CODE.first.get(at)?);
        if within < *CODE.count.get(at)? {
            return Some((*CODE.bytes.get((CODE.at.get(at)? + within) as usize)?, length));
        }
    }
    None
}
