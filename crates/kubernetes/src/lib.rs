//! attache in a pod: what is added to a manifest, what the admission webhook answers, which packets are redirected.
//!
//! Nothing here listens or runs for long; the program (`crates/attache`) does that with what this crate decides.

pub mod inject;
pub mod intercept;
