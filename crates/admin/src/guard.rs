//! Decides who may use the admin API: programs on this machine, and pages that the admin API itself served.
//!
//! A web page from any site can make a browser on this machine send requests to a loopback port. Two checks refuse such requests:
//!
//! - `Host` must be a loopback address or `localhost`. If a page makes its own name resolve to 127.0.0.1 (DNS rebinding), the browser still
//!   sends that name in `Host`.
//! - `Origin`, if there is one, must be the same host and port, and `Sec-Fetch-Site` must not say that the request comes from another site.
//!   Browsers send them with every request that can change something (Fetch standard, "origin header"; W3C Fetch Metadata). Other programs
//!   send neither.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, Request, header, uri::Authority};

/// Refuses requests that don't come from programs on this machine or from the dashboard. The error says why.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let host = only(request.headers(), "host")
        .and_then(|host| host.parse::<Authority>().ok())
        .filter(|host| is_loopback(host.host()))
        .ok_or("Host must be localhost, 127.0.0.1 or [::1]: call the admin API by one of these")?;
    if request.uri().authority().is_some_and(|target| !is_loopback(target.host())) {
        return Err("the admin API is not a proxy");
    }
    if request.headers().contains_key(header::ORIGIN) {
        let origin = only(request.headers(), "origin").and_then(|origin| origin.strip_prefix("http://"));
        if !origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_str())) {
            return Err(
                "Origin is another site: the admin API accepts no requests from web pages of other sites",
            );
        }
    }
    if request.headers().contains_key("sec-fetch-site") {
        let site = only(request.headers(), "sec-fetch-site");
        if !matches!(site, Some("same-origin" | "none")) {
            return Err(
                "Sec-Fetch-Site is another site: the admin API accepts no requests from web pages of other sites",
            );
        }
    }
    Ok(())
}

/// The only value of a header; `None` if the header occurs twice.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

fn is_loopback(host: &str) -> bool {
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().uri("/config");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn programs_of_this_machine_are_allowed() {
        for host in ["localhost:15000", "LOCALHOST", "127.0.0.1:15000", "127.0.0.2", "[::1]:15000", "[::1]"] {
            assert!(allowed(&[("host", host)]), "{host}");
        }
    }

    #[test]
    fn a_name_that_was_rebound_to_loopback_is_refused() {
        for host in [
            "evil.example:15000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example#localhost",
            "localhost@evil.example",
            "10.0.0.1",
            "[::2]",
            "",
            "[::1",
        ] {
            assert!(!allowed(&[("host", host)]), "{host:?}");
        }
        assert!(!allowed(&[]), "no Host");
        assert!(!allowed(&[("host", "localhost"), ("host", "evil.example")]), "two");
    }

    #[test]
    fn a_page_of_another_site_is_refused_and_the_dashboard_is_not() {
        let host = ("host", "localhost:15000");
        assert!(allowed(&[host, ("origin", "http://localhost:15000")]));
        for origin in [
            "http://evil.example",
            "http://localhost:3000",
            "http://localhost",
            "https://localhost:15000",
            "null",
            "",
            "http://localhost:15000.evil.example",
            "http://127.0.0.1:15000",
        ] {
            assert!(!allowed(&[host, ("origin", origin)]), "{origin:?}");
        }
        assert!(!allowed(&[host, ("origin", "http://localhost:15000"), ("origin", "http://evil.example")]));
    }

    #[test]
    fn sec_fetch_site_is_checked() {
        let host = ("host", "localhost:15000");
        assert!(allowed(&[host, ("sec-fetch-site", "none")]), "typed into the address bar");
        assert!(allowed(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(!allowed(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(!allowed(&[host, ("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn an_absolute_target_must_be_this_machine_too() {
        let request =
            Request::builder().uri("http://evil.example/config").header("host", "localhost").body(());
        assert!(check(&request.unwrap()).is_err());
    }
}
