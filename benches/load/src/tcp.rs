//! Plain connections.

use std::{
    cell::Cell,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::LoadArgs;

const HANDSHAKE: &[u8] =
    b"GET /chat HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

pub(crate) async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

pub(crate) async fn echo(port: u16) -> io::Result<()> {
    let listener = listen(port).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            let mut first = true;
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let answer = match buffer.get(..read) {
                    // A handshake fits into one segment.
                    Some(head) if first && head.starts_with(b"GET ") => SWITCHED,
                    Some(message) => message,
                    None => return,
                };
                first = false;
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

pub(crate) async fn source(port: u16) -> io::Result<()> {
    let listener = listen(port).await?;
    let zeros: Arc<[u8]> = vec![0; 256 << 10].into();
    loop {
        let (mut stream, _) = listener.accept().await?;
        let zeros = zeros.clone();
        tokio::spawn(async move { while stream.write_all(&zeros).await.is_ok() {} });
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn head(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(())
}

pub(crate) async fn ping(load: LoadArgs, upgrade: bool) -> io::Result<u64> {
    let done = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..load.connections {
        let mut stream = connect(load.address).await?;
        if upgrade {
            stream.write_all(HANDSHAKE).await?;
            head(&mut stream).await?;
        }
        let (done, mut message) = (done.clone(), vec![b'x'; load.size]);
        clients.spawn(async move {
            loop {
                stream.write_all(&message).await?;
                stream.read_exact(&mut message).await?;
                done.fetch_add(1, Relaxed);
            }
        });
    }
    ended(load, clients).await?;
    Ok(done.load(Relaxed))
}

/// Runs the clients for the time of the load. A client that ends earlier is a failure.
pub(crate) async fn ended(load: LoadArgs, mut clients: JoinSet<io::Result<()>>) -> io::Result<()> {
    match timeout(load.time(), clients.join_next()).await {
        Err(_) => Ok(()),
        Ok(Some(Ok(Err(error)))) => Err(error),
        Ok(_) => Err(io::Error::other("a client ended early")),
    }
}

pub(crate) async fn drain(load: LoadArgs) -> io::Result<u64> {
    let mut stream = connect(load.address).await?;
    let read = Cell::new(0);
    let mut buffer = vec![0; 256 << 10];
    let all = async {
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return Err(io::Error::other("the source ended early")),
                Ok(bytes) => read.set(read.get() + bytes as u64),
                Err(error) => return Err(error),
            }
        }
    };
    match timeout(load.time(), all).await {
        Ok(ended) => ended,
        Err(_) => Ok(read.get()),
    }
}

pub(crate) async fn idle(address: SocketAddr, connections: usize, request: bool) -> io::Result<()> {
    let mut held = Vec::new();
    for _ in 0..connections {
        let mut stream = connect(address).await?;
        if request {
            stream.write_all(REQUEST).await?;
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).await? == 0 {
                return Err(io::Error::other("a connection was closed"));
            }
        }
        held.push(stream);
    }
    println!("open");
    std::future::pending().await
}
