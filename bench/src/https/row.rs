//! What is measured: each row is one load, put on every client in turn.

use clap::ValueEnum;
use keepwarm_https_driver::Mode;

/// A load, and the table that it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Row {
    Hot,
    Hot32,
    Cold,
    ColdTickets,
    FarHot,
    FarCold,
    Idle,
    OneHost,
    Resumed,
}

/// What the figure to compare is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// CPU seconds of 10,000 requests.
    Cpu,
    /// KiB of a connection.
    Memory,
    /// The median latency.
    Latency,
}

impl Row {
    pub(super) const ALL: [Row; 9] = [
        Row::Hot,
        Row::Hot32,
        Row::Cold,
        Row::ColdTickets,
        Row::FarHot,
        Row::FarCold,
        Row::Idle,
        Row::OneHost,
        Row::Resumed,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Row::Hot => "Hot, one request at a time",
            Row::Hot32 => "Hot, 32 requests in flight",
            Row::Cold => "Cold: a new connection for each request, full handshakes",
            Row::ColdTickets => "Cold, where the server gives tickets",
            Row::FarHot => "Hot, the server 10 ms away",
            Row::FarCold => "Cold, the server 10 ms away",
            Row::Idle => "Memory of an idle connection, each to another host",
            Row::OneHost => "Memory of an idle connection, all to one host",
            Row::Resumed => "Memory of an idle connection, all to one host and resumed",
        }
    }

    pub(super) fn mode(self) -> Mode {
        match self {
            Row::Hot | Row::Hot32 | Row::FarHot => Mode::Hot,
            Row::Cold | Row::ColdTickets | Row::FarCold => Mode::Cold,
            Row::Idle => Mode::Idle,
            Row::OneHost | Row::Resumed => Mode::Same,
        }
    }

    pub(super) fn concurrency(self) -> usize {
        if self == Row::Hot32 { 32 } else { 1 }
    }

    /// Requests that count, or connections.
    pub(super) fn requests(self, quick: bool) -> usize {
        let (usual, quick_one) = match self {
            Row::Hot | Row::Hot32 => (10_000, 2_000),
            Row::Cold | Row::ColdTickets => (1_000, 100),
            Row::FarHot | Row::FarCold => (100, 20),
            Row::Idle | Row::OneHost | Row::Resumed => (500, 100),
        };
        if quick { quick_one } else { usual }
    }

    /// Whether the server is reached through the delay.
    pub(super) fn is_far(self) -> bool {
        matches!(self, Row::FarHot | Row::FarCold)
    }

    /// Whether the server gives tickets.
    pub(super) fn has_tickets(self) -> bool {
        matches!(self, Row::ColdTickets | Row::Resumed)
    }

    pub(super) fn figure(self) -> Figure {
        match self {
            Row::Hot | Row::Hot32 | Row::Cold | Row::ColdTickets => Figure::Cpu,
            Row::FarHot | Row::FarCold => Figure::Latency,
            Row::Idle | Row::OneHost | Row::Resumed => Figure::Memory,
        }
    }

    /// What keepwarm is to stay within.
    pub(super) fn goal(self) -> Option<f64> {
        match self {
            Row::Hot => Some(0.16),
            Row::Hot32 => Some(0.08),
            Row::Idle | Row::OneHost | Row::Resumed => Some(45.0),
            _ => None,
        }
    }
}
