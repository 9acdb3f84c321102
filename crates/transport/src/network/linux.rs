//! What the kernel of Linux tells: rtnetlink's groups for links, addresses and routes, and steps of the wall clock.

use std::{io, net::IpAddr, os::fd::OwnedFd, time::Duration};

use futures_util::StreamExt;
use netlink_packet_route::route::{RouteAddress, RouteAttribute};
use nix::{
    errno::Errno,
    sys::{
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::{io::unix::AsyncFd, task::JoinHandle};

use super::{Way, Woken};

pub(super) struct Watch {
    handle: Handle,
    notices: Notices,
    clock: AsyncFd<OwnedFd>,
    /// Moves the messages of the socket.
    connection: JoinHandle<()>,
}

type Notices = std::pin::Pin<Box<dyn futures_util::Stream<Item = ()> + Send + Sync>>;

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Watch {
    pub(super) fn new() -> io::Result<Watch> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        #[expect(
            deprecated,
            reason = "the replacement is unsafe for types that may change their descriptor; an OwnedFd keeps its own"
        )]
        let clock = AsyncFd::new(steps_of_the_clock()?)?;
        let notices = Box::pin(messages.map(drop));
        Ok(Watch { handle, notices, clock, connection: tokio::spawn(connection) })
    }

    /// `None` when the socket is lost.
    pub(super) async fn next(&mut self) -> Option<Woken> {
        tokio::select! {
            notice = self.notices.next() => notice.map(|()| Woken::Network),
            ready = self.clock.readable() => {
                let mut ready = ready.ok()?;
                // ECANCELED is the news; reading it arms the timer anew.
                let _ = ready.try_io(|clock| {
                    let mut expirations = [0; 8];
                    rustix::io::read(clock, &mut expirations).map_err(io::Error::from)
                });
                Some(Woken::Clock)
            }
        }
    }

    pub(super) async fn way_to(&self, peer: IpAddr) -> Option<Way> {
        let prefix = if peer.is_ipv4() { 32 } else { 128 };
        let request = RouteMessageBuilder::<IpAddr>::new().destination_prefix(peer, prefix).ok()?.build();
        let mut routes = Box::pin(self.handle.route().get(request).execute());
        let route = tokio::time::timeout(PATIENCE, routes.next()).await.ok()??.ok()?;
        let mut way = Way { source: None, gateway: None, interface: None };
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::PrefSource(address) => way.source = ip(&address),
                RouteAttribute::Gateway(address) => way.gateway = ip(&address),
                RouteAttribute::Oif(number) => way.interface = Some(number),
                _ => {}
            }
        }
        Some(way)
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// A timer that is never due, and cancelled when the wall clock is set, which the kernel also does when the machine wakes up.
fn steps_of_the_clock() -> io::Result<OwnedFd> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags).map_err(into_io)?;
    let never = Expiration::OneShot(TimeSpec::new(NEVER, 0));
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(never, flags).map_err(into_io)?;
    Ok(timer.into())
}

fn into_io(error: Errno) -> io::Error {
    error.into()
}

/// Seconds since 1970: further away than any clock will be set.
const NEVER: i64 = 1 << 40;

/// The kernel answers at once; if it does not, the way counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);
