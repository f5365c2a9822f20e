//! The patterns.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::time::{Instant, timeout};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    transport::{Channel, Endpoint},
};

use crate::{pace, raw::Raw};

pub async fn run(target: &str, pattern: &str, rate: f64, seconds: f64) -> Result<u64, String> {
    let endpoint = Endpoint::from_shared(format!("http://{target}")).map_err(|error| error.to_string())?;
    let grpc = Grpc::new(endpoint.connect_lazy());
    let (count, rate) = ((rate * seconds) as u64, rate as u64);
    let done = match pattern {
        "unary" => unary(grpc, rate, count).await,
        "feed" => feed(grpc, rate, count, 1000).await,
        "burst" => feed(grpc, 0, rate, 10).await,
        "both" => both(grpc, rate, count).await,
        "cancel" => cancel(grpc, rate, count).await,
        _ => Err(Status::invalid_argument(pattern)),
    };
    done.map_err(|status| format!("{:?}: {}", status.code(), status.message()))
}

fn method(name: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/judge.Judge/{name}")).expect("a path")
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))
}

async fn call(mut grpc: Grpc<Channel>, message: Bytes) -> Result<Bytes, Status> {
    ready(&mut grpc).await?;
    let answer = grpc.unary(Request::new(message), method("Unary"), Raw);
    let answer =
        timeout(Duration::from_secs(60), answer).await.map_err(|_| Status::deadline_exceeded("60 s"))?;
    Ok(answer?.into_inner())
}

async fn open<S>(mut grpc: Grpc<Channel>, name: &str, messages: S) -> Result<Streaming<Bytes>, Status>
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    ready(&mut grpc).await?;
    Ok(grpc.streaming(Request::new(messages), method(name), Raw).await?.into_inner())
}

async fn unary(grpc: Grpc<Channel>, rate: u64, count: u64) -> Result<u64, Status> {
    let (begin, mut calls) = (Instant::now(), Vec::new());
    for n in 0..count {
        calls.push(tokio::spawn(call(grpc.clone(), Bytes::from(vec![0; 1000]))));
        pace(begin, n + 1, rate).await;
    }
    for call in calls {
        call.await.map_err(|error| Status::internal(error.to_string()))??;
    }
    Ok(count)
}

async fn read(mut messages: Streaming<Bytes>, count: u64) -> Result<u64, Status> {
    let mut n = 0;
    while messages.message().await?.is_some() {
        n += 1;
    }
    if n == count { Ok(n) } else { Err(Status::data_loss(format!("{n} of {count}"))) }
}

async fn feed(grpc: Grpc<Channel>, rate: u64, count: u64, size: u64) -> Result<u64, Status> {
    let ask = Bytes::from(format!("{rate} {count} {size}"));
    read(open(grpc, "Feed", tokio_stream::once(ask)).await?, count).await
}

async fn both(grpc: Grpc<Channel>, rate: u64, count: u64) -> Result<u64, Status> {
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        let (begin, message) = (Instant::now(), Bytes::from_static(&[0; 100]));
        for n in 0..count {
            if sender.send(message.clone()).await.is_err() {
                return;
            }
            pace(begin, n + 1, rate).await;
        }
    });
    read(open(grpc, "Both", ReceiverStream::new(receiver)).await?, count).await
}

async fn watch(grpc: &Grpc<Channel>) -> Result<Streaming<Bytes>, Status> {
    open(grpc.clone(), "Watch", tokio_stream::once(Bytes::new())).await
}

/// Three of four calls are given up: two after their first message, one before it. A quiet stream must not notice.
async fn cancel(grpc: Grpc<Channel>, rate: u64, count: u64) -> Result<u64, Status> {
    let mut quiet = watch(&grpc).await?;
    quiet.message().await?;
    let ended = tokio::spawn(async move { quiet.message().await });
    let begin = Instant::now();
    for n in 0..count {
        if n % 4 == 0 {
            call(grpc.clone(), Bytes::from_static(b"x")).await?;
        } else {
            let mut given_up = watch(&grpc).await?;
            if n % 4 != 1 {
                given_up.next().await.transpose()?;
            }
        }
        if ended.is_finished() {
            return Err(Status::internal(format!("the quiet stream ended: {:?}", ended.await)));
        }
        pace(begin, n + 1, rate).await;
    }
    ended.abort();
    Ok(count)
}
