//! For every `Forwarded` of a client: attache's own element is the last one, and every reader sees it as a separate
//! element: `X-Forwarded-For`, `Forwarded` (RFC 7239), `X-Forwarded-Client-Cert`.

use std::net::SocketAddr;

use attache_config::model::{ForwardClientCert, Forwarded, ForwardedMode};
use attache_http::{CLIENT_CERTIFICATE, Client, VerifiedIdentity, add_forwarded, set_client_certificate};
use attache_wire::Fields;
use http::HeaderValue;

const MODES: [ForwardedMode; 4] =
    [ForwardedMode::Append, ForwardedMode::Replace, ForwardedMode::Pass, ForwardedMode::Remove];
const CERTIFICATES: [ForwardClientCert; 5] = [
    ForwardClientCert::SanitizeSet,
    ForwardClientCert::Sanitize,
    ForwardClientCert::AppendForward,
    ForwardClientCert::ForwardOnly,
    ForwardClientCert::AlwaysForwardOnly,
];
const OWN: &str = "By=spiffe://d/me;Hash=00;Subject=\"CN=a\\\"b,c\"";
const ELEMENT: &str = "for=192.0.2.7;host=\"app:80\";proto=http";

/// Splits a list into its elements.
type Split = fn(&[u8]) -> Vec<Vec<u8>>;

/// The elements of a list, for a reader that knows quoted strings (RFC 9110 section 5.6.4). After an open quote
/// everything belongs to the last element.
fn elements(list: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut now, mut bytes) = (Vec::new(), Vec::new(), list.iter());
    let mut quoted = false;
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' if quoted => {
                now.push(byte);
                now.extend(bytes.next());
            }
            b',' if !quoted => all.push(std::mem::take(&mut now)),
            _ => {
                quoted ^= byte == b'"';
                now.push(byte);
            }
        }
    }
    all.push(now);
    all.iter().map(|element| element.trim_ascii().to_vec()).collect()
}

fn values(headers: &Fields, name: &'static str) -> Vec<Vec<u8>> {
    headers.get_all(name).map(|value| value.as_bytes().to_vec()).collect()
}

/// Checks the effect of a mode on a family of headers; with `Pass` they stay as the client wrote them.
fn holds(mode: ForwardedMode, before: &[Vec<u8>], after: &[Vec<u8>], own: &str, split: Split) {
    match mode {
        ForwardedMode::Pass => assert_eq!(before, after),
        ForwardedMode::Remove => assert!(after.is_empty()),
        ForwardedMode::Replace => assert_eq!(after, [own.as_bytes()]),
        ForwardedMode::Append => {
            assert_eq!(after.len(), 1, "one line, since many read only the first");
            assert_eq!(
                split(&after[0]).last().map(Vec::as_slice),
                Some(own.as_bytes()),
                "{:?}",
                after[0].escape_ascii().to_string()
            );
        }
    }
}

/// Splits by commas alone, like every reader of `X-Forwarded-For`.
fn commas(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|byte| *byte == b',').map(|entry| entry.trim_ascii().to_vec()).collect()
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let [modes, certificates, lines @ ..] = data else { return };
    let mut headers = Fields::new();
    for (at, line) in lines.split(|byte| *byte == b'\n').enumerate() {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        let name = [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-client-cert",
            "x-forwarded-host",
            "x-forwarded-proto",
        ][at % 5];
        headers.append(name, value);
    }
    let before = headers.clone();
    let modes = Forwarded {
        x_forwarded: MODES[usize::from(modes & 3)],
        rfc7239: MODES[usize::from(modes >> 2 & 3)],
        ..Forwarded::default()
    };
    let proven = certificates & 0x80 != 0;
    let client = Client {
        address: Some(SocketAddr::from(([192, 0, 2, 7], 1))),
        proven: proven.then(|| {
            Box::new(VerifiedIdentity {
                certificate: Some(HeaderValue::from_static(OWN)),
                ..VerifiedIdentity::default()
            })
        }),
        ..Client::default()
    };
    add_forwarded(&mut headers, &modes, &client, "http", "app:80");
    let families: [(_, _, _, Split); 2] = [
        ("x-forwarded-for", modes.x_forwarded, "192.0.2.7", commas),
        ("forwarded", modes.rfc7239, ELEMENT, elements),
    ];
    for (name, mode, own, split) in families {
        holds(mode, &values(&before, name), &values(&headers, name), own, split);
    }

    let mode = CERTIFICATES[usize::from(certificates & 0x7f) % CERTIFICATES.len()];
    set_client_certificate(&mut headers, &client, mode);
    let name = "x-forwarded-client-cert";
    assert_eq!(CLIENT_CERTIFICATE.as_str(), name);
    let (sent, left) = (values(&before, name), values(&headers, name));
    match (mode, proven) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, true) => {
            assert_eq!(sent, left)
        }
        (ForwardClientCert::SanitizeSet, true) => assert_eq!(left, [OWN.as_bytes()]),
        (ForwardClientCert::AppendForward, true) => {
            assert_eq!(left.len(), 1);
            assert_eq!(elements(&left[0]).last().map(Vec::as_slice), Some(OWN.as_bytes()));
        }
        _ => assert!(left.is_empty()),
    }
}
