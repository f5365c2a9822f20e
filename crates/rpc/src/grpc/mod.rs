//! gRPC over HTTP/2, as far as a client needs it (grpc/doc/PROTOCOL-HTTP2.md): requests, frames, and the status at the end.

mod frame;
pub mod health;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Version, header};
use http_body_util::Full;
use prost::Message;

pub use frame::{BadFrame, MessageDecoder, frame};

/// A unary request. `base` is the scheme and authority (`http://host:port`), `method` is `/package.Service/Method`.
///
/// # Errors
/// `base` or `method` can't be a URI.
pub fn request(
    base: &str,
    method: &str,
    message: &impl Message,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let body = frame(&message.encode_to_vec(), false);
    let mut request =
        Request::post(format!("{base}{method}")).version(Version::HTTP_2).body(Full::new(body))?;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    Ok(request)
}

/// A status other than OK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStatus {
    /// The code; `None` if the response ended without one.
    pub code: Option<u32>,
    /// The peer's message; may be empty.
    pub message: String,
}

impl GrpcStatus {
    /// How a call ended. The status is in its trailers, or in its head if it has no body.
    ///
    /// # Errors
    /// The code is not 0, or missing.
    pub fn check(head: &HeaderMap, trailers: &HeaderMap) -> Result<(), Self> {
        let find = |name| {
            let value: Option<&HeaderValue> = trailers.get(name).or_else(|| head.get(name));
            value.map(HeaderValue::as_bytes)
        };
        let code = find("grpc-status").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        if code == Some(0) {
            return Ok(());
        }
        Err(Self { code, message: unescape(find("grpc-message").unwrap_or_default()) })
    }
}

impl std::fmt::Display for GrpcStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "grpc-status {code}")?,
            None => f.write_str("no grpc-status")?,
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message.escape_debug()) }
    }
}

impl std::error::Error for GrpcStatus {}

/// Decodes `grpc-message`, which is percent-encoded UTF-8. Other bytes stay unchanged.
fn unescape(text: &[u8]) -> String {
    percent_encoding::percent_decode(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_call_ends_by_its_trailers_or_by_its_head() {
        let none = HeaderMap::new();
        assert_eq!(GrpcStatus::check(&none, &map(&[("grpc-status", "0")])), Ok(()));
        assert_eq!(GrpcStatus::check(&map(&[("grpc-status", "0")]), &none), Ok(()));
        let failed = map(&[("grpc-status", "13"), ("grpc-message", "no%20disk")]);
        let status = GrpcStatus::check(&map(&[("grpc-status", "0")]), &failed).unwrap_err();
        assert_eq!(status.to_string(), "grpc-status 13: no disk");
        for (text, said) in [("", "no grpc-status"), ("x", "no grpc-status"), ("16", "grpc-status 16")] {
            assert_eq!(
                GrpcStatus::check(&none, &map(&[("grpc-status", text)])).unwrap_err().to_string(),
                said
            );
        }
        assert_eq!(GrpcStatus::check(&none, &none).unwrap_err().code, None);
    }

    #[test]
    fn a_request_is_one_of_grpc() {
        let request = request("http://h:1", "/p.S/M", &health::HealthCheckRequest::default()).unwrap();
        assert_eq!(request.uri(), "http://h:1/p.S/M");
        assert_eq!(
            (request.method().as_str(), &request.headers()["te"]),
            ("POST", &"trailers".parse().unwrap())
        );
    }
}
