use super::*;
use crate::plan::RuleConditions;

fn rule(path: PlannedPath, status: u64) -> PlannedRule {
    let mut rule =
        PlannedRule { when: RuleConditions { path, ..RuleConditions::default() }, ..PlannedRule::default() };
    rule.answer(status);
    rule
}

fn listener(sites: Vec<VirtualHost>) -> PlannedListener {
    PlannedListener {
        chains: vec![FilterChain { sites, ..FilterChain::default() }],
        ..PlannedListener::default()
    }
}

fn site(hosts: &[&str], rules: Vec<PlannedRule>) -> VirtualHost {
    VirtualHost {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        rules,
        ..VirtualHost::default()
    }
}

fn patterns(listener: &PlannedListener) -> Vec<Option<String>> {
    routes(listener).iter().map(|route| route.rule.when.path.pattern(route.regex)).collect()
}

fn text(path: &str) -> PlannedPath {
    PlannedPath::Text(path.to_owned())
}

fn exact(path: &str) -> PlannedPath {
    PlannedPath::Exact(path.to_owned())
}

#[test]
fn the_more_specific_first_stays_plain() {
    let list = listener(vec![site(
        &["*"],
        vec![
            rule(exact("/a"), 200),
            rule(PlannedPath::Segments("/b".into()), 201),
            rule(PlannedPath::All, 202),
        ],
    )]);
    assert_eq!(patterns(&list), [Some("/a".into()), Some("/b/*".into()), Some("/*".into())]);
}

#[test]
fn a_later_rule_that_would_come_first_becomes_an_expression() {
    let list = listener(vec![site(
        &["*"],
        vec![
            rule(text("/a"), 200),
            rule(exact("/a/b"), 201),
            rule(exact("/c"), 202),
            rule(PlannedPath::All, 203),
        ],
    )]);
    let all: Vec<_> = patterns(&list).into_iter().map(Option::unwrap_or_default).collect();
    assert_eq!(all, ["~/a.*", "~/a/b", "/c", "~/.*"]);
}

#[test]
fn a_host_is_closed_where_a_wider_one_would_take_its_rest() {
    let list = listener(vec![
        site(&["a.internal"], vec![rule(text("/a"), 200)]),
        site(&["*"], vec![rule(PlannedPath::All, 201)]),
    ]);
    let routes = routes(&list);
    assert_eq!(routes.len(), 3);
    assert_eq!(routes[1].hosts, ["a.internal"]);
    assert_eq!(routes[1].rule.keys.get("respond"), Some(&404_u64.into()));
}

#[test]
fn chains_by_server_name_keep_their_rules_apart() {
    let chain = |sni: &[&str], sites| FilterChain {
        sni: sni.iter().map(|name| (*name).to_owned()).collect(),
        sites,
        ..FilterChain::default()
    };
    let list = PlannedListener {
        chains: vec![
            chain(&["a.internal"], vec![site(&["*"], vec![rule(text("/only"), 200)])]),
            chain(&[], vec![site(&["b.internal"], vec![rule(exact("/x"), 201)])]),
        ],
        ..PlannedListener::default()
    };
    // A client of the first chain that asks for `b.internal` gets the first chain's rules and its closing route.
    let routes = routes(&list);
    let of_b: Vec<_> = routes.iter().filter(|route| route.hosts == ["b.internal"]).collect();
    assert_eq!(of_b[0].sni, ["a.internal"]);
    assert_eq!(of_b[1].sni, ["a.internal"]);
    assert_eq!(of_b[1].rule.keys.get("respond"), Some(&404_u64.into()));
    assert!(of_b[2].regex && of_b[2].sni.is_empty());
}
