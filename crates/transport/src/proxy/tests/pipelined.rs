//! What is sent ahead of the proxy's word, and relays of datagrams.

use super::*;

const GREETED: &[u8] = b"\x05\x01\x02\x01\x03ann\x07hunter2";

/// Plays a proxy that hears everything before it says anything.
fn play_late(theirs: DuplexStream, heard: &[&[u8]], said: &[&[u8]]) -> impl Future<Output = DuplexStream> + use<> {
    play(theirs, vec![Hear(heard.concat()), Say(said.concat())], b"")
}

#[tokio::test(start_paused = true)]
async fn greeting_and_password_are_one_write() {
    let (ours, theirs) = duplex(1024);
    let proxy = proxy("socks5://ann:hunter2@p");
    let (greeted, _theirs) =
        tokio::join!(proxy.greet_pipelined(ours, soon()), play_late(theirs, &[GREETED], &[b"\x05\x02\x01\x00"]));
    greeted.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_a_password_there_is_nothing_to_pipeline() {
    let (ours, theirs) = duplex(1024);
    let socks = proxy("socks5://p");
    let (greeted, _theirs) =
        tokio::join!(socks.greet_pipelined(ours, soon()), play_late(theirs, &[b"\x05\x01\x00"], &[b"\x05\x00"]));
    greeted.unwrap();
    let (ours, mut theirs) = duplex(1024);
    let greeted = proxy("http://ann:hunter2@p:1").greet_pipelined(ours, soon()).await.unwrap();
    drop(greeted);
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"");
}

