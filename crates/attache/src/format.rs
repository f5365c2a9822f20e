//! `--output`: the form in which a command prints its result.

use clap::{Args, ValueEnum};

/// Text for people, or JSON for programs. Every command that prints a result has the same two flags.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputFlags {
    /// How it is shown.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t = Output::Text)]
    output: Output,
    /// Short for `--output json`.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl OutputFlags {
    pub(crate) fn is_json(self) -> bool {
        self.json || self.output == Output::Json
    }
}

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}
