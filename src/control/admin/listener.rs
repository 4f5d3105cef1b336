//! The socket of the admin API: made before anything else starts, so that an address that cannot be
//! had is an error at start-up.
//!
//! A Unix socket is for its owner alone (mode 0600) before anybody can connect; one that a dead
//! process left behind is replaced, one that somebody answers on is not. Called by `server`.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::{AdminAddr, AdminConfig};
use crate::error::StartError;

/// A socket that listens for clients of the admin API.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: Bound,
    /// The address with the port that was taken.
    pub(super) addr: AdminAddr,
}

#[derive(Debug)]
pub(super) enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// A Unix socket's file; removed when this is dropped, unless another process has put its own there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Listener {
    /// Listens where the configuration says.
    ///
    /// # Errors
    /// `AdminListen` where that is impossible.
    pub fn bind(config: &AdminConfig) -> Result<Listener, StartError> {
        let bound = match &config.listen {
            AdminAddr::Tcp(addr) => bind_tcp(*addr),
            AdminAddr::Unix(path) => bind_unix(path),
        };
        bound.map_err(|error| StartError::AdminListen(config.listen.to_string(), error))
    }
}

fn bind_tcp(addr: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // Without it a restart would wait for old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // The accepted sockets have both, too.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_tcp_user_timeout(Some(UNREAD_TIMEOUT))?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let socket = std::net::TcpListener::from(socket);
    let addr = AdminAddr::Tcp(socket.local_addr()?);
    Ok(Listener { socket: Bound::Tcp(socket), addr })
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before it listens.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(OWNER_ALONE))?;
    let file = SocketFile { path: path.to_owned(), inode: std::fs::metadata(path)?.ino() };
    socket.listen(BACKLOG)?;
    let socket = std::os::unix::net::UnixListener::from(socket);
    Ok(Listener { socket: Bound::Unix(socket, file), addr: AdminAddr::Unix(path.to_owned()) })
}

/// Removes the socket that a dead process has left.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            let reason = "the file is there and is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_answered) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = std::fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the admin socket is left behind");
        }
    }
}

/// What the kernel keeps of answers for a client that does not read; it takes twice as much.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// How long the kernel keeps it once the client takes nothing more, also after the close.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;
/// Read and write for the owner.
const OWNER_ALONE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AdminWrites;

    fn config(listen: AdminAddr) -> AdminConfig {
        AdminConfig { listen, token: None, hosts: Vec::new(), writes: AdminWrites::Local }
    }

    fn path_of(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("corelane-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_unix_socket_is_its_owners_and_goes_with_its_listener() {
        let path = path_of("own");
        let listener = Listener::bind(&config(AdminAddr::Unix(path.clone()))).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, OWNER_ALONE);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let path = path_of("stale");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&config(AdminAddr::Unix(path.clone()))).unwrap();
        let second = Listener::bind(&config(AdminAddr::Unix(path.clone()))).unwrap_err();
        assert!(second.to_string().contains("another process listens there"), "{second}");
        drop(listener);
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let path = path_of("file");
        std::fs::write(&path, "mine").unwrap();
        let refused = Listener::bind(&config(AdminAddr::Unix(path.clone()))).unwrap_err();
        assert!(refused.to_string().contains("is no socket"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        std::fs::remove_file(&path).unwrap();
    }
}
