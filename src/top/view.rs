//! What is shown and how: the last news, the order, the filter, and what each key does to them.
//!
//! Knows no terminal and no clock: the time comes with each piece of news.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::feed::News;
use super::model::{Backend, Change, Figures, Status};

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct View {
    pub(super) target: String,
    pub(super) status: Option<Status>,
    /// The last seconds, the oldest first.
    pub(super) points: VecDeque<Figures>,
    /// The last changes, the newest first.
    pub(super) changes: VecDeque<Change>,
    pub(super) heard: Option<Instant>,
    pub(super) trouble: Option<String>,
    pub(super) order: Order,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    /// Whether backends that are up are left out.
    pub(super) hides_up: bool,
    pub(super) mode: Mode,
    /// How many backends are scrolled away; the drawing keeps it within what there is.
    pub(super) scrolled: usize,
    rates: HashMap<u64, Rate>,
    has_past: bool,
}

/// What keys go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Table,
    Filter,
    Help,
}

/// What backends are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Given,
    State,
    Name,
    Requests,
    Errors,
    InFlight,
}

/// Whether the screen goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    End,
}

/// How many requests a worker had had after how long, and its rate before.
#[derive(Clone, Copy, Debug)]
struct Rate {
    uptime: f64,
    requests: u64,
    per_second: Option<f64>,
}

impl View {
    pub(super) fn new(target: String) -> View {
        View {
            target,
            status: None,
            points: VecDeque::new(),
            changes: VecDeque::new(),
            heard: None,
            trouble: None,
            order: Order::Given,
            is_reversed: false,
            filter: String::new(),
            hides_up: false,
            mode: Mode::Table,
            scrolled: 0,
            rates: HashMap::new(),
            has_past: false,
        }
    }

    pub(super) fn take(&mut self, news: News, now: Instant) {
        match news {
            News::Past(points) => {
                self.points = points.into();
                self.has_past = true;
            }
            News::Status(status) => {
                // The past ends with this second already.
                if !std::mem::take(&mut self.has_past) {
                    self.points.push_back(status.last_second.clone());
                }
                self.note_rates(&status);
                self.status = Some(*status);
                self.heard = Some(now);
                self.trouble = None;
            }
            News::Change(change) => self.changes.push_front(change),
            News::Lost(why) => self.trouble = Some(why),
        }
        while self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
        self.changes.truncate(CHANGES_MAX);
    }

    fn note_rates(&mut self, status: &Status) {
        let before = std::mem::take(&mut self.rates);
        for worker in &status.workers {
            let earlier = before.get(&worker.id);
            let per_second = earlier.and_then(|earlier| {
                let passed = status.uptime_seconds - earlier.uptime;
                let came = worker.requests.checked_sub(earlier.requests)?;
                // A share of a second is not worth a rate.
                if passed < 0.5 { earlier.per_second } else { Some(came as f64 / passed) }
            });
            let rate =
                Rate { uptime: status.uptime_seconds, requests: worker.requests, per_second };
            self.rates.insert(worker.id, rate);
        }
    }

    /// A worker's requests a second, once two looks tell.
    pub(super) fn rate_of(&self, worker: u64) -> Option<f64> {
        self.rates.get(&worker)?.per_second
    }

    /// How long ago there was news, if that is too long.
    pub(super) fn stale_for(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.heard?);
        (age >= STALE_AFTER).then_some(age)
    }

    /// The backends that are shown, in order.
    pub(super) fn backends(&self) -> Vec<&Backend> {
        let Some(status) = &self.status else { return Vec::new() };
        let needle = self.filter.to_lowercase();
        let fits = |backend: &&Backend| {
            let text = format!("{} {} {}", backend.id, backend.state, backend.why).to_lowercase();
            text.contains(&needle) && !(self.hides_up && backend.state == "up")
        };
        let all = status.pools.iter().flat_map(|pool| &pool.backends);
        let mut shown: Vec<&Backend> = all.filter(fits).collect();
        match self.order {
            Order::Given => {}
            Order::State => shown.sort_by_key(|it| urgency(&it.state)),
            Order::Name => shown.sort_by(|a, b| a.id.cmp(&b.id)),
            Order::Requests => {
                shown.sort_by(|a, b| b.last_second.requests.total_cmp(&a.last_second.requests));
            }
            Order::Errors => {
                shown.sort_by(|a, b| b.last_second.errors.total_cmp(&a.last_second.errors));
            }
            Order::InFlight => shown.sort_by_key(|it| std::cmp::Reverse(it.in_flight)),
        }
        if self.is_reversed {
            shown.reverse();
        }
        shown
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Next::End;
        }
        match self.mode {
            Mode::Help => self.mode = Mode::Table,
            Mode::Filter => self.type_filter(key.code),
            Mode::Table => return self.command(key.code),
        }
        Next::Stay
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.mode = Mode::Table,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.len() < FILTER_BYTES_MAX => self.filter.push(c),
            _ => {}
        }
        self.scrolled = 0;
    }

    fn command(&mut self, code: KeyCode) -> Next {
        match code {
            KeyCode::Char('q') => return Next::End,
            KeyCode::Esc if self.filter.is_empty() => return Next::End,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('a') => self.hides_up = !self.hides_up,
            KeyCode::Down | KeyCode::Char('j') => self.scrolled += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scrolled += PAGE,
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.scrolled = 0,
            KeyCode::End | KeyCode::Char('G') => self.scrolled = usize::MAX / 2,
            _ => {}
        }
        Next::Stay
    }
}

impl Order {
    fn next(self) -> Order {
        match self {
            Order::Given => Order::State,
            Order::State => Order::Name,
            Order::Name => Order::Requests,
            Order::Requests => Order::Errors,
            Order::Errors => Order::InFlight,
            Order::InFlight => Order::Given,
        }
    }

    /// As it is shown.
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Given => "as configured",
            Order::State => "by state",
            Order::Name => "by name",
            Order::Requests => "by requests/s",
            Order::Errors => "by errors/s",
            Order::InFlight => "by in flight",
        }
    }
}

/// What needs attention first.
fn urgency(state: &str) -> usize {
    let order =
        ["down", "ejected", "breaker-open", "trial", "unknown", "draining", "maintenance", "up"];
    order.iter().position(|known| *known == state).unwrap_or(0)
}

/// The most seconds that are remembered.
const POINTS_MAX: usize = 300;
/// The most changes that are remembered.
const CHANGES_MAX: usize = 100;
/// The longest filter.
const FILTER_BYTES_MAX: usize = 128;
/// How far a page scrolls.
const PAGE: usize = 10;
/// News older than this is called stale; it comes each second.
const STALE_AFTER: Duration = Duration::from_secs(3);
