//! What a backend's agent says: the line that HAProxy's agents send, and what it makes of them.
//!
//! Pure: bytes in, state out. As in HAProxy 2.6 there are two states, each with words of its own
//! that lift nothing of the other, and of several words for one the last counts. Words that mean
//! nothing here are ignored, so an agent written for HAProxy serves both. `agent_watch` fetches the
//! lines.

use crate::config::Mode;
use crate::health::load::SHARE_FULL;

/// What one line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line<'a> {
    /// The share of its weight that the backend wants, in percent, at most 100.
    pub share: Option<u32>,
    /// The administrative state: `ready`, `drain` or `maint`.
    pub mode: Option<Mode>,
    /// The operational state: `up`, or one of `down`, `fail` and `stopped`.
    pub is_up: Option<bool>,
    /// The first word that means nothing here.
    pub ignored: Option<&'a str>,
}

/// What an agent's lines so far say of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    share: u32,
    mode: Mode,
    is_up: bool,
}

impl Agent {
    /// The state before the first line: nothing is wanted.
    pub const SILENT: Agent = Agent { share: SHARE_FULL, mode: Mode::Ready, is_up: true };

    /// The state after one more line; what the line does not speak of stays.
    #[must_use]
    pub fn observe(self, line: &Line<'_>) -> Agent {
        Agent {
            share: line.share.unwrap_or(self.share),
            mode: line.mode.unwrap_or(self.mode),
            is_up: line.is_up.unwrap_or(self.is_up),
        }
    }

    /// The administrative state; without any weight it drains until it has some again.
    #[must_use]
    pub fn mode(self) -> Mode {
        if self.share == 0 { self.mode.max(Mode::Drain) } else { self.mode }
    }

    /// The operational state.
    #[must_use]
    pub fn is_up(self) -> bool {
        self.is_up
    }

    /// The share of its weight, in percent, 1 to 100.
    #[must_use]
    pub fn share(self) -> u32 {
        self.share.max(1)
    }
}

/// Reads a line: words between blanks and commas, and after `#` the reason, which is for people.
#[must_use]
pub fn parse(line: &str) -> Line<'_> {
    let words = line.split_once('#').map_or(line, |(words, _)| words);
    let mut found = Line::default();
    for word in words.split([' ', '\t', ',', '\r', '\n']).filter(|word| !word.is_empty()) {
        match word.to_ascii_lowercase().as_str() {
            "ready" => found.mode = Some(Mode::Ready),
            "drain" => found.mode = Some(Mode::Drain),
            "maint" => found.mode = Some(Mode::Maintenance),
            "up" => found.is_up = Some(true),
            "down" | "fail" | "stopped" => found.is_up = Some(false),
            _ => match share_of(word) {
                Some(share) => found.share = Some(share),
                None => found.ignored = found.ignored.or(Some(word)),
            },
        }
    }
    found
}

/// The share that a word such as `75%` gives.
fn share_of(word: &str) -> Option<u32> {
    let digits = word.strip_suffix('%')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than fit are more than 100 as well.
    is_number.then(|| digits.parse().unwrap_or(SHARE_FULL).min(SHARE_FULL))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line says: its share, states and ignored word, `-` for what it does not speak of.
    fn told(text: &str) -> String {
        let Line { share, mode, is_up, ignored } = parse(text);
        let share = share.map_or("-".to_owned(), |share| share.to_string());
        let mode = mode.map_or("-".to_owned(), |mode| format!("{mode:?}"));
        let state = is_up.map_or("-", |is_up| if is_up { "up" } else { "down" });
        format!("{share} {mode} {state} {}", ignored.unwrap_or("-"))
    }

    #[test]
    fn lines_are_read_as_haproxy_reads_them() {
        for (text, expected) in [
            ("75%\n", "75 - - -"),
            ("0%", "0 - - -"),
            ("250%", "100 - - -"),
            ("99999999999999%", "100 - - -"),
            ("up", "- - up -"),
            ("ready\r\n", "- Ready - -"),
            ("drain", "- Drain - -"),
            ("maint", "- Maintenance - -"),
            ("down", "- - down -"),
            ("fail", "- - down -"),
            ("failed", "- - - failed"),
            ("stopped", "- - down -"),
            ("DOWN", "- - down -"),
            ("down#the database is up\n", "- - down -"),
            ("down # maint", "- - down -"),
            ("up ready 50%", "50 Ready up -"),
            ("50%,ready,maxconn:30", "50 Ready - maxconn:30"),
            ("up\tdrain", "- Drain up -"),
            ("maint,up", "- Maintenance up -"),
            ("maint,ready", "- Ready - -"),
            ("down up", "- - up -"),
            ("10% 20%", "20 - - -"),
            ("# up", "- - - -"),
            ("%", "- - - %"),
            ("-5%", "- - - -5%"),
            ("5.5%", "- - - 5.5%"),
            ("75", "- - - 75"),
            ("upward downs", "- - - upward"),
            ("", "- - - -"),
        ] {
            assert_eq!(told(text), expected, "{text:?}");
        }
    }

    #[test]
    fn each_state_stands_until_a_word_of_its_own_lifts_it() {
        use Mode::{Drain, Maintenance, Ready};
        let mut agent = Agent::SILENT;
        for (text, mode, is_up, share) in [
            ("", Ready, true, 100),
            ("40%", Ready, true, 40),
            ("drain", Drain, true, 40),
            ("60%", Drain, true, 60),
            ("up", Drain, true, 60),
            ("ready", Ready, true, 60),
            ("down#x", Ready, false, 60),
            ("what", Ready, false, 60),
            ("ready 100%", Ready, false, 100),
            ("maint", Maintenance, false, 100),
            ("up", Maintenance, true, 100),
            ("fail ready", Ready, false, 100),
            ("failed", Ready, false, 100),
            ("up", Ready, true, 100),
            ("0%", Drain, true, 1),
            ("up ready", Drain, true, 1),
            ("maint", Maintenance, true, 1),
            ("ready", Drain, true, 1),
            ("5%", Ready, true, 5),
        ] {
            agent = agent.observe(&parse(text));
            let found = (agent.mode(), agent.is_up(), agent.share());
            assert_eq!(found, (mode, is_up, share), "after {text:?}");
        }
    }
}
