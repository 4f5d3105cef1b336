//! What a connection of the admin API does, and whether another may have its place.
//!
//! At work is one from the end of a request's head until the socket has taken the whole answer.
//! `serve` asks when all places are taken; `stall` says whether the socket takes bytes. Anybody may
//! ask for what needs no token, so such a connection, however busy, is soon one that may go.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};

/// What a connection does.
#[derive(Debug)]
pub(super) struct Presence(Mutex<State>);

#[derive(Debug)]
struct State {
    /// What the last request was for.
    asked: Asked,
    /// Whether that is yet to be answered,
    is_answering: bool,
    /// and whether the socket takes nothing of an answer now.
    is_blocked: bool,
    /// Since when it is at work: pauses of less than `IDLE_GRACE` are not counted as such, or a
    /// client could begin anew with each request.
    busy_since: Instant,
    /// When it was last at work.
    idle_since: Instant,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What anybody may ask for, or is refused.
    Public,
    /// What the rules allow this client.
    Private,
    /// The events, which have no end.
    Events,
}

/// How rightly a connection's place is given to another: that of the greatest claim goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// It has worked for long, though for a client that may ask.
    Private(Duration),
    /// It has worked for anybody.
    Public(Duration),
    /// It is idle.
    Idle(Duration),
}

impl Presence {
    /// One that begins idle.
    pub(super) fn new(now: Instant) -> Presence {
        Presence(Mutex::new(State {
            asked: Asked::Public,
            is_answering: false,
            is_blocked: false,
            busy_since: now,
            idle_since: now,
        }))
    }

    /// Whether another may have its place; `None` while it is within its time, or sends events.
    pub(super) fn claim(&self, now: Instant) -> Option<Claim> {
        let state = self.lock();
        let busy = now.saturating_duration_since(state.busy_since);
        if !state.is_busy() {
            let idle = now.saturating_duration_since(state.idle_since);
            return (idle >= IDLE_GRACE).then_some(Claim::Idle(idle));
        }
        match state.asked {
            Asked::Events if state.is_answering => None,
            Asked::Public => (busy >= PUBLIC_WORK_MAX).then_some(Claim::Public(busy)),
            Asked::Private | Asked::Events => {
                (busy >= PRIVATE_WORK_MAX).then_some(Claim::Private(busy))
            }
        }
    }

    /// Whether the socket takes nothing of an answer from now on.
    pub(super) fn set_blocked(&self, is_blocked: bool) {
        self.change(Instant::now(), |state| state.is_blocked = is_blocked);
    }

    fn change(&self, now: Instant, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let was_busy = state.is_busy();
        change(&mut state);
        match (was_busy, state.is_busy()) {
            (false, true) if now.saturating_duration_since(state.idle_since) >= IDLE_GRACE => {
                state.busy_since = now;
            }
            (true, false) => state.idle_since = now,
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_busy(&self) -> bool {
        self.is_answering || self.is_blocked
    }
}

/// Keeps a connection at work until it is dropped.
#[derive(Debug)]
pub(super) struct Held(Arc<Presence>);

impl Held {
    /// A request has come; what it is for is yet to be found.
    pub(super) fn new(presence: Arc<Presence>) -> Held {
        presence.change(Instant::now(), |state| {
            state.is_answering = true;
            state.asked = Asked::Public;
        });
        Held(presence)
    }

    /// Says what the request is for.
    pub(super) fn note(&self, asked: Asked) {
        self.0.lock().asked = asked;
    }

    /// A body that holds on until its last piece was taken.
    pub(super) fn with(self, body: Body) -> HeldBody {
        HeldBody { body, _held: self }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.change(Instant::now(), |state| state.is_answering = false);
    }
}

/// An answer's body on a connection that is at work.
#[derive(Debug)]
pub(super) struct HeldBody {
    body: Body,
    _held: Held,
}

impl hyper::body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long a connection may lie idle, be it before its first request, while others want its place;
const IDLE_GRACE: Duration = Duration::from_millis(250);
/// how long it may be at work for anybody, which a page of 50 kB takes at 200 kbit/s;
const PUBLIC_WORK_MAX: Duration = Duration::from_secs(2);
/// and how long for a client that may ask.
const PRIVATE_WORK_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to a connection.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Begin(Asked),
        End,
        Block,
        Unblock,
    }
    use Event::{Begin, Block, End, Unblock};

