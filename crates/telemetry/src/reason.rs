//! Why something failed: one reason from a closed list.
//!
//! The same word is used in the `x-attache-reason` header, the metrics' `reason` label, the access log and `docs/reasons.md`, which is
//! generated from this table. Everything that code decides by a reason is a column of its row: status, flag, classes ([`Class`]).

use std::fmt;

use http::StatusCode;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal, $status:literal, $flag:literal, $grpc:literal, [$($class:ident)*], $check:literal $(for_clients $clients:literal)?;)+) => {
        /// Why attache answered by itself, started another attempt, ejected an endpoint or closed a connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &[Reason] = &[$(Reason::$name),+];

            /// Its name, in kebab-case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// The status of an answer that attache makes for this reason.
            pub fn status(self) -> StatusCode {
                let code: u16 = match self { $(Self::$name => $status,)+ };
                StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY)
            }

            /// Envoy's response flag for it; `-` if Envoy has none.
            pub const fn envoy_flag(self) -> &'static str {
                match self { $(Self::$name => $flag,)+ }
            }

            /// The grpc-status of an answer to a gRPC call (grpc/doc/statuscodes.md).
            pub const fn grpc_status(self) -> u8 {
                match self { $(Self::$name => $grpc,)+ }
            }

            /// What it means, in one or two sentences.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// How to confirm it and what to change.
            pub const fn what_to_do(self) -> &'static str {
                match self { $(Self::$name => $check,)+ }
            }

            /// [`what_to_do`](Self::what_to_do) for a client's connection to a listener that failed with this reason. TLS has the same
            /// reasons in both directions, but different remedies.
            pub fn what_to_do_for_clients(self) -> &'static str {
                let own: &[&'static str] = match self { $(Self::$name => &[$($clients)?],)+ };
                own.first().copied().unwrap_or(self.what_to_do())
            }

            const fn classes(self) -> u16 {
                match self { $(Self::$name => 0 $(| Class::$class.bit())*,)+ }
            }
        }
    };
}

