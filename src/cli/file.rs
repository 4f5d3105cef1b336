//! The configuration file: the flags' names as keys, `[[pools]]` and `[[routes]]`.
//!
//! Its settings become words of the command line wherever neither the command line nor the
//! environment has them, so the same readers and rules hold for all three. Knows of no `Config`:
//! `build` makes that.

mod keys;
mod route;
mod value;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::cli::Cli;
use crate::cli::flags::ProxyArgs;
use crate::cli::read::parse_backend;
use crate::config::{BackendConfig, parse_pool_name};
use keys::Keys;
use keys::settings_of;
pub(super) use keys::{Kind, Setting};
pub(super) use route::RouteEntry;

/// What a file held beside settings of the process.
#[derive(Debug)]
pub(super) struct Content {
    /// Its path, for what is found wrong later.
    pub(super) path: PathBuf,
    /// Its pools.
    pub(super) pools: Vec<PoolEntry>,
    /// Its routes.
    pub(super) routes: Vec<RouteEntry>,
    /// Whether it has any, even none that can be understood.
    pub(super) has_routes: bool,
    /// The lines of its settings of the process, by name.
    pub(super) lines: Vec<(String, usize)>,
    /// Whether these and its lists could all be read.
    pub(super) is_whole: bool,
    /// What is wrong with it so far.
    pub(super) problems: Vec<(usize, String)>,
}

impl Default for Content {
    /// Where there is no file.
    fn default() -> Content {
        Content {
            path: PathBuf::new(),
            pools: Vec::new(),
            routes: Vec::new(),
            has_routes: false,
            lines: Vec::new(),
            is_whole: true,
            problems: Vec::new(),
        }
    }
}

/// A pool of the file.
#[derive(Debug)]
pub(super) struct PoolEntry {
    /// The line it begins on.
    pub(super) line: usize,
    /// Its name; empty where that is broken.
    pub(super) name: String,
    /// Whether all of it could be read.
    pub(super) is_whole: bool,
    /// Its backends, each with its text; `None` where it names none.
    pub(super) backends: Option<Vec<(String, BackendConfig)>>,
    /// All flags as they are for this pool.
    pub(super) args: ProxyArgs,
    /// The same as they are printed.
    pub(super) settings: Vec<Setting>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    path: PathBuf,
    /// Each with its line; 0 for the file as a whole.
    problems: Vec<(usize, String)>,
}

impl FileError {
    pub(super) fn new(path: &Path, mut problems: Vec<(usize, String)>) -> FileError {
        problems.sort();
        FileError { path: path.to_owned(), problems }
    }

    fn whole(path: &Path, reason: String) -> FileError {
        FileError::new(path, vec![(0, reason)])
    }
}

