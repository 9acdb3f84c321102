//! How the view looks: a head, sparklines where there is room, one table or all three, and a line of keys. Colours only stress words.

use std::collections::VecDeque;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Sparkline},
};

use super::{
    app::{App, Link, Mode, Order, Pane, rows},
    fields::{POOLS, RECENT, UPSTREAMS},
};
use crate::{
    pools::{age, share},
    status,
    table::{Field, GAP, Tone, Value, kept, shortened, visible, widths},
};

/// Draws the view, and bounds how far its tables are scrolled.
pub(super) fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let area = frame.area();
    let sparks = if area.height >= SPARKS_FROM { 3 } else { 0 };
    let [head, charts, body, keys] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(sparks),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head_lines(app, head.width.into())), head);
    draw_charts(app, frame, charts);
    match area.height >= STACKED_FROM {
        true => draw_stacked(app, frame, body),
        false => draw_tabs(app, frame, body),
    }
    frame.render_widget(Paragraph::new(keys_line(app)), keys);
    if app.mode == Mode::Help {
        draw_help(frame, area);
    }
}

fn head_lines(app: &App, width: usize) -> Vec<Line<'static>> {
    let paint = Paint(app.is_colored);
    let status = &app.look.status;
    let health = status.health.as_str();
    let first = format!("  up {}  {}", age(status.uptime), app.address);
    let link = match &app.link {
        Link::Waiting => Span::styled("connecting".to_owned(), paint.tone(Tone::Quiet)),
        Link::Live if app.is_paused => Span::styled("paused".to_owned(), paint.tone(Tone::Warn)),
        Link::Live => Span::styled("live".to_owned(), paint.tone(Tone::Good)),
        Link::Lost { .. } => Span::styled("no daemon, trying again".to_owned(), paint.tone(Tone::Bad)),
    };
    let name = format!("keepwarm {}  ", visible(&status.version));
    let used = name.chars().count() + health.len() + first.chars().count() + link.content.chars().count();
    let first = Line::from(vec![
        Span::styled(name, Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(health.to_owned(), paint.tone(status::tone(status.health))),
        Span::raw(first),
        Span::raw(" ".repeat(width.saturating_sub(used).max(2))),
        link,
    ]);
    let requests = app.look.requests.map_or(Value::None, Value::Rate).text();
    let second = format!(
        "{requests} requests/s  {} in use of {}  {} waiting  reuse {}  upstreams {}/{} up",
        status.in_use,
        status.connections,
        status.waiting,
        share(status.reuse_ratio).text(),
        status.upstreams_up,
        status.upstreams
    );
    vec![first, Line::raw(second), trouble(app, width, paint)]
}

/// What is wrong, the worst of it.
fn trouble(app: &App, width: usize, paint: Paint) -> Line<'static> {
    if let Link::Lost { why, tries } = &app.link {
        let words =
            format!("! no daemon at {}: {} ({tries} tries); this is what was last seen", app.address, visible(why));
        return Line::styled(shortened(&words, width), paint.tone(Tone::Bad));
    }
    let troubles = &app.look.status.troubles;
    let Some(first) = troubles.first().and_then(|trouble| trouble.lines().next()) else { return Line::raw("") };
    let more = if troubles.len() > 1 { format!(" (and {} more)", troubles.len() - 1) } else { String::new() };
    let words = shortened(&format!("! {}", visible(first)), width.saturating_sub(more.len())) + &more;
    Line::styled(words, paint.tone(status::tone(app.look.status.health)))
}

fn draw_charts(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).spacing(2).areas(area);
    let paint = Paint(app.is_colored);
    for (area, name, points) in [(left, "in use", &app.in_use), (right, "requests/s", &app.requests)] {
        let shown = tail(points, area.width.into());
        let most = shown.iter().copied().max().unwrap_or(0);
        let title = format!("{name}, at most {most}");
        let [caption, bars] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        frame.render_widget(Paragraph::new(Line::styled(title, paint.tone(Tone::Quiet))), caption);
        frame.render_widget(Sparkline::default().data(&shown).max(most.max(1)).style(paint.accent()), bars);
    }
}

