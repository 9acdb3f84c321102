//! DNS over UDP: answers, datagram faults, timing, sources.

use std::time::{Duration, Instant};

use keepwarm_lab::{Faults, answer_matches, build_query, expected_a};
use tokio::net::UdpSocket;

use crate::client::{A, TXT, lab, never, receive, tcp, udp, until};

fn elapsed_since(start: tokio::time::Instant) -> Duration {
    let now: Instant = tokio::time::Instant::now().into_std();
    now - start.into_std()
}

#[tokio::test]
async fn an_answer_encodes_its_question() {
    let lab = lab(Faults::default()).await;
    let socket = udp(&lab).await;
    let query = build_query(7, "wWw.Example.test", A, Some(1232));
    socket.send(&query).await.unwrap();
    let answer = receive(&socket).await;
    answer_matches(&query, &answer).unwrap();
    let record = answer.len() - 11 - 4;
    assert_eq!(answer[record..record + 4], expected_a("www.example.test").octets());
    let udp = lab.counters().udp;
    assert_eq!((udp.queries, udp.answers, udp.sockets, udp.source_ports), (1, 1, 1, 1));
    assert_eq!((udp.in_flight_max, udp.bad, udp.accepted), (1, 0, 0));
    assert_eq!(lab.counters().tcp, Default::default());
    lab.stop().await;
}

#[tokio::test]
async fn special_names_answer_as_they_say() {
    let lab = lab(Faults::default()).await;
    let socket = udp(&lab).await;
    for (name, rcode) in [("nx.test", 3), ("nodata.test", 0), ("servfail.test", 2), ("REFUSED.test", 5)] {
        let query = build_query(7, name, A, None);
        socket.send(&query).await.unwrap();
        let answer = receive(&socket).await;
        answer_matches(&query, &answer).unwrap();
        assert_eq!(answer[3] & 15, rcode, "{name}");
        let authority = u8::from(name.starts_with('n'));
        assert_eq!((answer[7], answer[9]), (0, authority), "{name}");
    }
    let start = tokio::time::Instant::now();
    socket.send(&build_query(7, "delay-60.test", A, None)).await.unwrap();
    receive(&socket).await;
    assert!(elapsed_since(start) >= Duration::from_millis(60));
    socket.send(&build_query(7, "drop.test", A, None)).await.unwrap();
    never(socket.recv(&mut [0; 512])).await;
    assert_eq!((lab.counters().udp.queries, lab.counters().udp.answers), (6, 5));
}

#[tokio::test]
async fn a_big_answer_is_cut_over_udp_and_whole_over_tcp_on_the_same_port() {
    let lab = lab(Faults::default()).await;
    assert_eq!(lab.udp_addr(), lab.tcp_addr());
    let socket = udp(&lab).await;
    let query = build_query(7, "big.test", TXT, Some(1232));
    socket.send(&query).await.unwrap();
    let cut = receive(&socket).await;
    assert!(cut[2] & 2 != 0 && cut.len() < 512);
    let mut stream = tcp(lab.tcp_addr()).await;
    crate::client::write_message(&mut stream, &query).await;
    let whole = crate::client::read_message(&mut stream).await.unwrap();
    answer_matches(&query, &whole).unwrap();
    assert!(whole.len() > 2_900);
    let query = build_query(7, "big.test", TXT, Some(4096));
    socket.send(&query).await.unwrap();
    answer_matches(&query, &receive(&socket).await).unwrap();
}

#[tokio::test]
async fn sources_are_counted() {
    let lab = lab(Faults::default()).await;
    let one = udp(&lab).await;
    let port = one.local_addr().unwrap().port();
    let two = UdpSocket::bind(("127.0.0.2", port)).await.unwrap();
    two.connect(lab.udp_addr()).await.unwrap();
    let three = udp(&lab).await;
    for socket in [&one, &two, &three, &one] {
        socket.send(&build_query(7, "a.test", A, None)).await.unwrap();
        receive(socket).await;
    }
    let counted = lab.counters().udp;
    assert_eq!((counted.queries, counted.sockets, counted.source_ports), (4, 3, 2));
    lab.reset_counters();
    assert_eq!(lab.counters().udp, Default::default());
}

