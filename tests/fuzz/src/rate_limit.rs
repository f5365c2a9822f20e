//! For every answer of the rate limit service: it only adds headers, and none that says where a message ends or where
//! it goes.

use attache_resilience::global_limit::fuzzing::{GlobalLimited, apply};
use attache_wire::Fields;

const FRAMING: [&str; 6] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "trailer"];

/// A head that has each such field once.
fn head() -> Fields {
    let mut head = Fields::new();
    for name in FRAMING {
        head.insert(name, http::HeaderValue::from_static("1"));
    }
    head
}

fn holds(head: &Fields) {
    for name in FRAMING {
        assert!(head.get_all(name).map(attache_wire::ValueRef::as_bytes).eq([b"1"]), "{name}");
    }
    for (name, value) in head.iter() {
        assert!(!name.as_bytes().is_empty() && !value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)));
    }
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let (mut request, mut response) = (head(), head());
    match apply(data, &mut request, &mut response) {
        None => {}
        Some(GlobalLimited::Through) => {
            holds(&request);
            holds(&response);
        }
        Some(GlobalLimited::Refused(fields, after)) => {
            if let Some(fields) = fields {
                assert!(FRAMING.iter().all(|name| !fields.contains_key(*name)));
            }
            assert!(after.is_none_or(|after| after.as_secs() > 0));
        }
    }
}
