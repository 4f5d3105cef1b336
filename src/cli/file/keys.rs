//! The keys of a configuration file: the flags, and of which a pool can have its own.

use std::any::TypeId;
use std::error::Error as _;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory};
use toml::Spanned;
use toml::de::DeValue;

use crate::cli::Cli;
use crate::cli::file::value;
use crate::cli::flags::{
    BackendLimitArgs, BalanceArgs, BreakerArgs, EjectArgs, HealthArgs, RetryArgs,
};

/// A flag's value as a file has it, or as all sources together make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The flag's id in clap.
    pub(crate) id: String,
    /// Its name, without dashes in front.
    pub(crate) name: String,
    /// Its values; a flag without one has `true` or `false`.
    pub(crate) values: Vec<String>,
    /// What values it has.
    pub(crate) kind: Kind,
}

/// What values a flag has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// None.
    Switch,
    /// One.
    Single,
    /// Several.
    List,
}

/// A flag.
#[derive(Clone)]
pub(super) struct Key {
    id: String,
    name: String,
    kind: Kind,
    parser: ValueParser,
    is_pools: bool,
}

/// All flags that a file can set.
pub(super) struct Keys(Vec<Key>);

impl Keys {
    pub(super) fn new() -> Keys {
        let pools = pools_flags();
        let key = |arg: &Arg| {
            let name = arg.get_long()?.to_owned();
            let is_setting = !NO_SETTINGS.contains(&name.as_str()) && !arg.is_hide_set();
            is_setting.then(|| Key {
                id: arg.get_id().to_string(),
                is_pools: pools.contains(&name),
                name,
                kind: kind_of(arg),
                parser: arg.get_value_parser().clone(),
            })
        };
        let mut command = Cli::command();
        // Fills in what flags leave to their types.
        command.build();
        Keys(command.get_arguments().filter_map(key).collect())
    }

    /// A flag of the process.
    pub(super) fn of_process(&self, name: &str) -> Result<Key, String> {
        let more = ["pools", "routes"];
        self.find(name).ok_or_else(|| {
            let known = self.0.iter().map(|key| key.name.as_str()).chain(more);
            unknown(name, "setting", known, FLAGS)
        })
    }

    /// A flag that a pool can have its own of.
    pub(super) fn of_pool(&self, name: &str) -> Result<Key, String> {
        match self.find(name) {
            Some(key) if key.is_pools => Ok(key),
            Some(_) => Err(format!("{name} is the same for all pools: it stands above them")),
            None => {
                let known = self.0.iter().filter(|key| key.is_pools).map(|key| key.name.as_str());
                Err(unknown(name, "setting of a pool", known.chain(["name", "backends"]), FLAGS))
            }
        }
    }

    fn find(&self, name: &str) -> Option<Key> {
        self.0.iter().find(|key| key.name == name).cloned()
    }
}

impl Key {
    /// The setting of this value.
    pub(super) fn setting(
        &self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Setting, String> {
        let value = value.get_ref();
        let values = match self.kind {
            Kind::Switch => vec![value::truth(name, value)?.to_string()],
            Kind::Single if self.is_number() => vec![value::number(name, value)?],
            Kind::Single => vec![value::scalar(name, value)?],
            Kind::List => value::scalars(name, value)?,
        };
        if self.kind != Kind::Switch {
            values.iter().try_for_each(|text| self.check(text))?;
        }
        Ok(Setting { id: self.id.clone(), name: self.name.clone(), values, kind: self.kind })
    }

    /// Whether its values are plain numbers.
    fn is_number(&self) -> bool {
        let read = self.parser.type_id();
        let numbers = [TypeId::of::<u8>(), TypeId::of::<u16>(), TypeId::of::<u32>()];
        numbers.iter().any(|number| read == *number) || read == TypeId::of::<u64>()
    }

    /// Reads a value as the flag would.
    fn check(&self, text: &str) -> Result<(), String> {
        let arg = Arg::new("value").long("value").value_parser(self.parser.clone());
        let command = Command::new("file").no_binary_name(true).arg(arg);
        let Err(error) = command.try_get_matches_from([format!("--value={text}")]) else {
            return Ok(());
        };
        let reason = match (error.kind(), error.source()) {
            (_, Some(reason)) => reason.to_string(),
            (ErrorKind::InvalidValue, None) => match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(known)) if !known.is_empty() => {
                    format!("it is none of {}", known.join(", "))
                }
                _ => "it has no value".to_owned(),
            },
            _ => "it is no value of this flag".to_owned(),
        };
        Err(format!("{} = {text:?}: {reason}", self.name))
    }
}

