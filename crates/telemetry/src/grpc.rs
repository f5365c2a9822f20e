//! Translates a `grpc-status` to the terms of HTTP.
//!
//! The status of a gRPC response is always 200. The outcome of the call is in its trailers, or in its head if it has no body
//! (grpc/doc/PROTOCOL-HTTP2.md, "Responses"). The corresponding status comes from grpc/doc/http-grpc-status-mapping.md, read backwards, and
//! from google/rpc/code.proto if that page has none.

/// The code in the value of a `grpc-status`; `None` if the value is invalid.
pub fn grpc_code(value: &[u8]) -> Option<u8> {
    match *value {
        [ones @ b'0'..=b'9'] => Some(ones - b'0'),
        [b'1', ones @ b'0'..=b'6'] => Some(10 + ones - b'0'),
        _ => None,
    }
}

/// The HTTP status that corresponds to a `grpc-status`: 5xx if the server failed, 4xx if the call was wrong.
pub const fn grpc_as_http(status: u8) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_code_is_read_and_an_invalid_one_is_not() {
        for (text, code) in [
            ("0", Some(0)),
            ("9", Some(9)),
            ("14", Some(14)),
            ("16", Some(16)),
            ("17", None),
            ("014", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(grpc_code(text.as_bytes()), code, "{text:?}");
        }
    }

    #[test]
    fn only_the_codes_of_a_server_s_failure_are_5xx() {
        let failures: Vec<u8> = (0..=16).filter(|&code| grpc_as_http(code) >= 500).collect();
        assert_eq!(failures, [2, 4, 12, 13, 14, 15]);
    }
}
