//! What is shown and what keys do: state and an event in, the next state out. No clock, no terminal, no daemon.

use std::{collections::VecDeque, net::SocketAddr};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use keepwarm_control::{events::EventRow, rows::StatusRow};

use super::{
    fields::{POOLS, RECENT, UPSTREAMS},
    rates::Look,
};
use crate::table::Field;

/// What came from the daemon.
#[derive(Debug, Clone)]
pub(super) enum Update {
    /// A look at it.
    Look(Box<EventRow>),
    /// It has gone, or did not come back.
    Lost {
        /// What happened.
        why: String,
        /// How often in a row.
        tries: u32,
    },
}

/// What follows from an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It is shown.
    Draw,
    /// The view ends.
    Quit,
}

/// Which table the keys are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Pools,
    Upstreams,
    Recent,
}

impl Pane {
    pub(super) const ALL: [Pane; 3] = [Pane::Pools, Pane::Upstreams, Pane::Recent];

    pub(super) fn name(self) -> &'static str {
        match self {
            Pane::Pools => "pools",
            Pane::Upstreams => "upstreams",
            Pane::Recent => "slow or failed",
        }
    }
}

/// Whether the daemon is heard.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Link {
    /// Nothing has come yet.
    Waiting,
    /// -> `Lost` when it goes.
    Live,
    /// -> `Live` with its next word.
    Lost { why: String, tries: u32 },
}

/// What keys mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Commands. -> `Filter` by `/`, `Help` by `?`.
    Normal,
    /// Letters of the filter. -> `Normal` by Enter or Esc.
    Filter,
    /// Help is shown. -> `Normal` by any key.
    Help,
}

/// How a table is ordered and how far it is scrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Order {
    /// The field by its index; none: as the daemon has it.
    pub(super) field: Option<usize>,
    /// The other way around.
    pub(super) is_reversed: bool,
    /// Rows above the first that is shown.
    pub(super) offset: usize,
}

/// The view.
pub(super) struct App {
    pub(super) address: SocketAddr,
    pub(super) link: Link,
    /// What is shown: the newest look, or the one at which it was paused.
    pub(super) look: Look,
    pub(super) is_paused: bool,
    pub(super) pane: Pane,
    pub(super) orders: [Order; 3],
    pub(super) filter: String,
    pub(super) mode: Mode,
    pub(super) is_colored: bool,
    /// Connections in use at each look, the oldest first.
    pub(super) in_use: VecDeque<u64>,
    /// Requests a second at each look, rounded.
    pub(super) requests: VecDeque<u64>,
    /// The last look as it came.
    newest: Option<Box<EventRow>>,
}

impl App {
    /// The view of a daemon of which no more is known yet than this.
    pub(super) fn new(address: SocketAddr, status: &StatusRow, is_colored: bool) -> App {
        App {
            address,
            link: Link::Waiting,
            look: Look { status: status.clone(), ..Look::default() },
            is_paused: false,
            pane: Pane::Pools,
            orders: [Order::default(); 3],
            filter: String::new(),
            mode: Mode::Normal,
            is_colored,
            in_use: VecDeque::new(),
            requests: VecDeque::new(),
            newest: None,
        }
    }

