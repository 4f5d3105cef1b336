//! What is drawn of which news at which size, what keys do, and how events are read.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use super::client::split_event;
use super::model::{Change, Figures, Status};
use super::view::Mode;
use super::*;

fn backend(name: &str, state: &str, rate: f64) -> serde_json::Value {
    json!({
        "id": format!("default/{name}:80"), "state": state, "why": format!("why {name}"),
        "since": "2026-01-01T00:00:00Z", "weight": 2, "effective_weight": 0.5, "in_flight": 7,
        "requests": 1_234_567, "last_second": {"requests": rate, "errors": 0.5, "p50_seconds": 0.000_8,
            "p99_seconds": 0.034_2}, "later": "field",
    })
}

fn status(uptime: f64, requests: u64) -> Status {
    let backends = [backend("a", "up", 3.0), backend("b", "down", 0.0), backend("c", "up", 200.0)];
    let status = json!({
        "version": "9.8.7", "now": "2026-01-01T00:01:30Z", "uptime_seconds": uptime, "epoch": 17,
        "ready": true, "draining": false, "imbalance": 1.25,
        "totals": {"requests": requests, "failures": {"no-endpoint": 3}, "clients_open": 64},
        "last_second": {"requests": 1203.0, "errors": 12.0, "p50_seconds": 0.0012,
            "p99_seconds": 1.5},
        "pools": [{"name": "default", "backends": backends}],
        "workers": [{"id": 0, "core": 3, "driver": "io_uring (x)", "busy": 0.42,
            "requests": requests, "in_flight": 7}],
    });
    serde_json::from_value(status).unwrap()
}

fn view() -> View {
    let mut view = View::new("127.0.0.1:9900".to_owned());
    let now = Instant::now();
    let point = |requests| Figures { requests, ..Figures::default() };
    view.take(News::Past((0..100).map(|at| point(f64::from(at))).collect()), now);
    view.take(News::Status(Box::new(status(90.0, 1000))), now);
    view.take(News::Status(Box::new(status(92.0, 3000))), now);
    let text = "default/b:80 went down".to_owned();
    let at = "2026-01-01T00:00:05.000Z".to_owned();
    view.take(News::Change(Change { at, epoch: 16, cause: "health".to_owned(), text }), now);
    view
}

fn screen(view: &mut View, columns: u16, rows: u16, now: Instant) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw::draw(frame, view, now)).unwrap();
    terminal.backend().to_string()
}

fn press(view: &mut View, code: KeyCode) -> Next {
    view.press(KeyEvent::new(code, KeyModifiers::NONE))
}

#[track_caller]
fn check_shown(screen: &str, shown: &[&str], hidden: &[&str]) {
    for text in shown {
        assert!(screen.contains(text), "no {text:?} on\n{screen}");
    }
    for text in hidden {
        assert!(!screen.contains(text), "{text:?} on\n{screen}");
    }
}

#[test]
fn a_wide_screen_shows_everything() {
    let shown = screen(&mut view(), 160, 30, Instant::now());
    check_shown(
        &shown,
        &[
            "9.8.7",
            "● live",
            "up 1m",
            "epoch 17",
            "requests/s 1,203",
            "errors/s 12 (1.0%)",
            "p50 1.2 ms",
            "p99 1.50 s",
            "clients 64",
            "failures 3",
            "imbalance 1.25",
            "at most 1,203",
            "2 of 3 up",
            "● up",
            "■ down",
            "default/b:80",
            "1m",
            "2 (0.50)",
            "1,234,567",
            "why c",
            "800 µs",
            "34.2 ms",
            "0 on core 3",
            "42%",
            "1,000",
            "00:00:05   16 default/b:80 went",
        ],
        &["STALE", "PANICS"],
    );
}

#[test]
fn a_narrow_screen_keeps_the_state_and_the_name_and_leaves_out_the_rest() {
    let shown = screen(&mut view(), 46, 16, Instant::now());
    check_shown(&shown, &["● live", "■ down", "default/b:80", "WORKER"], &["WHY", "REQUESTS"]);
    let shown = screen(&mut view(), 30, 8, Instant::now());
    check_shown(&shown, &["corelane", "■ down", "default/b"], &["WORKER", "SINCE"]);
}

#[test]
fn no_size_is_too_small_or_too_odd() {
    let (mut view, mut empty) = (view(), View::new("x".to_owned()));
    for columns in [1, 2, 3, 7, 20, 33, 60, 80, 119, 120, 200] {
        for rows in [1, 2, 3, 4, 5, 6, 9, 14, 20, 50] {
            for mode in [Mode::Table, Mode::Filter, Mode::Help] {
                view.mode = mode;
                screen(&mut view, columns, rows, Instant::now());
            }
            screen(&mut empty, columns, rows, Instant::now());
        }
    }
}

#[test]
fn news_that_fail_to_come_make_the_screen_stale() {
    let mut view = view();
    let later = Instant::now() + Duration::from_secs(5);
    check_shown(&screen(&mut view, 100, 20, later), &["STALE 5s: no news"], &["live"]);
    view.take(News::Lost("refused".to_owned()), later);
    check_shown(&screen(&mut view, 100, 20, later), &["STALE 5s: refused"], &[]);
    view.take(News::Status(Box::new(status(99.0, 4000))), later);
    check_shown(&screen(&mut view, 100, 20, later), &["● live"], &["refused"]);

    let mut fresh = View::new("unix:/run/a".to_owned());
    check_shown(&screen(&mut fresh, 100, 20, later), &["unix:/run/a", "connecting"], &[]);
    fresh.take(News::Lost("nobody".to_owned()), later);
    check_shown(&screen(&mut fresh, 100, 20, later), &["nobody"], &[]);
}

