//! Draws a view: what there is room for, the most important first. Knows no terminal.

use std::time::Instant;

use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Sparkline, Table};

use super::figures::{age, count, rate, seconds, span, state, style_of, time_of_day};
use super::model::{Backend, Status};
use super::view::{Mode, View};

/// Draws the whole screen; keeps the scrolling within what there is.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View, now: Instant) {
    let area = frame.area();
    let is_wide = area.width >= WIDE_COLUMNS;
    let workers = view.status.as_ref().map_or(0, |status| status.workers.len());
    // The workers' rows, their head and title; a part of the height at most.
    let below = u16::try_from(workers + 2).unwrap_or(u16::MAX).max(5).min(area.height / 3);
    let plot = if area.height >= TALL_ROWS { PLOT_ROWS } else { 0 };
    let below = if area.height >= SHORT_ROWS { below } else { 0 };
    let rows = [
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(plot),
        Constraint::Min(1),
        Constraint::Length(below),
        Constraint::Length(1),
    ];
    let [title, totals, plot, backends, below, foot] = Layout::vertical(rows).areas(area);
    frame.render_widget(title_of(view, now), title);
    frame.render_widget(Paragraph::new(totals_of(view)), totals);
    draw_plot(frame, view, plot);
    draw_backends(frame, view, backends);
    if is_wide {
        let halves = [Constraint::Percentage(50), Constraint::Percentage(50)];
        let [left, right] = Layout::horizontal(halves).areas(below);
        draw_workers(frame, view, left);
        draw_changes(frame, view, right);
    } else {
        draw_workers(frame, view, below);
    }
    frame.render_widget(foot_of(view), foot);
    if view.mode == Mode::Help {
        draw_help(frame, area);
    }
}

/// One frame of this width as plain text, as high as it takes.
pub(super) fn plain(view: &mut View, columns: u16, now: Instant) -> String {
    let rows = view.backends().len() + view.status.as_ref().map_or(0, |it| it.workers.len());
    let height = u16::try_from(rows).unwrap_or(u16::MAX).saturating_mul(2).saturating_add(24);
    // Drawing in memory cannot fail.
    let Ok(mut terminal) =
        Terminal::new(TestBackend::new(columns.max(COLUMNS_MIN), height.min(ROWS_MAX)));
    let Ok(drawn) = terminal.draw(|frame| draw(frame, view, now));
    let buffer = drawn.buffer;
    let line = |y: u16| {
        let cells = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    let mut lines: Vec<String> = (0..buffer.area.height.saturating_sub(1)).map(line).collect();
    // Rows that a table has more than it needs.
    lines.dedup_by(|one, other| one.is_empty() && other.is_empty());
    lines.join("\n").trim_end().to_owned()
}

fn title_of(view: &View, now: Instant) -> Line<'static> {
    let mut spans = vec!["corelane ".bold()];
    let Some(status) = &view.status else {
        spans.push(Span::raw(format!("{}  ", view.target)));
        let why = view.trouble.clone().unwrap_or_else(|| "connecting".to_owned());
        spans.push(Span::styled(why, Style::new().fg(Color::Yellow)));
        return Line::from(spans);
    };
    spans.push(Span::raw(format!("{}  ", status.version)));
    match (view.stale_for(now), &view.trouble) {
        (None, _) => spans.push("● live".green()),
        (Some(age), trouble) => {
            let why = trouble.as_deref().unwrap_or("no news");
            let text = format!("○ STALE {}: {why}", span(age.as_secs_f64()));
            spans.push(Span::styled(text, Style::new().fg(Color::Yellow).bold()));
        }
    }
    if status.draining {
        spans.push("  DRAINING".yellow().bold());
    } else if !status.ready {
        spans.push("  NOT READY".yellow().bold());
    }
    let about = format!(
        "  {}  up {}  epoch {}",
        view.target,
        span(status.uptime_seconds),
        count(status.epoch)
    );
    spans.push(Span::styled(about, Style::new().fg(Color::DarkGray)));
    Line::from(spans)
}

/// Two lines of numbers, the most important first: what does not fit is cut.
fn totals_of(view: &View) -> Text<'static> {
    let Some(status) = &view.status else { return Text::default() };
    let it = &status.last_second;
    let share = if it.requests > 0.0 { 100.0 * it.errors / it.requests } else { 0.0 };
    let first = [
        ("requests/s", rate(it.requests)),
        ("errors/s", format!("{} ({share:.1}%)", rate(it.errors))),
        ("p50", seconds(it.p50_seconds)),
        ("p99", seconds(it.p99_seconds)),
        ("clients", count(status.totals.clients_open)),
    ];
    let second = [
        ("requests", count(status.totals.requests)),
        ("failures", count(status.totals.failures.values().sum())),
        ("in flight", count(status.workers.iter().map(|it| it.in_flight).sum())),
        ("queued", count(status.totals.queued)),
        ("tunnels", count(status.totals.tunnels)),
        ("retries", count(status.totals.retries)),
        ("imbalance", format!("{:.2}", status.imbalance)),
    ];
    Text::from(vec![pairs(&first), pairs(&second)])
}

