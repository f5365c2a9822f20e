//! The messages of `envoy.service.ratelimit.v3`, as far as they are used.
//!
//! Sources: envoy/service/ratelimit/v3/rls.proto, envoy/extensions/common/ratelimit/v3/ratelimit.proto. Texts that
//! become header fields are read as bytes, because they may not be UTF-8.

use std::time::Duration;

use prost::Message;

/// `RateLimitRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RateLimitRequest {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) descriptors: Vec<RateLimitDescriptor>,
    #[prost(uint32, tag = "3")]
    pub(super) hits_addend: u32,
}

/// `RateLimitDescriptor`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RateLimitDescriptor {
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<DescriptorEntry>,
}

/// `RateLimitDescriptor.Entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DescriptorEntry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `RateLimitResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RateLimitResponse {
    #[prost(int32, tag = "1")]
    overall_code: i32,
    #[prost(message, repeated, tag = "2")]
    statuses: Vec<DescriptorStatus>,
    #[prost(message, repeated, tag = "3")]
    response_headers_to_add: Vec<LimitHeaderValue>,
    #[prost(message, repeated, tag = "4")]
    request_headers_to_add: Vec<LimitHeaderValue>,
}

/// `RateLimitResponse.DescriptorStatus`.
#[derive(Clone, PartialEq, Message)]
struct DescriptorStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(message, optional, tag = "2")]
    current_limit: Option<DescriptorLimit>,
    #[prost(uint32, tag = "3")]
    limit_remaining: u32,
    #[prost(message, optional, tag = "4")]
    duration_until_reset: Option<ProtoDuration>,
}

/// `RateLimitResponse.RateLimit`.
#[derive(Clone, PartialEq, Message)]
struct DescriptorLimit {
    #[prost(uint32, tag = "1")]
    requests_per_unit: u32,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `envoy.config.core.v3.HeaderValue`: its value is text or, in another field, bytes.
#[derive(Clone, PartialEq, Message)]
struct LimitHeaderValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    raw_value: Vec<u8>,
}

const OVER_LIMIT: i32 = 2;

/// The answer of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LimitAnswer {
    /// `OVER_LIMIT`; anything else lets the request through.
    pub(super) over_limit: bool,
    pub(super) statuses: Vec<LimitStatus>,
    /// For the client.
    pub(super) response_headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// For the upstream.
    pub(super) request_headers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The state of one descriptor's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LimitStatus {
    pub(super) over_limit: bool,
    /// Requests for each unit of time; `None` where the descriptor has no limit.
    pub(super) limit: Option<u32>,
    pub(super) remaining: u32,
    /// Time until the bucket is full again.
    pub(super) reset: Option<Duration>,
}

impl From<RateLimitResponse> for LimitAnswer {
    fn from(response: RateLimitResponse) -> Self {
        let headers =
            |headers: Vec<LimitHeaderValue>| headers.into_iter().map(LimitHeaderValue::pair).collect();
        Self {
            over_limit: response.overall_code == OVER_LIMIT,
            statuses: response.statuses.iter().map(DescriptorStatus::status).collect(),
            response_headers: headers(response.response_headers_to_add),
            request_headers: headers(response.request_headers_to_add),
        }
    }
}

impl LimitHeaderValue {
    fn pair(self) -> (Vec<u8>, Vec<u8>) {
        (self.key, if self.raw_value.is_empty() { self.value } else { self.raw_value })
    }
}

impl DescriptorStatus {
    fn status(&self) -> LimitStatus {
        LimitStatus {
            over_limit: self.code == OVER_LIMIT,
            limit: self.current_limit.as_ref().map(|limit| limit.requests_per_unit),
            remaining: self.limit_remaining,
            // A negative duration has passed; a part of a second counts as a second.
            reset: self.duration_until_reset.as_ref().map(|reset| {
                Duration::from_secs(reset.seconds.max(0).cast_unsigned() + u64::from(reset.nanos > 0))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_bytes_that_protoc_makes() {
        let entries = vec![DescriptorEntry { key: "k".into(), value: "v".into() }];
        let request = RateLimitRequest {
            domain: "d".into(),
            descriptors: vec![RateLimitDescriptor { entries }],
            hits_addend: 1,
        };
        let expected =
            [&[0x0a, 1, b'd'][..], &[0x12, 8, 0x0a, 6, 0x0a, 1, b'k', 0x12, 1, b'v'], &[0x18, 1]].concat();
        assert_eq!(request.encode_to_vec(), expected);
    }

    #[test]
    fn an_answer_is_read_and_what_is_unknown_in_it_is_skipped() {
        let mut status = vec![0x08, 2, 0x12, 4, 0x08, 10, 0x10, 2, 0x18, 3, 0x22, 4, 0x08, 7, 0x10, 1];
        status.extend([0x2d, 1, 2, 3, 4]);
        let mut message = vec![0x08, 2, 0x12, status.len() as u8];
        message.extend(&status);
        message.extend([0x1a, 6, 0x0a, 1, b'x', 0x12, 1, 0xe9]);
        message.extend([0x22, 6, 0x0a, 1, b'a', 0x1a, 1, b'b']);
        message.extend([0x4a, 2, b'n', b'o']);
        let found = LimitAnswer::from(RateLimitResponse::decode(&*message).unwrap());
        let status = LimitStatus {
            over_limit: true,
            limit: Some(10),
            remaining: 3,
            reset: Some(Duration::from_secs(8)),
        };
        assert_eq!(found.statuses, [status]);
        assert!(found.over_limit);
        assert_eq!(found.response_headers, [(b"x".to_vec(), vec![0xe9])]);
        assert_eq!(found.request_headers, [(b"a".to_vec(), b"b".to_vec())]);
    }
}
