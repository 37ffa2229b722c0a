//! The command line as clap sees it: one definition for parsing, help and completions.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, ArgAction, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::model::names::Namespace;

use super::{
    apply, attach, check, completion, cp, delete, describe, events, exec, explain, generate, get,
    image, login, logs, man, port_forward, system, top, up, version, volume, wait,
};

/// Play Kubernetes manifests on this machine: no cluster, no daemon
#[derive(Debug, Parser)]
#[command(
    name = "kplay",
    version,
    styles = STYLES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = false
)]
pub(crate) struct App {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// The heading of what every command takes.
const GLOBAL: &str = "Global options";

/// Flags that every command takes; `-v` is added by [`command`].
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Keep images, volumes, logs and records in this folder
    #[arg(
        long,
        global = true,
        env = "KPLAY_ROOT",
        value_name = "DIR",
        hide_env_values = true,
        help_heading = GLOBAL
    )]
    pub(crate) root: Option<PathBuf>,
    /// Keep sockets, status and Secrets in this folder
    #[arg(
        long,
        global = true,
        env = "KPLAY_RUNROOT",
        value_name = "DIR",
        hide_env_values = true,
        help_heading = GLOBAL
    )]
    pub(crate) runroot: Option<PathBuf>,
    /// Use this namespace where none is named
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAMESPACE",
        default_value = "default",
        hide_default_value = true,
        value_parser = Namespace::parse
    )]
    pub(crate) namespace: Namespace,
    /// Print errors only
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub(crate) quiet: bool,
    /// Colour the output: `auto` looks at the terminal and at NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorArg::Auto, hide_default_value = true, help_heading = GLOBAL)]
    pub(crate) color: ColorArg,
    /// Use no network: images must be in the store
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) offline: bool,
    /// Append what the command does, and what happens to its pods, to this file: one JSON object per line
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) events_file: Option<PathBuf>,
    /// Write the messages of `-vv` in this format
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text, hide_default_value = true, help_heading = GLOBAL)]
    pub(crate) log_format: LogFormat,
}

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorArg {
    Auto,
    Always,
    Never,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the machine match manifests, then return
    Apply(apply::ApplyArgs),
    /// Apply in the foreground, show all logs, end with the pods
    Up(up::UpArgs),
    /// Stop and remove what manifests name
    Down(delete::DownArgs),
    /// Stop and remove pods and other objects
    Delete(delete::DeleteArgs),
    /// Check manifests without touching the machine
    #[command(alias = "validate")]
    Check(check::CheckArgs),
    /// Say what a field is, and whether and how it is honoured
    Explain(explain::ExplainArgs),
    /// List pods and other objects
    Get(get::GetArgs),
    /// List pods
    Ps(get::PsArgs),
    /// Show all about a pod
    Describe(describe::DescribeArgs),
    /// Show what happened to pods
    Events(events::EventsArgs),
    /// Show what processor time and memory containers use
    Top(top::TopArgs),
    /// Print the logs of containers
    Logs(logs::LogsArgs),
    /// Run a command in a container
    Exec(exec::ExecArgs),
    /// See what a container prints, and be its standard input
    Attach(attach::AttachArgs),
    /// Copy files into and out of containers
    Cp(cp::CpArgs),
    /// Reach ports of a pod or of a Service from this machine
    PortForward(port_forward::PortForwardArgs),
    /// Wait until pods are as wanted
    Wait(wait::WaitArgs),
    /// Write what starts pods by other means
    #[command(subcommand)]
    Generate(generate::GenerateCommand),
    /// Manage images
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Log in at a registry, and keep the credentials where podman has them
    Login(login::LoginArgs),
    /// Forget the credentials of a registry
    Logout(login::LogoutArgs),
    /// Pull images from their registries
    #[command(hide = true)]
    Pull(image::PullArgs),
    /// List images
    #[command(hide = true)]
    Images(image::LsArgs),
    /// Remove images
    #[command(hide = true)]
    Rmi(image::RmArgs),
    /// Load images from archives
    #[command(hide = true)]
    Load(image::LoadArgs),
    /// Save images in archives
    #[command(hide = true)]
    Save(image::SaveArgs),
    /// Push an image to a registry
    #[command(hide = true)]
    Push(image::PushArgs),
    /// Manage what is kept for pods
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Look after kplay as a whole
    #[command(subcommand)]
    System(system::SystemCommand),
    /// Print the version
    Version(version::VersionArgs),
    /// Print a shell's completion script
    Completion(completion::CompletionArgs),
    /// Write the manual's pages
    Man(man::ManArgs),
}

/// The id of the `-v` that [`command`] adds.
const VERBOSE: &str = "verbose";

/// The whole command line.
///
/// `-v` is added to each command here instead of being global, because `down -v` removes volumes, as compose's does.
pub(crate) fn command() -> clap::Command {
    with_verbose(App::command())
}

fn with_verbose(command: clap::Command) -> clap::Command {
    let taken = command
        .get_arguments()
        .any(|argument| argument.get_short() == Some('v'));
    let names: Vec<String> = command
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let verbose = Arg::new(VERBOSE)
        .long("verbose")
        .action(ArgAction::Count)
        .help("Tell more; twice tells what developers ask for")
        .help_heading(GLOBAL);
    let mut command = command.arg(if taken { verbose } else { verbose.short('v') });
    for name in names {
        command = command.mut_subcommand(name, with_verbose);
    }
    command
}

/// How often `-v` was given, before and after the commands' names.
pub(crate) fn verbosity(matches: &clap::ArgMatches) -> u8 {
    let here = matches.try_get_one::<u8>(VERBOSE).ok().flatten();
    let deeper = matches.subcommand().map(|(_, matches)| verbosity(matches));
    here.copied()
        .unwrap_or_default()
        .saturating_add(deeper.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn v_is_verbose_except_for_down() {
        let check = |line: &str, expected: u8| {
            let matches = command().try_get_matches_from(line.split(' '));
            assert_eq!(verbosity(&matches.expect("parses")), expected, "{line}");
        };
        check("kplay get -v", 1);
        check("kplay -v get -vv", 3);
        check("kplay image ls -v", 1);
        check("kplay down -v x.yaml", 0);
        check("kplay -v down --verbose x.yaml", 2);
    }

    #[test]
    fn help_is_imperative_and_has_no_full_stop() {
        fn check(command: &clap::Command) {
            let texts = command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set())
                .map(|argument| (argument.get_id().as_str(), argument.get_help()))
                .chain([(command.get_name(), command.get_about())]);
            for (name, help) in texts {
                let help = help.map(ToString::to_string).unwrap_or_default();
                let name = format!("{} {name}", command.get_name());
                assert!(!help.is_empty(), "{name} has no help");
                assert!(!help.ends_with('.'), "{name}: {help}");
                assert!(help.starts_with(char::is_uppercase), "{name}: {help}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }
}
