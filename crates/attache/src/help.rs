//! The help of the command line: completions, manual pages, and everything that the parser prints.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::CommandFactory as _;

use crate::{
    cli::{self, Cli},
    misuse,
};

/// Prints a shell's completions.
pub(crate) fn completions(options: &cli::CompletionsArgs) -> Result<(), Box<dyn Error>> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut completed(), "attache", &mut text);
    io::stdout().write_all(&text)?;
    Ok(())
}

/// The command line without the app that `run` may start: otherwise zsh would take every command for that app, and complete no options.
fn completed() -> clap::Command {
    let full = Cli::command();
    let alone = |arg: &clap::Arg| arg.clone().conflicts_with(clap::builder::Resettable::Reset);
    clap::Command::new("attache")
        .version(cli::VERSION)
        .args(full.get_arguments().filter(|arg| !arg.is_positional()).map(alone))
        .subcommands(full.get_subcommands().cloned())
        .args_conflicts_with_subcommands(true)
}

/// Prints the parser's message. Returns the exit code. Help and version are results: if they can't be printed, that is a failure.
pub(crate) fn parsed(error: &mut clap::Error) -> ExitCode {
    if error.use_stderr() {
        if let Some(said) = misuse::meant(error) {
            crate::error::print_error(&io::Error::other(said));
        } else {
            misuse::without_escapes(error);
            let _ = error.print();
        }
        return ExitCode::from(2);
    }
    match error.print().and_then(|()| io::stdout().flush()) {
        Err(failed) if failed.kind() != io::ErrorKind::BrokenPipe => {
            crate::error::print_error(&failed);
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints a manual page, or writes one for each command.
pub(crate) fn man(options: &cli::ManArgs) -> Result<(), Box<dyn Error>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let named =
        options.folder.as_deref().and_then(Path::to_str).and_then(|name| command.find_subcommand(name));
    match (&options.folder, named) {
        (None, _) => io::stdout().write_all(page(&command)?.as_bytes())?,
        (Some(_), Some(command)) => io::stdout().write_all(page(command)?.as_bytes())?,
        (Some(folder), None) => {
            let wrong = |error: io::Error| {
                format!("{}: no manual pages can be written there: {error}", folder.display())
            };
            fs::create_dir_all(folder).map_err(wrong)?;
            pages(&command, folder).map_err(wrong)?;
        }
    }
    Ok(())
}

/// The page of a command, and those of its own commands.
fn pages(command: &clap::Command, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    fs::write(folder.join(format!("{name}.1")), page(command)?)?;
    command.get_subcommands().try_for_each(|command| pages(command, folder))
}

/// A manual page that groff and mandoc read without a warning.
fn page(command: &clap::Command) -> io::Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .date(date())
        .source("attache")
        .manual("attache")
        .render(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let mut page = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    let mut after_space = false;
    while let Some(line) = lines.next() {
        // Between paragraphs the renderer writes an empty line among line breaks; a line with a space means the same.
        if line.is_empty()
            || (line == ".br" && (after_space || lines.peek().is_some_and(|next| next.is_empty())))
        {
            if !after_space && line.is_empty() {
                page.push_str(".sp\n");
                after_space = true;
            }
            continue;
        }
        after_space = false;
        for char in line.chars() {
            if char.is_ascii() {
                page.push(char);
            } else {
                // Writing to a String can't fail.
                let _ = write!(page, "\\[u{:04X}]", u32::from(char));
            }
        }
        page.push('\n');
    }
    Ok(page)
}

/// The date of the pages: SOURCE_DATE_EPOCH, so that a package is the same whenever it is built, or else today.
fn date() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let at =
        given.map_or_else(SystemTime::now, |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    attache_telemetry::rfc3339(at).chars().take(10).collect()
}

/// Whether the cause is a pipe whose reader has ended.
pub(crate) fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    let closed = |kind| kind == Some(io::ErrorKind::BrokenPipe);
    let mut next = Some(error);
    while let Some(error) = next {
        if closed(error.downcast_ref().map(io::Error::kind))
            || closed(error.downcast_ref().and_then(serde_json::Error::io_error_kind))
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_closed_pipe_is_recognised_at_any_depth() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&closed()));
        assert!(is_closed_pipe(&serde_json::Error::io(closed())));
        assert!(!is_closed_pipe(&io::Error::other("x")));
    }

    #[test]
    fn zsh_completes_the_first_word_as_the_command() {
        let mut text = Vec::new();
        clap_complete::generate(clap_complete::Shell::Zsh, &mut completed(), "attache", &mut text);
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("case $line[1] in") && !text.contains("case $line[2] in\n            (run)"),
            "{text}"
        );
    }

    #[test]
    fn manual_pages_have_a_date_and_cause_no_warnings() {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let explain = command.find_subcommand("explain").unwrap().clone();
        for command in [command, explain] {
            let page = page(&command).unwrap();
            let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
            assert_eq!(title.split(' ').nth(3).map(str::len), Some("2026-11-29".len()), "{title}");
            assert!(page.is_ascii() && !page.contains("\n\n") && !page.contains(".br\n.sp"), "{page}");
        }
    }
}
