//! Sends one `GET` to the application, limited in time and size.

use std::time::Duration;

use attache_config::model::AppUrl;
use attache_rpc::client::{self, CallLimits, CallProtocol, DialError, OpenedConnection};
use http::{
    HeaderValue, Request,
    header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::Full;
use tokio::net::TcpStream;

use super::AppAnswer;

/// Sends the request. The error says what went wrong.
pub(super) async fn ask(
    url: &AppUrl,
    accept: &'static str,
    within: Duration,
    max_size: usize,
) -> Result<AppAnswer, String> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = url.path.parse().map_err(|error| format!("{}: {error}", url.path))?;
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(&url.authority) {
        headers.insert(HOST, host);
    }
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("attache/", env!("CARGO_PKG_VERSION"))));
    let dial = async {
        let stream = TcpStream::connect(url.address).await?;
        Ok::<_, DialError>(OpenedConnection::new(stream, CallProtocol::Http1))
    };
    let bounds = CallLimits { connect: within, total: within, body: max_size, ..CallLimits::default() };
    let answer = client::call(dial, request, bounds).await.map_err(|error| error.to_string())?;
    let body = String::from_utf8(answer.body.into()).map_err(|_| "the answer isn't UTF-8 text".to_owned())?;
    Ok(AppAnswer { status: answer.status, content_type: answer.headers.get(CONTENT_TYPE).cloned(), body })
}
