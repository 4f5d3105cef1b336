//! The command line: flags, their environment variables, and the `Config` they make.
//!
//! Precedence is flag, then environment, then file. What cannot work is refused here, in one line, before
//! any socket opens.

mod build;
mod check;
mod demo;
mod doctor;
mod documents;
mod file;
mod flags;
mod read;
mod reload;
#[cfg(test)]
mod tests;
mod top;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use build::Machine;
pub use check::CheckArgs;
pub use demo::{BackendArgs, DemoArgs, Register};
pub use doctor::DoctorArgs;
pub use documents::{CompletionsArgs, completions, manual};
pub use file::{FileError, ReadError};
pub use flags::{LogFormat, ProxyArgs};
pub use read::parse_line_format;
pub use reload::Reader;
pub use top::TopArgs;

/// A thread-per-core HTTP load balancer.
///
/// Accepts HTTP/1.1 on every --listen address and hands each request to a healthy --backend.
/// Every flag can also be given as an environment variable; several values of one are separated
/// by white space there. Durations are written as 250ms, 5s, 1m.
///
/// Exit codes: 0 after a drain, 64 for flags that cannot work, 71 when the system refuses
/// something, 128 plus the signal's number after a second signal.
#[derive(Debug, Parser)]
#[command(name = "corelane", version, max_term_width = 100, override_usage = USAGE)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to run instead of the load balancer.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The load balancer's flags.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// Whether they are only to be checked and printed.
    #[arg(skip)]
    pub is_check: bool,
}

/// What to run instead of the load balancer.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a demo backend: a small REST service to try the load balancer on.
    Backend(Box<BackendArgs>),
    /// Run three demo backends and a load balancer in front of them, to try it out.
    Demo(DemoArgs),
    /// Look at this machine and say what a load balancer with these flags lacks on it.
    ///
    /// It takes all flags of the load balancer, its environment and its --config. What matters here
    /// are --workers, --cores, --driver, --ring-entries, --backlog, --reuse-port-with-others and
    /// --client-conns-max.
    Doctor(DoctorArgs),
    /// Watch a running load balancer in the terminal, by its admin API.
    Top(TopArgs),
    /// Validate flags and configuration file, and print what they make together, as a file.
    Check(CheckArgs),
    /// Print a script that makes a shell complete corelane's flags.
    Completions(CompletionsArgs),
    /// Print the manual page, for man -l.
    Man,
}

impl Cli {
    /// Reads the program's arguments and environment.
    ///
    /// The environment is the load balancer's: `corelane demo` beside a configured one would take
    /// its settings otherwise. `corelane doctor` reads it too, since it judges for that one.
    ///
    /// # Errors
    /// What clap has to say, help and version included.
    pub fn read() -> Result<Cli, ReadError> {
        match Cli::subcommand(std::env::args()).as_deref() {
            None => Cli::read_all(&Cli::proxy_args()),
            Some("check") if !std::env::args().any(|it| it == "--help" || it == "-h") => {
                Ok(Cli { is_check: true, ..Cli::read_all(&Cli::proxy_args())? })
            }
            Some("doctor") => file::read_for_doctor(std::env::args().collect()),
            Some(_) => Ok(Cli::read_flags(std::env::args())?),
        }
    }

    /// The process's arguments for the load balancer, the program's name first: those of
    /// `corelane check` are the same.
    #[must_use]
    pub fn proxy_args() -> Vec<String> {
        let is_check = Cli::subcommand(std::env::args()).as_deref() == Some("check");
        let args = std::env::args().enumerate();
        args.filter(|(index, _)| !(is_check && *index == 1)).map(|(_, word)| word).collect()
    }

    /// Reads these arguments of the load balancer, the environment, and the file that they name.
    ///
    /// # Errors
    /// What clap has to say, help and version included, or what is wrong with the file.
    pub fn read_all(args: &[String]) -> Result<Cli, ReadError> {
        file::read(args)
    }

    /// The subcommand that these arguments name, the program's name first.
    #[must_use]
    pub fn subcommand(mut args: impl Iterator<Item = String>) -> Option<String> {
        let first = args.nth(1)?;
        Cli::command().get_subcommands().any(|it| it.get_name() == first).then_some(first)
    }

    /// Reads these arguments, the program's name first, and no environment but that of
    /// `corelane doctor`.
    ///
    /// # Errors
    /// What clap has to say, help and version included.
    pub fn read_flags(args: impl Iterator<Item = String>) -> Result<Cli, clap::Error> {
        Cli::from_arg_matches(&Cli::silent().try_get_matches_from(args)?)
    }

    /// The command line without an environment, but for `corelane doctor`.
    fn silent() -> clap::Command {
        let silent = |command: clap::Command| match command.get_name() {
            "doctor" => command,
            _ => command.mut_args(|arg| arg.env(None)),
        };
        silent(Cli::command()).mut_subcommands(silent)
    }
}

/// One line that says what is wrong with a command line, of this subcommand if it has one, and what
/// to try.
#[must_use]
pub fn line_of(error: &clap::Error, subcommand: Option<&str>) -> String {
    let text = error.to_string();
    let (mut reason, mut tips) = (Vec::new(), Vec::new());
    let mut lines = text.lines().map(str::trim);
    for line in lines.by_ref().take_while(|line| !line.is_empty() && !line.starts_with("Usage:")) {
        reason.push(line);
    }
    for line in lines {
        tips.extend(line.strip_prefix("tip: "));
    }
    let reason = reason.join(" ");
    let reason = reason.strip_prefix("error: ").unwrap_or(&reason).to_owned();
    let word = reason.split_once("subcommand '").or(reason.split_once("unexpected argument '"));
    let word = word.and_then(|(_, rest)| rest.split('\'').next());
    let reason = match word.filter(|word| !word.starts_with('-')) {
        Some(word) if word.ends_with(".toml") => {
            format!("unexpected argument '{word}'; a configuration file is --config {word}")
        }
        Some(word) => format!("unexpected argument '{word}'; each value needs its own flag"),
        None => reason,
    };
    let help = match subcommand {
        Some(name) => format!("see corelane {name} --help"),
        None => "see corelane --help, or try corelane demo".to_owned(),
    };
    [vec![reason.as_str()], tips, vec![help.as_str()]].concat().join("; ")
}

/// How it is called.
const USAGE: &str = "corelane --listen IP:PORT --backend http://HOST:PORT [OPTIONS]
       corelane --config PATH [OPTIONS]
       corelane COMMAND";
