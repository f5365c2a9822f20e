//! attache: an ambassador sidecar.
//!
//! This crate is the program: the command line, start, drain, and [`stack`]. The stack is the one place where the parts are put together,
//! in the order in which a request passes them.

mod admin;
mod allocator;
mod app;
mod app_probes;
mod bind;
mod check;
mod cli;
mod client;
mod cpus;
mod credentials;
mod demo;
mod diff;
mod error;
mod explain;
mod exports;
mod format;
mod generation;
mod help;
mod import;
mod inherited;
mod inject;
mod intercept;
mod issuers;
mod misuse;
mod notify;
mod observe;
mod overload;
mod prepare;
mod process;
mod proxy;
mod reloads;
mod resident;
mod run;
mod signals;
mod stack;
mod surroundings;
mod ticks;
mod tls;
mod upgrade;
mod upgrade_folder;
mod upkeep;
mod watch;
mod webhook;
mod worker;

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;

use crate::cli::{Cli, Command};

const fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut error) => return help::parsed(&mut error),
    };
    let command = cli.command.unwrap_or(Command::Run(cli.run));
    let is_json = command.is_json();
    let serves = matches!(command, Command::Run(_) | Command::Webhook(_));
    let result = match command {
        Command::Run(options) => run::run(&options),
        Command::Check(options) => return check::run(&options),
        Command::Schema => run::schema().map(done),
        Command::Explain(options) => explain::run(&options).map(done),
        Command::Import(options) => import::run(&options),
        Command::Demo(options) => demo::run(&options).map(done),
        Command::WaitReady(options) => client::wait_ready(&options),
        Command::Intercept(options) => intercept::run(&options).map(done),
        Command::Inject(options) => inject::inject(&options),
        Command::Uninject(options) => inject::uninject(&options),
        Command::Webhook(options) => webhook::run(&options).map(done),
        Command::Sleep(options) => {
            std::thread::sleep(options.duration);
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(options) => client::status(&options),
        Command::Top(options) => client::top(&options).map(done),
        Command::Tap(options) => client::tap(&options).map(done),
        Command::Reload(options) => client::order(&options, "/reload"),
        Command::Drain(options) => client::order(&options, "/drain"),
        Command::Quit(options) => client::order(&options, "/quitquitquit"),
        Command::Upgrade(options) => upgrade_folder::upgrade(&options).map(done),
        Command::Completions(options) => help::completions(&options).map(done),
        Command::Man(options) => help::man(&options).map(done),
    };
    let result = match result {
        // Text that is still in the buffer is a part of the result too. This is not done for a server: it writes its log there, and the
        // write may block for ever.
        Ok(code) if !serves => std::io::stdout().flush().map(|()| code).map_err(Into::into),
        result => result,
    };
    match result {
        Ok(code) => code,
        // The reader of the output has ended (`| head`): this is no failure.
        Err(error) if help::is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            error::print_error(&*error);
            if is_json {
                // A program that reads the output gets JSON in any case.
                let said = serde_json::json!({ "error": error.to_string() });
                let _ = writeln!(std::io::stdout(), "{said}");
            }
            ExitCode::FAILURE
        }
    }
}