#[tokio::test]
async fn loss_and_silence_and_refusal_lose_datagrams() {
    let lab = lab(Faults { loss: 1.0, ..Faults::default() }).await;
    let socket = udp(&lab).await;
    let changes: [fn(&mut Faults); 3] = [|_| {}, |faults| faults.silent = true, |faults| faults.refuse = true];
    for (number, change) in (1..).zip(changes) {
        let mut faults = if number == 1 { Faults { loss: 1.0, ..Faults::default() } } else { Faults::default() };
        change(&mut faults);
        lab.set_faults(faults);
        socket.send(&build_query(7, "a.test", A, None)).await.unwrap();
        never(socket.recv(&mut [0; 512])).await;
        assert_eq!((lab.counters().udp.queries, lab.counters().udp.answers), (number, 0));
    }
    lab.set_faults(Faults::default());
    socket.send(&build_query(7, "a.test", A, None)).await.unwrap();
    receive(&socket).await;
    assert_eq!(lab.counters().udp.in_flight_max, 1, "lost queries are not in flight");
}

#[tokio::test]
async fn a_share_is_about_that_share() {
    let lab = lab(Faults { loss: 0.25, ..Faults::default() }).await;
    let socket = udp(&lab).await;
    for id in 0..2_000 {
        socket.send(&build_query(id, "a.test", A, None)).await.unwrap();
    }
    until(|| lab.counters().udp.queries == 2_000).await;
    let answers = lab.counters().udp.answers;
    // Five standard deviations are 97.
    assert!((1_400..1_600).contains(&answers), "{answers}");
}