reasons! {
    /// No route of the listener matches the request or connection.
    NoRoute = "no-route", 404, "NR", 12, [], "Run `attache explain` with the request's method and URL; add a route or a catch-all `to:`.";
    /// A header of the request names the upstream (`upstream_header`), and the request names none of the route's
    /// upstreams.
    NoUpstream = "no-upstream", 404, "NC", 12, [], "Send the header once, with the name of an upstream in the route's `to`; the access log says what was wrong.";
    /// The route names an upstream that has no endpoint at all.
    NoEndpoint = "no-endpoint", 503, "UH", 14, [], "Read the cause in the log or the answer. If the address is a name, look it up with `dig`; otherwise check the address in the config.";
    /// No endpoint of the upstream has the labels that the route asks for (`subset`).
    EmptySubset = "empty-subset", 503, "UH", 14, [], "Compare the route's `subset.labels` with the `labels` of the upstream's addresses; `fallback: any` lets such requests go to any endpoint.";
    /// Every endpoint of the upstream is ejected or fails its health check.
    NoHealthyEndpoint = "no-healthy-endpoint", 503, "UH", 14, [], "Look at the endpoints' health; check the application behind them.";
    /// An endpoint refused the connection.
    ConnectRefused = "connect-refused", 503, "UF", 14, [NoConnection], "Is the upstream listening on that port? Try `curl -v` to the endpoint from the same pod.";
    /// A connection to an endpoint was not made in time.
    ConnectTimeout = "connect-timeout", 503, "UF", 14, [NoConnection], "A firewall or network policy often drops packets silently; raise `connect_timeout` if the path is slow.";
    /// A connection to an endpoint failed for another reason (unreachable network or host, no free port, no such socket).
    ConnectFailed = "connect-failed", 503, "UF", 14, [NoConnection], "The cause has the system's error: check routes, address families, file descriptors, and the path and mode of a Unix socket.";
    /// No trusted authority signed the upstream's certificate.
    TlsUntrusted = "tls-untrusted", 502, "UF", 14, [NoConnection], "Compare the issuer (`openssl s_client -showcerts`) with the upstream's `tls.ca`."
        for_clients "Compare the issuer of the client's certificate (`openssl x509 -noout -issuer -in FILE`) with the listener's `tls.client_ca`.";
    /// The upstream's certificate is for another name.
    TlsNameMismatch = "tls-name-mismatch", 502, "UF", 14, [NoConnection], "Set `tls.name` to a name in the certificate, or call the upstream by that name.";
    /// The upstream's certificate has expired.
    TlsExpired = "tls-expired", 502, "UF", 14, [NoConnection], "Renew the upstream's certificate; check this machine's clock."
        for_clients "Renew the client's certificate; check this machine's clock.";
    /// The upstream's certificate is not valid yet.
    TlsNotYetValid = "tls-not-yet-valid", 502, "UF", 14, [NoConnection], "Check the clocks of both sides.";
    /// The certificate is on a revocation list of the config.
    TlsRevoked = "tls-revoked", 502, "UF", 14, [NoConnection], "Issue a new certificate to the upstream's endpoint."
        for_clients "Issue a new certificate to the client.";
    /// The other side requires a client certificate: it got none, or did not accept the one it got.
    TlsNoClientCertificate = "tls-no-client-certificate", 502, "UF", 14, [NoConnection], "Set `tls.certificate` and `tls.key` of the upstream to a certificate that its CA signed."
        for_clients "Give the client a certificate that `tls.client_ca` of the listener signed; `client_optional: true` accepts clients without one.";
    /// The two sides have no TLS version in common.
    TlsVersion = "tls-version", 502, "UF", 14, [NoConnection], "The peer supports only versions below `tls.min_version`: update the peer, or set `min_version: 1.2`. attache never uses TLS 1.1 or older."
        for_clients "The client supports only versions below the listener's `tls.min_version`: update the client, or set `min_version: 1.2`. attache never uses TLS 1.1 or older.";
    /// The peer chose no protocol that attache offered by ALPN.
    TlsAlpn = "tls-alpn", 502, "UF", 14, [NoConnection], "The upstream doesn't speak the configured `protocol`; set it to `auto`."
        for_clients "The client offers by ALPN no protocol that the listener speaks: compare with the listener's `protocol`.";
    /// The peer's key is not one of the pinned ones.
    TlsPinMismatch = "tls-pin-mismatch", 502, "UF", 14, [NoConnection], "If the peer's key was replaced on purpose, add the new key's pin to `tls.pins`; next time add it before the key is replaced.";
    /// The TLS handshake failed for another reason.
    TlsHandshakeFailed = "tls-handshake-failed", 502, "UF", 14, [NoConnection], "The access log has the alert; is the port really TLS?"
        for_clients "The cause has the client's alert, or what its first bytes were. A client that does not accept the listener's certificate must trust the CA of that certificate, and must call attache by a name in it.";
    /// The TLS handshake was not finished in time.
    TlsTimeout = "tls-timeout", 503, "UF", 14, [NoConnection], "Is the port really TLS? Raise `handshake_timeout` if the path is slow."
        for_clients "The client connected and did not finish its handshake. It may be a probe that only opens the port, or a client that waits until the server speaks first.";
    /// attache has no valid certificate to show.
    TlsNoIdentity = "tls-no-identity", 503, "UF", 14, [], "Check the certificate and key files; the log says why they were not loaded.";
    /// The request needs a secret from a file (`credential`), and attache could not read one yet. attache did not send the request without the secret.
    NoCredential = "no-credential", 503, "-", 16, [], "The log names the file and says why it can't be used; is the agent that writes it running?";
    /// The client's verified identity is not allowed here.
    DeniedIdentity = "denied-identity", 403, "UAEX", 7, [], "Add the identity to `tls.allow`, or remove it from `tls.deny`.";
    /// The rules of the listener or route (`authorization`) don't allow this request or connection.
    DeniedByRule = "denied-by-rule", 403, "UAEX", 7, [HidesCause], "The access log names the rule, and `attache explain` shows the result of each rule.";
    /// The authorizer of the config (`authorizers`) denied the request. The authorizer chose the status, headers and text of the answer.
    DeniedByAuthorizer = "denied-by-authorizer", 403, "UAEX", 7, [HidesCause], "The access log has what the authorizer said; its own log says why.";
    /// The authorizer of the config (`authorizers`) gave no valid answer, and attache refuses requests without one.
    AuthorizerUnavailable = "authorizer-unavailable", 503, "UAEX", 14, [HidesCause], "The access log says why. Is the authorizer's upstream reachable, and its `timeout` long enough?";
    /// The request's body is longer than the route or listener allows (`body_size`), or than its authorizer accepts.
    BodyTooLarge = "body-too-large", 413, "-", 8, [], "Raise `body_size` of the route or of the listener's `http.limits`. If the authorizer refuses the body: raise the authorizer's `body.max`, set `partial: true` beside it, or set `body: false` on the route.";
    /// The request needs a token (`jwt`) and has none.
    TokenMissing = "token-missing", 401, "UAEX", 16, [], "Send a token at a place that `from` of the issuer names; with `required: false` the rules decide about requests without a token.";
    /// The request's token is not valid.
    TokenInvalid = "token-invalid", 401, "UAEX", 16, [HidesCause], "The access log says why: its issuer, its audience, or its expiry. Compare with `jwt` in the config.";
    /// attache could not get the keys of the token's issuer yet.
    NoTokenKeys = "no-token-keys", 503, "UAEX", 14, [HidesCause], "The log says why; request the URL of `keys` with curl from the same pod.";
    /// The listener requires TLS and the client spoke plaintext.
    PlaintextDenied = "plaintext-denied", 403, "UAEX", 7, [], "Connect with TLS, or set `tls.mode: permissive` without `allow`: plaintext proves no identity.";
    /// The upstream's concurrency limit for requests is reached.
    OverflowRequests = "overflow-requests", 503, "UO", 14, [Overload RetryLater], "The upstream is slower than its load; raise `circuit_breaker.max_requests` only if it can take more.";
    /// The client already has as many running requests to the upstream as one client may have.
    OverflowClient = "overflow-client", 429, "UO", 8, [Overload RetryLater], "The client has more requests at the same time than `circuit_breaker.max_requests_per_client` allows for one address. A client that sends the requests of many, such as a load balancer, needs a higher limit.";
    /// Too many calls already wait for a connection to the upstream.
    OverflowPending = "overflow-pending", 503, "UO", 14, [Overload RetryLater], "Raise `circuit_breaker.max_connections` or `max_pending` only if the upstream can take more.";
    /// The upstream's concurrency limit for connections is reached.
    OverflowConnections = "overflow-connections", 503, "UO", 14, [Overload RetryLater], "Raise `circuit_breaker.max_connections` only if the upstream can take more.";
    /// The upstream's adaptive concurrency limit is reached: the upstream has become slow under its load.
    OverflowAdaptive = "overflow-adaptive", 503, "UO", 14, [Overload RetryLater], "The upstream is slower than without load. Compare `attache_upstream_concurrency_limit` with the running calls, and the latency with `attache_upstream_min_round_trip_time_seconds`. Give it more capacity, or a `queue` for bursts.";
    /// The call waited too long in the upstream's queue, the queue was full, or a more urgent call took its place in the queue.
    OverflowQueue = "overflow-queue", 503, "UO", 14, [Overload RetryLater], "The upstream gets more calls than it can process. Give it more capacity; mark urgent calls with `priority: u=0`.";
    /// The circuit breaker is open: the upstream has just failed too often.
    CircuitOpen = "circuit-open", 503, "UO", 14, [Overload RetryLater], "Look at the reasons of the failures just before it opened. It closes by itself once calls succeed again.";
    /// A retry was due, and the retry budget allowed no more retries.
    RetryBudgetExhausted = "retry-budget-exhausted", 503, "URX", 14, [Overload], "Many calls to the upstream fail; more retries would make it worse. Repair the upstream.";
    /// The whole request took longer than its deadline.
    RequestTimeout = "request-timeout", 504, "UT", 4, [Timeout], "The upstream is slow, or `timeout` is too short for this route.";
    /// An attempt took longer than `per_try_timeout`.
    PerTryTimeout = "per-try-timeout", 504, "UT", 4, [Timeout], "The endpoint is slow, or `per_try_timeout` is too short.";
    /// A stream or tunnel was idle for too long: no byte in either direction.
    IdleTimeout = "idle-timeout", 504, "SI", 4, [Timeout], "Raise `idle_timeout` of the route, or send keepalives in the application.";
    /// The upstream closed or reset the connection before a response.
    UpstreamReset = "upstream-reset", 502, "UC", 14, [EndpointFailed Unprocessed], "The upstream's log says why: a crash, a program that accepts a connection and then closes it, a keep-alive timeout shorter than attache's `pool.idle_timeout`, or a protocol other than the one in its address (`https://` for TLS).";
    /// The endpoint of a tunnel became unhealthy, was ejected, or is no longer one of the upstream's, and the upstream has `on_unhealthy: close`.
    EndpointUnhealthy = "endpoint-unhealthy", 503, "UC", 14, [], "The client should connect again: it then gets a healthy endpoint. `attache status` says what is wrong with the old one.";
    /// The upstream refused the stream (REFUSED_STREAM, GOAWAY) without processing it.
    UpstreamRefusedStream = "upstream-refused-stream", 503, "UR", 14, [Unprocessed], "The upstream sheds load or restarts: see its log.";
    /// The upstream closed the connection in the middle of the response's body.
    UpstreamClosedMidBody = "upstream-closed-mid-body", 502, "UC", 14, [EndpointFailed], "The upstream crashed or lost the connection; attache resets the client's connection too, so that the client can't mistake a part of the body for the whole.";
    /// The upstream's answer is not valid HTTP, or larger than allowed.
    UpstreamProtocolError = "upstream-protocol-error", 502, "UPE", 14, [EndpointFailed], "Is it the right port and `protocol`? The access log has the parser's error message.";
    /// The upstream's answer is a failure: a 5xx, a grpc-status with the same meaning, or another answer that the route's `retry` names.
    /// This reason explains a retry or an ejection; the client gets the answer unchanged.
    UpstreamError = "upstream-error", 502, "-", 14, [], "The upstream's log says why; the access log has the status of the answer.";
    /// The client's request is not valid, or can be read in two ways (RFC 9112 section 6.3, 11.2).
    BadRequest = "bad-request", 400, "DPE", 3, [ClosesClient], "The response's text names the rule; correct the client. A client that does not speak HTTP needs a listener with `protocol: tcp` and a `tcp://` upstream.";
    /// An HTTP/2 client sent too many frames that cost attache more than the client: resets, PINGs, empty frames.
    Http2Flood = "http2-flood", 429, "DPE", 8, [], "The access log names the frames. If the client needs them, raise the limit of `http.limits` that the log names; see docs/http2.md.";
    /// The request line is longer than allowed.
    UriTooLong = "uri-too-long", 414, "DPE", 3, [ClosesClient], "Raise `http.limits.request_line` if the client needs such requests.";
    /// The request has more headers than allowed, or larger ones.
    HeadersTooLarge = "headers-too-large", 431, "DPE", 3, [ClosesClient], "Raise `http.limits.headers_size` or `http.limits.headers_count` if the client needs such requests.";
    /// The request's body has a transfer coding other than `chunked`, which attache doesn't know (RFC 9112 section 6.1).
    UnknownCoding = "unknown-transfer-coding", 501, "DPE", 12, [ClosesClient], "Send the body with `Transfer-Encoding: chunked` alone; name a compression in `Content-Encoding`.";
    /// The request's head took too long to arrive.
    HeaderTimeout = "header-timeout", 408, "DT", 4, [ClosesClient], "The client is slow, or this is an attack; raise `http.header_timeout` if the client needs more time.";
    /// The client ended the connection or the stream before the response's end. The cause says how long the client had waited.
    ClientClosed = "client-closed", 499, "DC", 1, [NoFailure], "If the client had waited, the upstream hangs or is slower than the client's timeout: look at the upstream, and compare the client's timeout with the route's.";
    /// The client read nothing of its answer, while other requests needed the permit or the memory that the answer holds.
    ClientStalled = "client-stalled", 499, "DC", 1, [], "The client asks for more than it reads. attache resets such answers when three quarters of `circuit_breaker.max_requests` are in use or memory is short; otherwise `http.write_timeout` ends them.";
    /// The request came over a protocol that the route's upstream can't carry.
    ProtocolMismatch = "protocol-mismatch", 502, "UPE", 12, [], "For example HTTP to a `tcp` upstream, or an upgrade that the upstream's HTTP/2 does not support.";
    /// The client asked for a tunnel (CONNECT), and the config allows none there, because no rule can check a tunnel's content.
    ConnectDenied = "connect-denied", 403, "NR", 7, [], "Send the request itself. attache makes tunnels to `authority` and `tcp` upstreams, and on routes with `match: { methods: CONNECT }`.";
    /// The request asks for a protocol within an HTTP/2 stream (`:protocol`, RFC 8441) that attache does not support.
    UpgradeUnsupported = "upgrade-unsupported", 501, "DPE", 12, [], "attache supports only `websocket` there; correct the client.";
    /// The request asks to switch to a protocol (`Upgrade`, or `:protocol` in HTTP/2) that `upgrades` of the route or listener doesn't
    /// allow.
    UpgradeDenied = "upgrade-denied", 403, "-", 7, [ClosesClient], "Add the protocol to `upgrades` of the route or of the listener's `http`, or correct the client.";
    /// Forwarding to this destination is not allowed.
    DeniedDestination = "denied-destination", 403, "UAEX", 7, [], "Name the destination as an upstream of the config, or change the upstream's `deny`. attache's own ports (metrics, probes, admin API) are never a destination: call them directly.";
    /// The request would come back to attache itself.
    Loop = "loop-detected", 508, "-", 9, [], "The upstream's address, or the host that the request names, is this listener itself. Name the service's own address; a forward proxy is called with `curl -x`, not by its own address.";
    /// The name does not exist (NXDOMAIN).
    DnsNxdomain = "dns-nxdomain", 503, "UH", 14, [], "Check the name, the search domains and `ndots`.";
    /// The first look-up of the upstream's name has not ended yet.
    DnsPending = "dns-pending", 503, "UH", 14, [], "attache has just started, or its config is new. `/readyz` waits for this look-up; if that takes long, check whether the DNS server answers.";
    /// No DNS server answered in time.
    DnsTimeout = "dns-timeout", 503, "UH", 14, [], "Is the server of resolv.conf reachable from this pod? Check network policies for UDP and TCP 53.";
    /// The DNS servers answered with an error, or without an address.
    DnsFailed = "dns-failed", 503, "UH", 14, [], "Query the same server for the same name with `dig`; an alias (CNAME) must lead to an address.";
    /// The Kubernetes API server has not named the Service's endpoints yet.
    DiscoveryPending = "discovery-pending", 503, "UH", 14, [], "attache has just started, or its config is new. `/readyz` waits for the first answer; if that takes long, check whether the pod reaches the API server.";
    /// The Kubernetes API server did not name the Service's endpoints, or none of them has the port.
    DiscoveryFailed = "discovery-failed", 503, "UH", 14, [], "The log has the API server's message. Does a Role allow `list` and `watch` of `endpointslices`, is the service account's token mounted, and is the port one of the Service's?";
    /// A rate limit is reached.
    RateLimited = "rate-limited", 429, "RL", 8, [Overload RetryLater], "Slow down as `Retry-After` says, or raise the limit.";
    /// The rate limit service gave no answer in time, and the route's `failure_mode` is `deny`.
    RateLimitServiceError = "rate-limit-service-error", 500, "RLSE", 14, [], "Look at the service that `global_rate_limit` names; `failure_mode: allow` allows requests without its answer.";
    /// attache has reached its limit of connections, file descriptors or memory.
    Overloaded = "overloaded", 503, "OM", 14, [Overload RetryLater], "Compare `attache_overload_pressure` with the thresholds of `overload`; raise `max_connections`, `ulimit -n` or the container's limits.";
    /// A fault was injected on purpose.
    FaultInjected = "fault-injected", 503, "FI", 14, [], "Remove the route's `fault`.";
    /// attache is shutting down and accepts no new requests.
    ShuttingDown = "shutting-down", 503, "-", 14, [RetryLater ClosesClient NoFailure], "The pod is terminating; its load balancer should have stopped sending requests to it.";
    /// A bug in attache ended this request; other requests are not affected.
    InternalError = "internal-error", 500, "-", 13, [ClosesClient], "Please report it, with the lines of the log.";
}