fn pairs(pairs: &[(&'static str, String)]) -> Line<'static> {
    let spans = pairs.iter().flat_map(|(name, value)| {
        [
            Span::styled(format!("{name} "), Style::new().fg(Color::DarkGray)),
            format!("{value}   ").bold(),
        ]
    });
    Line::from(spans.collect::<Vec<_>>())
}

fn draw_plot(frame: &mut Frame<'_>, view: &View, area: Rect) {
    if area.height < 2 {
        return;
    }
    let shown = view.points.iter().rev().take(usize::from(area.width)).rev();
    // Tenths of requests a second, so that a slow trickle is seen.
    let values: Vec<u64> = shown.map(|it| (it.requests * 10.0).round() as u64).collect();
    let most = values.iter().copied().max().unwrap_or(0);
    let title = format!("requests/s, {} s, at most {}", values.len(), rate(most as f64 / 10.0));
    let block = Block::new().title(title.fg(Color::DarkGray));
    let plot = Sparkline::default().block(block).data(values).style(Style::new().fg(Color::Cyan));
    frame.render_widget(plot, area);
}

/// A column of the table of backends.
struct Column {
    head: &'static str,
    width: u16,
    read: fn(&Backend, &Status) -> String,
}

/// The columns by importance: those that do not fit are left out.
const COLUMNS: [Column; 11] = [
    Column { head: "STATE", width: 14, read: |it, _| state(&it.state) },
    Column { head: "BACKEND", width: 22, read: |it, _| name_of(it) },
    Column { head: "REQ/S", width: 8, read: |it, _| rate(it.last_second.requests) },
    Column { head: "ERR/S", width: 7, read: |it, _| rate(it.last_second.errors) },
    Column { head: "P99", width: 8, read: |it, _| seconds(it.last_second.p99_seconds) },
    Column { head: "IN FLIGHT", width: 11, read: |it, _| in_flight_of(it) },
    Column { head: "SINCE", width: 7, read: |it, status| age(&it.since, &status.now) },
    Column { head: "P50", width: 8, read: |it, _| seconds(it.last_second.p50_seconds) },
    Column { head: LAST_HEAD, width: 16, read: |it, _| it.why.clone() },
    Column { head: "WEIGHT", width: 10, read: |it, _| weight_of(it) },
    Column { head: "REQUESTS", width: 13, read: |it, _| count(it.requests) },
];

fn name_of(backend: &Backend) -> String {
    let backup = if backend.backup { " (backup)" } else { "" };
    format!("{}{backup}", backend.id)
}

fn in_flight_of(backend: &Backend) -> String {
    match backend.max_conns {
        Some(max) => format!("{} of {max}", backend.in_flight),
        None => backend.in_flight.to_string(),
    }
}

fn weight_of(backend: &Backend) -> String {
    if (backend.effective_weight - f64::from(backend.weight)).abs() < 0.005 {
        return backend.weight.to_string();
    }
    format!("{} ({:.2})", backend.weight, backend.effective_weight)
}

fn draw_backends(frame: &mut Frame<'_>, view: &mut View, area: Rect) {
    let Some(status) = view.status.clone() else { return };
    let shown = view.backends();
    let up = shown.iter().filter(|it| it.state == "up").count();
    let mut title = format!("{up} of {} up, {}", shown.len(), view.order.name());
    if !view.filter.is_empty() {
        title += &format!(", with {:?}", view.filter);
    }
    if view.hides_up {
        title += ", up ones hidden";
    }
    for pool in status.pools.iter().filter(|pool| pool.panicking) {
        title += &format!(", {} PANICS: too few are healthy", pool.name);
    }
    let rows_max = usize::from(area.height.saturating_sub(2));
    let scrolled = view.scrolled.min(shown.len().saturating_sub(rows_max));
    if shown.len() > rows_max {
        let last = (scrolled + rows_max).min(shown.len());
        title += &format!(", {} to {last}", scrolled + 1);
    }
    let mut left = area.width;
    let mut columns: Vec<&Column> = Vec::new();
    for column in &COLUMNS {
        if columns.len() >= COLUMNS_ALWAYS && column.width + 1 > left {
            break;
        }
        left = left.saturating_sub(column.width + 1);
        columns.push(column);
    }
    columns.sort_by_key(|column| column.head == LAST_HEAD);
    let rows = shown.iter().skip(scrolled).take(rows_max).map(|backend| {
        let cells = columns.iter().map(|column| Text::raw((column.read)(backend, &status)));
        let mut cells: Vec<Text<'_>> = cells.collect();
        if let Some(cell) = cells.first_mut() {
            cell.style = style_of(&backend.state);
        }
        Row::new(cells)
    });
    let rows: Vec<Row<'_>> = rows.collect();
    // The name and the reason share what is left.
    let widths = columns.iter().map(|column| match column.head {
        LAST_HEAD => Constraint::Min(column.width),
        "BACKEND" => Constraint::Min(column.width.min(NAME_COLUMNS_MIN)),
        _ => Constraint::Length(column.width),
    });
    let widths: Vec<Constraint> = widths.collect();
    let heads = Row::new(columns.iter().map(|column| column.head)).style(HEAD);
    let table = Table::new(rows, widths).header(heads).block(Block::new().title(title.bold()));
    view.scrolled = scrolled;
    frame.render_widget(table, area);
}

fn draw_workers(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let Some(status) = &view.status else { return };
    if area.height < 3 {
        return;
    }
    let mut left = area.width;
    let fits = |(_, width): &&(&str, u16)| {
        let is_room = *width < left;
        left = left.saturating_sub(width + 1);
        is_room
    };
    let columns: Vec<_> = WORKER_COLUMNS.iter().take_while(fits).collect();
    let rows = status.workers.iter().map(|worker| {
        let busy =
            worker.busy.map_or_else(|| "-".to_owned(), |busy| format!("{:.0}%", busy * 100.0));
        let driver = worker.driver.as_deref().unwrap_or("-");
        let cells = [
            format!("{} on core {}", worker.id, worker.core),
            busy,
            view.rate_of(worker.id).map_or_else(|| "-".to_owned(), rate),
            count(worker.in_flight),
            count(worker.clients_open),
            format!("{} ({} away)", count(worker.accepted), count(worker.handed_over)),
            driver.split(" (").next().unwrap_or_default().to_owned(),
        ];
        Row::new(cells.into_iter().take(columns.len()))
    });
    let rows: Vec<Row<'_>> = rows.collect();
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    let heads = Row::new(columns.iter().map(|(head, _)| *head)).style(HEAD);
    let block = Block::new().title("workers".bold());
    frame.render_widget(Table::new(rows, widths).header(heads).block(block), area);
}

/// A worker's columns with their widths: those that do not fit are left out.
const WORKER_COLUMNS: [(&str, u16); 7] = [
    ("WORKER", 14),
    ("BUSY", 5),
    ("REQ/S", 8),
    ("IN FLIGHT", 9),
    ("CLIENTS", 8),
    ("ACCEPTED", 18),
    ("DRIVER", 9),
];

fn draw_changes(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let lines = view.changes.iter().map(|change| {
        let text = if change.text.is_empty() { &change.cause } else { &change.text };
        Line::from(vec![
            Span::styled(
                format!("{} {:>4} ", time_of_day(&change.at), change.epoch),
                Style::new().fg(Color::DarkGray),
            ),
            Span::raw(text.clone()),
        ])
    });
    let mut lines: Vec<Line<'_>> = lines.collect();
    if lines.is_empty() {
        lines.push(Line::from("nothing has changed since top was started".fg(Color::DarkGray)));
    }
    let block = Block::new().title("recent events (UTC, epoch)".bold());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn foot_of(view: &View) -> Line<'static> {
    if view.mode == Mode::Filter {
        return Line::from(format!("filter: {}_   Enter keeps it, Esc clears it", view.filter));
    }
    let keys = "q quit   s sort   r reverse   / filter   a all or not up   arrows scroll   ? keys";
    Line::from(keys.fg(Color::DarkGray))
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let width = area.width.min(HELP_COLUMNS);
    // With its border.
    let height = area.height.min(u16::try_from(KEYS.len()).unwrap_or(u16::MAX).saturating_add(2));
    let middle = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let lines = KEYS.map(|(key, what)| Line::from(vec![format!(" {key:<14}").bold(), what.into()]));
    let block = Block::bordered().title(" keys ");
    frame.render_widget(Clear, middle);
    frame.render_widget(Paragraph::new(lines.to_vec()).block(block), middle);
}

/// What each key does.
const KEYS: [(&str, &str); 9] = [
    ("q, Esc, Ctrl-C", "ends it"),
    ("s", "sorts by the next of state, name, requests, …"),
    ("r", "reverses the order"),
    ("/", "filters by address, state or reason"),
    ("a", "shows all backends, or those not up"),
    ("arrows, j, k", "scroll by a backend"),
    ("PgUp, PgDn", "scroll by ten"),
    ("Home, End", "go to the first or the last"),
    ("?", "shows this; any key closes it"),
];

/// Heads of tables.
const HEAD: Style = Style::new().fg(Color::DarkGray).add_modifier(Modifier::UNDERLINED);
/// The rows of the plot, its title with them.
const PLOT_ROWS: u16 = 4;
/// With fewer rows there is no plot,
const TALL_ROWS: u16 = 20;
/// and with fewer than these nothing below the backends.
const SHORT_ROWS: u16 = 14;
/// From this width on, events stand beside the workers.
const WIDE_COLUMNS: u16 = 120;
/// The columns that are shown however narrow it is.
const COLUMNS_ALWAYS: usize = 2;
/// The column that stands last, however important.
const LAST_HEAD: &str = "WHY";
/// A name may be cut to this.
const NAME_COLUMNS_MIN: u16 = 12;
const HELP_COLUMNS: u16 = 66;
/// The narrowest and the highest frame of plain text.
const COLUMNS_MIN: u16 = 20;
const ROWS_MAX: u16 = 4096;