impl fmt::Display for FileError {
    /// A line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (number, (line, reason)) in self.problems.iter().enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            match line {
                0 => write!(f, "{end}{path}: {reason}")?,
                _ => write!(f, "{end}{path}:{line}: {reason}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for FileError {}

/// Why a command line, an environment and a file make no configuration.
#[derive(Debug)]
pub enum ReadError {
    /// What clap has to say, help and version included.
    Flags(clap::Error),
    /// What is wrong with the file.
    File(FileError),
}

impl From<clap::Error> for ReadError {
    fn from(error: clap::Error) -> ReadError {
        ReadError::Flags(error)
    }
}

impl From<FileError> for ReadError {
    fn from(error: FileError) -> ReadError {
        ReadError::File(error)
    }
}

/// Reads these arguments, the program's name first, the environment, and the file that they name.
pub(super) fn read(args: &[String]) -> Result<Cli, ReadError> {
    // What is wrong with them is said by the second reading.
    let given = Cli::command().ignore_errors(true).try_get_matches_from(args)?;
    let Some(path) = given.get_one::<PathBuf>("config") else {
        return Ok(parse(args, &[])?.0);
    };
    let (draft, problems) = draft_of(path)?;
    let is_given = |setting: &&Setting| is_given(&given, setting);
    let settings: Vec<&Setting> = draft.settings.iter().filter(|it| !is_given(it)).collect();
    let is_from_file = |name: &str| settings.iter().any(|it| it.name == name);
    let refused = |error: clap::Error| match problems.is_empty() || !error.use_stderr() {
        true => ReadError::Flags(error),
        // It may miss what the file has wrong.
        false => FileError::new(path, problems.clone()).into(),
    };
    let (mut cli, _) = parse(args, &settings).map_err(refused)?;
    let mut pools = Vec::with_capacity(draft.pools.len());
    for pool in draft.pools {
        let own: Vec<&Setting> = pool.settings.iter().filter(|it| !is_given(it)).collect();
        let is_own = |setting: &&&Setting| own.iter().any(|it| it.id == setting.id);
        let common = settings.iter().filter(|it| !is_own(it)).copied();
        let words: Vec<&Setting> = own.iter().copied().chain(common).collect();
        let (parsed, matches) = parse(args, &words).map_err(refused)?;
        pools.push(PoolEntry {
            line: pool.line,
            name: pool.name,
            is_whole: pool.is_whole,
            backends: pool.backends,
            args: parsed.proxy,
            settings: settings_of(&matches),
        });
    }
    cli.proxy.file.content = Content {
        path: path.clone(),
        pools,
        has_routes: draft.has_routes,
        routes: draft.routes,
        lines: draft.lines.into_iter().filter(|(name, _)| is_from_file(name)).collect(),
        is_whole: draft.is_whole,
        problems,
    };
    Ok(cli)
}

/// Reads these arguments of `corelane doctor`, the environment, and the settings of the process in the
/// file that they name.
pub(super) fn read_for_doctor(mut args: Vec<String>) -> Result<Cli, ReadError> {
    let given = Cli::silent().ignore_errors(true).try_get_matches_from(&args)?;
    let given = given.subcommand_matches("doctor");
    if let Some(given) = given
        && let Some(path) = given.get_one::<PathBuf>("config")
    {
        let (draft, problems) = draft_of(path)?;
        if !problems.is_empty() {
            return Err(FileError::new(path, problems).into());
        }
        let settings = draft.settings.iter().filter(|it| !is_given(given, it));
        args.extend(settings.flat_map(Setting::words));
    }
    Ok(Cli::read_flags(args.into_iter())?)
}

/// What the file says, and all that is wrong with it.
fn draft_of(path: &Path) -> Result<(Draft, Vec<(usize, String)>), FileError> {
    let text = text_of(path)?;
    let mut reader = Reader { text: &text, keys: Keys::new(), problems: Vec::new() };
    let draft = reader.read();
    let problems = reader.problems;
    match draft {
        Some(draft) => Ok((draft, problems)),
        None => Err(FileError::new(path, problems)),
    }
}

/// Whether the command line or the environment has it.
fn is_given(given: &ArgMatches, setting: &Setting) -> bool {
    let source = given.value_source(setting.id.as_str());
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

fn parse(args: &[String], settings: &[&Setting]) -> Result<(Cli, ArgMatches), clap::Error> {
    let words = args.iter().cloned().chain(settings.iter().flat_map(|it| it.words()));
    let matches = Cli::command().try_get_matches_from(words)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    cli.proxy.settings = settings_of(&matches);
    Ok((cli, matches))
}

fn text_of(path: &Path) -> Result<String, FileError> {
    let mut text = String::new();
    // One byte more shows that there is too much; a device may have no end.
    let read = File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text));
    if let Err(error) = read {
        let next = "check --config, and that it is a readable text file";
        return Err(FileError::whole(path, format!("cannot be read: {error}; {next}")));
    }
    if text.len() > FILE_BYTES_MAX {
        return Err(FileError::whole(path, format!("has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// A file's text as it was understood.
struct Draft {
    settings: Vec<Setting>,
    pools: Vec<PoolDraft>,
    routes: Vec<RouteEntry>,
    has_routes: bool,
    /// The lines of `settings`, by name.
    lines: Vec<(String, usize)>,
    /// Whether all could be read but for what is in pools and routes.
    is_whole: bool,
}

struct PoolDraft {
    line: usize,
    name: String,
    is_whole: bool,
    backends: Option<Vec<(String, BackendConfig)>>,
    settings: Vec<Setting>,
}

/// Reads a file's text, and gathers all that is wrong with it.
struct Reader<'t> {
    text: &'t str,
    keys: Keys,
    problems: Vec<(usize, String)>,
}

impl<'t> Reader<'t> {
    fn read(&mut self) -> Option<Draft> {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let line = error.span().map_or(0, |span| self.line_at(span.start));
                self.problems.push((line, error.message().replace('\n', "; ")));
                return None;
            }
        };
        let mut draft = Draft {
            settings: Vec::new(),
            pools: Vec::new(),
            routes: Vec::new(),
            has_routes: table.contains_key("routes"),
            lines: Vec::new(),
            is_whole: true,
        };
        for (key, value) in &table {
            let line = self.line_at(key.span().start);
            match key.get_ref().as_ref() {
                "pools" => {
                    let tables = self.tables("pools", line, value);
                    draft.is_whole &= tables.is_some();
                    for (line, table) in tables.into_iter().flatten() {
                        draft.pools.push(self.pool(line, table));
                    }
                }
                "routes" => {
                    for (line, table) in self.tables("routes", line, value).into_iter().flatten() {
                        draft.routes.push(self.route(line, table));
                    }
                }
                name => {
                    let found = self.keys.of_process(name).map(|key| key.setting(name, value));
                    let setting = self.took(line, found.and_then(|found| found));
                    draft.is_whole &= setting.is_some();
                    draft.lines.extend(setting.iter().map(|it| (it.name.clone(), line)));
                    draft.settings.extend(setting);
                }
            }
        }
        Some(draft)
    }

    fn pool(&mut self, line: usize, table: &DeTable<'t>) -> PoolDraft {
        let before = self.problems.len();
        let (mut name, mut backends, mut settings) = (None, None, Vec::new());
        for (key, value) in table {
            let line = self.line_at(key.span().start);
            match key.get_ref().as_ref() {
                "name" => {
                    let read = value::text("name", value.get_ref());
                    let read = read
                        .and_then(|text| parse_pool_name(text).map_err(|it| format!("name: {it}")));
                    name = self.took(line, read);
                    // What is wrong with it was said.
                    name.get_or_insert_default();
                }
                "backends" => {
                    let texts = self.took(line, value::texts("backends", value.get_ref()));
                    let read =
                        texts.unwrap_or_default().into_iter().map(|text| {
                            match parse_backend(&text) {
                                Ok(backend) => Ok((text, backend)),
                                Err(reason) => Err(format!("backends: {text:?}: {reason}")),
                            }
                        });
                    backends = Some(self.took(line, read.collect()).unwrap_or_default());
                }
                key => {
                    let found = self.keys.of_pool(key).and_then(|known| known.setting(key, value));
                    settings.extend(self.took(line, found));
                }
            }
        }
        if name.is_none() {
            self.problems.push((line, "a pool needs a name".to_owned()));
        }
        let (name, is_whole) = (name.unwrap_or_default(), self.problems.len() == before);
        PoolDraft { line, name, is_whole, backends, settings }
    }

    /// The tables of an array of tables, each with its line; `None` where it is none.
    fn tables<'v>(
        &mut self,
        name: &str,
        line: usize,
        value: &'v Spanned<DeValue<'t>>,
    ) -> Option<Vec<(usize, &'v DeTable<'t>)>> {
        let DeValue::Array(array) = value.get_ref() else {
            self.problems.push((line, format!("{name} is no list of tables; write [[{name}]]")));
            return None;
        };
        let mut tables = Vec::new();
        for each in array.iter() {
            let line = self.line_at(each.span().start);
            match each.get_ref() {
                DeValue::Table(table) => tables.push((line, table)),
                _ => self.problems.push((line, format!("{name} holds what is no table"))),
            }
        }
        Some(tables)
    }

    /// The value, if there is one; else its problem is kept.
    fn took<T>(&mut self, line: usize, value: Result<T, String>) -> Option<T> {
        value.map_err(|reason| self.problems.push((line, reason))).ok()
    }

    fn line_at(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// The most bytes of a file.
const FILE_BYTES_MAX: usize = 1_048_576;