/// The last points, as many as there is room for.
fn tail(points: &VecDeque<u64>, room: usize) -> Vec<u64> {
    points.iter().skip(points.len().saturating_sub(room)).copied().collect()
}

fn draw_stacked(app: &mut App, frame: &mut Frame<'_>, area: Rect) {
    let height = |rows: usize| u16::try_from(rows.saturating_add(3)).unwrap_or(u16::MAX);
    let pools = height(app.look.pools.len()).min(area.height / 3);
    let upstreams = height(app.look.upstreams.len()).min(area.height / 3);
    let areas: [Rect; 3] =
        Layout::vertical([Constraint::Length(pools), Constraint::Length(upstreams), Constraint::Min(0)]).areas(area);
    for (pane, area) in Pane::ALL.into_iter().zip(areas) {
        let [title, table] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        let shown = draw_pane(app, pane, frame, table);
        frame.render_widget(Paragraph::new(caption(app, pane, &shown)), title);
    }
}

fn draw_tabs(app: &mut App, frame: &mut Frame<'_>, area: Rect) {
    let [tabs, table] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let shown = draw_pane(app, app.pane, frame, table);
    let mut spans = Vec::new();
    for pane in Pane::ALL {
        match pane == app.pane {
            true => spans.extend(caption(app, pane, &shown).spans),
            false => spans.push(Span::raw(format!("[{}] {}", pane as usize + 1, pane.name()))),
        }
        spans.push(Span::raw("   "));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), tabs);
}

fn caption(app: &App, pane: Pane, shown: &str) -> Line<'static> {
    let is_active = pane == app.pane;
    let style = if is_active { Paint(app.is_colored).active() } else { Style::new() };
    Line::from(Span::styled(format!("[{}] {} {shown}", pane as usize + 1, pane.name()), style))
}

/// Draws a table and says which of its rows are shown and how they are ordered.
fn draw_pane(app: &mut App, pane: Pane, frame: &mut Frame<'_>, area: Rect) -> String {
    let (paint, filter) = (Paint(app.is_colored), app.filter.as_str());
    let order = &mut app.orders[pane as usize];
    match pane {
        Pane::Pools => table(&POOLS, &app.look.pools, filter, order, paint, frame, area),
        Pane::Upstreams => table(&UPSTREAMS, &app.look.upstreams, filter, order, paint, frame, area),
        Pane::Recent => table(&RECENT, &app.look.recent, filter, order, paint, frame, area),
    }
}

fn table<R>(
    fields: &[Field<R>],
    all: &[R],
    filter: &str,
    order: &mut Order,
    paint: Paint,
    frame: &mut Frame<'_>,
    area: Rect,
) -> String {
    let rows = rows(fields, all, filter, *order);
    let room = usize::from(area.height.saturating_sub(1));
    order.offset = order.offset.min(rows.len().saturating_sub(room));
    let values: Vec<Vec<Value>> =
        rows.iter().map(|row| fields.iter().map(|field| (field.value)(row)).collect()).collect();
    let cells: Vec<Vec<String>> = values.iter().map(|row| row.iter().map(Value::text).collect()).collect();
    let widths = widths(fields, &cells);
    let kept = kept(fields, &widths, area.width.into());
    // The last column takes what the others leave.
    let others: usize = kept.iter().rev().skip(1).map(|&index| widths[index] + GAP).sum();
    let room_of = |index: usize| match kept.last() == Some(&index) {
        true => usize::from(area.width).saturating_sub(others),
        false => widths[index],
    };
    let mut lines = vec![heading(fields, &kept, &widths, *order)];
    for (values, cells) in values.iter().zip(&cells).skip(order.offset).take(room) {
        let spans = kept.iter().map(|&index| {
            let style = values[index].tone().map_or(Style::new(), |tone| paint.tone(tone));
            let cell = shortened(&cells[index], room_of(index));
            let text = aligned(&fields[index], &cell, widths[index].min(room_of(index)));
            Span::styled(text, style)
        });
        lines.push(joined(spans));
    }
    if rows.is_empty() {
        lines.push(Line::raw(if filter.is_empty() { "none" } else { "none with this filter" }));
    }
    frame.render_widget(Paragraph::new(lines), area);
    let first = order.offset + 1;
    let count = match rows.len() {
        rows if rows > room => format!("({first}-{} of {rows})", (order.offset + room).min(rows)),
        rows => format!("({rows})"),
    };
    match order.field.and_then(|field| fields.get(field)) {
        Some(field) => format!("{count} by {}{}", field.heading, if order.is_reversed { " ▼" } else { " ▲" }),
        None => count,
    }
}

