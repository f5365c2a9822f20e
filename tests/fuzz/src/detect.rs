//! The detection of a connection's protocol: further bytes never change the result, and bytes that httparse reads as a
//! request are never opaque if HTTP reaches the same routes.

use attache_listener::{Protocol, fuzzing::Detection};

/// The longest line for which the detection waits.
const LINE: usize = 200;

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    for detection in Detection::ALL {
        let whole = detection.of(data, LINE);
        for cut in 0..data.len() {
            let early = detection.of(&data[..cut], LINE);
            assert!(early.is_none() || early == whole, "{detection:?}: {early:?} of {cut}, {whole:?} of all");
        }
    }
    if Detection::AutoOrHttp.of(data, LINE).is_some_and(|(protocol, _)| protocol == Protocol::Tcp) {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut other = httparse::Request::new(&mut headers);
        let read = other.parse(data);
        assert!(!matches!(read, Ok(httparse::Status::Complete(_))), "{:?}", data.escape_ascii().to_string());
    }
}
