//! Chunked bodies: the size of pieces makes no difference, nothing panics, and nothing is read after the end.

use attache_wire::{
    body::{BodyDecoder, BodyPiece},
    response::ResponseFraming,
};
use bytes::BytesMut;

fn read(pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<u8>, bool, bool, usize) {
    let (mut decoder, mut buf) = (BodyDecoder::from(ResponseFraming::Chunked), BytesMut::new());
    let (mut body, mut taken, mut given) = (Vec::new(), 0, 0);
    for piece in pieces {
        given += piece.len();
        buf.extend_from_slice(&piece);
        loop {
            match decoder.decode(&mut buf) {
                Ok(BodyPiece::Data(data)) => body.extend_from_slice(&data),
                Ok(BodyPiece::Trailers(_)) => {}
                Ok(BodyPiece::More | BodyPiece::End) => break,
                Err(_) => return (body, false, true, 0),
            }
        }
        if decoder.is_done() && taken == 0 {
            taken = given - buf.len();
        }
    }
    (body, decoder.is_done(), false, taken)
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else { return };
    let whole = read(std::iter::once(bytes.to_vec()));
    assert_eq!(read(bytes.chunks(usize::from(*step).max(1)).map(<[u8]>::to_vec)), whole);
}
