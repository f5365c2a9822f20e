//! attache's configuration: YAML text becomes a checked [`model`], every diagnostic carries its place.

pub mod model;
