//! judge.Judge with Unary (bytes back), Feed (asked "rate count size", a stream of messages), Both (each message back)
//! and Watch (one message, then silence until the call is cancelled).

use std::{
    convert::Infallible,
    future::{Future, ready},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Status, Streaming,
    body::Body,
    server::{Grpc, NamedService, StreamingService, UnaryService},
    transport::Server,
};

use crate::{pace, raw::Raw};

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
type CallFuture<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

pub async fn serve(address: SocketAddr) -> Result<(), String> {
    println!("ready");
    Server::builder().add_service(Judge).serve(address).await.map_err(|error| error.to_string())
}

#[derive(Clone)]
struct Judge;

impl NamedService for Judge {
    const NAME: &'static str = "judge.Judge";
}

impl tower_service::Service<Request<Body>> for Judge {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw);
            Ok(match request.uri().path() {
                "/judge.Judge/Unary" => grpc.unary(Unary, request).await,
                "/judge.Judge/Feed" => grpc.streaming(Feed, request).await,
                "/judge.Judge/Both" => grpc.streaming(Both, request).await,
                "/judge.Judge/Watch" => grpc.streaming(Watch, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

struct Unary;

impl UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = CallFuture<Bytes>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> CallFuture<Bytes> {
        Box::pin(ready(Ok(tonic::Response::new(request.into_inner()))))
    }
}

macro_rules! streaming {
    ($name:ident, $messages:ident => $answer:expr) => {
        struct $name;

        impl StreamingService<Bytes> for $name {
            type Response = Bytes;
            type ResponseStream = Messages;
            type Future = CallFuture<Messages>;

            fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> CallFuture<Messages> {
                let $messages = request.into_inner();
                Box::pin(async move { Ok(tonic::Response::new($answer.await?)) })
            }
        }
    };
}

streaming!(Feed, messages => feed(messages));
streaming!(Both, messages => async { Ok::<Messages, Status>(Box::pin(messages)) });
streaming!(Watch, messages => async { drop(messages); watch() });

async fn feed(mut messages: Streaming<Bytes>) -> Result<Messages, Status> {
    let asked = messages.message().await?.unwrap_or_default();
    let asked = String::from_utf8_lossy(&asked).into_owned();
    let numbers: Vec<u64> = asked.split(' ').filter_map(|number| number.parse().ok()).collect();
    let [rate, count, size] = numbers[..] else { return Err(Status::invalid_argument(asked)) };
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        let (begin, message) = (Instant::now(), Bytes::from(vec![0; size as usize]));
        for n in 0..count {
            if sender.send(Ok(message.clone())).await.is_err() {
                return;
            }
            pace(begin, n + 1, rate).await;
        }
    });
    Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}

fn watch() -> Result<Messages, Status> {
    Ok(Box::pin(tokio_stream::once(Ok(Bytes::from_static(b"x"))).chain(tokio_stream::pending())))
}
