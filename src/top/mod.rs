//! `corelane top`: the status document of a running corelane in a terminal, live.
//!
//! Asks the admin API and shows what it says; changes nothing. One thread waits for news, keys and
//! signals; whatever ends it, the terminal is as it was before. Called by `main`.

mod client;
mod draw;
mod feed;
mod figures;
mod model;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::mpsc::{self, Sender};
use tokio::time::MissedTickBehavior;

use crate::error::StartError;
use client::Client;
use feed::News;
use screen::Screen;
use view::{Next, View};

/// Whom to ask, and how to show it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the admin API is.
    pub admin: Target,
    /// Its token, if it wants one.
    pub token: Option<String>,
    /// Whether one frame is printed as plain text, instead of a screen.
    pub once: bool,
    /// How wide that frame is, in columns.
    pub columns: u16,
}

/// Where an admin API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `HOST:PORT`; the host may be a name.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Tcp(authority) => f.write_str(authority),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Shows it until somebody ends it; returns the exit code.
///
/// # Errors
/// When one frame cannot be had, or the terminal is none.
pub fn run(options: Options, print: impl FnOnce(&str)) -> Result<u8, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::Resource("a runtime", error))?;
    let client = Client::new(options.admin, options.token);
    if !options.once {
        return runtime.block_on(live(client));
    }
    let fetched = runtime.block_on(feed::once(&client));
    let (status, points) = fetched.map_err(|error| StartError::Unanswered(error.to_string()))?;
    let mut view = View::new(client.target().to_string());
    let now = Instant::now();
    view.take(News::Past(points), now);
    view.take(News::Status(Box::new(status)), now);
    print(&draw::plain(&mut view, options.columns, now));
    Ok(0)
}

async fn live(client: Client) -> Result<u8, StartError> {
    let (signals, mut signalled) = mpsc::channel(SIGNALS_MAX);
    watch_signals(signals)?;
    let mut screen = Screen::open().map_err(StartError::Terminal)?;
    let (keys, mut pressed) = mpsc::channel(KEYS_MAX);
    watch_keys(keys)?;
    let (news, mut heard) = mpsc::channel(NEWS_MAX);
    let mut view = View::new(client.target().to_string());
    let feed = tokio::spawn(feed::follow(client, news));
    let mut ticks = tokio::time::interval(FRAME_TIME);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let code = loop {
        screen
            .draw(|frame| draw::draw(frame, &mut view, Instant::now()))
            .map_err(StartError::Terminal)?;
        tokio::select! {
            Some(signal) = signalled.recv() => break SIGNAL_EXIT_BASE.saturating_add(signal),
            event = pressed.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if view.press(key) == Next::End {
                        break 0;
                    }
                }
                Some(_) => {}
                // The terminal is gone.
                None => break 0,
            },
            Some(news) = heard.recv() => view.take(news, Instant::now()),
            _tick = ticks.tick() => {}
        }
    };
    feed.abort();
    Ok(code)
}

/// A thread that waits for signals.
fn watch_signals(to: Sender<u8>) -> Result<(), StartError> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| StartError::Resource("the signals", error))?;
    spawn("corelane-signals", move || {
        for signal in signals.forever() {
            if to.blocking_send(u8::try_from(signal).unwrap_or(0)).is_err() {
                return;
            }
        }
    })
}

/// A thread that waits for keys and new sizes.
fn watch_keys(to: Sender<Event>) -> Result<(), StartError> {
    spawn("corelane-keys", move || {
        while let Ok(event) = ratatui::crossterm::event::read() {
            if to.blocking_send(event).is_err() {
                return;
            }
        }
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    let spawned = builder.spawn(run).map_err(|error| StartError::Resource("a thread", error))?;
    // It ends with the process: nothing wakes it from its wait.
    drop(spawned);
    Ok(())
}

/// How often the screen is drawn where nothing happens: ages grow.
const FRAME_TIME: Duration = Duration::from_millis(500);
/// The most events of each kind that wait to be shown.
const SIGNALS_MAX: usize = 4;
const KEYS_MAX: usize = 64;
const NEWS_MAX: usize = 64;
/// A process that a signal ends has this exit code plus the signal's number, as in a shell.
const SIGNAL_EXIT_BASE: u8 = 128;
