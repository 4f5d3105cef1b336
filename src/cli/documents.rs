//! `corelane completions` and `corelane man`: what is made of the command line's own description.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;

/// The arguments of `corelane completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to write the script for.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// The script that makes `shell` complete flags and subcommands.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    script
}

/// The manual page: the load balancer's flags, and after them those of each subcommand.
///
/// # Errors
/// None that can come of writing to memory.
pub fn manual() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let main = clap_mangen::Man::new(command.clone());
    main.render_title(&mut page)?;
    page.extend(b".ad l\n");
    main.render_name_section(&mut page)?;
    page.extend(b".SH SYNOPSIS\n");
    for command in std::iter::once(&mut command.clone()).chain(command.get_subcommands_mut()) {
        page.extend(format!(".P\n{}\n", usage_of(command)).bytes());
    }
    main.render_description_section(&mut page)?;
    main.render_options_section(&mut page)?;
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name().to_uppercase();
        page.extend(format!(".SH \"CORELANE {name}\"\n").bytes());
        let section = clap_mangen::Man::new(subcommand.clone());
        let mut text = Vec::new();
        section.render_description_section(&mut text)?;
        section.render_options_section(&mut text)?;
        page.extend(as_subsections(&String::from_utf8_lossy(&text)).bytes());
    }
    Ok(as_roff(&String::from_utf8_lossy(&page)).into_bytes())
}

/// Long values break between their options, and what is not ASCII is named by its number.
fn as_roff(page: &str) -> String {
    let mut text = String::new();
    for c in page.replace("[,", "\\:[,").chars() {
        match c {
            // Terminals without it would show nothing.
            '…' => text.push_str("..."),
            c if c.is_ascii() => text.push(c),
            c => text += &format!("\\[u{:04X}]", u32::from(c)),
        }
    }
    text
}

/// How a command is called, in one line.
fn usage_of(command: &mut clap::Command) -> String {
    let usage = command.render_usage().to_string();
    let usage = usage.lines().next().unwrap_or_default().replace('-', "\\-");
    usage.trim_start_matches("Usage: ").to_owned()
}

/// Sections become parts of the section above them.
fn as_subsections(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix(".SH ") {
        Some(title) => format!(".SS {title}\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// The program's name.
const NAME: &str = "corelane";
