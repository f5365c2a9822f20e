//! Which values each kind of condition holds for.

use attache_config::model::{Match, ValueMatch, ValuePattern};
use attache_http::Client;

use crate::{
    RequestFacts, RouteTable,
    testing::{client, host, listener, request, route},
};

/// Whether a route with these conditions is found.
fn is_found(matcher: Match, target: &str, headers: &[(&str, &str)]) -> bool {
    let table = RouteTable::new(&listener(vec![route("asked", matcher)]));
    let request = request("GET", target, headers);
    let client = Client::default();
    table.find_http(&RequestFacts::of(&request, &client)).is_some()
}

#[test]
fn a_value_of_a_header_or_parameter_is_compared_in_five_ways_and_each_can_be_inverted() {
    let regex = regex::Regex::new("^(?:a.*b)$").unwrap();
    for (pattern, met, unmet) in [
        (ValuePattern::Present, vec!["ab", "x", ""], vec![]),
        (ValuePattern::Exact("ab".into()), vec!["ab"], vec!["abc", "xab", "AB", ""]),
        (ValuePattern::Prefix("ab".into()), vec!["ab", "abc"], vec!["xab", "a", ""]),
        (ValuePattern::Suffix("ab".into()), vec!["ab", "xab"], vec!["abc", "b", ""]),
        (ValuePattern::Regex(regex.into()), vec!["ab", "axb"], vec!["abx", "xab", ""]),
    ] {
        for not in [false, true] {
            let value = || ValueMatch { name: "x-q".into(), value: pattern.clone(), not };
            let header = |headers: &[(&str, &str)]| {
                is_found(Match { headers: vec![value()], ..Match::default() }, "a/", headers)
            };
            let query =
                |target: &str| is_found(Match { query: vec![value()], ..Match::default() }, target, &[]);
            assert_eq!((header(&[]), query("a/")), (not, not), "{pattern:?}: none");
            let cases = met.iter().map(|text| (text, true)).chain(unmet.iter().map(|text| (text, false)));
            for (text, met) in cases {
                assert_eq!(header(&[("x-q", text)]), met != not, "{pattern:?} {text}");
                assert_eq!(query(&format!("a/?x=1&x-q={text}")), met != not, "{pattern:?} {text}");
                assert_eq!(query(&format!("a/?x-q={text}&x=1")), met != not, "{pattern:?} {text}");
            }
        }
    }
}

#[test]
fn a_server_name_with_a_port_asks_for_the_port_of_the_original_destination() {
    let matcher = Match { sni: vec![host("db.internal:5432")], ..Match::default() };
    let table = RouteTable::new(&listener(vec![route("db", matcher)]));
    for (destination, sni, expected) in [
        ("10.0.0.9:5432", "db.internal", true),
        ("10.0.0.9:5433", "db.internal", false),
        ("10.0.0.9:5432", "other.internal", false),
        ("", "db.internal", false),
    ] {
        assert_eq!(table.find_tcp(&client(destination, sni)).is_ok(), expected, "{destination} {sni}");
    }
}
