//! Real backends, started by the tests and killed with them: `corelane backend`, nginx, Python, Node.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::etcd::Etcd;
use super::proxy::CORELANE;
use super::{SOON, Scratch, wait_until};

/// A server process and the address on which it listens.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
    /// Held open, so that the server can go on printing.
    _stdout: Option<BufReader<ChildStdout>>,
    pub scratch: Option<Scratch>,
}

impl Server {
    /// `corelane backend` on any port.
    pub fn demo(name: &str) -> Server {
        Server::demo_at("127.0.0.1:0".parse().unwrap(), name)
    }

    /// `corelane backend` on a given port: a backend that is restarted.
    pub fn demo_at(addr: SocketAddr, name: &str) -> Server {
        let mut command = Command::new(CORELANE);
        command.args(["backend", "--listen", &addr.to_string(), "--name", name]);
        Server::printing_its_address(command)
    }

    /// `corelane backend` on any port, registered in this etcd under a lease of so many seconds.
    pub fn registered(etcd: &Etcd, name: &str, ttl: &str) -> Server {
        let place = format!("etcd://{}/corelane/", etcd.addr());
        Server::registered_at(&place, &["--name", name, "--register-ttl", ttl])
    }

    /// `corelane backend` on any port, registered at this place, with more flags.
    pub fn registered_at(place: &str, flags: &[&str]) -> Server {
        let mut command = Command::new(CORELANE);
        command.args(["backend", "--listen", "127.0.0.1:0", "--register", place]).args(flags);
        command.stderr(Stdio::null());
        Server::printing_its_address(command)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks it to end, and waits until it has; its exit code, if no signal killed it.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let mut status = None;
        wait_until("the server has ended", SOON, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// `support/server.py`: http.server with threads.
    pub fn python() -> Server {
        let mut command = Command::new("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/server.py"));
        Server::printing_its_address(command)
    }

    /// `support/server.js`: Node's own http module.
    pub fn node() -> Server {
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/server.js"));
        Server::printing_its_address(command)
    }

    /// nginx over a directory of its own: PUT writes files, GET reads them (chunked under `/ssi/`).
    pub fn nginx() -> Server {
        let scratch = Scratch::new("nginx");
        let addr = free_addr();
        let root = scratch.0.display().to_string();
        let config =
            include_str!("nginx.conf").replace("ROOT", &root).replace("ADDR", &addr.to_string());
        std::fs::write(scratch.join("nginx.conf"), config).unwrap();
        std::fs::create_dir_all(scratch.join("files")).unwrap();
        let program = if std::path::Path::new("/usr/sbin/nginx").exists() {
            "/usr/sbin/nginx"
        } else {
            "nginx"
        };
        let mut command = Command::new(program);
        command.arg("-c").arg(scratch.join("nginx.conf")).arg("-e").arg(scratch.join("error.log"));
        let child =
            command.stdin(Stdio::null()).spawn().expect("nginx is installed (tests/run does it)");
        let server = Server { child, addr, _stdout: None, scratch: Some(scratch) };
        wait_until("nginx listens", SOON, || TcpStream::connect(addr).is_ok());
        server
    }

    fn printing_its_address(mut command: Command) -> Server {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdout = BufReader::new(child.stdout.take().expect("its stdout is a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let addr = line.trim().rsplit(' ').next().and_then(|addr| addr.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("{command:?} printed {line:?}"));
        Server { child, addr, _stdout: Some(stdout), scratch: None }
    }

    /// SIGKILL, and waits for the process to be gone.
    pub fn kill(&mut self) {
        // Fails only where it has ended already.
        self.child.kill().ok();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if let Some(scratch) = self.scratch.as_ref().filter(|_| std::thread::panicking()) {
            let log = std::fs::read_to_string(scratch.join("error.log")).unwrap_or_default();
            eprintln!("--- nginx's log ---\n{log}-------------------");
        }
    }
}

/// An address that was free a moment ago, for servers that cannot listen on port 0, and for nobody.
pub fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
