//! Searches sixteen bytes at once for a byte of some kind.
//!
//! Every byte of a head is scanned, so this decides the cost of reading a head. On x86-64 one instruction compares sixteen bytes (SSE2,
//! which every such processor has). On other processors a plain loop does it.

/// The bytes that are scanned at once.
type ByteVector = [u8; 16];

/// The position of the first byte, from `at` on, for which `find` sets its bit. The lowest bit belongs to the first byte.
#[expect(clippy::inline_always, reason = "twice for each line of each head, and mostly done after one step")]
#[inline(always)]
pub(crate) fn first(bytes: &[u8], mut at: usize, find: impl Fn(&ByteVector) -> u32) -> Option<usize> {
    while let Some(sixteen) = bytes.get(at..)?.first_chunk() {
        let found = find(sixteen);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize);
        }
        at += size_of::<ByteVector>();
    }
    last(bytes, at, find)
}

/// Like [`first`], when fewer than sixteen bytes are left: it scans the last sixteen and ignores those before `at`.
#[inline(never)]
fn last(bytes: &[u8], at: usize, find: impl Fn(&ByteVector) -> u32) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let found = if let Some(sixteen) = bytes.last_chunk() {
        find(sixteen) >> (size_of::<ByteVector>() - rest.len())
    } else {
        let mut sixteen = [0; size_of::<ByteVector>()];
        sixteen.get_mut(..rest.len())?.copy_from_slice(rest);
        find(&sixteen) & ((1 << rest.len()) - 1)
    };
    (found != 0).then(|| at + found.trailing_zeros() as usize)
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
pub(crate) use by_loop::{colons, controls};
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
pub(crate) use by_vector::{colons, controls};

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[expect(unsafe_code, reason = "calls of functions that need SSE2")]
mod by_vector {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };

    use super::ByteVector;

    /// One bit for each colon.
    #[inline]
    pub(crate) fn colons(bytes: &ByteVector) -> u32 {
        // SAFETY: the function needs only SSE2, and this module is compiled only with SSE2.
        unsafe { equal(load(bytes), b':') }
    }

    /// One bit for each byte below 0x20, and for each 0x7F.
    #[inline]
    pub(crate) fn controls(bytes: &ByteVector) -> u32 {
        // SAFETY: the function needs only SSE2, and this module is compiled only with SSE2.
        unsafe { below_or_delete(load(bytes)) }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn load(bytes: &ByteVector) -> __m128i {
        let all = u128::from_le_bytes(*bytes);
        _mm_set_epi64x((all >> 64) as i64, all as i64)
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn equal(bytes: __m128i, byte: u8) -> u32 {
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed()))) as u32
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn below_or_delete(bytes: __m128i) -> u32 {
        let below = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
        let delete = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
        _mm_movemask_epi8(_mm_or_si128(below, delete)) as u32
    }
}

#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
mod by_loop {
    use super::ByteVector;

    fn bits(bytes: &ByteVector, is: impl Fn(u8) -> bool) -> u32 {
        bytes.iter().enumerate().fold(0, |bits, (at, byte)| bits | u32::from(is(*byte)) << at)
    }

    pub(crate) fn colons(bytes: &ByteVector) -> u32 {
        bits(bytes, |byte| byte == b':')
    }

    pub(crate) fn controls(bytes: &ByteVector) -> u32 {
        bits(bytes, |byte| byte < 0x20 || byte == 0x7f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_ways_see_the_same(bytes: ByteVector) {
            prop_assert_eq!(colons(&bytes), by_loop::colons(&bytes));
            prop_assert_eq!(controls(&bytes), by_loop::controls(&bytes));
        }

        #[test]
        fn the_first_one_is_found_wherever_it_stands(
            bytes in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'a'), Just(b':'), any::<u8>()], 0..60),
            at in 0_usize..60,
        ) {
            let slowly = |is: fn(&u8) -> bool| Some(at + bytes.get(at..)?.iter().position(is)?);
            prop_assert_eq!(first(&bytes, at, colons), slowly(|byte| *byte == b':'));
            prop_assert_eq!(first(&bytes, at, controls), slowly(u8::is_ascii_control));
        }
    }
}
