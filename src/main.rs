//! The `corelane` program: reads the command line, starts what it says, and exits with its code.

use std::io::Write;
use std::num::{NonZeroU32, NonZeroUsize};
use std::process::ExitCode;
use std::thread::JoinHandle;

use clap::error::ErrorKind;
use rustix::process::{Resource, Rlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::sync::oneshot;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use corelane::cli::{
    BackendArgs, Cli, Command, DemoArgs, DoctorArgs, LogFormat, Machine, ProxyArgs, ReadError,
    Reader, TopArgs, completions, line_of, manual,
};
use corelane::demo::{self, Backend, BackendConfig};
use corelane::discovery::Registration;
use corelane::doctor::{self, Host, Ring};
use corelane::error::{EXIT_USAGE, StartError};
use corelane::server::{self, Server, Signals};
use corelane::top;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(ReadError::Flags(error)) => return tell_usage(&error),
        Err(ReadError::File(error)) => {
            say(&mut std::io::stderr(), &error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let writer = start_log(cli.proxy.log());
    let result = server::survive_usr1().and_then(|()| run(cli));
    let code = result.unwrap_or_else(|error| {
        // Not through the log, which --log-level may have switched off.
        let prefix = if matches!(error, StartError::ConfigFile(_)) { "" } else { "corelane: " };
        say(&mut std::io::stderr(), &format!("{prefix}{error}"));
        error.exit_code()
    });
    // Writes the lines that are queued, if anybody reads them.
    drop(writer);
    ExitCode::from(code)
}

fn run(cli: Cli) -> Result<u8, StartError> {
    match cli.command {
        Some(Command::Backend(args)) => run_backend(*args),
        Some(Command::Demo(args)) => run_demo(&args),
        Some(Command::Doctor(args)) => run_doctor(&args),
        Some(Command::Top(args)) => run_top(args),
        Some(Command::Completions(args)) => print(&completions(args.shell)),
        Some(Command::Man) => print_manual(),
        Some(Command::Check(_)) => check(cli.proxy),
        None if cli.is_check => check(cli.proxy),
        None => run_proxy(cli.proxy),
    }
}

fn run_proxy(args: ProxyArgs) -> Result<u8, StartError> {
    let signals = Signals::keep()?;
    let descriptors = raise_descriptor_limit();
    let reader = Reader::new(&args, machine(descriptors));
    let server = Server::bind(args.into_config(&machine(descriptors))?)?;
    if let Some(reader) = reader {
        server.handle().reload_by(move || reader.read());
    }
    server.stop_on(signals)?;
    server.run()
}

/// Says what flags, environment and file make together.
fn check(args: ProxyArgs) -> Result<u8, StartError> {
    let text = args.to_file();
    let config = args.into_config(&machine(raise_descriptor_limit()))?;
    server::look_at_files(&config)?;
    print(text.as_bytes())
}

fn bind(args: ProxyArgs) -> Result<Server, StartError> {
    let descriptors = raise_descriptor_limit();
    Server::bind(args.into_config(&machine(descriptors))?)
}

/// What this machine allows a process that may open so many descriptors.
fn machine(descriptors: usize) -> Machine {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    cores.sort_unstable();
    // Counts the affinity mask and the cgroup's quota.
    let parallelism = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Machine { cores, parallelism, descriptors }
}

/// Each connection takes a descriptor, and the soft limit is often 1024: takes what the hard one
/// allows, and says how much that is.
fn raise_descriptor_limit() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let in_force = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::warn!(%error, "ulimit -n cannot be raised");
            limit.current
        }
    };
    usize::try_from(in_force.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

/// Says what this machine lacks.
fn run_doctor(args: &DoctorArgs) -> Result<u8, StartError> {
    // No flag of the doctor's is limited by descriptors.
    let subject = args.subject(&machine(usize::MAX))?;
    let host = Host::at(args.root.clone());
    let entries = NonZeroU32::new(subject.ring_entries).unwrap_or(NonZeroU32::MIN);
    let report = doctor::examine(&subject, &host, &Ring::probe(entries));
    let text = if args.json { report.to_json().to_string() } else { report.to_string() };
    say(&mut std::io::stdout(), &text);
    Ok(report.exit_code())
}

fn run_top(args: TopArgs) -> Result<u8, StartError> {
    top::run(args.options()?, |frame| say(&mut std::io::stdout(), frame))
}

fn print_manual() -> Result<u8, StartError> {
    print(&manual().map_err(|error| StartError::Resource("the manual page", error))?)
}

/// Prints a document.
fn print(text: &[u8]) -> Result<u8, StartError> {
    say(&mut std::io::stdout(), String::from_utf8_lossy(text).trim_end());
    Ok(0)
}

/// Runs one demo backend until a signal comes.
fn run_backend(args: BackendArgs) -> Result<u8, StartError> {
    // Kept before the address is told: who reads that may send one at once.
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])
        .map_err(|error| StartError::Resource("the signals", error))?;
    let register = args.register()?;
    let (backend, thread) = start_backend(&args.into_config()?)?;
    let registration = register.map(|it| it.of(backend.addr)).transpose()?;
    let registered = registration.map(keep_registered).transpose()?;
    say(&mut std::io::stdout(), &format!("listening on {}", backend.addr));
    signals.forever().next();
    // First out of etcd, so that nobody is sent here; then the requests that are under way.
    if let Some((stop, thread)) = registered {
        drop(stop);
        join(thread);
    }
    drop(backend);
    join(thread);
    Ok(0)
}

