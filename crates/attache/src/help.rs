//! Help of the command line: completions, manual pages, and suggestions for a command that doesn't exist.

use std::{error::Error, fs, io};

use clap::{
    CommandFactory as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::cli::{self, Cli};

/// Prints a shell's completions.
pub(crate) fn completions(options: &cli::Completions) -> Result<(), Box<dyn Error>> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "attache", &mut text);
    io::Write::write_all(&mut io::stdout(), &text)?;
    Ok(())
}

/// Prints the manual page, or writes one for each command.
pub(crate) fn man(options: &cli::Man) -> Result<(), Box<dyn Error>> {
    let command = Cli::command().disable_help_subcommand(true);
    match &options.folder {
        None => clap_mangen::Man::new(command).render(&mut io::stdout())?,
        Some(folder) => {
            let wrong = |error: io::Error| {
                format!("{}: no manual pages can be written there: {error}", folder.display())
            };
            fs::create_dir_all(folder).map_err(wrong)?;
            clap_mangen::generate_to(command, folder).map_err(wrong)?;
        }
    }
    Ok(())
}

/// What to say where the first word is no command, since everything but a command begins with `-`.
pub(crate) fn unknown_command(error: &clap::Error) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand) {
        return None;
    }
    let word = std::env::args().nth(1).filter(|word| !word.starts_with('-'))?;
    let wrong = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
        .into_iter()
        .any(|kind| matches!(error.get(kind), Some(ContextValue::String(text)) if *text == word));
    wrong.then(|| no_command(&word))
}

fn no_command(word: &str) -> String {
    let command = Cli::command();
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    match attache_config::nearest(word, names.iter().copied()) {
        Some(near) => format!("there is no command `{word}`; did you mean `attache {near}`?"),
        None => format!("there is no command `{word}`; there are {}. See `attache --help`", names.join(", ")),
    }
}

/// The cause is a pipe whose reader has ended.
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
    fn a_misspelt_command_gets_a_suggestion() {
        assert_eq!(no_command("chek"), "there is no command `chek`; did you mean `attache check`?");
        assert_eq!(no_command("staus"), "there is no command `staus`; did you mean `attache status`?");
        assert!(no_command("frobnicate").contains("explain"));
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_closed_pipe_is_known_however_deep() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&closed()));
        assert!(is_closed_pipe(&serde_json::Error::io(closed())));
        assert!(!is_closed_pipe(&io::Error::other("x")));
    }
}