/// Properties of reasons that code decides by. The classes of a reason are a column of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// The connection to an endpoint, including TLS, could not be opened. (A TLS 1.3 peer may refuse our certificate only after it was sent
    /// a request. So this class alone does not prove that nothing was sent.)
    NoConnection,
    /// The endpoint had the request and failed: it reset the connection, cut its response, or sent something that is not HTTP.
    EndpointFailed,
    /// If nothing was sent, another endpoint may process the request.
    Unprocessed,
    /// A limit refuses work, here or at the next proxy: an answer of this class is not retried.
    Overload,
    /// The answer says `Retry-After`: waiting a moment is the remedy.
    RetryLater,
    /// The client's HTTP/1 connection ends: it is unclear where its next request begins, or there must be no next request.
    ClosesClient,
    /// It does not count as a failure in the success rate: the client caused it, or it is not an error.
    NoFailure,
    /// A timeout of the route: the answer says how long the request had waited.
    Timeout,
    /// Only the operator sees the cause: a client that learned which rule refused it would know what to try next.
    HidesCause,
}

impl Class {
    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

impl Reason {
    /// Whether it has this class.
    pub const fn is(self, class: Class) -> bool {
        self.classes() & class.bit() != 0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_kebab_case() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        // A digit may be in the name of a protocol: `http2-flood`.
        let kebab = |word: &&str| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        assert!(words.iter().all(kebab));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }

