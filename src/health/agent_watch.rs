//! Asks one backend's agent how it is, at each interval, and tells when its state changes.
//!
//! A task of its own, so that an agent that hangs delays no probe. One that cannot be reached
//! changes nothing, as in HAProxy: the probes say whether the backend is up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::HealthConfig;
use crate::health::agent::{self, Agent};
use crate::health::pulse::Pulse;
use crate::health::{News, Report, jitter};
use crate::upstream::endpoint::Slot;

/// The asking of one agent.
#[derive(Debug)]
pub struct AgentWatch {
    slot: Slot,
    id: String,
    port: u16,
    /// Where the endpoint is, as its probes know it.
    address: watch::Receiver<Option<SocketAddr>>,
    interval: Duration,
    timeout: Duration,
    pulse: Arc<Pulse>,
    agent: Agent,
    /// Whether it answered when it was last asked.
    is_reached: bool,
    /// The word that was ignored last, if the last line had one.
    ignored: Option<String>,
}

impl AgentWatch {
    pub(super) fn new(
        slot: Slot,
        id: &str,
        port: u16,
        address: watch::Receiver<Option<SocketAddr>>,
        config: &HealthConfig,
        pulse: Arc<Pulse>,
    ) -> AgentWatch {
        AgentWatch {
            slot,
            id: id.to_owned(),
            port,
            address,
            interval: config.interval,
            timeout: config.timeout,
            pulse,
            agent: Agent::SILENT,
            is_reached: true,
            ignored: None,
        }
    }

    /// Asks at once, at each interval and when the endpoint moves, until nobody takes news.
    pub async fn run(mut self, news: mpsc::Sender<News>) {
        loop {
            let started = Instant::now();
            let address = *self.address.borrow_and_update();
            if let Some(address) = address {
                let answer = self.ask(SocketAddr::new(address.ip(), self.port)).await;
                if let Some(report) = self.observe(answer)
                    && news.send(News::Agent(report)).await.is_err()
                {
                    return;
                }
            }
            let period = self.interval.saturating_add(jitter(self.interval, fastrand::u64(..)));
            tokio::select! {
                () = sleep_until(self.pulse.together(started, period)) => {}
                moved = self.address.changed() => if moved.is_err() { return },
            }
        }
    }

    async fn ask(&self, address: SocketAddr) -> io::Result<String> {
        let answer = async { read_line(TcpStream::connect(address).await?).await };
        match timeout(self.timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Takes an answer over; what it changed.
    fn observe(&mut self, answer: io::Result<String>) -> Option<Report> {
        let was_reached = std::mem::replace(&mut self.is_reached, answer.is_ok());
        let line = match answer {
            Ok(line) => line,
            Err(error) => {
                if was_reached {
                    tracing::warn!(backend = self.id, %error, "its agent cannot be asked");
                }
                return None;
            }
        };
        if !was_reached {
            tracing::info!(backend = self.id, "its agent answers again");
        }
        let before = self.agent;
        let parsed = agent::parse(&line);
        if parsed.ignored != self.ignored.as_deref() {
            if let Some(word) = parsed.ignored {
                tracing::debug!(backend = self.id, word, "a word of its agent is ignored");
            }
            self.ignored = parsed.ignored.map(str::to_owned);
        }
        self.agent = before.observe(&parsed);
        let why = format!("its agent says {:?}", line.trim_end());
        (self.agent != before).then_some(Report { slot: self.slot, agent: self.agent, why })
    }
}

/// Reads up to the end of a line, or to the end of the stream, or `LINE_BYTES_MAX`.
async fn read_line(mut stream: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut line = [0; LINE_BYTES_MAX];
    let mut length = 0;
    while length < LINE_BYTES_MAX {
        let read = stream.read(&mut line[length..]).await?;
        let is_end = read == 0 || line[length..length + read].contains(&b'\n');
        length += read;
        if is_end {
            break;
        }
    }
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// The most of a line that is read.
const LINE_BYTES_MAX: usize = 256;
