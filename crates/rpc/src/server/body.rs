use std::{fmt, future::poll_fn, pin::pin, time::Duration};

use http::StatusCode;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::ServerConnectionPermit;

/// Why a request's body can't be used.
#[derive(Debug)]
pub enum ReadBodyError {
    /// The body is longer than this many bytes.
    TooLong(usize),
    /// The body was not complete in time.
    Timeout,
    /// The bodies of all connections together need too much memory.
    Memory,
    /// The body broke off.
    Broken(hyper::Error),
}

impl ReadBodyError {
    /// The status of the answer.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Memory => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for ReadBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(longest) => write!(f, "the body is larger than {} MiB", longest >> 20),
            Self::Timeout => f.write_str("the body did not arrive in time"),
            Self::Memory => f.write_str("too many bytes of bodies are being read at once: try again later"),
            Self::Broken(error) => write!(f, "the body broke off: {error}"),
        }
    }
}

impl std::error::Error for ReadBodyError {}

/// Reads a request's body, at most `longest` bytes, within a time. The permit reserves its bytes until [`ServerConnectionPermit::release`]. While
/// the body is read, the connection can be evicted.
///
/// # Errors
/// The body is too long or too slow, it breaks off, or too many bodies are read at once.
pub async fn read_body(
    body: Incoming,
    permit: &ServerConnectionPermit,
    longest: usize,
    time: Duration,
) -> Result<Vec<u8>, ReadBodyError> {
    if body.size_hint().lower() > longest as u64 {
        return Err(ReadBodyError::TooLong(longest));
    }
    permit.waiting();
    let read = timeout(time, read(body, permit, longest)).await.unwrap_or(Err(ReadBodyError::Timeout));
    permit.answering();
    read
}

async fn read(
    body: Incoming,
    permit: &ServerConnectionPermit,
    longest: usize,
) -> Result<Vec<u8>, ReadBodyError> {
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(ReadBodyError::Broken)?.into_data() {
            if bytes.len() + data.len() > longest {
                return Err(ReadBodyError::TooLong(longest));
            }
            if !permit.reserve(data.len()) {
                return Err(ReadBodyError::Memory);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}
