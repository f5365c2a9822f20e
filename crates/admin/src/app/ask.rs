//! One `GET` to the application, bounded in time and size.

use std::time::Duration;

use attache_config::model::AppUrl;
use http::{
    HeaderValue, Request,
    header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::Told;

/// Asks; an error says in words what went wrong.
pub(super) async fn ask(
    url: &AppUrl,
    accept: &'static str,
    within: Duration,
    max_size: usize,
) -> Result<Told, String> {
    match timeout(within, exchange(url, accept, max_size)).await {
        Ok(told) => told,
        Err(_) => Err(format!("no whole answer within {within:?}")),
    }
}

async fn exchange(url: &AppUrl, accept: &'static str, max_size: usize) -> Result<Told, String> {
    let stream = TcpStream::connect(url.address).await.map_err(|error| error.to_string())?;
    let (mut client, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = url.path.parse().map_err(|error| format!("{}: {error}", url.path))?;
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(&url.authority) {
        headers.insert(HOST, host);
    }
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("attache/", env!("CARGO_PKG_VERSION"))));
    let asked = async {
        let response = client.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body =
            Limited::new(body, max_size).collect().await.map_err(|error| error.to_string())?.to_bytes();
        let body = String::from_utf8(body.into()).map_err(|_| "the answer isn't UTF-8 text".to_owned())?;
        Ok(Told { status: head.status, content_type: head.headers.get(CONTENT_TYPE).cloned(), body })
    };
    // The connection ends with the answer: dropping it closes it.
    let mut asked = std::pin::pin!(asked);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        told = &mut asked => told,
        ended = &mut connection => match ended {
            // All that the answer needs has arrived.
            Ok(()) => asked.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
