#![allow(clippy::indexing_slicing, reason = "tests")]
//! The data that an authorizer gets, and the changes of its answers.

use attache_config::model::{Authorizer, HeaderMatch, Name};
use attache_http::{Client, VerifiedIdentity};
use attache_wire::RequestHead;
use http::{HeaderName, StatusCode};
use prost::Message;

use super::{
    AuthorizerQuestion, AuthorizerVerdict, BodyExcerpt,
    messages::{
        BoolValue, CheckResponse, DeniedHttpResponse, EnvoyHeaderValue, HeaderValueOption, HttpStatus,
        OkHttpResponse, QueryParameter, RpcStatus,
    },
};

fn config() -> Authorizer {
    Authorizer {
        name: "opa".into(),
        request_headers: vec![HeaderMatch::Prefix("".into())],
        upstream_headers: vec![HeaderName::from_static("x-user"), HeaderName::from_static("x-groups")],
        response_headers: vec![HeaderMatch::Prefix("".into())],
        ..Authorizer::default()
    }
}

fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> RequestHead {
    let mut builder = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    RequestHead::from(builder.body(()).unwrap().into_parts().0)
}

fn option(name: &str, value: &[u8], append: Option<bool>, action: i32) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(EnvoyHeaderValue {
            key: name.as_bytes().to_vec(),
            value: value.to_vec(),
            raw_value: Vec::new(),
        }),
        append: append.map(|value| BoolValue { value }),
        append_action: action,
    }
}

fn ok(answer: OkHttpResponse) -> CheckResponse {
    CheckResponse { ok_response: Some(answer), ..CheckResponse::default() }
}

fn denied(answer: DeniedHttpResponse) -> CheckResponse {
    CheckResponse {
        status: Some(RpcStatus { code: 7, message: b"no".to_vec() }),
        denied_response: Some(answer),
        ..CheckResponse::default()
    }
}

fn applied(answer: OkHttpResponse, request: &mut RequestHead) -> Result<(), String> {
    match AuthorizerVerdict::of_message(ok(answer), &config())? {
        AuthorizerVerdict::Granted(granted) => granted.apply(&config(), request),
        AuthorizerVerdict::Denied(denial) => panic!("{denial:?}"),
    }
}

