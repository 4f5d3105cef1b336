//! The house rules, checked by reading the source: layers, locks, unsafe code, sizes, documents.
//! Rules about the product's code leave its unit tests out: what follows `#[cfg(test)]`, and `tests.rs` files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use corelane::error::Cause;

use crate::support::proxy::CORELANE;

/// The layers, lowest first; a module uses its own layer or lower ones.
const LAYERS: [&[&str]; 7] = [
    &["sys", "error", "config", "metrics", "panic", "clock", "process"],
    &[
        "access_log",
        "drain",
        "http1",
        "upstream::endpoint",
        "upstream::hash",
        "upstream::limit",
        "upstream::patience",
        "upstream::outcome",
        "upstream::snapshot",
        "upstream::route",
        "upstream::balance",
        "upstream::sticky",
    ],
    &[
        "upstream::pool",
        "upstream::connect",
        "worker::places",
        "worker::handover",
        "worker::mailbox",
        "worker::buffer",
        "worker::deadline",
        "worker::driver",
        "worker::event",
        "worker::pipes",
        "worker::splice",
        "worker::waitlist",
        "worker::stream",
        "worker::silence",
    ],
    &["health", "discovery", "worker"],
    &["control", "demo", "doctor", "top"],
    &["server"],
    &["cli", "main", "lib"],
];

/// Modules that must not know each other: what they exchange is defined below both.
const STRANGERS: [&str; 3] = ["health", "discovery", "control"];

const LINES_MAX: usize = 500;
/// Unit tests in a file of their own may be longer: they are lists.
const TEST_LINES_MAX: usize = 800;

struct Source {
    /// From the top of the repository.
    path: String,
    text: String,
}

impl Source {
    /// The product's code alone: no comments, no unit tests.
    fn code(&self) -> String {
        let code = self.text.split("#[cfg(test)]").next().unwrap_or_default();
        code.lines()
            .map(|line| line.split("//").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn is_unit_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// `src/worker/relay.rs` is `worker::relay`, `src/worker/mod.rs` is `worker`.
    fn module(&self) -> String {
        let path =
            self.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        path.replace('/', "::")
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(directory), &mut found);
    assert!(!found.is_empty(), "no source in {directory}");
    found
}

fn collect(directory: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push(Source {
                path: path.strip_prefix(root()).unwrap().display().to_string(),
                text,
            });
        }
    }
}

fn product() -> Vec<Source> {
    sources("src").into_iter().filter(|source| !source.is_unit_test()).collect()
}

/// Whether `word` stands in `text` by itself, not as a part of a longer name.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

#[track_caller]
fn check_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

/// The module in the table of layers that `path` belongs to, and its layer.
fn layer_of(path: &str) -> Option<(&'static str, usize)> {
    let is_in = |module: &str| path == module || path.starts_with(&format!("{module}::"));
    let layers = LAYERS.iter().enumerate();
    let modules =
        layers.flat_map(|(layer, modules)| modules.iter().map(move |module| (*module, layer)));
    modules.filter(|(module, _)| is_in(module)).max_by_key(|(module, _)| module.len())
}

/// The modules named by `crate::…` paths; `crate::{a, b::{c, d}}` is spelled out.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        spell_out("", &code[at + "crate::".len()..], &mut found);
    }
    found
}

/// Reads one path, or a group of paths, from the beginning of `text`; returns what follows it.
fn spell_out<'a>(prefix: &str, text: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let end =
        text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (path, mut rest) = text.split_at(end);
    let path = format!("{prefix}{path}");
    if !rest.starts_with('{') {
        found.insert(path.trim_end_matches(':').to_string());
        return rest;
    }
    while let Some(after) = rest.strip_prefix(['{', ',']) {
        let after = after.trim_start();
        if after.starts_with('}') {
            rest = after;
            break;
        }
        rest = spell_out(&path, after, found).trim_start();
    }
    rest.strip_prefix('}').unwrap_or(rest)
}

