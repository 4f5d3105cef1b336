//! A real etcd of one member on loopback: started, killed by its pid, restarted with its data or
//! without, and changed by etcdctl.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use super::{SOON, Scratch, wait_until};

pub struct Etcd {
    child: Child,
    scratch: Scratch,
    client: SocketAddr,
    peer: SocketAddr,
    /// Certificate, key and authority, if it speaks TLS.
    tls: Option<[PathBuf; 3]>,
    /// User and password that etcdctl logs in with.
    login: Option<String>,
}

impl Etcd {
    pub fn start() -> Etcd {
        Etcd::start_with(None)
    }

    /// One that speaks TLS, with a certificate for 127.0.0.1 of an authority of its own, and asks
    /// its clients for one of the same authority.
    pub fn start_tls() -> Etcd {
        Etcd::start_with(Some(Scratch::new("etcd-tls")))
    }

    fn start_with(tls: Option<Scratch>) -> Etcd {
        let scratch = tls.unwrap_or_else(|| Scratch::new("etcd"));
        let is_tls = scratch.0.display().to_string().contains("etcd-tls");
        let tls = is_tls.then(|| certificates(&scratch));
        let (client, peer) = (quiet_addr(), quiet_addr());
        let child = spawn(&scratch, client, peer, tls.as_ref());
        let etcd = Etcd { child, scratch, client, peer, tls, login: None };
        etcd.wait_ready();
        etcd
    }

    /// Where it answers clients.
    pub fn addr(&self) -> SocketAddr {
        self.client
    }

    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.client)
    }

    /// Its certificate, key and authority.
    pub fn tls(&self) -> Option<&[PathBuf; 3]> {
        self.tls.as_ref()
    }

    /// A file in its directory.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // Fails only where it has ended already.
        self.child.kill().ok();
        self.child.wait().unwrap();
    }

    /// Starts it again with its data, and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.scratch, self.client, self.peer, self.tls.as_ref());
        self.wait_ready();
    }

    /// Starts it again as if it had never been.
    #[track_caller]
    pub fn restart_empty(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.scratch.join("data")).unwrap();
        self.restart();
    }

    #[track_caller]
    fn wait_ready(&self) {
        wait_until("etcd answers", SOON * 2, || self.run(&["get", "/none"]).is_ok());
    }

    pub fn put(&self, key: &str, value: &str) {
        self.etcdctl(&["put", key, value]);
    }

    pub fn delete(&self, key: &str) {
        self.etcdctl(&["del", key]);
    }

    /// Forgets all changes but the last.
    pub fn compact(&self) {
        let status = self.etcdctl(&["get", "/none", "-w", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let revision = status["header"]["revision"].to_string();
        self.etcdctl(&["compact", &revision]);
    }

    /// Users must log in from now on: root, with this password.
    pub fn require_login(&mut self, password: &str) {
        self.etcdctl(&["user", "add", &format!("root:{password}")]);
        self.etcdctl(&["auth", "enable"]);
        self.login = Some(format!("root:{password}"));
    }

    #[track_caller]
    pub fn etcdctl(&self, words: &[&str]) -> String {
        match self.run(words) {
            Ok(text) => text,
            Err(text) => panic!("etcdctl {words:?}: {text}"),
        }
    }

    fn run(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.url());
        command.args(["--command-timeout", "2s", "--dial-timeout", "1s"]);
        if let Some([certificate, key, authority]) = &self.tls {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
            command.arg("--cacert").arg(authority);
        }
        if let Some(login) = &self.login {
            command.args(["--user", login]);
        }
        let output = command.args(words).stdin(Stdio::null()).output();
        let output = output.expect("etcdctl is installed (tests/run does it)");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.scratch.join("log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("--- etcd's last lines, newest first ---\n{}", last.join("\n"));
        }
    }
}

fn spawn(
    scratch: &Scratch,
    client: SocketAddr,
    peer: SocketAddr,
    tls: Option<&[PathBuf; 3]>,
) -> Child {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://{client}"), format!("http://{peer}"));
    let log = std::fs::File::create(scratch.join("log")).unwrap();
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(scratch.join("data")).args(["--name", "one"]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("one={peer}")]);
    // Elections and the shortest lease take a second or less.
    command.args(["--heartbeat-interval", "50", "--election-timeout", "500"]);
    if let Some([certificate, key, authority]) = tls {
        command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(authority);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().expect("etcd is installed (tests/run does it)")
}

/// A free address whose port is none of those that the kernel gives to clients: nobody takes it
/// while etcd is away.
fn quiet_addr() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 1000).unwrap() * 20;
    let ports = (0..1000).map(|_| 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000);
    let mut addrs = ports.map(|port| SocketAddr::new([127, 0, 0, 1].into(), port));
    addrs.find(|addr| TcpListener::bind(addr).is_ok()).expect("a free port")
}

/// An authority, and a certificate of it for 127.0.0.1, in files.
fn certificates(scratch: &Scratch) -> [PathBuf; 3] {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "the tests' authority");
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // No user of etcd's: the password tells which.
    params.distinguished_name = rcgen::DistinguishedName::new();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: String| {
        let path = scratch.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    [
        write("cert.pem", certificate.pem()),
        write("key.pem", key.serialize_pem()),
        write("ca.pem", authority.pem()),
    ]
}