#[test]
fn an_authorizer_gets_the_client_and_the_request() {
    let client = Client {
        address: Some("[::ffff:10.0.0.7]:4711".parse().unwrap()),
        local: Some("10.0.0.1:8443".parse().unwrap()),
        proven: VerifiedIdentity::names(["spiffe://x/web"], 1),
        sni: Some("app.test".into()),
        tls: true,
        ..Client::default()
    };
    let head = head(
        "POST",
        "https://app/a%20b?q=1",
        &[
            ("X-A", "1"),
            ("x-a", "2"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-request-id", "r"),
            ("content-length", "3"),
        ],
    );
    let body = BodyExcerpt { bytes: b"\xff\x00a"[..].into(), partial: true };
    let context: [(Name, Name); 1] = [("tier".into(), "gold".into())];
    let question = AuthorizerQuestion {
        client: &client,
        request: Some(&head),
        body: Some(&body),
        context: &context,
        listener: &"in".into(),
    };
    let attributes = question.message(&config()).attributes.unwrap();
    let source = attributes.source.unwrap();
    let address = source.address.unwrap().socket_address.unwrap();
    assert_eq!(
        (&*address.address, address.port_value, &*source.principal),
        ("10.0.0.7", 4711, "spiffe://x/web")
    );
    let to = attributes.destination.unwrap().address.unwrap().socket_address.unwrap();
    assert_eq!((&*to.address, to.port_value), ("10.0.0.1", 8443));
    assert_eq!(attributes.tls_session.unwrap().sni, "app.test");
    assert_eq!(attributes.context_extensions["tier"], "gold");
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!(
        (&*http.method, &*http.path, &*http.host, &*http.scheme, &*http.id, http.size),
        ("POST", "/a%20b?q=1", "app", "https", "r", 3)
    );
    assert_eq!(
        (&*http.headers["x-a"], &*http.headers["cookie"]),
        ("1,2", "a=1; b=2"),
        "no line hides another"
    );
    assert_eq!(http.headers["x-envoy-auth-partial-body"], "true");
    assert_eq!((&*http.body, &*http.raw_body, &*http.protocol), ("", &b"\xff\x00a"[..], "HTTP/1.1"));

    let http2 = RequestHead { version: http::Version::HTTP_2, ..head.clone() };
    let message = AuthorizerQuestion { request: Some(&http2), ..question }.message(&config());
    assert_eq!(message.attributes.unwrap().request.unwrap().http.unwrap().protocol, "HTTP/2");

    let of_bytes = AuthorizerQuestion { request: None, ..question };
    assert_eq!(of_bytes.message(&config()).attributes.unwrap().request.unwrap().http, None);
}

#[test]
fn only_headers_of_the_list_are_sent_to_the_authorizer() {
    let mut config = config();
    config.request_headers = vec![
        HeaderMatch::Exact(HeaderName::from_static("authorization")),
        HeaderMatch::Prefix("x-t-".into()),
    ];
    let head = head("GET", "/", &[("authorization", "t"), ("x-t-a", "1"), ("x-t", "2"), ("cookie", "c")]);
    let client = Client::default();
    let question = AuthorizerQuestion {
        client: &client,
        request: Some(&head),
        body: None,
        context: &[],
        listener: &"in".into(),
    };
    let http = question.message(&config).attributes.unwrap().request.unwrap().http.unwrap();
    assert_eq!(http.headers.into_keys().collect::<Vec<_>>(), ["authorization", "x-t-a"]);
}

#[test]
fn a_client_can_not_send_attaches_own_headers() {
    let spoofed = [
        ("x-envoy-auth-partial-body", "false"),
        ("x_envoy_auth_partial_body", "false"),
        ("x-attache-context-area", "public"),
        ("x_attache_context_area", "public"),
        ("X-Attache.Context-Area", "public"),
        ("x-attache-contexts", "1"),
    ];
    let head = head("GET", "/", &spoofed);
    let client = Client::default();
    let context: [(Name, Name); 1] = [("area".into(), "admin".into())];
    let question = AuthorizerQuestion {
        client: &client,
        request: Some(&head),
        body: None,
        context: &context,
        listener: &"in".into(),
    };
    let http = question.message(&config()).attributes.unwrap().request.unwrap().http.unwrap();
    assert_eq!(http.headers.into_keys().collect::<Vec<_>>(), ["x-attache-contexts"]);
}

#[test]
fn headers_that_the_authorizer_sets_never_come_from_the_client() {
    let spoofed: &[(&str, &str)] =
        &[("X-User", "root"), ("x_user", "root"), ("x-groups", "wheel"), ("x-other", "1")];
    let mut request = head("GET", "/", spoofed);
    applied(OkHttpResponse::default(), &mut request).unwrap();
    assert_eq!(request.headers.len(), 1, "{:?}", request.headers);

    for (append, action) in [(None, 0), (None, 1), (None, 2), (Some(false), 0), (Some(true), 0)] {
        let mut request = head("GET", "/", spoofed);
        let answer = OkHttpResponse {
            headers: vec![option("X-User", b"ann", append, action)],
            ..OkHttpResponse::default()
        };
        applied(answer.clone(), &mut request).unwrap();
        let users: Vec<_> = request.headers.get_all("x-user").collect();
        assert_eq!(users, ["ann"], "{append:?} {action}");
        let mut without = head("GET", "/", &[]);
        applied(answer, &mut without).unwrap();
        assert_eq!(without.headers.get("x-user").unwrap(), "ann", "{append:?} {action}");
        assert!(!request.headers.contains_key("x-groups") && !request.headers.contains_key("x_user"));
    }
    let only_if =
        OkHttpResponse { headers: vec![option("x-user", b"ann", None, 3)], ..OkHttpResponse::default() };
    let mut request = head("GET", "/", spoofed);
    applied(only_if.clone(), &mut request).unwrap();
    assert_eq!(request.headers.get("x-user").unwrap(), "ann");
    let mut request = head("GET", "/", &[]);
    applied(only_if, &mut request).unwrap();
    assert!(!request.headers.contains_key("x-user"));
}

#[test]
fn an_answer_changes_only_what_the_config_allows_and_never_the_framing() {
    let mut request = head(
        "GET",
        "/p?role=x&a=1",
        &[("host", "app"), ("content-length", "3"), ("x-debug", "1"), ("x_debug", "1")],
    );
    let answer = OkHttpResponse {
        headers: vec![
            option("x-admin", b"1", None, 2),
            option(":path", b"/admin", None, 2),
            option("host", b"evil", None, 2),
            option("content-length", b"0", None, 2),
        ],
        headers_to_remove: [&b"x-debug"[..], b"host", b"content-length", b":path", b"a b"]
            .map(<[u8]>::to_vec)
            .to_vec(),
        query_parameters_to_set: vec![QueryParameter { key: "u".into(), value: "a&b".into() }],
        query_parameters_to_remove: vec!["role".into()],
        ..OkHttpResponse::default()
    };
    applied(answer, &mut request).unwrap();
    let names: Vec<_> = request.headers.keys().map(|name| name.lower().into_owned()).collect();
    assert_eq!(names, ["host", "content-length"]);
    assert_eq!(request.headers.get("host").unwrap(), "app");
    assert_eq!(request.uri.path_and_query().unwrap(), "/p?a=1&u=a%26b");
}

#[test]
fn an_answer_that_is_ambiguous_or_unreadable_is_no_answer() {
    let split = OkHttpResponse {
        headers: vec![option("x-user", b"a\r\nx: y", None, 2)],
        ..OkHttpResponse::default()
    };
    assert!(AuthorizerVerdict::of_message(ok(split), &config()).is_err());
    let no_name =
        OkHttpResponse { headers: vec![option("x user", b"a", None, 2)], ..OkHttpResponse::default() };
    assert!(AuthorizerVerdict::of_message(ok(no_name), &config()).is_err());
    let both = CheckResponse { status: None, ..denied(DeniedHttpResponse::default()) };
    assert!(AuthorizerVerdict::of_message(both, &config()).is_err());
    let failed = CheckResponse {
        status: Some(RpcStatus { code: 13, message: Vec::new() }),
        error_response: Some(DeniedHttpResponse::default()),
        ..CheckResponse::default()
    };
    assert!(AuthorizerVerdict::of_message(failed, &config()).is_err());
}

#[test]
fn a_denial_comes_from_the_authorizer_and_an_invalid_denial_is_still_a_denial() {
    let denial = |answer: CheckResponse| match AuthorizerVerdict::of_message(answer, &config()).unwrap() {
        AuthorizerVerdict::Denied(denial) => *denial,
        AuthorizerVerdict::Granted(granted) => panic!("{granted:?}"),
    };
    let full = denial(denied(DeniedHttpResponse {
        status: Some(HttpStatus { code: 302 }),
        headers: vec![
            option("location", b"https://id/", None, 0),
            option("set-cookie", b"a=1", None, 0),
            option("set-cookie", b"b=2", None, 0),
            option("transfer-encoding", b"chunked", None, 0),
            option("x-bad", b"a\r\nb: c", None, 0),
        ],
        body: b"go".to_vec(),
    }));
    assert_eq!(
        (full.status, full.headers.len(), &*full.body, &*full.detail),
        (StatusCode::FOUND, 3, &b"go"[..], "no")
    );
    let mut listed = config();
    listed.denial_headers = vec![HeaderMatch::Exact(HeaderName::from_static("location"))];
    let answer = denied(DeniedHttpResponse {
        headers: vec![option("location", b"/", None, 0), option("set-cookie", b"a=1", None, 0)],
        ..DeniedHttpResponse::default()
    });
    let Ok(AuthorizerVerdict::Denied(few)) = AuthorizerVerdict::of_message(answer, &listed) else {
        panic!("no denial")
    };
    let names: Vec<_> = few.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["location"], "only what the config lists");
    for code in [0, 1, 101, 199, 600, 1000, -1, 70_000] {
        let bare = denial(denied(DeniedHttpResponse {
            status: Some(HttpStatus { code }),
            ..DeniedHttpResponse::default()
        }));
        assert_eq!(bare.status, StatusCode::FORBIDDEN, "{code}");
    }
    for code in [1, 5, 7, 16, 99, -1] {
        let bare = CheckResponse {
            status: Some(RpcStatus { code, message: Vec::new() }),
            ..CheckResponse::default()
        };
        assert_eq!(denial(bare).status, StatusCode::FORBIDDEN);
        let but = CheckResponse {
            ok_response: Some(OkHttpResponse::default()),
            status: Some(RpcStatus { code, message: Vec::new() }),
            ..CheckResponse::default()
        };
        assert_eq!(denial(but).status, StatusCode::FORBIDDEN, "the status decides");
    }
}

