//! The real, built binary: started with flags, awaited by its ready file, signalled and killed by pid.
//! Its log goes to a file, so that no test can block it by not reading.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::client::Client;
use super::upstream::{HEALTH_PATH, Upstream};
use super::{SOON, Scratch, wait_until};

pub const CORELANE: &str = env!("CARGO_BIN_EXE_corelane");

/// Flags for one start. The defaults: one worker, any port, a probe a second.
pub struct Flags {
    flags: Vec<(String, String)>,
    stderr: Option<Stdio>,
}

impl Flags {
    /// A proxy in front of these upstreams.
    pub fn to(upstreams: &[&Upstream]) -> Flags {
        let flags = Flags::none();
        upstreams.iter().fold(flags, |flags, upstream| flags.and("--backend", &upstream.url()))
    }

    /// A proxy in front of these addresses.
    pub fn to_addrs(addrs: &[SocketAddr]) -> Flags {
        addrs
            .iter()
            .fold(Flags::none(), |flags, addr| flags.and("--backend", &format!("http://{addr}")))
    }

    /// A proxy without a backend.
    pub fn none() -> Flags {
        let defaults = [
            ("--listen", "127.0.0.1:0"),
            ("--workers", "1"),
            ("--health-path", HEALTH_PATH),
            ("--health-interval", "1s"),
            ("--health-timeout", "1s"),
        ];
        let flags = defaults.map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
        Flags { flags, stderr: None }
    }

    /// Sets a flag, in place of its default or earlier value.
    pub fn with(mut self, name: &str, value: &str) -> Flags {
        self.flags.retain(|(known, _)| known != name);
        self.and(name, value)
    }

    /// Adds one more value of a repeatable flag.
    pub fn and(mut self, name: &str, value: &str) -> Flags {
        self.flags.push((name.to_string(), value.to_string()));
        self
    }

    /// A flag without a value.
    pub fn switch(self, name: &str) -> Flags {
        self.with(name, "")
    }

    /// Sends the log elsewhere than to the file.
    pub fn stderr(mut self, stderr: Stdio) -> Flags {
        self.stderr = Some(stderr);
        self
    }

    /// The words of the command line, without the program.
    pub fn words(&self) -> Vec<String> {
        let switch = |value: &str, name: &str| value.is_empty() && name != "--health-path";
        let words = |(name, value): &(String, String)| match switch(value, name) {
            true => vec![name.clone()],
            false => vec![name.clone(), value.clone()],
        };
        self.flags.iter().flat_map(words).collect()
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Proxy {
        let mut proxy = self.spawn();
        proxy.wait_ready();
        proxy
    }

    /// Starts it and does not wait.
    pub fn spawn(self) -> Proxy {
        let scratch = Scratch::new("proxy");
        let ready = scratch.join("ready");
        let log = File::create(scratch.join("log")).unwrap();
        let mut command = Command::new(CORELANE);
        command.args(self.words()).arg("--ready-file").arg(&ready);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(self.stderr.unwrap_or_else(|| Stdio::from(log)));
        let child = command.spawn().expect("the proxy's binary starts");
        Proxy {
            child,
            addrs: Vec::new(),
            ready,
            scratch,
            panics_wanted: self.flags.iter().any(|(name, _)| name == "--fault"),
        }
    }
}

/// A running proxy.
pub struct Proxy {
    child: Child,
    addrs: Vec<SocketAddr>,
    ready: PathBuf,
    scratch: Scratch,
    panics_wanted: bool,
}

impl Proxy {
    /// Waits for the ready file and reads the addresses in it.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        wait_until("the proxy is ready", SOON, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the proxy ended with {status}: {}", self.log());
            }
            self.is_ready()
        });
        let addrs = std::fs::read_to_string(&self.ready).unwrap();
        self.addrs = addrs.lines().map(|line| line.parse().unwrap()).collect();
    }

    pub fn is_ready(&self) -> bool {
        self.ready.exists()
    }

    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// Where `--admin` with a TCP address is served, as its log says.
    #[track_caller]
    pub fn admin_addr(&self) -> SocketAddr {
        let mut addr = None;
        wait_until("the log names the admin API's address", SOON, || {
            let log = self.log();
            let named = log.split_once("admin API on http://").map(|(_, rest)| rest);
            addr = named.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            addr.is_some()
        });
        addr.unwrap()
    }

    /// One for each `--listen`.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    /// The names of the demo backends that answer some requests in a row; each must be a 200.
    #[track_caller]
    pub fn names(&self) -> BTreeSet<String> {
        let mut client = self.client();
        let mut name =
            || client.get("/").expect(200).get("x-backend").unwrap_or_default().to_owned();
        (0..12).map(|_| name()).collect()
    }

    /// All it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("log")).unwrap()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, at most `within`.
    #[track_caller]
    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let mut status = None;
        wait_until("the proxy has ended", within, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// SIGTERM, then exit code 0 and a last log line with nothing in flight.
    #[track_caller]
    pub fn drain(&mut self) {
        self.signal(Signal::TERM);
        self.expect_drained();
    }

    /// The end after a signal: exit code 0 and a last log line with nothing in flight.
    #[track_caller]
    pub fn expect_drained(&mut self) {
        let status = self.wait_exit(SOON * 2);
        assert_eq!(status.code(), Some(0), "{}", self.log());
        let last = self.last_line();
        assert!(
            last.contains("requests=") && last.contains("in_flight=0"),
            "the last line: {last}"
        );
    }

    pub fn last_line(&self) -> String {
        self.log().lines().last().unwrap_or_default().to_string()
    }
}

/// What /proc says.
impl Proxy {
    /// The greatest resident size it has had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory_of("VmHWM:")
    }

    /// Its resident size, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory_of("VmRSS:")
    }

    fn memory_of(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes * 1024
    }

    /// The processor time of all its threads so far, in steps of 10 ms.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // After the name in parentheses: the times in user and kernel mode are the 12th and 13th field.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Its open file descriptors.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Sets how many file descriptors it may have from now on.
    pub fn limit_open_files(&self, count: usize) {
        let limit =
            Rlimit { current: Some(count as u64), maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        self.child.kill().ok();
        self.child.wait().unwrap();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("--- the proxy's log ---\n{log}-----------------------");
        } else if !self.panics_wanted {
            // "Panic mode" is about backends.
            assert!(!log.replace("panic mode", "").contains("panic"), "{log}");
        }
    }
}
