//! What a person types: flags, and one file per command. Each command reads its arguments, calls `loader`, `manager`,
//! `state` or `image`, and hands the answer to `output`.
//!
//! Nothing is set up before it is needed: no asynchronous runtime, no image store, no log subscriber. The exit codes
//! are in [`error`].
#![forbid(unsafe_code)]

mod app;
mod apply;
mod attach;
mod check;
mod completion;
mod cp;
mod delete;
mod describe;
mod disk;
mod doctor;
mod error;
mod events;
mod events_file;
mod exec;
mod explain;
mod follow;
mod generate;
mod get;
mod image;
mod info;
mod internal;
mod inventory;
mod login;
mod logs;
mod man;
mod manifests;
mod port_forward;
mod pull;
mod quadlet;
mod registry;
mod reset;
mod resource;
mod session;
mod short_name;
mod system;
mod target;
mod top;
mod up;
mod values;
mod version;
mod volume;
mod wait;

use std::process::ExitCode;

use clap::FromArgMatches as _;

use crate::output::{self, ColourChoice, Settings, Ui, Verbosity};
use crate::sys::terminal;
use crate::toolbox;
use app::{App, Command};
use error::{Done, Error};
use session::Session;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    // In the embedded image this binary has another name.
    if toolbox::is_named_by(&name) {
        return toolbox::main(arguments);
    }
    if quadlet::is_generator(&name) {
        return quadlet::main(arguments);
    }
    if let Some(code) = internal::run() {
        return code;
    }
    std::panic::set_hook(Box::new(|panic| bug(&panic.to_string())));
    ExitCode::from(run())
}

/// Ends the process after a panic: whatever state it is in, the terminal is usable and the exit code says whose fault
/// it was.
fn bug(panic: &str) {
    terminal::restore();
    plain_ui().bug(panic);
    #[expect(
        clippy::exit,
        reason = "a panic of a release build would abort with another code"
    )]
    std::process::exit(error::BUG.into());
}

/// For what is told before, or whatever, the flags say.
fn plain_ui() -> Ui {
    Ui::new(Settings {
        colour: ColourChoice::Auto,
        verbosity: Verbosity::Normal,
        columns: None,
    })
}

/// Parses, runs, tells, and returns the exit code.
fn run() -> u8 {
    let parsed = app::command().try_get_matches().and_then(|matches| {
        let app = App::from_arg_matches(&matches)?;
        Ok((app, app::verbosity(&matches)))
    });
    let (app, verbose) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    let mut session = match Session::new(&app.global, verbose) {
        Ok(session) => session,
        Err(error) => return tell(&plain_ui(), &error),
    };
    if reach(&app.command) != Reach::Manifests
        && let Err(error) = session.enter()
    {
        let error = doctor::explained(error, &session.layout);
        return tell(&session.ui, &error);
    }
    match dispatch(&app.command, &session) {
        Ok(Done::Well) => 0,
        Ok(Done::With(code)) => code,
        Err(error) => tell(&session.ui, &error),
    }
}

/// Prints help, the version, or what clap says is wrong.
fn usage(error: &clap::Error) -> u8 {
    let ui = plain_ui();
    let text = error.render();
    if error.use_stderr() {
        ui.usage(&text.ansi().to_string(), &text.to_string());
        return error::USAGE;
    }
    match ui.help(&text.ansi().to_string(), &text.to_string()) {
        Ok(()) | Err(output::Error::Closed) => 0,
        Err(error) => tell(&ui, &error.into()),
    }
}

/// What a command has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// With what is written, and nothing else.
    Manifests,
    Images,
    /// So it finishes first what a killed one left undone.
    Pods,
}

fn reach(command: &Command) -> Reach {
    match command {
        Command::Apply(_)
        | Command::Up(_)
        | Command::Down(_)
        | Command::Delete(_)
        | Command::Get(_)
        | Command::Ps(_)
        | Command::Describe(_)
        | Command::Top(_)
        | Command::Events(_)
        | Command::Logs(_)
        | Command::Exec(_)
        | Command::Attach(_)
        | Command::Cp(_)
        | Command::PortForward(_)
        | Command::Wait(_)
        // A pod that is half deleted still uses its images and volumes.
        | Command::Image(_)
        | Command::Volume(_)
        | Command::System(
            system::SystemCommand::Info(_)
            | system::SystemCommand::Reset(_)
            | system::SystemCommand::Df(_)
            | system::SystemCommand::Prune(_),
        )
        | Command::Rmi(_) => Reach::Pods,
        Command::Pull(_)
        | Command::Images(_)
        | Command::Load(_)
        | Command::Save(_)
        | Command::Push(_) => Reach::Images,
        Command::Check(_)
        | Command::Login(_)
        | Command::Logout(_)
        | Command::Explain(_)
        | Command::Generate(_)
        | Command::System(system::SystemCommand::Doctor(_))
        | Command::Version(_)
        | Command::Completion(_)
        | Command::Man(_) => Reach::Manifests,
    }
}

fn tell(ui: &Ui, error: &Error) -> u8 {
    error.tell(ui);
    error.code()
}

fn dispatch(command: &Command, session: &Session) -> Result<Done, Error> {
    if reach(command) == Reach::Pods {
        session.sweep();
    }
    match command {
        Command::Apply(arguments) => apply::run(arguments, session),
        Command::Up(arguments) => up::run(arguments, session),
        Command::Down(arguments) => delete::run_down(arguments, session),
        Command::Delete(arguments) => delete::run(arguments, session),
        Command::Check(arguments) => check::run(arguments, session),
        Command::Explain(arguments) => explain::run(arguments, session),
        Command::Get(arguments) => get::run(arguments, session),
        Command::Ps(arguments) => get::run_ps(arguments, session),
        Command::Describe(arguments) => describe::run(arguments, session),
        Command::Top(arguments) => top::run(arguments, session),
        Command::Generate(command) => generate::run(command, session),
        Command::Events(arguments) => events::run(arguments, session),
        Command::Logs(arguments) => logs::run(arguments, session),
        Command::Exec(arguments) => exec::run(arguments, session),
        Command::Attach(arguments) => attach::run(arguments, session),
        Command::Cp(arguments) => cp::run(arguments, session),
        Command::PortForward(arguments) => port_forward::run(arguments, session),
        Command::Wait(arguments) => wait::run(arguments, session),
        Command::Image(command) => image::run(command, session),
        Command::Login(arguments) => login::login(arguments, session),
        Command::Logout(arguments) => login::logout(arguments, session),
        Command::Pull(arguments) => image::pull(arguments, session),
        Command::Images(arguments) => image::ls(arguments, session),
        Command::Rmi(arguments) => image::rm(arguments, session),
        Command::Load(arguments) => image::load(arguments, session),
        Command::Save(arguments) => image::save(arguments, session),
        Command::Push(arguments) => image::push(arguments, session),
        Command::Volume(command) => volume::run(command, session),
        Command::System(command) => system::run(command, session),
        Command::Version(arguments) => version::run(arguments, session),
        Command::Completion(arguments) => completion::run(arguments, session),
        Command::Man(arguments) => man::run(arguments, session),
    }
}