#[test]
fn what_a_denial_says_of_its_hop_or_as_the_reason_is_not_passed_off_as_ours() {
    let names = ["connection", "x-hop", "keep-alive", "x-attache-reason", "location"];
    let mut headers = attache_wire::Fields::new();
    for name in names {
        headers.append(name, http::HeaderValue::from_static("x-hop"));
    }
    let answer = attache_rpc::CallResponse {
        status: StatusCode::FOUND,
        headers,
        body: Vec::new(),
        trailers: http::HeaderMap::new(),
    };
    let Ok(AuthorizerVerdict::Denied(by_http)) = AuthorizerVerdict::of_http(answer, &config()) else {
        panic!("no denial")
    };
    let answer = denied(DeniedHttpResponse {
        headers: vec![option("X-Attache-Reason", b"x-hop", None, 0), option("location", b"x-hop", None, 0)],
        ..DeniedHttpResponse::default()
    });
    let Ok(AuthorizerVerdict::Denied(by_grpc)) = AuthorizerVerdict::of_message(answer, &config()) else {
        panic!("no denial")
    };
    for denial in [by_http, by_grpc] {
        let mut names: Vec<_> = denial.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["location", "x-attache-upstream-reason"]);
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_none(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        if let Ok(answer) = CheckResponse::decode(&*bytes)
            && let Ok(AuthorizerVerdict::Granted(granted)) = AuthorizerVerdict::of_message(answer, &config())
        {
            let mut request = head("GET", "/p?a=1", &[("x-user", "root")]);
            let _ = granted.apply(&config(), &mut request);
            assert!(request.headers.get("x-user").is_none_or(|user| user != "root" ) || granted_user_is(&bytes));
        }
    }
}

