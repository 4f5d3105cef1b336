//! Reads a backend: its URL, and its options behind commas.

use std::num::{NonZeroU16, NonZeroU32};

use crate::cli::read::options;
use crate::config::{BackendConfig, Mode, parse_backend_url, parse_weight};

/// Reads `http://HOST:PORT[,weight=N][,max-conns=N][,backup][,drain][,maintenance]`.
pub(in crate::cli) fn parse_backend(text: &str) -> Result<BackendConfig, String> {
    let mut parts = text.split(',');
    let (host, port) = parse_backend_url(parts.next().unwrap_or_default())?;
    let mut backend = BackendConfig {
        host,
        port,
        weight: NonZeroU16::MIN,
        conns_max: None,
        is_backup: false,
        mode: Mode::Ready,
    };
    for (name, value) in options(parts)? {
        match (name, value) {
            ("weight", Some(value)) => backend.weight = parse_weight(value)?,
            ("max-conns", Some(value)) => {
                let max: Option<NonZeroU32> = value.parse().ok();
                backend.conns_max = Some(max.ok_or("max-conns is not a number above 0")?);
            }
            ("backup", None) => backend.is_backup = true,
            ("drain" | "maintenance", None) if backend.mode != Mode::Ready => {
                return Err("drain and maintenance exclude each other".to_owned());
            }
            ("drain", None) => backend.mode = Mode::Drain,
            ("maintenance", None) => backend.mode = Mode::Maintenance,
            ("weight" | "max-conns", None) => {
                return Err(format!("{name} needs a value: {name}=N"));
            }
            ("backup" | "drain" | "maintenance", Some(_)) => {
                return Err(format!("{name} has no value"));
            }
            _ => return Err(format!("{name:?} is no option of a backend; there are {OPTIONS}")),
        }
    }
    Ok(backend)
}

const OPTIONS: &str = "weight=N, max-conns=N, backup, drain and maintenance";
