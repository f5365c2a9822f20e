//! What attache says about itself: [`Reason`]s, metrics and the access log.

mod exchange;
mod reason;

pub use exchange::Exchange;
pub use reason::Reason;