fn heading<R>(fields: &[Field<R>], kept: &[usize], widths: &[usize], order: Order) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let spans = kept.iter().map(|&index| {
        let style = if order.field == Some(index) { bold.add_modifier(Modifier::UNDERLINED) } else { bold };
        Span::styled(aligned(&fields[index], fields[index].heading, widths[index]), style)
    });
    joined(spans)
}

fn joined(spans: impl Iterator<Item = Span<'static>>) -> Line<'static> {
    let gap = Span::raw(" ".repeat(GAP));
    let mut line = Vec::new();
    for span in spans {
        if !line.is_empty() {
            line.push(gap.clone());
        }
        line.push(span);
    }
    Line::from(line)
}

fn aligned<R>(field: &Field<R>, text: &str, width: usize) -> String {
    match field.alignment {
        comfy_table::CellAlignment::Right => format!("{text:>width$}"),
        _ => format!("{text:<width$}"),
    }
}

fn keys_line(app: &App) -> Line<'static> {
    match app.mode {
        Mode::Filter => Line::raw(format!("/{}_   Enter: keep it   Esc: none", app.filter)),
        _ if app.filter.is_empty() => Line::raw("q quit  Tab next  s sort  r reverse  / filter  p pause  ? help"),
        _ => Line::raw(format!("filter: {}   Esc: none   q quit  ? help", app.filter)),
    }
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let [_, middle, _] = Layout::vertical([Constraint::Fill(1), Constraint::Max(15), Constraint::Fill(1)]).areas(area);
    let [_, middle, _] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Max(72), Constraint::Fill(1)]).areas(middle);
    let lines: Vec<Line<'_>> = HELP.iter().map(|(key, words)| Line::raw(format!("{key:<14}{words}"))).collect();
    frame.render_widget(Clear, middle);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" keys ")), middle);
}

/// Styles: words carry the meaning, colours and weight stress it.
#[derive(Debug, Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn tone(self, tone: Tone) -> Style {
        let (color, modifier) = match tone {
            Tone::Quiet => (Color::Reset, Modifier::DIM),
            Tone::Good => (Color::Green, Modifier::empty()),
            Tone::Warn => (Color::Yellow, Modifier::BOLD),
            Tone::Bad => (Color::Red, Modifier::BOLD),
        };
        let style = Style::new().add_modifier(modifier);
        if self.0 { style.fg(color) } else { style }
    }

    fn accent(self) -> Style {
        if self.0 { Style::new().fg(Color::Cyan) } else { Style::new() }
    }

    fn active(self) -> Style {
        self.accent().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }
}

