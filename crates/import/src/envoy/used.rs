//! The uses of clusters.

/// What a cluster is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterUse {
    /// HTTP.
    Http,
    /// Opaque bytes.
    Tcp,
}
