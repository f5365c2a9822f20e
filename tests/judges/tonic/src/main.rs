//! The same client and server as `../go/main.go`, with every default of tonic, for any bytes.
//!
//! ```text
//! judge-tonic server ADDRESS
//! judge-tonic client TARGET PATTERN RATE SECONDS
//! ```

mod client;
mod raw;
mod server;

use std::{process::ExitCode, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Waits until `n` messages may have gone at this rate; 0 is as fast as it goes.
async fn pace(begin: Instant, n: u64, rate: u64) {
    if let Some(due) = (n * 1_000_000).checked_div(rate) {
        sleep_until(begin + Duration::from_micros(due)).await;
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begin = Instant::now();
    let done = match words[..] {
        ["server", address] => server::serve(address.parse().expect("an address")).await.map(|()| 0),
        ["client", target, pattern, rate, seconds] => {
            let number = |text: &str| text.parse::<f64>().expect("a number");
            client::run(target, pattern, number(rate), number(seconds)).await
        }
        _ => panic!("server ADDRESS | client TARGET PATTERN RATE SECONDS"),
    };
    match done {
        Ok(n) => println!("OK {n} in {:.1} s", begin.elapsed().as_secs_f64()),
        Err(error) => {
            println!("FAILED {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
