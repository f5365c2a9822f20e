//! attache in a pod: what is added to a manifest, what the admission webhook answers, which packets are redirected.
//!
//! This crate only decides; the program (`crates/attache`) listens and runs. [`inject`] decides what one object gets,
//! as a list of edits. The webhook returns them as a JSON Patch; the command makes them in the text of the manifest, so
//! that comments, order and everything else keep every byte.

mod edit;
mod emit;
pub mod inject;
pub mod intercept;
pub mod manifest;
mod object;
mod repair;
pub mod review;
mod scalar;
mod text;
mod yaml;
