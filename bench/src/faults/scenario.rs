//! The ways in which upstreams misbehave, and what is hoped for.

use std::time::Duration;

use keepwarm_dns::config::Transport;
use keepwarm_lab::{CloseKind, Faults};

/// One way to misbehave.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What is hoped for, in words.
    pub(super) goal: &'static str,
    pub(super) upstreams: usize,
    pub(super) clients: usize,
    /// Between two queries of one client.
    pub(super) interval: Duration,
    pub(super) length: Duration,
    /// When the first upstream begins to misbehave, and for how long where that ends; `None`: all the time.
    pub(super) fault: Option<(Duration, Option<Duration>)>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    CloseAfter,
    Goaway,
    ResetAfter,
    Silence,
    Loss,
    IdleClose(u64),
}

impl Scenario {
    /// The scenario of this name.
    pub(super) fn by_name(name: &str) -> Result<&'static Scenario, String> {
        let known = || SCENARIOS.each_ref().map(|scenario| scenario.name).join(", ");
        SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| format!("one of {}", known()))
    }

    /// Whether upstreams over this transport can misbehave so.
    pub(super) fn concerns(&self, transport: Transport) -> bool {
        match self.kind {
            Kind::CloseAfter | Kind::ResetAfter | Kind::IdleClose(_) => transport != Transport::Udp,
            Kind::Goaway => matches!(transport, Transport::Https | Transport::H3),
            Kind::Silence => true,
            Kind::Loss => transport == Transport::Udp,
        }
    }

    /// Mostly waits.
    pub(super) fn is_sparse(&self) -> bool {
        matches!(self.kind, Kind::IdleClose(_))
    }

    /// The first second of the fault is told apart.
    pub(super) fn names_first_second(&self) -> bool {
        self.fault.is_some_and(|(_, length)| length.is_none())
    }

    /// The faults of an upstream, before or while the first one misbehaves.
    pub(super) fn faults(&self, number: usize, misbehave: bool) -> Faults {
        let well = Faults { delay: Duration::from_millis(1), ..Faults::default() };
        if number > 0 || self.fault.is_some() && !misbehave {
            return well;
        }
        match self.kind {
            Kind::CloseAfter => Faults { close_after: Some(100), ..well },
            Kind::Goaway => Faults { goaway_after: Some(100), ..well },
            Kind::ResetAfter => Faults { reset_after: Some(100), ..well },
            Kind::Silence => Faults { silent: true, ..well },
            Kind::Loss => Faults { loss: 0.05, ..well },
            Kind::IdleClose(seconds) => {
                Faults { idle_close: Some((Duration::from_secs(seconds), CloseKind::Notify)), ..well }
            }
        }
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn busy(name: &'static str, title: &'static str, goal: &'static str, kind: Kind) -> Scenario {
    let interval = Duration::from_millis(100);
    Scenario { name, title, goal, upstreams: 1, clients: 100, interval, length: seconds(10), fault: None, kind }
}

pub(super) const SCENARIOS: [Scenario; 9] = [
    busy("close", "closes after 100 queries", "0", Kind::CloseAfter),
    busy("goaway", "GOAWAY after 100 queries", "0", Kind::Goaway),
    busy("reset", "RST after 100 queries", "0", Kind::ResetAfter),
    busy("loss", "loses 5 % of the datagrams", "<= 0.1 %", Kind::Loss),
    Scenario {
        length: seconds(15),
        fault: Some((seconds(4), Some(seconds(5)))),
        ..busy("silent", "silent for 5 s, then back", "recovered <= 1 s after the return", Kind::Silence)
    },
    Scenario {
        upstreams: 2,
        length: seconds(15),
        fault: Some((seconds(4), Some(seconds(5)))),
        ..busy("silent-of-two", "one of two silent for 5 s, then back", "<= 0.5 %", Kind::Silence)
    },
    Scenario {
        upstreams: 3,
        fault: Some((seconds(3), None)),
        ..busy("black-hole", "one of three black-holed", "<= 0.1 % after the first second", Kind::Silence)
    },
    Scenario {
        clients: 10,
        interval: seconds(5),
        length: seconds(31),
        ..busy("idle-4s", "closes what idled for 4 s", "0", Kind::IdleClose(4))
    },
    Scenario {
        clients: 10,
        interval: seconds(11),
        length: seconds(45),
        ..busy("idle-10s", "closes what idled for 10 s", "0", Kind::IdleClose(10))
    },
];