#[test]
fn a_process_that_drains_or_is_not_ready_says_so() {
    let mut view = view();
    let shown = |view: &mut View, ready, draining| {
        let status = Status { ready, draining, ..status(99.0, 4000) };
        view.take(News::Status(Box::new(status)), Instant::now());
        screen(view, 100, 20, Instant::now())
    };
    check_shown(&shown(&mut view, false, false), &["NOT READY"], &["DRAINING"]);
    check_shown(&shown(&mut view, true, true), &["DRAINING"], &["NOT READY"]);
}

#[test]
fn keys_sort_filter_and_scroll() {
    let mut view = view();
    let names = |view: &View| {
        let names = view.backends().into_iter().map(|it| it.id["default/".len()..].to_owned());
        names.map(|name| name.replace(":80", "")).collect::<String>()
    };
    assert_eq!(names(&view), "abc");
    let orders = ["bac", "abc", "cab", "abc", "abc", "abc"].map(|order| {
        press(&mut view, KeyCode::Char('s'));
        assert_eq!(names(&view), order, "{:?}", view.order);
        view.order
    });
    assert_eq!(orders.len(), 6);
    press(&mut view, KeyCode::Char('r'));
    assert_eq!(names(&view), "cba");
    press(&mut view, KeyCode::Char('r'));
    press(&mut view, KeyCode::Char('a'));
    assert_eq!(names(&view), "b");
    press(&mut view, KeyCode::Char('a'));

    for key in ['/', 'c', ':', 'q'] {
        assert_eq!(press(&mut view, KeyCode::Char(key)), Next::Stay);
    }
    assert_eq!(names(&view), "");
    press(&mut view, KeyCode::Backspace);
    press(&mut view, KeyCode::Enter);
    assert_eq!(names(&view), "c");
    check_shown(&screen(&mut view, 100, 20, Instant::now()), &["with \"c:\""], &[]);
    assert_eq!(press(&mut view, KeyCode::Esc), Next::Stay);
    assert_eq!(names(&view), "abc");

    press(&mut view, KeyCode::End);
    // A title, two lines, the table's title and head, one row, the foot.
    let shown = screen(&mut view, 60, 7, Instant::now());
    check_shown(&shown, &["default/c", "3 to 3"], &["default/a"]);
    assert_eq!(view.scrolled, 2, "it is kept within what there is");
    press(&mut view, KeyCode::Up);
    check_shown(&screen(&mut view, 60, 7, Instant::now()), &["default/b"], &["default/c"]);

    press(&mut view, KeyCode::Char('?'));
    check_shown(&screen(&mut view, 80, 20, Instant::now()), &["keys", "reverses"], &[]);
    assert_eq!(press(&mut view, KeyCode::Char('q')), Next::Stay, "it closes the keys");
    assert_eq!(press(&mut view, KeyCode::Char('q')), Next::End);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.press(control_c), Next::End);
}

#[test]
fn one_frame_of_plain_text_has_every_backend_and_no_control_character() {
    let mut view = view();
    let mut many = status(95.0, 5000);
    let first = many.pools[0].backends[0].clone();
    for number in 0..100 {
        let mut backend = first.clone();
        backend.id = format!("default/n{number}:80");
        backend.why = "bell \u{7} and \u{1b}[31m".to_owned();
        many.pools[0].backends.push(backend);
    }
    view.take(News::Status(Box::new(many)), Instant::now());
    let text = draw::plain(&mut view, 160, Instant::now());
    check_shown(&text, &["default/a:80", "default/n0:80", "default/n99:80", "WORKER"], &["\u{1b}"]);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn events_are_taken_off_as_they_come() {
    let stream =
        "retry: 1\n: comment\n\nevent: status\ndata: {\"a\":\ndata: 1}\n\ndata: x\n\nevent: y";
    let expected = [("status", "{\"a\":\n1}"), ("", "x")];
    for step in [1, 2, 7, stream.len()] {
        let (mut held, mut found) = (Vec::new(), Vec::new());
        for part in stream.as_bytes().chunks(step) {
            held.extend_from_slice(part);
            found.extend(split_event(&mut held));
            found.extend(split_event(&mut held));
        }
        let found: Vec<_> =
            found.iter().map(|(name, data)| (name.as_str(), data.as_str())).collect();
        assert_eq!(found, expected, "{step} bytes at a time");
        assert_eq!(held, b"event: y");
    }
}

#[test]
fn figures_are_written_for_people() {
    use super::figures::{age, count, rate, seconds, span};
    assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    assert_eq!([0.0, 0.25, 9.96, 1234.5].map(rate), ["0", "0.2", "10.0", "1,235"]);
    let times = [None, Some(0.000_25), Some(0.0123), Some(0.25), Some(2.5)];
    assert_eq!(times.map(seconds), ["-", "250 µs", "12.3 ms", "250 ms", "2.50 s"]);
    assert_eq!([5.0, 90.0, 3700.0, 90_000.0].map(span), ["5s", "1m", "1h01m", "1d01h"]);
    assert_eq!(age("2026-01-01T00:00:00Z", "2026-01-01T00:00:09.900Z"), "9s");
    assert_eq!(age("never", "2026-01-01T00:00:09Z"), "-");
}