const HELP: [(&str, &str); 11] = [
    ("Tab, arrows", "the next table, or 1 2 3"),
    ("Up, Down", "scroll; Page Up, Page Down, Home"),
    ("s", "sort by the next column, after the last by none"),
    ("r", "the other way around"),
    ("/", "show only rows that have these letters; Esc: all"),
    ("p, space", "pause what is shown; the daemon goes on"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("full", "somebody waits and nothing more may be opened"),
    ("OPENED/S", "connections opened a second: handshakes"),
    ("REUSE", "acquires over a connection that had served before"),
];

/// From so many lines on there is room for sparklines, and for all three tables.
const SPARKS_FROM: u16 = 20;
const STACKED_FROM: u16 = 40;

#[cfg(test)]
mod tests {
    use crossterm::event::{Event, KeyCode};
    use ratatui::{Terminal, backend::TestBackend};

    use super::{
        super::{app::Update, rates::tests::row},
        *,
    };
    use keepwarm_control::rows::StatusRow;

    fn app() -> App {
        let mut app = App::new(([127, 0, 0, 1], 9180).into(), &StatusRow::default(), true);
        for seconds in 0..60 {
            let mut row = row(100 + seconds);
            row.status.in_use = seconds % 14;
            app.update(Update::Look(row.into()));
        }
        app
    }

    fn screen(app: &mut App, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(app, frame)).unwrap();
        terminal
    }

    fn press(app: &mut App, keys: &str) {
        for key in keys.chars() {
            app.event(&Event::Key(KeyCode::Char(key).into()));
        }
    }

    #[test]
    fn a_small_terminal_has_one_table() {
        insta::assert_snapshot!(screen(&mut app(), 80, 24).backend());
    }

    #[test]
    fn a_large_terminal_has_all_three() {
        insta::assert_snapshot!(screen(&mut app(), 200, 60).backend());
    }

    #[test]
    fn a_daemon_that_has_gone_is_said_so_above_what_was_last_seen() {
        let mut app = app();
        press(&mut app, "3");
        app.update(Update::Lost { why: "connection refused".into(), tries: 2 });
        insta::assert_snapshot!(screen(&mut app, 100, 24).backend());
    }

    #[test]
    fn a_sorted_and_filtered_table_says_so() {
        let mut app = app();
        press(&mut app, "2sssss/e");
        insta::assert_snapshot!(screen(&mut app, 100, 14).backend());
    }

    #[test]
    fn help_lies_over_the_table() {
        let mut app = app();
        press(&mut app, "?");
        insta::assert_snapshot!(screen(&mut app, 80, 24).backend());
    }

    #[test]
    fn without_colours_the_words_are_the_same() {
        let mut app = app();
        let colored = screen(&mut app, 80, 24);
        app.is_colored = false;
        let plain = screen(&mut app, 80, 24);
        assert_eq!(colored.backend().to_string(), plain.backend().to_string());
        let colors = |terminal: &Terminal<TestBackend>| {
            terminal.backend().buffer().content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(colors(&colored) && !colors(&plain));
    }

    #[test]
    fn every_size_of_a_terminal_is_drawn() {
        let mut app = app();
        for mode in ["", "?"] {
            press(&mut app, mode);
            for (width, height) in
                (0..90).flat_map(|width| [0, 1, 2, 3, 4, 5, 19, 20, 24, 41].map(|height| (width, height)))
            {
                screen(&mut app, width, height);
            }
        }
    }

    #[test]
    fn scrolling_ends_with_the_last_row() {
        let mut app = app();
        let mut many = row(200);
        many.pools = (0..40)
            .map(|index| {
                let mut pool = many.pools[1].clone();
                pool.name = format!("pool-{index}");
                pool
            })
            .collect();
        app.update(Update::Look(many.into()));
        for _ in 0..30 {
            app.event(&Event::Key(KeyCode::PageDown.into()));
        }
        let shown = screen(&mut app, 80, 24).backend().to_string();
        assert!(shown.contains("pool-39") && shown.contains("of 40)"), "{shown}");
        app.event(&Event::Key(KeyCode::Home.into()));
        assert!(screen(&mut app, 80, 24).backend().to_string().contains("pool-0 "));
    }
}