/// The only way in which the client's value may come back: the authorizer sends it.
fn granted_user_is(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|window| window == b"root")
}

#[test]
fn no_answer_opens_a_tunnel_that_it_denies() {
    let of = |code: i32| {
        let status = Some(HttpStatus { code });
        let answer = denied(DeniedHttpResponse { status, ..DeniedHttpResponse::default() });
        AuthorizerVerdict::of_message(answer, &config()).unwrap()
    };
    let told = |verdict: AuthorizerVerdict| match verdict {
        AuthorizerVerdict::Denied(denial) => denial.status.as_u16(),
        AuthorizerVerdict::Granted(_) => panic!("granted"),
    };
    let tunnel = head("CONNECT", "app:443", &[]);
    let page = head("GET", "/", &[]);
    for (code, of_tunnel, of_page) in
        [(200, 403, 200), (204, 403, 204), (302, 302, 302), (401, 401, 401), (0, 403, 403), (101, 403, 403)]
    {
        assert_eq!(told(of(code).to(Some(&tunnel))), of_tunnel, "{code}");
        assert_eq!(told(of(code).to(Some(&page))), of_page, "{code}");
        assert_eq!(told(of(code).to(None)), of_page, "{code}");
    }
}

#[test]
fn a_contradictory_or_meaningless_answer_allows_no_request() {
    for answer in [
        CheckResponse { denied_response: Some(DeniedHttpResponse::default()), ..CheckResponse::default() },
        CheckResponse { error_response: Some(DeniedHttpResponse::default()), ..CheckResponse::default() },
    ] {
        assert!(AuthorizerVerdict::of_bytes(&answer.encode_to_vec(), &config()).is_err(), "{answer:?}");
    }
    assert!(AuthorizerVerdict::of_bytes(b"\xff", &config()).is_err());
    for status in [100, 101, 500, 503, 599, 600, 999] {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = attache_rpc::CallResponse {
            status,
            headers: attache_wire::Fields::new(),
            body: Vec::new(),
            trailers: http::HeaderMap::new(),
        };
        assert!(AuthorizerVerdict::of_http(answer, &config()).is_err(), "{status}");
    }
    for status in [201, 202, 204, 206, 302, 400, 401, 404] {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = attache_rpc::CallResponse {
            status,
            headers: attache_wire::Fields::new(),
            body: Vec::new(),
            trailers: http::HeaderMap::new(),
        };
        assert!(
            matches!(AuthorizerVerdict::of_http(answer, &config()), Ok(AuthorizerVerdict::Denied(_))),
            "{status}"
        );
    }
}
