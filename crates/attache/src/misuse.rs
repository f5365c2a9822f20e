//! Suggestions for a command line that can't be parsed: commands and options with the names that other programs use.

use clap::{
    CommandFactory as _,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::cli::Cli;

/// Names that other programs use for the same command.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["version"], "--version"),
    (&["validate", "verify", "test", "lint", "configtest"], "check"),
    (&["serve", "start", "proxy"], "run"),
    (&["restart"], "reload"),
    (&["stop", "shutdown", "kill"], "quit"),
    (&["logs", "log", "trace", "watch", "tail"], "tap"),
    (&["stats", "health", "info", "ps"], "status"),
    (&["convert", "migrate"], "import"),
    (&["route", "match", "why"], "explain"),
];

/// The commands that ask a running attache; and those that start one, of which the first is no command at all.
const CLIENTS: &[&str] = &["status", "top", "tap", "reload", "drain", "quit"];
const RUN: &[&str] = &["", "run"];

const NAMED_BY_C: &str = "`-c FILE` names the config";
const BY_ADMIN: &str =
    "`--admin ADDRESS` says where the running attache answers, as `admin` of its config does";
const FILES_ALONE: &str = "the files are given without an option";

/// Commands, names that other programs use for one of their options, and what to do in attache.
const OPTIONS: &[(&[&str], &[&str], &str)] = &[
    (RUN, &["-f", "--file", "--conf", "--config-file", "--configuration"], NAMED_BY_C),
    (
        RUN,
        &["-t", "-T", "-n", "--test", "--check", "--validate", "--dry-run"],
        "`attache check FILE` checks a config",
    ),
    (
        RUN,
        &["-v", "-vv", "-d", "-q", "-l", "--verbose", "--debug", "--quiet", "--log-level", "--loglevel"],
        "`--log LEVEL` says how much is logged: `error`, `warn`, `info`, `debug` or `trace`",
    ),
    (
        RUN,
        &["-p", "--port", "--listen", "--bind", "--address", "--host"],
        "the config says where it listens: `bind` of a listener",
    ),
    (
        RUN,
        &["-D", "--daemon", "--background"],
        "attache stays in the foreground: end the line with `&`, or use systemd or a container (docs/deploy.md)",
    ),
    (RUN, &["-s", "--signal"], "`attache reload` reads the config again, `attache quit` ends attache"),
    (
        &["check"],
        &["-f", "--file", "--config-file"],
        "the file is given without an option, `attache check FILE`, or as `-c FILE`",
    ),
    (
        &["check"],
        &["-q", "--quiet", "-s", "--silent"],
        "its exit code is 0 if the config is valid, otherwise 1",
    ),
    (&["explain"], &["-f", "--file", "--config-file"], NAMED_BY_C),
    (
        &["explain"],
        &["-X", "--request", "--method"],
        "the method comes before the URL: `attache explain POST http://orders/v1`",
    ),
    (&["explain"], &["-d", "--data", "--body"], "nothing is sent, so leave the body out"),
    (
        &["explain"],
        &["--url", "-u"],
        "the URL is given without an option: `attache explain GET http://orders/v1`",
    ),
    (
        CLIENTS,
        &["-a", "-p", "--address", "--port", "--host", "--url", "--server", "-c", "-f", "--config"],
        BY_ADMIN,
    ),
    (&["status"], &["-w", "--watch", "--follow"], "`attache top` shows it live"),
    (&["top"], &["-n", "-b", "--count"], "`--once` prints it once"),
    (
        &["wait-ready"],
        &["-a", "-p", "--admin", "--port", "--host", "--url"],
        "`--address ADDRESS` says where `/readyz` answers, as `metrics` of the config does",
    ),
    (&["wait-ready"], &["-t", "--wait"], "`--timeout 30s` says how long it waits"),
    (
        &["schema"],
        &["-o", "--output", "--json"],
        "it is JSON in any case: `attache schema > attache.schema.json`",
    ),
    (&["inject", "uninject"], &["-f", "--file", "--filename"], FILES_ALONE),
    (&["import"], &["-f", "--file", "--input"], FILES_ALONE),
    (
        &["import"],
        &["--type", "--format", "--source"],
        "`--from PROXY` names the proxy that the config is for",
    ),
];

/// The message that replaces clap's own, because clap knows only this program's options.
pub(crate) fn meant(error: &clap::Error) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand) {
        return None;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wrong =
        [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].into_iter().find_map(|kind| match error
            .get(kind)
        {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        })?;
    instead(&words.iter().map(String::as_str).collect::<Vec<_>>(), wrong)
}

/// Removes clap's suggestions of `--`: it precedes an app to run, and a user who misspells an option doesn't mean that.
pub(crate) fn without_escapes(error: &mut clap::Error) {
    let Some(ContextValue::StyledStrs(tips)) = error.get(ContextKind::Suggested) else { return };
    let tips: Vec<StyledStr> =
        tips.iter().filter(|tip| !tip.to_string().contains(" as a value, use ")).cloned().collect();
    let tips = if tips.is_empty() { ContextValue::None } else { ContextValue::StyledStrs(tips) };
    error.insert(ContextKind::Suggested, tips);
}

