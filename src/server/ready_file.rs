//! The file that says that a process is ready: whole or not there at all.
//!
//! Called by `server` alone, on the main thread.

use std::path::{Path, PathBuf};

use crate::error::StartError;

/// Removes what an earlier process said, and makes sure that this one will be able to speak.
pub(super) fn prepare(path: &Path) -> Result<(), StartError> {
    let part = part_of(path);
    std::fs::write(&part, "").and_then(|()| std::fs::remove_file(&part)).map_err(error_of(path))?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error_of(path)(error)),
        _ => Ok(()),
    }
}

pub(super) fn error_of(path: &Path) -> impl FnOnce(std::io::Error) -> StartError {
    move |error| StartError::File(path.display().to_string(), error)
}

/// Writes a file so that nobody can read half of it.
pub(super) fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let part = part_of(path);
    std::fs::write(&part, text)?;
    std::fs::rename(part, path)
}

/// Where a file is written before it takes its name.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}
