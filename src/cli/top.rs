//! The flags of `corelane top`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::read::number;
use crate::error::StartError;
use crate::top::{Options, Target};

/// The flags of `corelane top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The admin API to ask, HOST:PORT or unix:PATH.
    #[arg(long, value_name = "HOST:PORT|unix:PATH", default_value = "127.0.0.1:9900",
        env = "CORELANE_ADMIN", value_parser = parse_target)]
    admin: Target,
    /// A file with the admin API's token [limit: 4096 bytes].
    #[arg(long, value_name = "PATH", env = "CORELANE_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Print one frame as plain text and end.
    #[arg(long)]
    once: bool,
    /// How wide that frame is [limits: 20 to 1000].
    #[arg(long, value_name = "N", default_value = "120", requires = "once",
        value_parser = number(20, 1000))]
    columns: u32,
}

impl TopArgs {
    /// What these flags say.
    ///
    /// # Errors
    /// When the token's file cannot be read.
    pub fn options(self) -> Result<Options, StartError> {
        let read = |path: PathBuf| {
            let refused = |why: &str| {
                StartError::Usage(format!("--admin-token-file {}: {why}", path.display()))
            };
            let length = std::fs::metadata(&path).map_err(|error| refused(&error.to_string()))?;
            if length.len() > TOKEN_BYTES_MAX {
                return Err(refused("it is too large for a token"));
            }
            let text =
                std::fs::read_to_string(&path).map_err(|error| refused(&error.to_string()))?;
            let token = text.trim();
            let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
            if is_token { Ok(token.to_owned()) } else { Err(refused("it holds no token")) }
        };
        Ok(Options {
            admin: self.admin,
            token: self.admin_token_file.map(read).transpose()?,
            once: self.once,
            // Its flag's limits keep it within 16 bits.
            columns: u16::try_from(self.columns).unwrap_or(u16::MAX),
        })
    }
}

/// Reads where an admin API is. One that listens on all addresses is asked on loopback.
fn parse_target(text: &str) -> Result<Target, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() {
            Err(NO_TARGET.to_owned())
        } else {
            Ok(Target::Unix(path.into()))
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or(NO_TARGET)?;
    let port: u16 = port.parse().map_err(|_no| NO_TARGET)?;
    let is_host = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte));
    if !is_host || (host.contains(':') && !host.starts_with('[')) {
        return Err(NO_TARGET.to_owned());
    }
    let host = match host {
        "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    Ok(Target::Tcp(format!("{host}:{port}")))
}

/// The largest file of a token.
const TOKEN_BYTES_MAX: u64 = 4096;
const NO_TARGET: &str =
    "it is no HOST:PORT and no unix:PATH; write 127.0.0.1:9900, as --admin has it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_api_is_named_by_address_name_or_socket() {
        let tcp = |authority: &str| Ok(Target::Tcp(authority.to_owned()));
        for (text, expected) in [
            ("127.0.0.1:9900", tcp("127.0.0.1:9900")),
            ("lb-1.example:80", tcp("lb-1.example:80")),
            ("[::1]:9900", tcp("[::1]:9900")),
            ("0.0.0.0:9900", tcp("127.0.0.1:9900")),
            ("[::]:9900", tcp("[::1]:9900")),
            ("unix:/run/a", Ok(Target::Unix("/run/a".into()))),
        ] {
            assert_eq!(parse_target(text), expected, "{text}");
        }
        for text in ["", "9900", "::1:9900", "a:b", "http://a:1", "unix:", ":9900", "a b:1"] {
            assert_eq!(parse_target(text), Err(NO_TARGET.to_owned()), "{text}");
        }
    }
}
