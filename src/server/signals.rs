//! The signals that a server heeds, and the thread that receives them.

use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::access_log::AccessLog;
use crate::error::StartError;
use crate::server::{Event, Server};

/// SIGTERM, SIGINT, SIGHUP and SIGUSR1, kept from now on for the server that will be stopped by them.
#[derive(Debug)]
pub struct Signals(signal_hook::iterator::Signals);

impl Signals {
    /// Keeps the signals, so that none ends the process before it can drain.
    ///
    /// # Errors
    /// When the signals cannot be had.
    pub fn keep() -> Result<Signals, StartError> {
        let kept = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]);
        kept.map(Signals).map_err(|error| StartError::Resource("the signals", error))
    }
}

/// Keeps SIGUSR1 from ending this process, whatever command it runs: a rotation of logs that sends
/// it by the program's name reaches them all.
///
/// # Errors
/// When the signal cannot be had.
pub fn survive_usr1() -> Result<(), StartError> {
    let registered = signal_hook::flag::register(SIGUSR1, Arc::default());
    registered.map(drop).map_err(|error| StartError::Resource("the signals", error))
}

impl Server {
    /// Lets SIGTERM and SIGINT stop this server, SIGHUP read its configuration again, and
    /// SIGUSR1 open its access log again.
    ///
    /// # Errors
    /// When the thread that receives them cannot be had.
    pub fn stop_on(&self, Signals(mut signals): Signals) -> Result<(), StartError> {
        let events = self.event_sender.clone();
        let reopener = self.access_log.as_ref().map(AccessLog::reopener);
        let forward = move || {
            for signal in &mut signals {
                if signal == SIGUSR1 {
                    match &reopener {
                        Some(reopener) => reopener.reopen(),
                        None => tracing::info!("SIGUSR1: there is no access log to open again"),
                    }
                    continue;
                }
                let event = if signal == SIGHUP { Event::Reload } else { Event::Signal(signal) };
                if events.send(event).is_err() {
                    break;
                }
            }
        };
        let builder = std::thread::Builder::new().name("corelane-signals".to_owned());
        let spawned = builder.spawn(forward);
        spawned.map_err(|error| StartError::Resource("a thread for signals", error))?;
        Ok(())
    }
}
