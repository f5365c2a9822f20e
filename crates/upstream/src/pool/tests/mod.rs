//! The rules of the pools, each tested against a server on loopback that obeys or breaks its protocol.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may end on what it did not expect")]

mod bodies;
mod breaker;
mod connection_limit;
mod counted;
mod fresh;
mod h1;
mod h2;
mod h2_ends;
mod h2_frames;
mod h2_peer;
mod h2_server;
mod idle;
mod placed;
mod tunnels;
mod unhealthy;