    /// Whether another may have the place at this time, in milliseconds, after these events.
    #[track_caller]
    fn check(events: &[(u64, Event)], at: u64, expected: Option<fn(Duration) -> Claim>) {
        let start = Instant::now();
        let time = |millis| start + Duration::from_millis(millis);
        let presence = Presence::new(start);
        for (at, event) in events {
            presence.change(time(*at), |state| match event {
                Begin(asked) => (state.is_answering, state.asked) = (true, *asked),
                End => state.is_answering = false,
                Block => state.is_blocked = true,
                Unblock => state.is_blocked = false,
            });
        }
        let kind = |claim: Claim| match claim {
            Claim::Private(_) => Claim::Private(Duration::ZERO),
            Claim::Public(_) => Claim::Public(Duration::ZERO),
            Claim::Idle(_) => Claim::Idle(Duration::ZERO),
        };
        let expected = expected.map(|claim| claim(Duration::ZERO));
        assert_eq!(presence.claim(time(at)).map(kind), expected, "{events:?} at {at} ms");
    }

    #[test]
    fn a_place_is_kept_for_a_time_that_depends_on_what_was_asked() {
        check(&[], 249, None);
        check(&[], 250, Some(Claim::Idle));
        check(&[(1000, Begin(Asked::Public))], 2999, None);
        check(&[(1000, Begin(Asked::Public))], 3000, Some(Claim::Public));
        check(&[(1000, Begin(Asked::Private))], 30_999, None);
        check(&[(1000, Begin(Asked::Private))], 31_000, Some(Claim::Private));
        check(&[(1000, Begin(Asked::Events))], 1_000_000, None);
        check(&[(1000, Begin(Asked::Public)), (1100, End)], 1349, None);
        check(&[(1000, Begin(Asked::Public)), (1100, End)], 1350, Some(Claim::Idle));
    }

    #[test]
    fn an_answer_is_work_until_the_socket_has_taken_it() {
        let sent_late = [(1000, Begin(Asked::Private)), (1001, End), (1001, Block)];
        check(&sent_late, 30_999, None);
        check(&sent_late, 31_000, Some(Claim::Private));
        let sent = [sent_late[0], sent_late[1], sent_late[2], (9000, Unblock)];
        check(&sent, 9249, None);
        check(&sent, 9250, Some(Claim::Idle));
        // Events that have ended, as its listener takes nothing, end sometime.
        check(&[(1000, Begin(Asked::Events)), (2000, Block)], 90_000, None);
        let ended = [(1000, Begin(Asked::Events)), (2000, Block), (8000, End)];
        check(&ended, 90_000, Some(Claim::Private));
    }

    #[test]
    fn a_pause_between_requests_that_is_short_does_not_begin_anew() {
        let pipelined = |pause: u64| {
            let rounds = (0..4).flat_map(move |round| {
                let begin = 1000 + round * (400 + pause);
                [(begin, Begin(Asked::Public)), (begin + 400, End)]
            });
            rounds.chain([(1000 + 4 * (400 + pause), Begin(Asked::Public))]).collect::<Vec<_>>()
        };
        check(&pipelined(249), 1000 + 4 * 649, Some(Claim::Public));
        check(&pipelined(250), 1000 + 4 * 650, None);
    }

    #[test]
    fn idle_ones_go_first_and_those_of_clients_that_may_ask_last() {
        let seconds = Duration::from_secs;
        let mut claims = [
            Claim::Private(seconds(90)),
            Claim::Idle(seconds(1)),
            Claim::Public(seconds(60)),
            Claim::Idle(seconds(2)),
        ];
        claims.sort();
        assert_eq!(claims[3], Claim::Idle(seconds(2)));
        assert_eq!(claims[0], Claim::Private(seconds(90)));
    }
}
