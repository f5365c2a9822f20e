//! Commands that ask a running attache. They are thin clients of its probes and its admin API.

mod failing;
mod http;
mod orders;
mod ready;
mod recent;
mod status;
mod tap;
mod text;
mod top;
mod troubles;

pub(crate) use http::AdminAddress;
pub(crate) use orders::order;
pub(crate) use ready::wait as wait_ready;
pub(crate) use status::status;
pub(crate) use tap::tap;
pub(crate) use top::top;
