//! Rules that must hold for any bytes. `fuzz/` searches for bytes that break them; the tests here check bytes that were
//! found earlier, and samples.

pub mod authorizer;
pub mod chunked;
pub mod coding;
pub mod config;
pub mod cors;
pub mod detect;
pub mod differential;
pub mod dns;
pub mod forwarded;
pub mod grpc_web;
pub mod hpack;
pub mod http2;
pub mod imported;
pub mod manifest;
pub mod named;
pub mod path;
pub mod proxy_protocol;
pub mod rate_limit;
pub mod request;
pub mod response;
pub mod review;
pub mod round_trip;
pub mod rule;
pub mod session;
pub mod sni;
pub mod svid;
pub mod token;
pub mod url;

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::Path,
        time::{Duration, Instant},
    };

    /// Shows the input for which a check failed.
    struct ShownInput<'a>(&'a [u8]);

    impl Drop for ShownInput<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input: {}", self.0.escape_ascii());
            }
        }
    }

    fn ask(check: fn(&[u8]), input: &[u8]) {
        let shown = ShownInput(input);
        check(input);
        drop(shown);
    }

    /// Gives each file of a folder to a check; then, for `ATTACHE_FUZZ_SECONDS` (1), random changes of these files. The
    /// random numbers are always the same, so that a failure can be repeated. `cargo xtask fuzz` searches by coverage.
    fn each(folder: &str, prefix: &[u8], check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
        let mut seeds = Vec::new();
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_file() {
                seeds.push([prefix, &fs::read(&path).unwrap()].concat());
            }
        }
        assert!(!seeds.is_empty(), "{} is empty", folder.display());
        // The file system lists files in any order.
        seeds.sort();
        for seed in &seeds {
            ask(check, seed);
        }
        let seconds = std::env::var("ATTACHE_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
        let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(1));
        let mut random = fastrand::Rng::with_seed(1);
        while Instant::now() < end {
            let seed = &seeds[random.usize(..seeds.len())];
            let other = &seeds[random.usize(..seeds.len())];
            ask(check, &mutated(seed, other, &mut random));
        }
    }

    /// Changes, removes or doubles a few bytes, or replaces the end by that of another file.
    fn mutated(seed: &[u8], other: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=random.usize(..4) {
            let at = random.usize(..=bytes.len());
            let until = bytes.len().min(at + random.usize(1..9));
            match random.u8(..5) {
                0 if at < bytes.len() => bytes[at] = random.u8(..),
                1 => drop(bytes.drain(at..until)),
                2 => {
                    let part = bytes[at..until].to_vec();
                    bytes.splice(at..at, part);
                }
                3 => {
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[random.usize(..=other.len())..]);
                }
                _ => {
                    let from = random.usize(..=other.len());
                    let part = other[from..other.len().min(from + 8)].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
        bytes.truncate(4096);
        bytes
    }

    #[test]
    fn http1_holds_for_the_corpus() {
        each("fuzz/corpus/chunked", b"", super::chunked::check);
        each("fuzz/corpus/request", b"", super::request::check);
        each("fuzz/corpus/response", b"", super::response::check);
        each("fuzz/corpus/round_trip", b"", super::round_trip::check);
    }

    #[test]
    fn hyper_sees_no_other_http1_than_attache_for_the_corpus() {
        each("fuzz/corpus/differential", b"", super::differential::check);
        each("fuzz/corpus/round_trip", b"", super::differential::check);
    }

    #[test]
    fn first_bytes_of_a_connection_hold_for_the_corpus() {
        each("fuzz/corpus/detect", b"", super::detect::check);
        each("fuzz/corpus/proxy_protocol", b"", super::proxy_protocol::check);
        each("fuzz/corpus/sni", b"", super::sni::check);
    }

    #[test]
    fn who_called_holds_for_the_corpus() {
        each("fuzz/corpus/forwarded", b"", super::forwarded::check);
    }

    #[test]
    fn what_other_services_answer_holds_for_the_corpus() {
        each("fuzz/corpus/dns", b"", super::dns::check);
        each("fuzz/corpus/rate_limit", b"", super::rate_limit::check);
        each("fuzz/corpus/svid", b"", super::svid::check);
    }

    #[test]
    fn http2_holds_for_the_corpus() {
        each("fuzz/corpus/http2_server", b"", super::http2::server);
        each("fuzz/corpus/http2_client", b"", super::http2::client);
        each("fuzz/corpus/hpack", b"", super::hpack::check);
    }

    #[test]
    fn paths_and_configs_hold_for_the_corpus() {
        each("fuzz/corpus/path", b"", super::path::check);
        each("fuzz/corpus/url", b"", super::url::check);
        each("fuzz/corpus/config", b"", super::config::check);
        each("config", b"", super::config::check);
    }

    #[test]
    fn rules_and_tokens_hold_for_the_corpus() {
        each("fuzz/corpus/rule", b"", super::rule::check);
        each("fuzz/corpus/token", b"", super::token::check);
    }

    #[test]
    fn what_browsers_and_other_services_say_holds_for_the_corpus() {
        each("fuzz/corpus/authorizer", b"", super::authorizer::check);
        each("fuzz/corpus/coding", b"", super::coding::check);
        each("fuzz/corpus/cors", b"", super::cors::check);
        each("fuzz/corpus/grpc_web", b"", super::grpc_web::check);
        each("fuzz/corpus/named", b"", super::named::check);
        each("fuzz/corpus/session", b"", super::session::check);
    }

    #[test]
    fn manifests_hold_for_the_corpus() {
        each("fuzz/corpus/manifest", b"", super::manifest::check);
        each("fuzz/corpus/review", b"", super::review::check);
        each("crates/kubernetes/tests/manifests", b"", super::manifest::check);
    }

    #[test]
    fn imports_hold_for_the_corpus() {
        each("fuzz/corpus/import", b"", super::imported::check);
        for (kind, folder) in [(b"\0", "envoy"), (b"\x01", "haproxy"), (b"\x02", "nginx")] {
            each(&format!("crates/import/corpus/{folder}"), kind, super::imported::check);
        }
    }
}
