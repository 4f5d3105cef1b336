//! The floor: what the kernel's TCP costs a proxy on io_uring that does nothing else.
//!
//! `floor relay` passes bytes between each client and a backend connection of its own, blindly: no
//! parsing, no pool, no timers, no counters. Its ring, buffers and socket options are corelane's,
//! so that the processor time beyond it is what corelane's own work costs.
//! `floor respond` is the backend of `bench-scripts/compare`, `floor load` its load at a fixed rate.
//! One thread each; SIGTERM ends them.

#![expect(
    unsafe_code,
    reason = "the bare ring takes pointers; monoio's cost is a part of what is measured"
)]

mod load;
mod relay;
mod responder;
mod ring;

use std::net::SocketAddr;
use std::process::ExitCode;

use corelane::worker::buffer::BUFFER_BYTES;
use load::Load;
use relay::Relay;
use responder::Responder;

const USAGE: &str = "\
floor relay --listen IP:PORT --backend IP:PORT [--core N] [--buffer-bytes N]
floor respond --listen IP:PORT [--core N]
floor load --backend IP:PORT --target /N --conns N --rate N --seconds N [--core N]
Not a micro-benchmark: bench-scripts/compare runs it.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` starts every benchmark with this flag.
    if words.is_empty() || words.iter().any(|word| word == "--bench") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}; without flags it says what it wants");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), String> {
    let (verb, flags) = words.split_first().ok_or("what to do?")?;
    let mut options = Options::default();
    for pair in flags.chunks(2) {
        let [flag, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
        options.set(flag, value)?;
    }
    if let Some(core) = options.core
        && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
    {
        return Err(format!("cannot run on core {core}"));
    }
    raise_descriptor_limit().map_err(|error| format!("ulimit -n: {error}"))?;
    if verb == "load" {
        return load::run(&options.load()?).map_err(|error| error.to_string());
    }
    let listen = options.listen.ok_or("--listen is missing")?;
    let ended = match verb.as_str() {
        "relay" => {
            let backend = options.backend.ok_or("--backend is missing")?;
            let bytes = options.buffer_bytes.unwrap_or(BUFFER_BYTES);
            ring::listen(listen)
                .and_then(|listener| ring::serve(listener, Relay::new(backend, bytes)))
        }
        "respond" => {
            ring::listen(listen).and_then(|listener| ring::serve(listener, Responder::new()))
        }
        _ => return Err(format!("{verb} is unknown")),
    };
    ended.map_err(|error| error.to_string())
}

#[derive(Default)]
struct Options {
    listen: Option<SocketAddr>,
    backend: Option<SocketAddr>,
    core: Option<usize>,
    buffer_bytes: Option<usize>,
    target: Option<String>,
    conns: Option<usize>,
    rate: Option<f64>,
    seconds: Option<f64>,
}

impl Options {
    fn set(&mut self, flag: &str, value: &str) -> Result<(), String> {
        let wrong = |_| format!("{flag} cannot be {value}");
        match flag {
            "--listen" => self.listen = Some(value.parse().map_err(|_| wrong(()))?),
            "--backend" => self.backend = Some(value.parse().map_err(|_| wrong(()))?),
            "--core" => self.core = Some(value.parse().map_err(|_| wrong(()))?),
            "--buffer-bytes" => self.buffer_bytes = Some(value.parse().map_err(|_| wrong(()))?),
            "--target" => self.target = Some(value.to_owned()),
            "--conns" => self.conns = Some(value.parse().map_err(|_| wrong(()))?),
            "--rate" => self.rate = Some(value.parse().map_err(|_| wrong(()))?),
            "--seconds" => self.seconds = Some(value.parse().map_err(|_| wrong(()))?),
            _ => return Err(format!("{flag} is unknown")),
        }
        Ok(())
    }

    fn load(self) -> Result<Load, String> {
        Ok(Load {
            to: self.backend.ok_or("--backend is missing")?,
            target: self.target.ok_or("--target is missing")?,
            conns: self.conns.ok_or("--conns is missing")?,
            rate: self.rate.filter(|rate| *rate > 0.0).ok_or("--rate is missing")?,
            seconds: self.seconds.ok_or("--seconds is missing")?,
        })
    }
}

fn raise_descriptor_limit() -> rustix::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
}