#[tokio::test]
async fn truncation_rcode_and_ttl_are_as_told() {
    let lab = lab(Faults { truncate: 1.0, ..Faults::default() }).await;
    let socket = udp(&lab).await;
    let query = build_query(7, "a.test", A, None);
    socket.send(&query).await.unwrap();
    let answer = receive(&socket).await;
    assert_eq!((answer[2] & 2, answer[7]), (2, 0));
    assert_eq!(answer_matches(&query, &answer), Err("truncated".to_owned()));
    lab.set_faults(Faults { rcode: Some(2), ..Faults::default() });
    socket.send(&query).await.unwrap();
    assert_eq!(receive(&socket).await[3] & 15, 2);
    lab.set_faults(Faults { ttl: 0x0102_0304, ..Faults::default() });
    socket.send(&query).await.unwrap();
    let answer = receive(&socket).await;
    assert_eq!(answer[query.len() + 6..query.len() + 10], [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_delay_is_kept_and_queries_wait_side_by_side() {
    let delay = Duration::from_millis(50);
    let lab = lab(Faults { delay, jitter: Duration::from_millis(20), ..Faults::default() }).await;
    let socket = udp(&lab).await;
    let start = tokio::time::Instant::now();
    for id in 0..500 {
        socket.send(&build_query(id, &format!("q{id}.test"), A, None)).await.unwrap();
    }
    let mut seen = [false; 500];
    for _ in 0..500 {
        let answer = receive(&socket).await;
        assert!(elapsed_since(start) >= delay);
        let id = u16::from_be_bytes([answer[0], answer[1]]);
        answer_matches(&build_query(id, &format!("q{id}.test"), A, None), &answer).unwrap();
        assert!(!std::mem::replace(&mut seen[usize::from(id)], true));
    }
    assert!(elapsed_since(start) < 100 * delay, "one after the other would take 25 s");
    assert_eq!((lab.counters().udp.answers, lab.counters().udp.in_flight_max), (500, 500));
}

#[tokio::test]
async fn late_answers_come_late_and_duplicates_twice() {
    let late_by = Duration::from_millis(80);
    let lab = lab(Faults { late: 1.0, late_by, duplicate: 1.0, ..Faults::default() }).await;
    let socket = udp(&lab).await;
    let query = build_query(7, "a.test", A, None);
    let start = tokio::time::Instant::now();
    socket.send(&query).await.unwrap();
    for _ in 0..2 {
        answer_matches(&query, &receive(&socket).await).unwrap();
    }
    assert!(elapsed_since(start) >= late_by);
    never(socket.recv(&mut [0; 512])).await;
    assert_eq!((lab.counters().udp.queries, lab.counters().udp.answers), (1, 2));
}

#[tokio::test]
async fn a_forged_answer_comes_before_the_true_one() {
    let lab = lab(Faults { forge: 1.0, ..Faults::default() }).await;
    let socket = udp(&lab).await;
    let (mut wrong_ids, mut wrong_questions) = (0, 0);
    for id in 0..100 {
        let query = build_query(id, "a.test", A, None);
        socket.send(&query).await.unwrap();
        let forged = receive(&socket).await;
        match answer_matches(&query, &forged).unwrap_err() {
            error if error.starts_with("id") => wrong_ids += 1,
            error if error.starts_with("question") => wrong_questions += 1,
            error => panic!("{error}"),
        }
        answer_matches(&query, &receive(&socket).await).unwrap();
    }
    // Chance alone would miss one of the kinds once in 10^17 runs.
    assert!(wrong_ids > 0 && wrong_questions > 0, "{wrong_ids} {wrong_questions}");
    assert_eq!(lab.counters().udp.answers, 200);
}

#[tokio::test]
async fn two_waiting_answers_are_swapped_and_a_lonely_one_is_not() {
    let lab = lab(Faults { swap: 1.0, ..Faults::default() }).await;
    let socket = udp(&lab).await;
    let (one, two) = (build_query(1, "one.test", A, None), build_query(2, "two.test", A, None));
    socket.send(&one).await.unwrap();
    socket.send(&two).await.unwrap();
    for _ in 0..2 {
        let answer = receive(&socket).await;
        let (own, other) = if answer[1] == 1 { (&one, &two) } else { (&two, &one) };
        assert!(answer_matches(own, &answer).unwrap_err().starts_with("question"));
        let mut foreign = answer.clone();
        foreign[1] = other[1];
        answer_matches(other, &foreign).unwrap();
    }
    socket.send(&one).await.unwrap();
    answer_matches(&one, &receive(&socket).await).unwrap();
    assert_eq!(lab.counters().udp.answers, 3);
}

#[tokio::test]
async fn bad_datagrams_are_counted_and_answered_if_they_may_be() {
    let lab = lab(Faults::default()).await;
    let socket = udp(&lab).await;
    let query = build_query(0x0909, "a.test", A, None);
    socket.send(&query[..5]).await.unwrap();
    socket.send(&query[..14]).await.unwrap();
    let answer = receive(&socket).await;
    assert_eq!((&answer[..2], answer[3] & 15, answer.len()), (&[9, 9][..], 1, 12));
    let counted = lab.counters().udp;
    assert_eq!((counted.bad, counted.queries, counted.answers), (2, 0, 0));
}

#[tokio::test]
async fn a_burst_of_three_thousand_is_not_lost() {
    let lab = lab(Faults { delay: Duration::from_millis(20), ..Faults::default() }).await;
    // All of it waits in the lab's buffer, as this one thread reads nothing meanwhile. A system that grants less than the
    // lab asks for holds less.
    let granted = {
        let probe = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        probe.set_recv_buffer_size(4 << 20).unwrap();
        probe.recv_buffer_size().unwrap()
    };
    let count = (granted / 1_024 / 100).min(30);
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = udp(&lab).await;
        socket.writable().await.unwrap();
        sockets.push(socket);
    }
    for socket in &sockets {
        for id in 0..100 {
            socket.try_send(&build_query(id, &format!("q{id}.test"), A, None)).unwrap();
        }
    }
    for socket in &sockets {
        for _ in 0..100 {
            receive(socket).await;
        }
    }
    let (counted, count) = (lab.counters().udp, count as u64);
    assert_eq!((counted.queries, counted.answers, counted.sockets), (100 * count, 100 * count, count));
}
