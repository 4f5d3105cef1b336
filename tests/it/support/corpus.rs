//! Reads the raw messages under tests/data, whose README says how they are written.
#![allow(dead_code, reason = "the fuzz crate reads the messages alone")]

use std::path::Path;

/// One message and what must become of it.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub verdict: String,
    pub message: Vec<u8>,
    fields: Vec<(String, Vec<u8>)>,
}

impl Case {
    /// All values of a field, in order.
    pub fn all(&self, key: &str) -> Vec<&[u8]> {
        let found = self.fields.iter().filter(|(known, _)| known == key);
        found.map(|(_, value)| value.as_slice()).collect()
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.all(key).first().copied()
    }

    /// The same as text, empty where it is missing.
    pub fn text(&self, key: &str) -> String {
        String::from_utf8_lossy(self.get(key).unwrap_or_default()).into_owned()
    }

    /// Why the proxy does not do yet what the verdict says.
    pub fn is_open(&self) -> bool {
        self.get("open").is_some()
    }

    /// The ways to send it, each as the ends of its pieces: whole, byte by byte, and cut in two at
    /// every place; what is too long for that at two places.
    pub fn ways(&self) -> Vec<Vec<usize>> {
        let length = self.message.len();
        if self.text("split") == "no" {
            return vec![vec![length], vec![length / 3, length / 2, length]];
        }
        let last = self.text("split").parse().unwrap_or(length);
        let bytewise = (1..last).chain([length]).collect();
        let mut ways = vec![vec![length], bytewise];
        ways.extend((1..last).map(|cut| vec![cut, length]));
        ways
    }
}

/// All cases of a directory under tests/data, by name.
pub fn cases(directory: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(data_path()).join(directory);
    let entries = std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut cases: Vec<_> = entries.map(|entry| read(&entry.unwrap().path())).collect();
    assert!(!cases.is_empty(), "no case in {}", path.display());
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// The fuzz crate has the data beside it.
fn data_path() -> &'static str {
    if env!("CARGO_PKG_NAME") == "corelane" { "tests/data" } else { "../data" }
}

fn read(path: &Path) -> Case {
    let text = std::fs::read_to_string(path).unwrap();
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let (head, message) = text.split_once("\n---\n").unwrap_or_else(|| panic!("{name}: no ---"));
    let fields: Vec<_> = head
        .lines()
        .map(|line| line.split_once(':').unwrap_or_else(|| panic!("{name}: {line}")))
        .map(|(key, value)| (key.to_string(), unescape(value.strip_prefix(' ').unwrap_or(value))))
        .collect();
    let mut case = Case {
        name,
        verdict: String::new(),
        message: unescape(&message.replace('\n', "")),
        fields,
    };
    case.verdict = case.text("verdict");
    for needed in ["verdict", "rule", "about"] {
        assert!(case.get(needed).is_some(), "{}: no {needed}", case.name);
    }
    case
}

/// `\r \n \t \0 \\ \xNN`, and `\(N*TEXT)` for TEXT N times.
pub fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (kind, after) = rest.split_first().expect("an escape has a letter");
        rest = after;
        match kind {
            b'r' => bytes.push(b'\r'),
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'0' => bytes.push(0),
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                let digits = std::str::from_utf8(&rest[..2]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &rest[2..];
            }
            b'(' => {
                let end = rest.iter().position(|byte| *byte == b')').expect("a closing )");
                let inside = std::str::from_utf8(&rest[..end]).unwrap();
                let (count, unit) = inside.split_once('*').expect("a count and a *");
                bytes.extend(unescape(unit).repeat(count.parse().unwrap()));
                rest = &rest[end + 1..];
            }
            other => panic!("unknown escape \\{}", char::from(*other)),
        }
    }
    bytes
}
