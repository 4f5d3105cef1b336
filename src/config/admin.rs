//! Where the admin API listens, and who may ask it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The admin API of one process.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: AdminAddr,
    /// What a client must know; always there when `listen` is beyond loopback.
    pub token: Option<Token>,
    /// Names that may stand in `Host` besides `localhost` and IP addresses; in lower case.
    pub hosts: Vec<String>,
    /// Where its changes are kept.
    pub writes: AdminWrites,
}

/// Where the changes of the admin API are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminWrites {
    /// In this process, and its state file.
    Local,
    /// In etcd, for every process that watches it; there is one then.
    Etcd,
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddr {
    /// A TCP address; port 0 takes a free port.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
}

impl AdminAddr {
    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            AdminAddr::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            AdminAddr::Unix(_) => true,
        }
    }
}

impl fmt::Display for AdminAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAddr::Tcp(addr) => write!(f, "{addr}"),
            AdminAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A secret that clients of the admin API know, `TOKEN_BYTES_MIN` to `TOKEN_BYTES_MAX` visible
/// ASCII characters; it is shown nowhere.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token of this text.
    ///
    /// # Errors
    /// When its length or a character is not allowed.
    pub fn new(text: &str) -> Result<Token, String> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has more than visible ASCII characters on one line".to_owned());
        }
        match text.len() {
            ..TOKEN_BYTES_MIN => {
                Err(format!("has {} bytes, less than {TOKEN_BYTES_MIN}", text.len()))
            }
            TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX => Ok(Token(text.to_owned())),
            _ => Err(format!("has more than {TOKEN_BYTES_MAX} bytes")),
        }
    }

    /// Its bytes, to be compared in constant time.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The least and the most bytes of a token.
pub const TOKEN_BYTES_MIN: usize = 16;
/// See `TOKEN_BYTES_MIN`.
pub const TOKEN_BYTES_MAX: usize = 512;
