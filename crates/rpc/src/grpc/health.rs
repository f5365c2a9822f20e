//! `grpc.health.v1.Health/Check` (grpc/doc/health-checking.md): for health checks of upstreams and for the kubelet's
//! probes.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use prost::Message;

use super::{GrpcStatus, MessageDecoder, request};
use crate::client::CollectedResponse;

/// The most bytes of a response. Valid ones have a few bytes.
pub const MAX_ANSWER_BYTES: usize = 16 << 10;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HealthCheckRequest {
    /// The service whose health is asked for; empty means the server as a whole.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct HealthCheckResponse {
    /// `ServingStatus`.
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    /// The default value of the message.
    Unknown = 0,
    /// The only status that passes.
    Serving = 1,
    /// The service accepts no requests.
    NotServing = 2,
    /// Only in `Watch`.
    ServiceUnknown = 3,
}

/// Asks for the health of a service. `base` is the scheme and authority (`http://host:port`).
///
/// # Errors
/// `base` can't be part of a URI.
pub fn check(base: &str, service: &str) -> Result<Request<Full<Bytes>>, http::Error> {
    request(base, CHECK, &HealthCheckRequest { service: service.to_owned() })
}

/// Whether a response passes: it must be `SERVING`, and valid for a client of gRPC.
///
/// # Errors
/// Why it doesn't pass.
pub fn verdict(answer: &CollectedResponse) -> Result<(), String> {
    let is_grpc = answer
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if answer.status != StatusCode::OK {
        return Err(format!("status {}", answer.status.as_u16()));
    }
    if !is_grpc {
        return Err("not an answer of gRPC: its content-type is another".to_owned());
    }
    GrpcStatus::check(&answer.headers, &answer.trailers).map_err(|status| status.to_string())?;
    let message: HealthCheckResponse = MessageDecoder::only(&answer.body).map_err(|bad| bad.to_string())?;
    match ServingStatus::try_from(message.status) {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(ServingStatus::Unknown) => Err("UNKNOWN".to_owned()),
        Ok(ServingStatus::NotServing) => Err("NOT_SERVING".to_owned()),
        Ok(ServingStatus::ServiceUnknown) => Err("SERVICE_UNKNOWN".to_owned()),
        Err(_) => Err("a status that health.proto doesn't have".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;
    use crate::grpc::frame;

    #[test]
    fn the_bytes_are_those_of_protoc() {
        let bytes = |service: &str| HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
        assert!(bytes("").is_empty());
        assert_eq!(bytes("shop"), b"\x0a\x04shop");
        assert_eq!(bytes(&"x".repeat(300))[..3], [0x0a, 0xac, 0x02]);
    }

    #[test]
    fn a_response_passes_only_by_the_rules_of_grpc() {
        let map = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            pairs.collect()
        };
        let grpc = [("content-type", "application/grpc+proto")];
        let ended = [("grpc-status", "0")];
        let verdict = |status: u16, headers: &[_], trailers: &[_], body: &[u8]| {
            verdict(&CollectedResponse {
                status: StatusCode::from_u16(status).unwrap(),
                headers: map(headers),
                trailers: map(trailers),
                body: Bytes::copy_from_slice(body),
            })
        };
        let (serving, not_serving) = (frame(&[8, 1], false), frame(&[8, 2], false));
        assert_eq!(verdict(200, &grpc, &ended, &serving), Ok(()));
        assert_eq!(verdict(200, &grpc, &ended, &not_serving), Err("NOT_SERVING".into()));
        assert_eq!(verdict(200, &grpc, &ended, &frame(&[], false)), Err("UNKNOWN".into()));
        assert_eq!(verdict(200, &grpc, &ended, &frame(&[8, 1, 0x12, 1, 0], false)), Ok(()), "a later field");
        assert!(verdict(200, &grpc, &ended, &frame(&[8, 9], false)).is_err(), "a later status");
        assert!(verdict(200, &grpc, &ended, &[]).is_err(), "a status and no message");
        assert!(verdict(200, &grpc, &[("grpc-status", "13")], &serving).is_err());
        assert!(verdict(200, &grpc, &[], &serving).is_err(), "no trailers");
        assert!(verdict(200, &[("content-type", "text/html")], &ended, &serving).is_err());
        assert!(verdict(502, &grpc, &ended, &serving).is_err());
        let unimplemented = [("content-type", "application/grpc"), ("grpc-status", "12")];
        assert_eq!(verdict(200, &unimplemented, &[], &[]), Err("grpc-status 12".into()), "trailers alone");
    }
}