    /// Takes what came from the daemon.
    pub(super) fn update(&mut self, update: Update) -> After {
        match update {
            Update::Lost { why, tries } => self.link = Link::Lost { why, tries },
            Update::Look(row) => {
                self.link = Link::Live;
                let look = Look::new((*row).clone(), self.newest.as_deref());
                keep(&mut self.in_use, look.status.in_use);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate is small and not negative"
                )]
                let requests = look.requests.map_or(0, |rate| rate.round() as u64);
                keep(&mut self.requests, requests);
                self.newest = Some(row);
                if !self.is_paused {
                    self.look = look;
                }
            }
        }
        After::Draw
    }

    /// Takes what came from the terminal.
    pub(super) fn event(&mut self, event: &Event) -> After {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(*key),
            _ => After::Draw,
        }
    }

    fn key(&mut self, key: KeyEvent) -> After {
        if key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char('c' | 'C')) {
            return After::Quit;
        }
        match self.mode {
            Mode::Help => self.mode = Mode::Normal,
            Mode::Filter => self.key_of_filter(key.code),
            Mode::Normal => return self.command(key.code),
        }
        After::Draw
    }

    fn key_of_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.mode = Mode::Normal,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Normal;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(char) if !char.is_control() && self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(char);
            }
            _ => {}
        }
        self.orders.iter_mut().for_each(|order| order.offset = 0);
    }

    fn command(&mut self, code: KeyCode) -> After {
        match code {
            KeyCode::Char('q') => return After::Quit,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('p' | ' ') => self.pause(),
            KeyCode::Char('s') => self.sort(),
            KeyCode::Char('r') => self.order().is_reversed ^= true,
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(2),
            KeyCode::Char('1') => self.pane = Pane::Pools,
            KeyCode::Char('2') => self.pane = Pane::Upstreams,
            KeyCode::Char('3') => self.pane = Pane::Recent,
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::PageDown => self.scroll(PAGE),
            KeyCode::PageUp => self.scroll(-PAGE),
            KeyCode::Home => self.order().offset = 0,
            _ => {}
        }
        After::Draw
    }

    fn order(&mut self) -> &mut Order {
        &mut self.orders[self.pane as usize]
    }

    fn turn(&mut self, by: usize) {
        self.pane = Pane::ALL[(self.pane as usize + by) % Pane::ALL.len()];
    }

    /// Drawing bounds it at the other end, where it is known how many rows there are.
    fn scroll(&mut self, by: isize) {
        let order = self.order();
        order.offset = order.offset.saturating_add_signed(by);
    }

    fn pause(&mut self) {
        self.is_paused ^= true;
        // Rates come with the next look: what was seen last is shown until then.
        if let (false, Some(newest)) = (self.is_paused, &self.newest) {
            self.look = Look { requests: self.look.requests, ..Look::new((**newest).clone(), None) };
        }
    }

    /// The next field, the first of them after none, and none after the last. Figures begin with the largest.
    fn sort(&mut self) {
        let (count, is_figure): (usize, fn(usize) -> bool) = match self.pane {
            Pane::Pools => (POOLS.len(), |index| is_figure(&POOLS[index])),
            Pane::Upstreams => (UPSTREAMS.len(), |index| is_figure(&UPSTREAMS[index])),
            Pane::Recent => (RECENT.len(), |index| is_figure(&RECENT[index])),
        };
        let order = self.order();
        let next = order.field.map_or(0, |field| field + 1);
        order.field = (next < count).then_some(next);
        order.is_reversed = order.field.is_some_and(is_figure);
    }
}

fn is_figure<R>(field: &Field<R>) -> bool {
    field.alignment == comfy_table::CellAlignment::Right
}

/// The cells of each row that has the filter in one of them, in this order.
pub(super) fn rows<'a, R>(fields: &[Field<R>], rows: &'a [R], filter: &str, order: Order) -> Vec<&'a R> {
    let filter = filter.to_lowercase();
    let has = |row: &&R| fields.iter().any(|field| (field.value)(row).text().to_lowercase().contains(&filter));
    let mut rows: Vec<&R> = rows.iter().filter(|row| filter.is_empty() || has(row)).collect();
    if let Some(field) = order.field.and_then(|field| fields.get(field)) {
        rows.sort_by(|left, right| (field.value)(left).order(&(field.value)(right)));
    }
    if order.is_reversed {
        rows.reverse();
    }
    rows
}

fn keep(points: &mut VecDeque<u64>, point: u64) {
    if points.len() >= POINTS_MAX {
        points.pop_front();
    }
    points.push_back(point);
}

