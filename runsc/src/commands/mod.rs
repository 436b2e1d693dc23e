//! One file per verb.

mod check;
mod create;
mod delete;
mod do_verb;
mod events;
mod exec;
mod features;
mod install;
mod kill;
mod list;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;
mod wait;

use crate::cli::{Global, Verb};
use crate::error::{Doing, Failure, Outcome};
use std::io::Write;

/// Carries out a verb; the number is the exit status.
pub(crate) fn carry_out(global: &Global, verb: Verb) -> Outcome<u8> {
    match verb {
        Verb::Create(args) => create::create(global, &args),
        Verb::Start(args) => start::start(global, &args.id),
        Verb::Run(args) => run::run(global, &args),
        Verb::State(args) => state::state(global, &args.id),
        Verb::List(args) => list::list(global, &args),
        Verb::Kill(args) => kill::kill(global, &args),
        Verb::Delete(args) => delete::delete(global, &args),
        Verb::Exec(args) => exec::exec(global, &args),
        Verb::Ps(args) => ps::ps(global, &args),
        Verb::Spec(args) => spec::spec(&args),
        Verb::Features => features::features(),
        Verb::Do(args) => do_verb::run(global, &args),
        Verb::Check => check::check(),
        Verb::Wait(args) => wait::wait(global, &args.id),
        Verb::Pause(args) => state::pause(global, &args.id),
        Verb::Resume(args) => state::resume(global, &args.id),
        Verb::Update(args) => update::update(global, &args),
        Verb::Events(args) => events::events(global, &args),
        Verb::Install(args) => install::change(&args, install::Way::In),
        Verb::Uninstall(args) => install::change(&args, install::Way::Out),
        Verb::Checkpoint(_) => Err(Failure::new("checkpoint: saving a sandbox is not supported")),
        Verb::Restore(_) => Err(Failure::new("restore: bringing back a saved sandbox is not supported")),
    }
}

/// What a verb prints.
fn print(text: &str) -> Outcome<()> {
    std::io::stdout().write_all(text.as_bytes()).doing(|| "standard output")
}

/// JSON, as runc prints it: indented, with a newline.
fn print_json(value: &serde_json::Value) -> Outcome<()> {
    let text = serde_json::to_string_pretty(value).doing(|| "JSON")?;
    print(&format!("{text}\n"))
}
