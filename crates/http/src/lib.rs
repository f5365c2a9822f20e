//! What everything that speaks HTTP shares: one body type, and the rules for headers between two hops.

mod body;
mod client;
mod informational;

pub use body::{Body, BodyError};
pub use client::Client;
pub use informational::OnInformational;