impl Setting {
    /// The words of a command line that say the same.
    pub(super) fn words(&self) -> Vec<String> {
        let name = &self.name;
        match self.kind {
            Kind::Switch if self.values.iter().any(|it| it == "true") => vec![format!("--{name}")],
            Kind::Switch => Vec::new(),
            _ => self.values.iter().map(|value| format!("--{name}={value}")).collect(),
        }
    }

    /// Whether a pool can have its own.
    pub(crate) fn is_pools(&self) -> bool {
        pools_flags().contains(&self.name)
    }
}

/// The flags' values, wherever they come from; those that have none are left out.
pub(crate) fn settings_of(matches: &ArgMatches) -> Vec<Setting> {
    let mut command = Cli::command();
    command.build();
    let setting = |arg: &Arg| {
        let (id, name) = (arg.get_id().to_string(), arg.get_long()?.to_owned());
        if NO_SETTINGS.contains(&name.as_str()) || arg.is_hide_set() {
            return None;
        }
        let kind = kind_of(arg);
        let values = match kind {
            Kind::Switch => vec![matches.get_flag(&id).to_string()],
            Kind::Single | Kind::List => {
                let raw = matches.get_raw(&id)?;
                let texts = raw.map(|it| it.to_string_lossy().into_owned());
                match kind {
                    Kind::List => texts.flat_map(|text| values_of(&name, text)).collect(),
                    _ => texts.collect(),
                }
            }
        };
        Some(Setting { id, name, values, kind })
    };
    command.get_arguments().filter_map(setting).collect()
}

/// The values in one text of a list, as its flag parts them; an empty text is one.
fn values_of(name: &str, text: String) -> Vec<String> {
    let parts: Vec<String> = match name {
        "health-header" => text.lines().map(str::to_owned).collect(),
        _ => text.split_whitespace().map(str::to_owned).collect(),
    };
    if parts.is_empty() { vec![text] } else { parts }
}

fn kind_of(arg: &Arg) -> Kind {
    match arg.get_action() {
        ArgAction::SetTrue => Kind::Switch,
        ArgAction::Append => Kind::List,
        _ => Kind::Single,
    }
}

/// The names of the flags that a pool can have its own of.
fn pools_flags() -> Vec<String> {
    let mut command = Command::new("pool");
    command = BalanceArgs::augment_args(command);
    command = RetryArgs::augment_args(command);
    command = HealthArgs::augment_args(command);
    command = EjectArgs::augment_args(command);
    command = BreakerArgs::augment_args(command);
    command = BackendLimitArgs::augment_args(command);
    let names = command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned));
    names.chain(["queue-timeout".to_owned()]).collect()
}

/// What is said of a name that is not known: the nearest that is, or what all are.
pub(super) fn unknown<'k>(
    name: &str,
    what: &str,
    known: impl Iterator<Item = &'k str>,
    all: &str,
) -> String {
    let near = known.map(|it| (strsim::jaro_winkler(name, it), it));
    let nearest = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|it| it.0 >= NEAR);
    match nearest {
        Some((_, near)) => format!("{name} is no {what}; did you mean {near}?"),
        None => format!("{name} is no {what}; the names are {all}"),
    }
}

/// What the names of settings are, for people.
const FLAGS: &str = "those of the flags, without dashes in front";
/// Flags that say what to read or do rather than how to serve.
const NO_SETTINGS: [&str; 3] = ["help", "version", "config"];
/// How alike a name has to be to be proposed, from 0 to 1.
const NEAR: f64 = 0.7;
