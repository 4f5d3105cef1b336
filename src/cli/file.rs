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
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Its path, for what is found wrong later.
    pub(super) path: PathBuf,
    /// Its pools.
    pub(super) pools: Vec<PoolEntry>,
    /// Its routes.
    pub(super) routes: Vec<RouteEntry>,
}

/// A pool of the file.
#[derive(Debug)]
pub(super) struct PoolEntry {
    /// The line it begins on.
    pub(super) line: usize,
    /// Its name.
    pub(super) name: String,
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
    let text = text_of(path)?;
    let mut reader = Reader { text: &text, keys: Keys::new(), problems: Vec::new() };
    let Some(draft) = reader.read().filter(|_| reader.problems.is_empty()) else {
        return Err(FileError::new(path, reader.problems).into());
    };
    let is_given = |setting: &&Setting| {
        let source = given.value_source(setting.id.as_str());
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let settings: Vec<&Setting> = draft.settings.iter().filter(|it| !is_given(it)).collect();
    let (mut cli, _) = parse(args, &settings)?;
    let mut pools = Vec::with_capacity(draft.pools.len());
    for pool in draft.pools {
        let own: Vec<&Setting> = pool.settings.iter().filter(|it| !is_given(it)).collect();
        let is_own = |setting: &&&Setting| own.iter().any(|it| it.id == setting.id);
        let common = settings.iter().filter(|it| !is_own(it)).copied();
        let words: Vec<&Setting> = own.iter().copied().chain(common).collect();
        let (parsed, matches) = parse(args, &words)?;
        pools.push(PoolEntry {
            line: pool.line,
            name: pool.name,
            backends: pool.backends,
            args: parsed.proxy,
            settings: settings_of(&matches),
        });
    }
    cli.proxy.file.content = Content { path: path.clone(), pools, routes: draft.routes };
    Ok(cli)
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
}

struct PoolDraft {
    line: usize,
    name: String,
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
        let mut draft = Draft { settings: Vec::new(), pools: Vec::new(), routes: Vec::new() };
        for (key, value) in &table {
            let line = self.line_at(key.span().start);
            match key.get_ref().as_ref() {
                "pools" => {
                    for (line, table) in self.tables("pools", line, value) {
                        draft.pools.extend(self.pool(line, table));
                    }
                }
                "routes" => {
                    for (line, table) in self.tables("routes", line, value) {
                        draft.routes.extend(self.route(line, table));
                    }
                }
                name => {
                    let found = self.keys.of_process(name).map(|key| key.setting(name, value));
                    draft.settings.extend(self.took(line, found.and_then(|found| found)));
                }
            }
        }
        Some(draft)
    }

    fn pool(&mut self, line: usize, table: &DeTable<'t>) -> Option<PoolDraft> {
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
        Some(PoolDraft { line, name: name?, backends, settings })
    }

    /// The tables of an array of tables, each with its line.
    fn tables<'v>(
        &mut self,
        name: &str,
        line: usize,
        value: &'v Spanned<DeValue<'t>>,
    ) -> Vec<(usize, &'v DeTable<'t>)> {
        let DeValue::Array(array) = value.get_ref() else {
            self.problems.push((line, format!("{name} is no list of tables; write [[{name}]]")));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for each in array.iter() {
            let line = self.line_at(each.span().start);
            match each.get_ref() {
                DeValue::Table(table) => tables.push((line, table)),
                _ => self.problems.push((line, format!("{name} holds what is no table"))),
            }
        }
        tables
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
