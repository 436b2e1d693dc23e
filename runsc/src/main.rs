//! `runsc`: an OCI runtime whose containers run on a Linux kernel of their own, in user space.
//!
//! One static binary. `cli` is the command line, `commands` has one file per verb, `spec` reads bundles,
//! `container` keeps what is known between calls, `sandbox` makes and watches the processes, `cgroup` puts
//! them into the host's cgroups.
#![forbid(unsafe_code)]

mod cgroup;
mod cli;
mod commands;
mod container;
mod error;
mod log;
mod sandbox;
mod spec;

use clap::Parser;
use cli::Cli;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    if cli.version {
        return put(&format!(
            "runsc version {}\nspec: {}\n",
            env!("CARGO_PKG_VERSION"),
            container::state::OCI_VERSION
        ));
    }
    let Some(verb) = cli.verb else {
        return usage(&Cli::try_parse_from(["runsc", "--help"]).err().unwrap_or_else(no_verb));
    };
    match commands::carry_out(&cli.global, verb) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            log::write(&cli.global, log::Level::Error, &failure.message);
            log::complain(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn no_verb() -> clap::Error {
    clap::Error::new(clap::error::ErrorKind::MissingSubcommand)
}

/// Help goes to standard output and is no error; anything else is, with runc's status.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let text = error.to_string();
        // What is wrong comes first, over several lines; how to use it and where to look come after.
        let what: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let what = what.join(" ");
        let what = what.strip_prefix("error: ").unwrap_or(&what);
        log::write_early(std::env::args(), what);
        log::complain(what);
        // A verb that there is not is 3 to runc.
        let is_unknown_verb = error.kind() == clap::error::ErrorKind::InvalidSubcommand;
        return ExitCode::from(if is_unknown_verb { 3 } else { 1 });
    }
    put(&error.to_string())
}

/// Writes to standard output; a closed pipe is the reader's business.
fn put(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