    #[test]
    fn classes_are_columns() {
        let of = |class| Reason::ALL.iter().copied().filter(move |reason| reason.is(class));
        assert!(of(Class::NoConnection).eq([
            Reason::ConnectRefused,
            Reason::ConnectTimeout,
            Reason::ConnectFailed,
            Reason::TlsUntrusted,
            Reason::TlsNameMismatch,
            Reason::TlsExpired,
            Reason::TlsNotYetValid,
            Reason::TlsRevoked,
            Reason::TlsNoClientCertificate,
            Reason::TlsVersion,
            Reason::TlsAlpn,
            Reason::TlsPinMismatch,
            Reason::TlsHandshakeFailed,
            Reason::TlsTimeout,
        ]));
        assert!(of(Class::NoFailure).eq([Reason::ClientClosed, Reason::ShuttingDown]));
        assert!(
            of(Class::Overload)
                .all(|reason| reason.is(Class::RetryLater) || reason == Reason::RetryBudgetExhausted)
        );
        assert!(!of(Class::EndpointFailed).any(|reason| reason.is(Class::NoConnection)));
        assert_eq!(of(Class::ClosesClient).count(), 8);
    }

    #[test]
    fn every_reason_has_a_valid_status_and_a_remedy() {
        for reason in Reason::ALL {
            assert!(reason.status().as_u16() >= 400, "{reason}");
            assert!(reason.meaning().ends_with('.'), "{reason}");
            assert!(!reason.what_to_do().is_empty());
            assert!(!reason.what_to_do_for_clients().contains("upstream's `tls"), "{reason}");
        }
    }
}
