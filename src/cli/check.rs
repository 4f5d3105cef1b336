//! `corelane check`: what flags, environment and file make together, in the form of a file.

use clap::Args;

use crate::cli::file::{Kind, Setting};
use crate::cli::flags::ProxyArgs;

/// Validate flags and a configuration file, and print what they make together.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    proxy: Box<ProxyArgs>,
}

impl ProxyArgs {
    /// The settings in force and the pools, as a configuration file writes them.
    ///
    /// Each setting stands there with its value, wherever that comes from; a pool's are those that
    /// differ from them.
    #[must_use]
    pub fn to_file(&self) -> String {
        let mut text = String::new();
        for setting in &self.settings {
            text += &line_of(setting);
        }
        for pool in &self.file.content.pools {
            text += &format!("\n[[pools]]\nname = {}\n", quoted(&pool.name));
            let backends = pool.backends.iter().flatten().map(|(text, _)| quoted(text));
            text += &format!("backends = [{}]\n", backends.collect::<Vec<_>>().join(", "));
            let own =
                pool.settings.iter().filter(|it| it.is_pools() && !self.settings.contains(it));
            text.extend(own.map(line_of));
        }
        for entry in &self.file.content.routes {
            text += "\n[[routes]]\n";
            let lines = entry.texts.iter().map(|(key, value)| match key.as_str() {
                "status" => format!("{key} = {value}\n"),
                _ => format!("{key} = {}\n", quoted(value)),
            });
            text.extend(lines);
        }
        text
    }
}

/// The names of settings that differ between two readings and are read at the start alone.
pub(super) fn changed_for_restart(before: &[Setting], after: &[Setting]) -> Vec<String> {
    let all = before.iter().chain(after).filter(|it| !it.is_pools() && it.name != "backend");
    let changed = all.filter(|it| !(before.contains(it) && after.contains(it)));
    let mut names: Vec<String> = changed.map(|it| it.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn line_of(setting: &Setting) -> String {
    let Setting { name, values, kind, .. } = setting;
    // What a file names is printed, what it holds is not.
    let is_secret = SECRETS.iter().any(|it| name.ends_with(it));
    let value = |text: &String| match text.parse::<u64>() {
        _ if is_secret => "\"(hidden)\"".to_owned(),
        _ if name == "health-header" => {
            quoted(&format!("{}: (hidden)", text.split(':').next().unwrap_or_default()))
        }
        Ok(number) if number.to_string() == *text => text.clone(),
        _ => quoted(text),
    };
    let mut values = values.iter().map(value);
    match kind {
        Kind::Switch => format!("{name} = {}\n", setting.values.join("")),
        Kind::Single => format!("{name} = {}\n", values.next().unwrap_or_default()),
        Kind::List => format!("{name} = [{}]\n", values.collect::<Vec<_>>().join(", ")),
    }
}

/// As TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// How the names of settings end that are secrets themselves.
const SECRETS: [&str; 3] = ["password", "secret", "token"];
