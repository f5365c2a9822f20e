use std::{error::Error as StdError, fmt, time::Duration};

use super::DialError;

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The connection could not be opened.
    Connect(DialError),
    /// The connection was not open after this time.
    ConnectTimeout(Duration),
    /// The answer was not complete after this time.
    Timeout(Duration),
    /// The connection ended, or the peer broke a rule or a limit of HTTP.
    Http(hyper::Error),
    /// The body is longer than this many bytes.
    TooLong(usize),
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "{error}"),
            Self::ConnectTimeout(after) => write!(f, "no connection within {after:?}"),
            Self::Timeout(after) => write!(f, "no complete answer within {after:?}"),
            Self::Http(error) => {
                write!(f, "{error}")?;
                // hyper's own message leaves out the cause ("connection error").
                let mut cause = error.source();
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
            Self::TooLong(longest) => write!(f, "the answer is longer than {longest} bytes"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connect(error) => Some(&**error),
            // The message already contains the cause of hyper's error.
            Self::Http(_) | Self::ConnectTimeout(_) | Self::Timeout(_) | Self::TooLong(_) => None,
        }
    }
}
