//! Reads where the admin API listens, and the names it may be asked by.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::config::AdminAddr;

/// Reads `IP:PORT` or `unix:PATH`.
pub(in crate::cli) fn parse_admin(text: &str) -> Result<AdminAddr, String> {
    let Some(path) = text.strip_prefix("unix:") else {
        return text.parse().map(AdminAddr::Tcp).map_err(|_no| {
            "it is neither IP:PORT, as in 127.0.0.1:9900, nor unix:PATH".to_owned()
        });
    };
    let path = PathBuf::from(path);
    let len = path.as_os_str().as_bytes().len();
    if !(1..=SOCKET_PATH_BYTES_MAX).contains(&len) {
        return Err(format!("the path has {len} bytes; 1 to {SOCKET_PATH_BYTES_MAX} are possible"));
    }
    Ok(AdminAddr::Unix(path))
}

/// Reads a host name, without a port.
pub(in crate::cli) fn parse_admin_host(text: &str) -> Result<String, String> {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.is_empty() || text.len() > HOST_BYTES_MAX || !text.bytes().all(is_name_byte) {
        return Err("it is no host name; give it without a scheme and a port".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

/// The most bytes of a Unix socket's path (unix(7)), without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The most bytes of a name in DNS (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;
