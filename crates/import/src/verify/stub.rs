//! Stubs in place of upstreams: each answers 200 with its name and the request that it got.

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

/// The stubs of one comparison. Their threads last as long as the process.
#[derive(Default)]
pub(crate) struct Stubs(RefCell<Vec<(String, u16)>>);

impl Stubs {
    /// The port of the stub of this name.
    pub(crate) fn port(&self, name: &str) -> Result<u16, String> {
        if let Some((_, port)) = self.0.borrow().iter().find(|(known, _)| known == name) {
            return Ok(*port);
        }
        let listener =
            TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no free port for a stub: {error}"))?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let own = name.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || serve(&stream, &own));
            }
        });
        self.0.borrow_mut().push((name.to_owned(), port));
        Ok(port)
    }
}

fn serve(stream: &TcpStream, name: &str) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let mut first = [0; 3];
    while stream.peek(&mut first).ok()? < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    if &first == b"PRI" {
        return super::grpc::serve(stream);
    }
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            head.push(line);
            if head.len() > 500 {
                return None;
            }
        }
        let length = head
            .iter()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse::<u64>().ok())
            .unwrap_or(0);
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        let denied = head.iter().any(|line| line.contains(super::DENIED));
        let status = if denied { "401 Unauthorized" } else { "200 OK" };
        let only_head = head.first().is_some_and(|line| line.starts_with("HEAD "));
        let body = format!("stub {name}\n{}\n", head.join("\n"));
        let mut answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\nx-stub: {name}\r\nx-stub-line: {}\r\nserver: stub\r\nx-powered-by: stub\r\ncontent-length: {}\r\n\r\n",
            head.first().map_or("", String::as_str),
            body.len()
        );
        if !only_head {
            answer.push_str(&body);
        }
        let mut out = stream;
        out.write_all(answer.as_bytes()).ok()?;
    }
}