/// Letters of a filter.
const FILTER_MAX: usize = 64;
/// Rows of a page.
const PAGE: isize = 10;
/// Points of a sparkline: a terminal is not wider.
const POINTS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::{super::rates::tests::row, *};

    fn app() -> App {
        let mut app = App::new(([127, 0, 0, 1], 9180).into(), &StatusRow::default(), true);
        app.update(Update::Look(row(100).into()));
        app.update(Update::Look(row(110).into()));
        app
    }

    fn press(app: &mut App, keys: &str) -> After {
        let mut after = After::Draw;
        for char in keys.chars() {
            let code = match char {
                '\t' => KeyCode::Tab,
                '\n' => KeyCode::Enter,
                '\x08' => KeyCode::Backspace,
                '\x1b' => KeyCode::Esc,
                char => KeyCode::Char(char),
            };
            after = app.event(&Event::Key(code.into()));
        }
        after
    }

    fn pools(app: &App) -> Vec<&str> {
        let rows = rows(&POOLS, &app.look.pools, &app.filter, app.orders[0]);
        rows.into_iter().map(|line| line.row.name.as_str()).collect()
    }

    #[test]
    fn a_column_sorts_its_largest_figure_first_and_r_turns_it_around() {
        let mut app = app();
        assert_eq!(pools(&app), ["dns", "https", "tunnel.exit-a"]);
        press(&mut app, "ss");
        assert_eq!(app.orders[0].field, Some(1));
        assert_eq!(pools(&app), ["https", "tunnel.exit-a", "dns"], "by state, from well to bad");
        press(&mut app, "ss");
        assert_eq!(pools(&app), ["dns", "https", "tunnel.exit-a"], "by in use");
        press(&mut app, "r");
        assert_eq!(pools(&app), ["tunnel.exit-a", "https", "dns"]);
        press(&mut app, &"s".repeat(POOLS.len() - 3));
        assert_eq!(app.orders[0], Order::default());
    }

    #[test]
    fn a_filter_is_looked_for_in_every_cell_and_letters_are_no_commands_meanwhile() {
        let mut app = app();
        assert_eq!(press(&mut app, "/FULLq\x08"), After::Draw);
        assert_eq!((app.mode, pools(&app)), (Mode::Filter, vec!["dns"]));
        press(&mut app, "\n\t");
        assert_eq!((app.mode, app.pane, &*app.filter), (Mode::Normal, Pane::Upstreams, "FULL"));
        press(&mut app, "\x1b");
        assert_eq!(pools(&app).len(), 3);
        press(&mut app, &format!("/{}", "x".repeat(500)));
        assert_eq!(app.filter.len(), FILTER_MAX);
    }

    #[test]
    fn a_pause_keeps_what_is_shown_and_its_end_shows_the_newest() {
        let mut app = app();
        press(&mut app, "p");
        app.update(Update::Look(row(120).into()));
        assert_eq!((app.look.status.uptime.as_secs(), app.in_use.len()), (110, 3));
        press(&mut app, "p");
        assert_eq!(app.look.status.uptime.as_secs(), 120);
    }

    #[test]
    fn a_daemon_that_goes_and_comes_again_is_followed() {
        let mut app = app();
        app.update(Update::Lost { why: "connection refused".into(), tries: 2 });
        assert_eq!(app.link, Link::Lost { why: "connection refused".into(), tries: 2 });
        assert_eq!(pools(&app).len(), 3, "what was seen last stays");
        app.update(Update::Look(row(2).into()));
        assert_eq!((app.link.clone(), app.look.requests), (Link::Live, None));
    }

    #[test]
    fn q_and_ctrl_c_end_it_and_any_key_ends_the_help() {
        let mut app = app();
        assert_eq!(press(&mut app, "?q"), After::Draw);
        assert_eq!(app.mode, Mode::Normal);
        assert_eq!(press(&mut app, "q"), After::Quit);
        press(&mut app, "/");
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.event(&Event::Key(ctrl_c)), After::Quit);
        assert_eq!(app.event(&Event::Resize(80, 24)), After::Draw);
    }
}
