//! Flags and what they are refused for.

mod access_log;
mod balance;
mod health;

use super::build::Machine;
use super::read::parse_backend;
use super::*;
use crate::config::{Config, Mode, PoolConfig};
use crate::demo::Behaviour;

fn config_of(flags: &str) -> Result<Config, String> {
    config_of_words(&flags.split_whitespace().collect::<Vec<_>>())
}

fn config_of_words(words: &[&str]) -> Result<Config, String> {
    let first = ["corelane", "--listen", "127.0.0.1:0", "--backend", "http://a:1"];
    let words = first.iter().chain(words);
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    let machine = Machine { cores: vec![0, 1, 5], parallelism: 2, descriptors: 1000 };
    cli.proxy.into_config(&machine).map_err(|error| error.to_string())
}

fn pool_of(flags: &str) -> PoolConfig {
    config_of(flags).unwrap().pools.swap_remove(0)
}

fn check_refused(flags: &str, reason: &str) {
    let error = config_of(flags).map(|_| ()).unwrap_err();
    assert!(error.contains(reason), "{flags}: {error}");
}

#[test]
fn workers_run_on_the_allowed_cores() {
    let cores = |flags| config_of(flags).unwrap().workers.cores;
    assert_eq!(cores(""), [0, 1]);
    assert_eq!(cores("--workers 3"), [0, 1, 5]);
    assert_eq!(cores("--cores 5,0-1"), [5, 0, 1]);
    assert_eq!(cores("--cores 5,0-1 --workers 2"), [5, 0]);
    check_refused("--workers 4", "more than the 3 cores");
    check_refused("--cores 2", "core 2 is not among");
    check_refused("--cores 0,0", "twice");
    check_refused("--cores 1-", "no list");
    check_refused("--cores 3-1", "runs backwards");
}

#[test]
fn impossible_combinations_are_refused() {
    assert_eq!(pool_of("--health-interval 500ms").health.timeout.as_millis(), 500);
    check_refused("--listen 0.0.0.0:80 --listen 127.0.0.1:80", "on all addresses");
    check_refused("--health-path health", "is no path");
    check_refused("--backend http://a:1", "given twice");
    check_refused("--headers-max 257", "257");
    check_refused("--health-interval 0s", "it is not 10ms to 1h");
    check_refused("--health-interval 5", "it is no duration");
    check_refused("--health-timeout 9s", "--health-timeout 9s is longer");
}

#[test]
fn backends_are_read_with_their_options() {
    let read =
        |text: &str| parse_backend(text).map(|backend| (backend.authority(), backend.weight.get()));
    assert_eq!(read("http://Web.local:80"), Ok(("web.local:80".to_owned(), 1)));
    assert_eq!(read("http://[::1]:80/,weight=256"), Ok(("[::1]:80".to_owned(), 256)));
    let options = |text: &str| {
        let backend = parse_backend(&format!("http://a:1{text}")).unwrap();
        (backend.conns_max.map_or(0, u32::from), backend.is_backup, backend.mode)
    };
    assert_eq!(options(""), (0, false, Mode::Ready));
    assert_eq!(options(",backup,max-conns=7,weight=2"), (7, true, Mode::Ready));
    assert_eq!(options(",drain"), (0, false, Mode::Drain));
    assert_eq!(options(",maintenance,backup"), (0, true, Mode::Maintenance));
}

#[test]
fn backends_are_refused_for_their_url_or_options() {
    for (text, reason) in [
        ("https://a:1", "not supported"),
        ("unix:/s", "not supported"),
        ("a:1", "does not begin with http://"),
        ("http://a", "the port is missing"),
        ("http://a:0", "the port is not"),
        ("http://a:99999", "the port is not"),
        ("http://a:+80", "the port is not"),
        (&format!("http://{}:80", "a".repeat(64)), "63 between two dots"),
        (&format!("http://{}a:80", "a.".repeat(127)), "more than 253 bytes"),
        ("http://::1:80", "the host is no name"),
        ("http://[a]:80", "the host is no name"),
        ("http://:80", "the host is no name"),
        ("http://a b:80", "the host is no name"),
        ("http://a:1/path", "no path"),
        ("http://a:1,weight=0", "not 1 to 256"),
        ("http://a:1,weight=257", "not 1 to 256"),
        ("http://a:1,weight", "weight=N"),
        ("http://a:1,weight=1,weight=2", "twice"),
        ("http://a:1,max-conns=0", "above 0"),
        ("http://a:1,max-conns=4294967296", "above 0"),
        ("http://a:1,backup=yes", "has no value"),
        ("http://a:1,drain,maintenance", "exclude"),
        ("http://a:1,wait=1", "there are weight=N, max-conns=N, backup"),
        ("http://a:1,", "is no option"),
    ] {
        let error = parse_backend(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn a_demo_backend_is_read_with_its_failures() {
    let read = |flags: &str| {
        let flags = format!("corelane backend {flags}");
        let cli = Cli::try_parse_from(flags.split_whitespace());
        match cli.map_err(|error| error.to_string())?.command {
            Some(Command::Backend(args)) => args.into_config().map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        }
    };
    let plain = read("").unwrap();
    assert_eq!((plain.behaviour, plain.agent_port), (Behaviour::GOOD, None));
    let flags = "--latency 5ms --error-percent 50 --silent --idle-timeout 100ms --load 0.5";
    let behaviour = read(&format!("{flags} --keep-alive-header")).unwrap().behaviour;
    assert_eq!((behaviour.latency.as_millis(), behaviour.error_percent), (5, 50));
    assert_eq!(behaviour.idle_timeout.map(|time| time.as_millis()), Some(100));
    assert_eq!((behaviour.load, behaviour.is_silent), (Some(0.5), true));
    assert!(behaviour.announces_idle_timeout);
    let agent = read("--agent-port 9 --agent-line drain").unwrap();
    assert_eq!((agent.agent_port, agent.agent_line.as_str()), (Some(9), "drain"));
    for (flags, reason) in [
        ("--load 2", "0 to 1"),
        ("--error-percent 101", "0 to 100"),
        ("--agent-port 9 --agent-line ü", "visible ASCII"),
        ("--agent-line drain", "--agent-port"),
        ("--keep-alive-header", "--idle-timeout"),
        ("--count-file /nowhere/ids", "--count-file /nowhere/ids"),
    ] {
        let error = read(flags).unwrap_err();
        assert!(error.contains(reason), "{flags}: {error}");
    }
}

#[test]
fn an_error_points_at_the_help_of_its_command() {
    for (line, help) in [
        ("corelane --no-such", "see corelane --help, or try corelane demo"),
        ("corelane demo --no-such", "see corelane demo --help"),
        ("corelane backend --load 2", "see corelane backend --help"),
    ] {
        let words = || line.split_whitespace().map(str::to_owned);
        let error = Cli::read_flags(words()).unwrap_err();
        let told = line_of(&error, Cli::subcommand(words()).as_deref());
        assert!(told.ends_with(&format!("; {help}")), "{told}");
    }
}

#[test]
fn the_command_line_is_sound() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}
