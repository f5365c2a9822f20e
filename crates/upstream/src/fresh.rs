//! A try that must not take a connection from the pool.

/// In the extensions of a request: it goes out on a connection made for it. Set on the one try that follows a lost
/// close race, where the pool's other connections to that endpoint may have been closed by the peer as well.
#[derive(Clone, Copy, Debug)]
pub struct FreshConnection;
