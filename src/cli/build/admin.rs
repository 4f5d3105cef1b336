//! Makes the configuration of the admin API of its flags.

use std::io::Read;
use std::path::Path;

use crate::cli::build::usage;
use crate::cli::flags::{AdminArgs, AdminWritesArg};
use crate::cli::read::List;
use crate::config::{AdminConfig, AdminWrites, TOKEN_BYTES_MAX, Token};
use crate::error::StartError;

impl AdminArgs {
    pub(super) fn into_config(self, has_etcd: bool) -> Result<Option<AdminConfig>, StartError> {
        let hosts = List::join(self.admin_host);
        let Some(listen) = self.admin else {
            let given = [
                ("--admin-token-file", self.admin_token_file.is_some()),
                ("--admin-host", !hosts.is_empty()),
                ("--admin-writes etcd", self.admin_writes == AdminWritesArg::Etcd),
            ];
            return match given.into_iter().find(|(_, is_given)| *is_given) {
                Some((flag, _)) => Err(usage(format!("{flag} needs --admin"))),
                None => Ok(None),
            };
        };
        let token = self.admin_token_file.as_deref().map(token_of).transpose()?;
        if token.is_none() && !listen.is_local() {
            return Err(usage(format!(
                "--admin {listen} is reached from other machines and needs --admin-token-file; \
                 make one with: {MAKE_TOKEN}, or listen on 127.0.0.1"
            )));
        }
        let writes = match self.admin_writes {
            AdminWritesArg::Local => AdminWrites::Local,
            AdminWritesArg::Etcd if has_etcd => AdminWrites::Etcd,
            AdminWritesArg::Etcd => {
                let reason = "--admin-writes etcd needs an --etcd: name a member of the cluster";
                return Err(usage(reason.to_owned()));
            }
        };
        Ok(Some(AdminConfig { listen, token, hosts, writes }))
    }
}

/// The token in this file.
fn token_of(path: &Path) -> Result<Token, StartError> {
    let refused = |reason: String| {
        let path = path.display();
        usage(format!("--admin-token-file {path} {reason}; make one with: {MAKE_TOKEN}"))
    };
    let mut text = String::new();
    // Two bytes more show that there is too much beside a line's end; a device may have no end.
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(TOKEN_BYTES_MAX as u64 + 2).read_to_string(&mut text));
    read.map_err(|error| refused(format!("cannot be read: {error}")))?;
    Token::new(text.strip_suffix('\n').unwrap_or(&text)).map_err(refused)
}

const MAKE_TOKEN: &str = "head -c 32 /dev/urandom | base64";