/// Keeps a backend registered on a thread of its own, until the sender is dropped.
fn keep_registered(
    registration: Registration,
) -> Result<(oneshot::Sender<()>, JoinHandle<()>), StartError> {
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::Resource("a runtime", error))?;
    let builder = std::thread::Builder::new().name("register".to_owned());
    let thread = builder.spawn(move || runtime.block_on(registration.run(stopped)));
    Ok((stop, thread.map_err(|error| StartError::Resource("a thread", error))?))
}

/// Runs three demo backends and a load balancer in front of them until a signal comes.
fn run_demo(args: &DemoArgs) -> Result<u8, StartError> {
    let mut flags = vec!["corelane".to_owned(), "--listen".to_owned(), args.listen.to_string()];
    flags.extend(["--workers".to_owned(), args.workers.to_string()]);
    flags.extend(["--health-interval".to_owned(), "500ms".to_owned()]);
    flags.extend(["--health-timeout".to_owned(), "400ms".to_owned()]);
    let (mut backends, mut threads) = (Vec::new(), Vec::new());
    for name in ["alpha", "beta", "gamma"] {
        let listen = ([127, 0, 0, 1], 0).into();
        let (backend, thread) = start_backend(&BackendConfig::good(listen, name))?;
        flags.extend(["--backend".to_owned(), format!("http://{}", backend.addr)]);
        backends.push((name, backend));
        threads.push(thread);
    }
    let cli =
        Cli::read_flags(flags.into_iter()).map_err(|error| StartError::Usage(error.to_string()))?;
    let signals = Signals::keep()?;
    let server = bind(cli.proxy)?;
    server.stop_on(signals)?;
    say(&mut std::io::stdout(), &invitation(&server, &backends));
    let code = server.run();
    drop(backends);
    threads.into_iter().for_each(join);
    code
}

/// A demo backend that runs until this is dropped.
struct Running {
    addr: std::net::SocketAddr,
    _stop: oneshot::Sender<()>,
}

fn start_backend(config: &BackendConfig) -> Result<(Running, JoinHandle<()>), StartError> {
    let backend = Backend::bind(config).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => StartError::AddressInUse(config.listen),
        _ => StartError::Listen(config.listen, error),
    })?;
    let addr = backend.local_addr();
    let (stop, stopped) = oneshot::channel();
    let serve = move || {
        if let Err(error) = demo::run(backend, stopped) {
            tracing::error!(%error, "a demo backend has ended");
        }
    };
    let builder = std::thread::Builder::new().name("demo-backend".to_owned());
    let thread = builder.spawn(serve).map_err(|error| StartError::Resource("a thread", error))?;
    Ok((Running { addr, _stop: stop }, thread))
}

/// What there is to try.
fn invitation(server: &Server, backends: &[(&str, Running)]) -> String {
    let front = server.addrs().first().map_or_else(String::new, ToString::to_string);
    let mut text = format!("corelane listens on http://{front}, in front of");
    for (name, backend) in backends {
        text += &format!(" {name} ({})", backend.addr);
    }
    let sick = backends.first().map_or_else(String::new, |(_, backend)| backend.addr.to_string());
    text += &format!(
        "\n\nTry, in another terminal:\n\
         \x20 curl http://{front}/                         goes round the three\n\
         \x20 curl 'http://{front}/work?ms=50'             50 ms of computation\n\
         \x20 curl -d hello http://{front}/echo            the body back\n\
         \x20 curl -X POST http://{sick}/health/fail     makes alpha sick: within 2 s it gets no more requests\n\
         \x20 curl -X POST http://{sick}/health/recover  and well again\n\
         Ctrl-C ends it.\n"
    );
    text
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a demo backend panicked");
    }
}

/// Prints what clap has to say: help and version to standard output, errors in one line.
fn tell_usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        say(&mut std::io::stdout(), error.to_string().trim_end());
        return ExitCode::SUCCESS;
    }
    let subcommand = Cli::subcommand(std::env::args());
    let line = line_of(error, subcommand.as_deref());
    say(&mut std::io::stderr(), &format!("corelane: {line}"));
    ExitCode::from(EXIT_USAGE)
}

/// Lines that go to the log from now on: through a bounded queue that drops what one thread
/// cannot write in time, so that nobody waits for a reader. The guard writes the rest.
fn start_log(
    (level, format): (LevelFilter, LogFormat),
) -> tracing_appender::non_blocking::WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking::NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_LINES_MAX)
        .thread_name("corelane-log")
        .finish(std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false);
    let heard = Targets::new().with_default(level).with_targets(LOUD.map(|it| (it, loud(level))));
    match format {
        LogFormat::Text => log.finish().with(heard).init(),
        LogFormat::Json => log.json().flatten_event(true).finish().with(heard).init(),
    }
    std::panic::set_hook(Box::new(corelane::panic::keep_place));
    guard
}

/// What is heard of crates that log whatever a stranger sends, as often as that comes.
fn loud(level: LevelFilter) -> LevelFilter {
    if level >= LevelFilter::DEBUG { level } else { level.min(LevelFilter::ERROR) }
}

/// Prints a line; whoever closed the other end does not want it.
fn say(to: &mut dyn Write, line: &str) {
    if let Err(error) = writeln!(to, "{line}").and_then(|()| to.flush()) {
        tracing::debug!(%error, "nobody reads this output");
    }
}

/// Those crates: they ask DNS, and what a failure means is told by corelane.
const LOUD: [&str; 3] = ["hickory_net", "hickory_proto", "hickory_resolver"];
/// The most log lines that wait to be written.
const LOG_LINES_MAX: usize = 8192;