#[test]
fn import_paths_are_spelled_out() {
    let found = imports(
        "use crate::{a, b::{c, d::E,},\n f};\nuse crate::g::H as I; let x = crate::j::k(1);",
    );
    let expected = ["a", "b::c", "b::d::E", "f", "g::H", "j::k"];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_module_uses_its_own_layer_or_lower_ones() {
    let mut faults = Vec::new();
    for source in product() {
        let module = source.module();
        // A directory's own file only names its parts.
        let Some((from, layer)) =
            layer_of(&module).or((module == "upstream").then_some(("upstream", 2)))
        else {
            faults.push(format!("{} is in no layer: add it to LAYERS", source.path));
            continue;
        };
        for import in imports(&source.code()) {
            match layer_of(&import) {
                Some((_, lower)) if lower <= layer => {}
                Some((to, _)) => {
                    faults.push(format!("{}: {from} must not use {to} ({import})", source.path))
                }
                None => faults.push(format!("{}: {import} is in no layer", source.path)),
            }
        }
    }
    check_none(&faults, "layers");
}

#[test]
fn modules_use_each_other_without_cycles() {
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in product() {
        let Some((from, _)) = layer_of(&source.module()) else { continue };
        let imports = imports(&source.code());
        let others = imports
            .iter()
            .filter_map(|import| layer_of(import))
            .map(|(to, _)| to)
            .filter(|to| *to != from);
        uses.entry(from).or_default().extend(others);
    }
    // Whatever uses nothing that is left, or is used by nothing that is left, is taken away: a cycle stays.
    loop {
        let used: BTreeSet<_> = uses.values().flatten().copied().collect();
        let is_leaf = |module: &&str| uses[module].iter().all(|used| !uses.contains_key(used));
        let end = uses.keys().copied().find(|module| !used.contains(module) || is_leaf(module));
        let Some(end) = end else { break };
        uses.remove(end);
    }
    assert!(uses.is_empty(), "a cycle among {uses:#?}");
}

#[test]
fn workers_and_the_control_side_do_not_know_each_other() {
    let mut faults = Vec::new();
    for source in product() {
        let module = source.module();
        let is_in =
            |path: &str, module: &str| path == module || path.starts_with(&format!("{module}::"));
        for import in imports(&source.code()) {
            let from_worker = is_in(&module, "worker")
                && STRANGERS.iter().any(|stranger| is_in(&import, stranger));
            let to_worker = is_in(&import, "worker")
                && STRANGERS.iter().any(|stranger| is_in(&module, stranger));
            if from_worker || to_worker {
                faults.push(format!("{}: {import}", source.path));
            }
        }
    }
    check_none(&faults, "worker and health, discovery, control are strangers");
}

#[test]
fn every_file_says_what_it_is_for() {
    let all = sources("src").into_iter().chain(sources("tests"));
    let silent = all.filter(|source| !source.text.starts_with("//! "));
    check_none(&silent.map(|source| source.path).collect::<Vec<_>>(), "files begin with `//! `");
}

#[test]
fn unsafe_code_stands_in_one_module_and_the_allocation_test() {
    let all = sources("src").into_iter().chain(sources("tests"));
    let allowed = ["src/sys.rs", "src/sys/ring.rs", "tests/alloc.rs", "tests/it/tidy.rs"];
    let others = all.filter(|source| {
        !allowed.contains(&source.path.as_str()) && has_word(&source.code(), "unsafe")
    });
    let rule = "unsafe only in src/sys and tests/alloc.rs";
    check_none(&others.map(|source| source.path).collect::<Vec<_>>(), rule);
}

#[test]
fn no_lock_stands_on_the_request_path() {
    let mut faults = Vec::new();
    for directory in ["src/worker", "src/upstream", "src/http1"] {
        for source in sources(directory).into_iter().filter(|source| !source.is_unit_test()) {
            let locks = ["Mutex", "RwLock", "Condvar", "parking_lot"]
                .map(|lock| (lock, has_word(&source.code(), lock)));
            let held = locks.into_iter().filter(|(_, held)| *held);
            faults.extend(held.map(|(lock, _)| format!("{}: {lock}", source.path)));
        }
    }
    check_none(&faults, "no locks in worker, upstream, http1");
}

#[test]
fn what_is_left_to_do_names_its_issue() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut faults = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        for (number, line) in source.text.lines().enumerate() {
            let is_marked = marks.iter().any(|mark| has_word(line, mark));
            if is_marked && !line.contains('#') && !line.contains("issue ") {
                faults.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    check_none(&faults, "a mark without an issue's number");
}

#[test]
fn files_are_short() {
    let mut faults = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let (lines, max) = (
            source.text.lines().count(),
            if source.is_unit_test() { TEST_LINES_MAX } else { LINES_MAX },
        );
        if lines > max {
            faults.push(format!("{}: {lines} lines of {max}", source.path));
        }
    }
    check_none(&faults, "files to split");
}

#[test]
fn every_flag_is_in_the_readme() {
    let output = Command::new(CORELANE).arg("--help").output().unwrap();
    let flags = crate::flags::flags_of(&String::from_utf8_lossy(&output.stdout));
    assert!(flags.len() > 10, "{flags:?}");
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let missing = flags.into_iter().filter(|flag| !has_word(&readme, flag));
    check_none(&missing.collect::<Vec<_>>(), "flags that README.md does not name");
}

#[test]
fn every_cause_of_failure_is_tested_end_to_end() {
    let tests = sources("tests/it").into_iter().filter(|source| source.path != "tests/it/tidy.rs");
    let text: String = tests.map(|source| source.text).collect();
    let missing = Cause::ALL.into_iter().map(Cause::name).filter(|name| !text.contains(name));
    check_none(
        &missing.map(ToString::to_string).collect::<Vec<_>>(),
        "causes that no test in tests/it names",
    );
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (mut section, mut explained, mut faults) = ("", None, Vec::new());
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let name = line.split([' ', '.']).next().unwrap_or_default();
        // A comment explains the crate below it, and those of its family that follow.
        explained = match explained {
            _ if line.starts_with('#') => Some(""),
            Some("") => Some(name),
            Some(family) if name.starts_with(family) => Some(family),
            _ => None,
        };
        if section.ends_with("dependencies]") && line.contains(" = ") && explained.is_none() {
            faults.push(line.to_string());
        }
    }
    check_none(&faults, "dependencies without a comment above them");
}

#[test]
fn every_test_module_is_in_the_table_of_contents() {
    let main = std::fs::read_to_string(root().join("tests/it/main.rs")).unwrap();
    let files = sources("tests/it").into_iter().filter(|source| !source.path.contains("/support/"));
    let names = files.map(|source| {
        source.path.trim_start_matches("tests/it/").trim_end_matches(".rs").to_string()
    });
    let missing = names.filter(|name| name != "main" && !main.contains(&format!("mod {name};")));
    check_none(&missing.collect::<Vec<_>>(), "files that tests/it/main.rs does not declare");
}
