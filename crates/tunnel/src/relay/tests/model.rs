//! Random deeds of both ends, against what two plain byte queues would do.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Side {
    Client,
    Upstream,
}

#[derive(Debug, Clone)]
enum Deed {
    Write(Side, usize),
    Read(Side, usize),
    Shutdown(Side),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Upstream)];
    let size = || prop_oneof![1..200_usize, 1000..20_000_usize, 100_000..400_000_usize];
    let deed = prop_oneof![
        10 => (side(), size()).prop_map(|(side, len)| Deed::Write(side, len)),
        8 => (side(), size()).prop_map(|(side, len)| Deed::Read(side, len)),
        1 => side().prop_map(Deed::Shutdown),
    ];
    proptest::collection::vec(deed, 1..60)
}

/// One way: what was written and not read yet.
#[derive(Default)]
struct Way {
    queue: VecDeque<u8>,
    written: u64,
    ended: bool,
}

/// Bytes of a way that may be unread at a time: what sockets and streams of the test hold for certain.
const UNREAD_MAX: usize = 60_000;

struct Model<S> {
    relayed: Relayed<S>,
    up: Way,
    down: Way,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Model<S> {
    /// The writer's stream, the reader's, and the way from one to the other.
    fn of(&mut self, writer: Side) -> (&mut S, &mut S, &mut Way) {
        match writer {
            Side::Client => (&mut self.relayed.client, &mut self.relayed.upstream, &mut self.up),
            Side::Upstream => (&mut self.relayed.upstream, &mut self.relayed.client, &mut self.down),
        }
    }

    async fn act(&mut self, deed: &Deed) {
        match *deed {
            Deed::Write(side, len) => self.write(side, len).await,
            Deed::Read(Side::Client, len) => self.read(Side::Upstream, len).await,
            Deed::Read(Side::Upstream, len) => self.read(Side::Client, len).await,
            Deed::Shutdown(side) => {
                let (from, _, way) = self.of(side);
                from.shutdown().await.unwrap();
                way.ended = true;
            }
        }
    }

    /// Writes, while as much is read as is beyond what may be unread.
    async fn write(&mut self, writer: Side, len: usize) {
        let (from, to, way) = self.of(writer);
        if way.ended {
            return;
        }
        let bytes = pattern(way.written + 1, len);
        way.queue.extend(&bytes);
        way.written += len as u64;
        let mut got = vec![0; way.queue.len().saturating_sub(UNREAD_MAX)];
        let (written, read) = tokio::join!(from.write_all(&bytes), to.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        way.check(&got);
    }

    async fn read(&mut self, writer: Side, len: usize) {
        let (_, to, way) = self.of(writer);
        let mut got = vec![0; len.min(way.queue.len())];
        to.read_exact(&mut got).await.unwrap();
        way.check(&got);
        if way.ended && way.queue.is_empty() {
            assert_eq!(to.read(&mut [0]).await.unwrap(), 0, "an end is passed on");
        }
    }

    async fn finish(mut self) {
        for side in [Side::Client, Side::Upstream] {
            self.act(&Deed::Shutdown(side)).await;
            self.read(side, usize::MAX).await;
        }
        let traffic = Arc::clone(&self.relayed.traffic);
        let written = (self.up.written, self.down.written);
        assert_eq!(self.relayed.reason().await, RelayReason::Closed);
        let counted = (traffic.sent.load(Ordering::Relaxed), traffic.received.load(Ordering::Relaxed));
        assert_eq!(counted, written);
    }
}

impl Way {
    fn check(&mut self, got: &[u8]) {
        assert!(self.queue.drain(..got.len()).eq(got.iter().copied()), "bytes are those that were written, in order");
    }
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(relayed: Relayed<S>, deeds: &[Deed]) {
    let mut model = Model { relayed, up: Way::default(), down: Way::default() };
    for deed in deeds {
        model.act(deed).await;
    }
    model.finish().await;
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn streams_in_memory_behave_as_two_queues(deeds in deeds()) {
        // Both streams in memory hold what may be unread.
        block_on(async { run(Relayed::memory(UNREAD_MAX, &options()), &deeds).await });
    }

    #[test]
    fn spliced_sockets_behave_as_two_queues(deeds in deeds()) {
        block_on(async { run(Relayed::tcp(&options()).await, &deeds).await });
    }

    #[test]
    fn copied_sockets_behave_as_two_queues(deeds in deeds()) {
        block_on(async { run(Relayed::tcp(&copying()).await, &deeds).await });
    }
}