#[tokio::test(start_paused = true)]
async fn a_password_that_nobody_asked_for_spoils_the_connection() {
    for (said, kind, text) in [
        (&b"\x05\x00"[..], ErrorKind::Proxy, "it wants no password where one is on its way"),
        (b"\x05\xff", ErrorKind::ProxyAuth, "does not take a user and password"),
        (b"\x05\x01", ErrorKind::Proxy, "method 1, which was not offered"),
        (b"\x05\x02\x01\x01", ErrorKind::ProxyAuth, "does not accept the user and password"),
    ] {
        let (ours, theirs) = duplex(1024);
        let proxy = proxy("socks5://ann:hunter2@p");
        let (greeted, _theirs) =
            tokio::join!(proxy.greet_pipelined(ours, soon()), play_late(theirs, &[GREETED], &[said]));
        let error = greeted.unwrap_err();
        assert_eq!((error.kind(), Blame::of(&error)), (kind, Blame::Proxy), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

/// Sends a payload ahead over a pipe that holds `size` bytes, and checks that the proxy hears `expected` and all of the payload, and we
/// what follows its word.
async fn carries(url: &str, size: usize, payload: &[u8], expected: &[u8], said: &[u8]) {
    let (ours, theirs) = duplex(size);
    let proxy = proxy(url);
    let pipelined = proxy.protocol == ProxyProtocol::Socks5;
    let us = async {
        let mut stream = if pipelined {
            proxy.connect_pipelined(ours, &target(), payload, soon()).await.unwrap()
        } else {
            proxy.greet(ours, soon()).await.unwrap().connect_with(&target(), payload, soon()).await.unwrap()
        };
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"rest");
    };
    let them = async {
        let ahead = &payload[..payload.len().min(AHEAD_MAX)];
        let mut stream = play_late(theirs, &[expected, ahead], &[said, b"rest"]).await;
        let mut late = vec![0; payload.len() - ahead.len()];
        stream.read_exact(&mut late).await.unwrap();
        assert!(late == payload[ahead.len()..]);
        // Nothing but the payload comes.
        let mut more = Vec::new();
        stream.read_to_end(&mut more).await.unwrap();
        assert_eq!(more, b"");
    };
    tokio::join!(us, them);
}

#[tokio::test(start_paused = true)]
async fn payload_goes_ahead_of_the_proxys_word_up_to_a_bound() {
    let long: Vec<u8> = (0..40_000_u32).flat_map(u32::to_be_bytes).collect();
    for payload in [&b""[..], b"\x16\x03\x01 hello", &long[..AHEAD_MAX], &long[..=AHEAD_MAX], &long] {
        for size in [7, 64 * 1024] {
            let said = [b"\x05\x02\x01\x00", CONNECTED].concat();
            let heard = [GREETED, CONNECT_NAME].concat();
            carries("socks5://ann:hunter2@p", size, payload, &heard, &said).await;
            let said = [b"\x05\x00", CONNECTED].concat();
            let heard = [b"\x05\x01\x00", CONNECT_NAME].concat();
            carries("socks5://p", size, payload, &heard, &said).await;
            carries("http://p:1", size, payload, HTTP_REQUEST, b"HTTP/1.1 200 OK\r\n\r\n").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_greeted_connection_takes_payload_with_its_request() {
    let (ours, theirs) = duplex(1024);
    let proxy = proxy("socks5://p");
    let turns = vec![hear(b"\x05\x01\x00"), say(b"\x05\x00"), hear(&[CONNECT_NAME, b"hello"].concat()), say(CONNECTED)];
    let us = async { proxy.greet(ours, soon()).await.unwrap().connect_with(&target(), b"hello", soon()).await };
    let (connected, _theirs) = tokio::join!(us, play(theirs, turns, b""));
    connected.unwrap();
}

#[tokio::test(start_paused = true)]
async fn http_in_one_write_is_its_request_and_the_payload() {
    let (ours, theirs) = duplex(1024);
    let proxy = proxy("http://p:1");
    let them = play_late(theirs, &[HTTP_REQUEST, b"hello"], &[b"HTTP/1.1 200 OK\r\n\r\n"]);
    let target = target();
    let (connected, _theirs) = tokio::join!(proxy.connect_pipelined(ours, &target, b"hello", soon()), them);
    connected.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_apart_when_everything_was_sent_at_once() {
    for (said, kind, blame, tried) in [
        (&b"\x05\x00\x05\x05"[..], ErrorKind::Refused, Blame::Destination, "connect to tiles.example:443 through"),
        (b"\x05\x00\x05\x01", ErrorKind::ProxyGeneral, Blame::Declined, "connect to tiles.example:443 through"),
        (b"\x05\x02", ErrorKind::ProxyAuth, Blame::Proxy, "greet socks5://p:1080"),
        (b"\x05\x00\x05", ErrorKind::TimedOut(Phase::Connect), Blame::Destination, "connect to tiles.example:443"),
        (b"\x05", ErrorKind::TimedOut(Phase::Proxy), Blame::Proxy, "greet socks5://p:1080"),
    ] {
        let (ours, theirs) = duplex(1024);
        let proxy = proxy("socks5://p");
        let heard = [b"\x05\x01\x00", CONNECT_NAME, b"hello"];
        let target = target();
        let us = proxy.connect_pipelined(ours, &target, b"hello", after(Duration::from_secs(3)));
        let (connected, _theirs) = tokio::join!(us, play_late(theirs, &heard, &[said]));
        let error = connected.unwrap_err();
        assert_eq!((error.kind(), Blame::of(&error)), (kind, blame), "{error}");
        assert!(error.to_string().starts_with(tried), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_does_not_take_the_rest_is_given_up_at_the_deadline() {
    let (ours, theirs) = duplex(4096);
    let proxy = proxy("http://p:1");
    let payload = vec![7; 64 * 1024];
    let heard = [HTTP_REQUEST, &payload[..AHEAD_MAX]];
    let target = target();
    let us = proxy.connect_pipelined(ours, &target, &payload, after(Duration::from_secs(3)));
    let (connected, _theirs) = tokio::join!(us, play_late(theirs, &heard, &[b"HTTP/1.1 200 OK\r\n\r\n"]));
    let error = connected.unwrap_err();
    assert_eq!((error.kind(), Blame::of(&error)), (ErrorKind::TimedOut(Phase::Write), Blame::Destination), "{error}");
}

const ASSOCIATE: &[u8] = b"\x05\x03\x00\x01\0\0\0\0\0\0";

async fn associated(url: &str, heard: &[&[u8]], said: &[&[u8]]) -> Result<SocketAddr, Error> {
    let (ours, theirs) = duplex(1024);
    let greeted = Greeted { stream: ours, proxy: proxy(url) };
    let us = greeted.associate(IpAddr::from([192, 0, 2, 9]), after(Duration::from_secs(3)));
    let (relay, _theirs) = tokio::join!(us, play_late(theirs, heard, said));
    relay.map(|(_, relay)| relay)
}

#[tokio::test(start_paused = true)]
async fn a_relay_of_datagrams_is_where_the_proxy_says_or_at_the_proxy() {
    for (said, relay) in [
        (&b"\x05\0\0\x01\xc6\x33\x64\x07\x04\x38"[..], "198.51.100.7:1080"),
        (b"\x05\0\0\x01\0\0\0\0\x04\x38", "192.0.2.9:1080"),
        (b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\x38", "192.0.2.9:1080"),
        (b"\x05\0\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x04\x38", "[2001:db8::1]:1080"),
        (b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x01\x04\x38", "192.0.2.1:1080"),
    ] {
        assert_eq!(associated("socks5://p", &[ASSOCIATE], &[said]).await.unwrap(), relay.parse().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_there_is_not_says_nothing_of_a_destination() {
    for (said, kind, blame) in [
        (&b"\x05\x01"[..], ErrorKind::ProxyGeneral, Blame::Declined),
        (b"\x05\x02", ErrorKind::ProxyDenied, Blame::Declined),
        (b"\x05\x05", ErrorKind::ProxyGeneral, Blame::Declined),
        (b"\x05\x07", ErrorKind::ProxyUnsupported, Blame::Declined),
        (b"\x05\x09", ErrorKind::Proxy, Blame::Proxy),
        // The proxy is at 192.0.2.9, so its loopback is not ours.
        (b"\x05\0\0\x01\x7f\0\0\x01\x04\x38", ErrorKind::ProxyUnsupported, Blame::Declined),
        (b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01\x04\x38", ErrorKind::ProxyUnsupported, Blame::Declined),
        (b"\x05\0\0\x01\xff\xff\xff\xff\x04\x38", ErrorKind::ProxyUnsupported, Blame::Declined),
        (b"\x05\0\0\x01\xe0\0\0\x01\x04\x38", ErrorKind::ProxyUnsupported, Blame::Declined),
        (b"\x05\0\0\x03\x05proxy\x04\x38", ErrorKind::Proxy, Blame::Proxy),
        (b"\x05\0\0\x01\x7f\0\0\x01\0\0", ErrorKind::Proxy, Blame::Proxy),
        (b"\x05\0\0", ErrorKind::TimedOut(Phase::Proxy), Blame::Proxy),
    ] {
        let error = associated("socks5://p", &[ASSOCIATE], &[said]).await.unwrap_err();
        assert_eq!((error.kind(), Blame::of(&error)), (kind, blame), "{error}");
        assert!(error.to_string().starts_with("relay datagrams through socks5://p:1080: "), "{error}");
    }
    let error = associated("http://p:1", &[], &[]).await.unwrap_err();
    assert_eq!((error.kind(), Blame::of(&error)), (ErrorKind::ProxyUnsupported, Blame::Declined), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_speaks_unasked_or_leaves_spoils_what_waits() {
    let quiet = Duration::from_secs(60);
    for says in [&b"x"[..], b""] {
        let (ours, mut theirs) = duplex(1024);
        let mut greeted = Greeted { stream: ours, proxy: proxy("socks5://p") };
        assert!(tokio::time::timeout(quiet, spoilt(&mut greeted)).await.is_err());
        theirs.write_all(says).await.unwrap();
        let kept = (!says.is_empty()).then_some(theirs);
        tokio::time::timeout(quiet, spoilt(&mut greeted)).await.unwrap();
        drop(kept);
    }
}