/// If `wrong` is one of these words, the message for it.
fn instead(words: &[&str], wrong: &str) -> Option<String> {
    let command = Cli::command();
    let is_command = |word: &str| command.get_subcommands().any(|known| known.get_name() == word);
    let first = words.first().copied().unwrap_or_default();
    let of = if is_command(first) { first } else { "" };
    let option = wrong.split('=').next().unwrap_or(wrong);
    if wrong.starts_with('-') {
        let (_, _, help) = OPTIONS
            .iter()
            .find(|(commands, theirs, _)| commands.contains(&of) && theirs.contains(&option))?;
        let name = if of.is_empty() { "attache".to_owned() } else { format!("attache {of}") };
        return Some(format!("`{name}` has no option `{option}`; {help}"));
    }
    if of.is_empty() && first == wrong {
        return Some(no_command(wrong));
    }
    if of.is_empty() && is_command(wrong) {
        let rest: Vec<&str> = words.iter().copied().filter(|word| *word != wrong).collect();
        return Some(format!("the command comes first: `attache {wrong} {}`", rest.join(" ")));
    }
    match of {
        "" | "run" if is_config(wrong) => Some(format!("{NAMED_BY_C}: `attache run -c {wrong}`")),
        "run" => Some(format!("`{wrong}` is not an option; an app to run beside attache comes after `--`")),
        "check" => Some(format!("one config at a time: use another call, `attache check {wrong}`")),
        "tap" => {
            Some(format!("`attache tap` takes no name; for one upstream: `attache tap --upstream {wrong}`"))
        }
        _ if CLIENTS.contains(&of) && wrong.parse::<crate::cli::AdminAddress>().is_ok() => {
            Some(format!("`attache {of}` takes no address; `--admin {wrong}` says where attache answers"))
        }
        _ if CLIENTS.contains(&of) => Some(format!("`attache {of}` takes no `{wrong}`; {BY_ADMIN}")),
        "wait-ready" => {
            Some(format!("`attache wait-ready` takes no `{wrong}`; `--timeout 30s` says how long it waits"))
        }
        _ => None,
    }
}

fn is_config(word: &str) -> bool {
    [".yaml", ".yml", ".json"].into_iter().any(|ending| word.ends_with(ending))
}

fn no_command(word: &str) -> String {
    let command = Cli::command();
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    if is_config(word) {
        return format!("there is no command `{word}`; to run it as a config: `attache run -c {word}`");
    }
    if let Some((_, ours)) = COMMANDS.iter().find(|(theirs, _)| theirs.contains(&word)) {
        return format!("there is no command `{word}`; did you mean `attache {ours}`?");
    }
    match attache_config::nearest(word, names.iter().copied()) {
        Some(near) => format!("there is no command `{word}`; did you mean `attache {near}`?"),
        None => format!("there is no command `{word}`; there are {}. See `attache --help`", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_command_gets_a_suggestion() {
        assert_eq!(no_command("chek"), "there is no command `chek`; did you mean `attache check`?");
        assert_eq!(no_command("staus"), "there is no command `staus`; did you mean `attache status`?");
        assert!(no_command("frobnicate").contains("explain"));
        assert!(no_command("version").ends_with("did you mean `attache --version`?"));
        assert!(no_command("validate").ends_with("did you mean `attache check`?"));
        assert!(no_command("shop.yml").ends_with("`attache run -c shop.yml`"));
    }

    #[test]
    fn an_option_of_another_program_is_answered_with_attache_s_own() {
        let said = |line: &str, wrong: &str| {
            instead(&line.split(' ').collect::<Vec<_>>(), wrong).unwrap_or_default()
        };
        for (line, wrong, says) in [
            ("-f a.yaml", "-f", "`-c FILE`"),
            ("run --file=a.yaml", "--file=a.yaml", "`-c FILE`"),
            ("run a.yaml", "a.yaml", "`attache run -c a.yaml`"),
            ("-t -c a.yaml", "-t", "`attache check FILE`"),
            ("run --verbose", "--verbose", "`--log LEVEL`"),
            ("--port 80", "--port", "`bind` of a listener"),
            ("-s reload", "-s", "`attache reload`"),
            ("-c a.yaml check", "check", "`attache check -c a.yaml`"),
            ("check -f a.yaml", "-f", "`attache check FILE`"),
            ("check a.yaml b.yaml", "b.yaml", "one config at a time"),
            ("status 15000", "15000", "`--admin 15000`"),
            ("status -c a.yaml", "-c", "`--admin ADDRESS`"),
            ("reload a.yaml", "a.yaml", "`--admin ADDRESS`"),
            ("status --watch", "--watch", "`attache top`"),
            ("tap orders", "orders", "`attache tap --upstream orders`"),
            ("wait-ready 30s", "30s", "`--timeout 30s`"),
            ("wait-ready --admin 1", "--admin", "`--address ADDRESS`"),
            ("explain -X POST http://a/", "-X", "`attache explain POST"),
            ("inject -f a.yaml", "-f", FILES_ALONE),
            ("run server", "server", "after `--`"),
            ("run run", "run", "after `--`"),
        ] {
            assert!(said(line, wrong).contains(says), "{line}: {}", said(line, wrong));
        }
    }

    #[test]
    fn no_option_of_attache_is_taken_for_one_of_another_program() {
        let program = Cli::command();
        for (commands, theirs, _) in OPTIONS {
            for name in *commands {
                let command = program.find_subcommand(name).unwrap_or(&program);
                for arg in command.get_arguments() {
                    let long = arg.get_long().map(|long| format!("--{long}"));
                    let short = arg.get_short().map(|short| format!("-{short}"));
                    // `tap` has its own `-p`, and this list is for all commands that ask a running attache.
                    let is_ours =
                        |word: &&str| Some(*word) == long.as_deref() || Some(*word) == short.as_deref();
                    let own = theirs.iter().find(|word| is_ours(word));
                    assert!(own.is_none() || *name == "tap", "{name}: {own:?}");
                }
            }
        }
    }
}
