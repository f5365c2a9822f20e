//! `attache inject`: puts attache into Kubernetes objects.
