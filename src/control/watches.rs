//! The tasks that watch endpoints: begun when an endpoint is added, ended when it is removed.
//!
//! Runs them on the control thread's runtime; a panic of one is carried on, since its endpoint
//! would be unwatched without a word. Called by `pools`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::health::pulse::Pulse;
use crate::health::{News, Watch};
use crate::upstream::endpoint::Slot;

/// The watching of all endpoints.
#[derive(Debug)]
pub(super) struct Watches {
    pulse: Arc<Pulse>,
    news: mpsc::Sender<News>,
    /// Those that begin when the thread does.
    waiting: Option<Vec<(Slot, Watch)>>,
    tasks: JoinSet<()>,
    running: HashMap<Slot, Vec<AbortHandle>>,
}

impl Watches {
    /// No watching; what is to be watched waits until `begin`.
    pub(super) fn new(pulse: Arc<Pulse>) -> (Watches, mpsc::Receiver<News>) {
        let (news, receiver) = mpsc::channel(NEWS_MAX);
        let (tasks, running) = (JoinSet::new(), HashMap::new());
        (Watches { pulse, news, waiting: Some(Vec::new()), tasks, running }, receiver)
    }

    /// The heartbeat that tells whether the thread is late.
    pub(super) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Begins what waits; from now on this is called on the thread's runtime.
    pub(super) fn begin(&mut self) {
        self.tasks.spawn(self.pulse().run());
        for (given, watch) in self.waiting.take().unwrap_or_default() {
            self.start(given, watch);
        }
    }

    /// The tasks, among which others may be whose panic is to be carried on too.
    pub(super) fn tasks(&mut self) -> &mut JoinSet<()> {
        &mut self.tasks
    }

    /// Watches the endpoint that was given this slot, and no longer as before.
    pub(super) fn start(&mut self, given: Slot, watch: Watch) {
        self.stop(given);
        if let Some(waiting) = &mut self.waiting {
            return waiting.push((given, watch));
        }
        let agent = watch.agent().map(|agent| self.tasks.spawn(agent.run(self.news.clone())));
        let watch = self.tasks.spawn(watch.run(self.news.clone()));
        self.running.insert(given, agent.into_iter().chain([watch]).collect());
    }

    /// Watches the endpoint that was given this slot no longer.
    pub(super) fn stop(&mut self, given: Slot) {
        if let Some(waiting) = &mut self.waiting {
            waiting.retain(|(slot, _)| *slot != given);
        }
        for task in self.running.remove(&given).into_iter().flatten() {
            task.abort();
        }
    }

    /// Ends with the panic of a task, if one panics.
    pub(super) async fn panicked(&mut self) -> Infallible {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                resume_unwind(panic);
            }
        }
        std::future::pending().await
    }
}

/// The most news that wait for the publisher; a watch waits with more.
const NEWS_MAX: usize = 256;
