//! Methods that a listener does not accept.

use std::borrow::Cow;

use attache_config::model::HttpServer;
use attache_telemetry::Reason;
use attache_wire::RequestHead;

use crate::Refusal;

/// Refuses a method that is not in the listener's `methods`, and an extended CONNECT if `extended_connect` is off.
///
/// # Errors
/// The request has such a method.
#[inline]
pub(crate) fn check_method(request: &RequestHead, http: &HttpServer) -> Result<(), Refusal> {
    if !http.methods.take(request.method.as_str()) {
        return Err(Refusal::bad_request("This listener does not allow the request's method (`methods`)."));
    }
    if request.protocol.is_some() && !http.extended_connect {
        return Err(Refusal {
            reason: Reason::UpgradeUnsupported,
            text: Cow::Borrowed("This listener does not allow an extended CONNECT (`extended_connect`)."),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use attache_config::model::Methods;
    use attache_wire::ConnectProtocol;

    use super::*;

    #[test]
    fn methods_and_extended_connect_are_refused_where_the_listener_says_so() {
        let mut http = HttpServer::default();
        let mut request =
            RequestHead { method: http::Method::from_bytes(b"FOO").unwrap(), ..RequestHead::default() };
        assert!(check_method(&request, &http).is_ok());
        http.methods = Methods::Known;
        assert!(check_method(&request, &http).is_err());
        request.method = http::Method::CONNECT;
        request.protocol = Some(ConnectProtocol::from_static("websocket"));
        assert!(check_method(&request, &http).is_ok());
        http.extended_connect = false;
        assert_eq!(check_method(&request, &http).unwrap_err().reason, Reason::UpgradeUnsupported);
    }
}
