//! Failures, each with the one command that shows its cause and what to do: the tables of `docs/troubleshooting.md`.

use attache_tests::{binary, script, script_alone, text};

#[test]
fn one_command_says_cause_and_remedy_of_each_of_25_failures() {
    let output = script("troubles.py", &[&binary().display().to_string()]);
    let said = text(&output);
    assert!(output.status.success() && said.contains("25 of 25 have cause and remedy"), "{said}");
}

#[test]
fn one_command_says_cause_and_remedy_of_tls_http2_tunnels_dns_reloads_and_the_system() {
    let output = script("more_troubles.py", &[&binary().display().to_string()]);
    let said = text(&output);
    assert!(output.status.success() && said.contains(" have cause and remedy"), "{said}");
}

#[test]
fn one_command_says_cause_and_remedy_of_rare_failures() {
    let output = script("rare_troubles.py", &[&binary().display().to_string()]);
    let said = text(&output);
    assert!(output.status.success() && said.contains(" have cause and remedy"), "{said}");
}

#[test]
fn one_command_says_cause_and_remedy_of_odd_answers_protocols_and_configs() {
    let output = script("odd_troubles.py", &[&binary().display().to_string()]);
    let said = text(&output);
    assert!(output.status.success() && said.contains(" have cause and remedy"), "{said}");
}

#[test]
fn a_total_outage_is_never_green() {
    let output = script("outages.py", &[&binary().display().to_string()]);
    let said = text(&output);
    assert!(output.status.success() && said.contains("every outage was seen"), "{said}");
}

#[test]
fn one_command_says_cause_and_remedy_of_4xx_answers_limits_budgets_and_tokens() {
    let output = script("further_troubles.py", &[&binary().display().to_string()]);
    let said = text(&output);
    assert!(output.status.success() && said.contains(" have cause and remedy"), "{said}");
}

#[test]
fn an_outage_that_begins_while_attache_runs_has_a_cause_a_remedy_and_an_end() {
    // One of them fills a disk of its own.
    let output = script_alone("recoveries.py", &[&binary().display().to_string()]);
    let said = text(&output);
    let ending = "each outage has a cause, a remedy, a beginning and an end";
    assert!(output.status.success() && said.contains(ending), "{said}");
}
