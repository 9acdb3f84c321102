//! What is measured: each row is one load, put on every proxy in turn.

use std::time::Duration;

use clap::ValueEnum;

use super::{load::Mode, peers::Kind};

/// A load, and the table that it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Row {
    Setup,
    SetupUser,
    Setup32,
    Setup32User,
    Upstream,
    Upstream32,
    Down,
    Down8,
    Up,
    Up8,
    Ready,
    Ready20,
    Idle,
}

/// What the figure to compare is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// CPU seconds of 10,000 tunnels.
    Setup,
    /// CPU seconds of 10^9 bytes.
    Relay,
    /// The median time until a tunnel is ready, in microseconds.
    Ready,
    /// KiB of a tunnel.
    Memory,
}

impl Row {
    pub(super) const ALL: [Row; 13] = [
        Row::Setup,
        Row::SetupUser,
        Row::Setup32,
        Row::Setup32User,
        Row::Upstream,
        Row::Upstream32,
        Row::Down,
        Row::Down8,
        Row::Up,
        Row::Up8,
        Row::Ready,
        Row::Ready20,
        Row::Idle,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Row::Setup => "Set-up, one tunnel after another",
            Row::SetupUser => "Set-up with user and password, one tunnel after another",
            Row::Setup32 => "Set-up, 32 tunnels at a time",
            Row::Setup32User => "Set-up with user and password, 32 tunnels at a time",
            Row::Upstream => "Set-up through an upstream proxy, one tunnel after another",
            Row::Upstream32 => "Set-up through an upstream proxy, 32 tunnels at a time",
            Row::Down => "Relay, one stream down",
            Row::Down8 => "Relay, eight streams down",
            Row::Up => "Relay, one stream up",
            Row::Up8 => "Relay, eight streams up",
            Row::Ready => "Ready, the upstream proxy 50 ms away, one tunnel a second",
            Row::Ready20 => "Ready, the upstream proxy 50 ms away, 20 tunnels a second",
            Row::Idle => "Memory of an idle tunnel",
        }
    }

    pub(super) fn figure(self) -> Figure {
        match self {
            Row::Setup | Row::SetupUser | Row::Setup32 | Row::Setup32User | Row::Upstream | Row::Upstream32 => {
                Figure::Setup
            }
            Row::Down | Row::Down8 | Row::Up | Row::Up8 => Figure::Relay,
            Row::Ready | Row::Ready20 => Figure::Ready,
            Row::Idle => Figure::Memory,
        }
    }

    pub(super) fn mode(self) -> Mode {
        match self {
            Row::Up | Row::Up8 => Mode::Up,
            _ => match self.figure() {
                Figure::Setup => Mode::Setup,
                Figure::Relay => Mode::Down,
                Figure::Ready => Mode::Pace,
                Figure::Memory => Mode::Hold,
            },
        }
    }

    /// Tunnels at a time.
    pub(super) fn at_once(self) -> usize {
        match self {
            Row::Setup32 | Row::Setup32User | Row::Upstream32 => 32,
            Row::Down8 | Row::Up8 => 8,
            _ => 1,
        }
    }

    /// Tunnels a second, where there is a pace.
    pub(super) fn rate(self) -> u32 {
        if self == Row::Ready20 { 20 } else { 1 }
    }

    /// Whether the proxy asks its clients for user and password.
    pub(super) fn has_user(self) -> bool {
        matches!(self, Row::SetupUser | Row::Setup32User)
    }

    /// Whether tunnels go through an upstream proxy.
    pub(super) fn has_upstream(self) -> bool {
        matches!(self, Row::Upstream | Row::Upstream32) || self.is_far()
    }

    /// Whether the upstream proxy is far away.
    pub(super) fn is_far(self) -> bool {
        self.figure() == Figure::Ready
    }

    /// Tunnels that count, or bytes of all streams together.
    pub(super) fn amount(self, kind: Kind, quick: bool) -> u64 {
        let (usual, quick_one) = match (self.figure(), kind) {
            (Figure::Setup, _) => (10_000, 500),
            (Figure::Relay, _) => (4_000_000_000, 100_000_000),
            (Figure::Ready, Kind::Keepwarm) => (self.tunnels_in(60), self.tunnels_in(3)),
            // Others are the same from the first tunnel on.
            (Figure::Ready, _) => (self.tunnels_in(20), self.tunnels_in(3)),
            (Figure::Memory, _) => (1_000, 100),
        };
        if quick { quick_one } else { usual }
    }

    /// Tunnels, or bytes, that come before those that count.
    pub(super) fn preparation(self, amount: u64) -> u64 {
        match self.figure() {
            Figure::Setup => amount / 10,
            Figure::Relay => amount / 20,
            Figure::Ready => self.tunnels_in(3),
            Figure::Memory => 20,
        }
    }

    fn tunnels_in(self, seconds: u32) -> u64 {
        u64::from(self.rate() * seconds)
    }

    /// Whether a proxy is part of the row.
    pub(super) fn admits(self, kind: Kind) -> bool {
        match (self.figure(), kind) {
            (_, Kind::Splice | Kind::Copy) => self.figure() == Figure::Relay,
            // It is the upstream, which the client goes to by itself there.
            (_, Kind::Keepwarm) | (Figure::Ready, Kind::Microsocks) => true,
            (_, Kind::FastSocks5) if self.has_upstream() => true,
            _ if self.has_upstream() => false,
            // It asks the system who its users are.
            (_, Kind::Danted) => !self.has_user(),
            _ => true,
        }
    }

    /// What another machine showed in the survey that the goals were taken from: for comparing machines.
    pub(super) fn survey(self, kind: Kind) -> Option<f64> {
        let value = match (self, kind) {
            (Row::Setup, Kind::FastSocks5) => 0.68,
            (Row::SetupUser, Kind::FastSocks5) => 0.80,
            (Row::Setup, Kind::Microsocks) => 0.98,
            (Row::Setup, Kind::Danted) => 8.21,
            (Row::Down, Kind::Microsocks) => 2.48,
            (Row::Down8, Kind::Microsocks) => 2.93,
            (Row::Down, Kind::Tokio) => 0.66,
            (Row::Down8, Kind::Tokio) => 1.06,
            (Row::Down, Kind::Danted) => 0.55,
            (Row::Down8, Kind::Danted) => 0.59,
            (Row::Down, Kind::Copy) => 0.29,
            (Row::Down8, Kind::Copy) => 0.31,
            (Row::Down, Kind::Splice) => 0.24,
            (Row::Down8, Kind::Splice) => 0.18,
            (Row::Ready, Kind::Microsocks) => 202_000.0,
            _ => return None,
        };
        Some(value)
    }
}

/// From the proxy under test to the far upstream and back.
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(50);
/// A tunnel that is ready in this time took one round trip and not two.
pub(super) const SOON: Duration = Duration::from_millis(75);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_listed_and_has_keepwarm_and_somebody_beside_it() {
        assert_eq!(Row::ALL, Row::value_variants());
        for row in Row::ALL {
            let kinds: Vec<Kind> = Kind::value_variants().iter().copied().filter(|kind| row.admits(*kind)).collect();
            assert!(kinds.contains(&Kind::Keepwarm) && kinds.len() >= 2, "{row:?}: {kinds:?}");
        }
        assert!(!Row::SetupUser.admits(Kind::Danted) && !Row::Setup.admits(Kind::Splice));
        assert!(!Row::Upstream.admits(Kind::Microsocks) && Row::Ready.admits(Kind::Microsocks));
    }

    #[test]
    fn a_minute_at_a_pace_is_so_many_tunnels() {
        assert_eq!(Row::Ready20.amount(Kind::Keepwarm, false), 1_200);
        assert_eq!(Row::Ready.amount(Kind::Keepwarm, false), 60);
        assert_eq!(Row::Ready20.preparation(1_200), 60);
    }
}
