//! What is wrong with flags and file, gathered so that all of it can be told at once.

use std::path::PathBuf;

use crate::cli::build::usage;
use crate::cli::file::{Content, FileError};
use crate::error::StartError;

/// What is wrong so far.
pub(super) struct Problems {
    /// The file's path, if there is one.
    file: PathBuf,
    /// On which lines it sets flags of the process.
    lines: Vec<(String, usize)>,
    /// Whether all of these could be read: else what they mean together is not judged.
    is_whole: bool,
    /// What is wrong in the file, each with its line; 0 for the file as a whole.
    in_file: Vec<(usize, String)>,
    /// What is wrong elsewhere.
    elsewhere: Vec<String>,
}

impl Problems {
    /// Those that reading the file has found.
    pub(super) fn of(content: &mut Content) -> Problems {
        Problems {
            file: content.path.clone(),
            lines: std::mem::take(&mut content.lines),
            is_whole: content.is_whole,
            in_file: std::mem::take(&mut content.problems),
            elsewhere: Vec::new(),
        }
    }

    /// Keeps what is wrong on a line of the file.
    pub(super) fn tell(&mut self, line: usize, reason: String) {
        match self.file.as_os_str().is_empty() {
            true => self.elsewhere.push(reason),
            false => self.in_file.push((line, reason)),
        }
    }

    /// What was made of flags of the process, if it could be; else why not is kept, with the line
    /// of the flag that it begins with, if the file sets that.
    ///
    /// # Errors
    /// What is no fault of flags.
    pub(super) fn took<T>(&mut self, made: Result<T, StartError>) -> Result<Option<T>, StartError> {
        match made {
            Ok(made) => Ok(Some(made)),
            Err(StartError::Usage(reason)) => {
                let flag = reason.split([' ', ':']).next().and_then(|it| it.strip_prefix("--"));
                let line = self.lines.iter().find(|(name, _)| flag == Some(name));
                match line {
                    _ if !self.is_whole => {}
                    Some((_, line)) => self.in_file.push((*line, reason)),
                    None => self.elsewhere.push(reason),
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether flags of the process could all be read.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.in_file.is_empty() && self.elsewhere.is_empty()
    }

    /// All of them.
    pub(super) fn into_error(self) -> StartError {
        if self.in_file.is_empty() && self.elsewhere.len() == 1 {
            return usage(self.elsewhere.concat());
        }
        let mut lines = Vec::new();
        if !self.in_file.is_empty() {
            lines.push(FileError::new(&self.file, self.in_file).to_string());
        }
        lines.extend(self.elsewhere.iter().map(|reason| format!("corelane: {reason}")));
        StartError::ConfigFile(lines.join("\n"))
    }
}
