//! Sends the same bytes to other people's readers of HTTP/1, directly and through attache: `tests/scripts/readers.py`.

use attache_tests::{binary, script, text};

#[test]
fn node_and_nginx_see_through_attache_only_what_they_see_directly() {
    // The long form (`cargo xtask conformance`) makes more mutations.
    let mutated = std::env::var("ATTACHE_READERS_MUTATED").unwrap_or_else(|_| "500".to_owned());
    let folders = ["differential", "request", "round_trip"]
        .map(|name| format!("{}/../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR")));
    let attache = binary().display().to_string();
    let arguments = [&attache, &folders[0], &folders[1], &folders[2], "--mutated", &mutated];
    let output = script("readers.py", &arguments.map(|argument: &str| argument));
    let said = text(&output);
    assert!(output.status.success() && said.contains("; 0 differences"), "{said}");
    println!("{}", said.lines().last().unwrap_or_default());
}
