//! Numbers, times and states as people read them.

use std::time::SystemTime;

use ratatui::style::{Color, Modifier, Style};

/// A count, with a comma at each thousand.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number a second: one digit behind the point below ten.
pub(super) fn rate(value: f64) -> String {
    // A rate is never negative nor near 2^64; `as` saturates where it is not finite.
    if value > 0.0 && value < 10.0 { format!("{value:.1}") } else { count(value.round() as u64) }
}

/// A time in seconds, in its own unit.
pub(super) fn seconds(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 0.001 => format!("{:.0} µs", value * 1e6),
        Some(value) if value < 0.1 => format!("{:.1} ms", value * 1e3),
        Some(value) if value < 1.0 => format!("{:.0} ms", value * 1e3),
        Some(value) => format!("{value:.2} s"),
    }
}

/// An age.
pub(super) fn span(seconds: f64) -> String {
    let left = seconds.max(0.0) as u64;
    match left {
        0..60 => format!("{left}s"),
        60..3600 => format!("{}m", left / 60),
        3600..86400 => format!("{}h{:02}m", left / 3600, left / 60 % 60),
        _ => format!("{}d{:02}h", left / 86400, left / 3600 % 24),
    }
}

/// How long ago `then` was at `now`, both as RFC 3339 has them; `-` where one is none.
pub(super) fn age(then: &str, now: &str) -> String {
    let read = |text: &str| -> Option<SystemTime> { humantime::parse_rfc3339_weak(text).ok() };
    match (read(then), read(now)) {
        (Some(then), Some(now)) => span(now.duration_since(then).unwrap_or_default().as_secs_f64()),
        _ => "-".to_owned(),
    }
}

/// The time of day of an RFC 3339 time, in UTC.
pub(super) fn time_of_day(at: &str) -> &str {
    at.split_once('T').and_then(|(_, time)| time.get(..8)).unwrap_or("-")
}

/// A state with its shape, so that it is told without colour too.
pub(super) fn state(name: &str) -> String {
    let shape = match name {
        "up" => '●',
        "down" => '■',
        "ejected" => '▲',
        "breaker-open" => '◆',
        "trial" => '◇',
        "draining" => '◐',
        "maintenance" => '‖',
        _ => '○',
    };
    format!("{shape} {name}")
}

/// A state's colour.
pub(super) fn style_of(state: &str) -> Style {
    match state {
        "up" => Style::new().fg(Color::Green),
        "down" | "ejected" | "breaker-open" => {
            Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
        }
        "trial" => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
        _ => Style::new().fg(Color::Blue).add_modifier(Modifier::BOLD),
    }
}
