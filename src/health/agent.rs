//! What a backend's agent says: the line that HAProxy's agents send, and what it makes of them.
//!
//! Pure: bytes in, state out. Words that mean nothing here are ignored, as HAProxy does, so an
//! agent written for HAProxy serves both. `agent_watch` fetches the lines.

/// What one line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The share of its weight that the backend wants, in percent, at most 100.
    pub share: Option<u32>,
    /// The state it wants.
    pub order: Option<Order>,
}

/// The state that an agent wants for its backend, from the mildest: of several in a line, the
/// strictest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// It takes requests: `ready` or `up`.
    Ready,
    /// It takes requests of the sticky sessions it has: `drain`.
    Drain,
    /// It is sick: `down`, `failed` or `stopped`.
    Down,
    /// It takes no requests: `maint`.
    Maintenance,
}

/// What an agent's lines so far say of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    share: u32,
    order: Order,
}

impl Agent {
    /// The state before the first line: nothing is wanted.
    pub const SILENT: Agent = Agent { share: SHARE_FULL, order: Order::Ready };

    /// The state after one more line; what the line does not speak of stays.
    #[must_use]
    pub fn observe(self, line: Line) -> Agent {
        Agent { share: line.share.unwrap_or(self.share), order: line.order.unwrap_or(self.order) }
    }

    /// What is wanted; no weight at all is to drain.
    #[must_use]
    pub fn order(self) -> Order {
        if self.share == 0 { self.order.max(Order::Drain) } else { self.order }
    }

    /// The share of its weight, in percent, 1 to 100.
    #[must_use]
    pub fn share(self) -> u32 {
        self.share.max(1)
    }
}

/// Reads a line: words between blanks and commas, and after `#` the reason, which is for people.
#[must_use]
pub fn parse(line: &str) -> Line {
    let words = line.split_once('#').map_or(line, |(words, _)| words);
    let mut found = Line::default();
    for word in words.split([' ', '\t', ',', '\r', '\n']) {
        if let Some(share) = share_of(word) {
            found.share = Some(share);
        } else {
            found.order = found.order.max(order_of(word));
        }
    }
    found
}

fn order_of(word: &str) -> Option<Order> {
    match word.to_ascii_lowercase().as_str() {
        "ready" | "up" => Some(Order::Ready),
        "drain" => Some(Order::Drain),
        "down" | "failed" | "stopped" => Some(Order::Down),
        "maint" => Some(Order::Maintenance),
        _ => None,
    }
}

/// The share that a word such as `75%` gives.
fn share_of(word: &str) -> Option<u32> {
    let digits = word.strip_suffix('%')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than fit are more than 100 as well.
    is_number.then(|| digits.parse().unwrap_or(SHARE_FULL).min(SHARE_FULL))
}

/// The share of a backend whose agent wants no less.
const SHARE_FULL: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(share: Option<u32>, order: Option<Order>) -> Line {
        Line { share, order }
    }

    #[test]
    fn lines_are_read_as_haproxy_reads_them() {
        use Order::{Down, Drain, Maintenance, Ready};
        for (text, share, order) in [
            ("75%\n", Some(75), None),
            ("0%", Some(0), None),
            ("250%", Some(100), None),
            ("99999999999999%", Some(100), None),
            ("up", None, Some(Ready)),
            ("ready\r\n", None, Some(Ready)),
            ("drain", None, Some(Drain)),
            ("maint", None, Some(Maintenance)),
            ("down", None, Some(Down)),
            ("failed", None, Some(Down)),
            ("stopped", None, Some(Down)),
            ("DOWN", None, Some(Down)),
            ("down#the database is up\n", None, Some(Down)),
            ("down # maint", None, Some(Down)),
            ("up ready 50%", Some(50), Some(Ready)),
            ("50%,ready,maxconn:30", Some(50), Some(Ready)),
            ("up\tdrain", None, Some(Drain)),
            ("maint,up", None, Some(Maintenance)),
            ("10% 20%", Some(20), None),
            ("# up", None, None),
            ("%", None, None),
            ("-5%", None, None),
            ("5.5%", None, None),
            ("75", None, None),
            ("upward downs", None, None),
            ("", None, None),
        ] {
            assert_eq!(parse(text), line(share, order), "{text:?}");
        }
    }

    #[test]
    fn an_order_stands_until_another_lifts_it() {
        use Order::{Down, Drain, Maintenance, Ready};
        let mut agent = Agent::SILENT;
        for (text, order, share) in [
            ("", Ready, 100),
            ("40%", Ready, 40),
            ("drain", Drain, 40),
            ("60%", Drain, 60),
            ("ready", Ready, 60),
            ("down#x", Down, 60),
            ("what", Down, 60),
            ("up", Ready, 60),
            ("maint", Maintenance, 60),
            ("up 100%", Ready, 100),
            ("0%", Drain, 1),
            ("down", Down, 1),
            ("up", Drain, 1),
            ("5%", Ready, 5),
        ] {
            agent = agent.observe(parse(text));
            assert_eq!((agent.order(), agent.share()), (order, share), "after {text:?}");
        }
    }
}
