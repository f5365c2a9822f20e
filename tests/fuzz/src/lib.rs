//! What holds for any bytes. `fuzz/` looks for bytes for which it does not; the test here asks for those that were
//! found once, and for samples.

pub mod authorizer;
pub mod chunked;
pub mod coding;
pub mod config;
pub mod cors;
pub mod grpc_web;
pub mod hpack;
pub mod http2;
pub mod imported;
pub mod manifest;
pub mod named;
pub mod path;
pub mod request;
pub mod response;
pub mod round_trip;
pub mod rule;
pub mod session;
pub mod token;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Each file of a folder, given to a check.
    fn each(folder: &str, prefix: &[u8], check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
        let mut count = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_file() {
                check(&[prefix, &fs::read(&path).unwrap()].concat());
                count += 1;
            }
        }
        assert!(count > 0, "{} is empty", folder.display());
    }

    #[test]
    fn http1_holds_for_the_corpus() {
        each("fuzz/corpus/chunked", b"", super::chunked::check);
        each("fuzz/corpus/request", b"", super::request::check);
        each("fuzz/corpus/response", b"", super::response::check);
        each("fuzz/corpus/round_trip", b"", super::round_trip::check);
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
