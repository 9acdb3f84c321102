//! RFC 7873 and RFC 9018 from the client's end, and what happens with servers that bear no options of ours.

use super::*;

/// A cookie with this server's part.
fn full(client: &[u8], server: u8) -> Vec<u8> {
    [&client[..8], &[server; 16]].concat()
}

/// Has the server learn the upstream's cookie, and returns it.
async fn introduce(scripted: &Scripted) -> Vec<u8> {
    let client = scripted.ask(query("introduce.example", 1));
    let (asked, from) = scripted.receive().await;
    let cookie = full(&option(&asked, COOKIE).expect("a cookie goes with the first query"), 1);
    scripted.answer(&reply(&asked, 0, Some(&[(COOKIE, &cookie)])), from).await;
    client.await.unwrap().unwrap();
    cookie
}

#[tokio::test]
async fn a_server_cookie_is_learned_sent_back_and_kept_from_clients() {
    let scripted = Scripted::with_cookies().await;
    let client = scripted.ask(query("one.example", 1));
    let (asked, from) = scripted.receive().await;
    let cookie = option(&asked, COOKIE).unwrap();
    assert_eq!(cookie.len(), 8, "the client cookie alone");
    let cookie = full(&cookie, 7);
    scripted.answer(&reply(&asked, 3, Some(&[(COOKIE, &cookie)])), from).await;
    let answer = client.await.unwrap().unwrap();
    assert_eq!((rcode(&answer), options(&answer)), (3, Some(vec![])), "the client's answer has OPT and no cookie");
    let client = scripted.ask(query("two.example", 1));
    let (asked, from) = scripted.receive().await;
    assert_eq!(option(&asked, COOKIE).unwrap(), cookie);
    scripted.answer(&reply(&asked, 0, Some(&[(COOKIE, &cookie)])), from).await;
    client.await.unwrap().unwrap();
    let row = &scripted.server.pools()[0];
    assert_eq!((row.cookies, row.cookie_errors), (Some("yes"), 0));
    scripted.end().await;
}

#[tokio::test]
async fn a_clients_own_cookie_is_not_passed_on() {
    let scripted = Scripted::with_cookies().await;
    let client = scripted.ask(with_options("own.example", &[(COOKIE, &[9; 8]), (65_001, &[1])]));
    let (asked, from) = scripted.receive().await;
    let cookie = option(&asked, COOKIE).unwrap();
    assert_ne!(cookie, [9; 8]);
    assert_eq!(options(&asked).unwrap(), [(65_001, vec![1]), (COOKIE, cookie)]);
    scripted.answer(&reply(&asked, 0, Some(&[])), from).await;
    client.await.unwrap().unwrap();
    scripted.end().await;
}

#[tokio::test]
async fn after_badcookie_the_query_goes_once_more_and_then_over_tcp() {
    let scripted = Scripted::with_cookies().await;
    let old = introduce(&scripted).await;
    let client = scripted.ask(query("stale.example", 1));
    let (asked, from) = scripted.receive().await;
    assert_eq!(option(&asked, COOKIE).unwrap(), old);
    let new = full(&old, 2);
    scripted.answer(&reply(&asked, 23, Some(&[(COOKIE, &new)])), from).await;
    let (asked, from) = scripted.receive().await;
    assert_eq!(option(&asked, COOKIE).unwrap(), new, "with the cookie that it gave");
    scripted.answer(&reply(&asked, 23, Some(&[(COOKIE, &new)])), from).await;
    let mut stream = scripted.accept().await;
    let asked = stream.receive().await.unwrap();
    assert_eq!(option(&asked, COOKIE).unwrap(), new, "it is the same server");
    stream.send(&reply(&asked, 3, Some(&[(COOKIE, &new)]))).await;
    assert_eq!(rcode(&client.await.unwrap().unwrap()), 3, "the answer, and not BADCOOKIE");
    assert_eq!(scripted.server.pools()[0].cookie_errors, 2);
    scripted.end().await;
}

#[tokio::test]
async fn badcookie_over_tcp_too_is_a_failure_and_not_the_clients_answer() {
    let scripted = Scripted::with_cookies().await;
    let client = scripted.ask(query("never.example", 1));
    for _ in 0..2 {
        let (asked, from) = scripted.receive().await;
        let cookie = full(&option(&asked, COOKIE).unwrap(), 2);
        scripted.answer(&reply(&asked, 23, Some(&[(COOKIE, &cookie)])), from).await;
    }
    let mut stream = scripted.accept().await;
    let asked = stream.receive().await.unwrap();
    let cookie = option(&asked, COOKIE).unwrap();
    stream.send(&reply(&asked, 23, Some(&[(COOKIE, &cookie)]))).await;
    let answer = client.await.unwrap().unwrap();
    assert_eq!((rcode(&answer), answer[question_end(&answer) + 5]), (2, 0), "SERVFAIL");
    scripted.end().await;
}

#[tokio::test]
async fn an_answer_with_the_cookie_of_another_client_is_dropped() {
    let scripted = Scripted::with_cookies().await;
    let cookie = introduce(&scripted).await;
    let client = scripted.ask(query("forged.example", 1));
    let (asked, from) = scripted.receive().await;
    let mut other = cookie.clone();
    other[0] ^= 1;
    for wrong in [&other[..], &cookie[..9], &[0; 41]] {
        scripted.answer(&reply(&asked, 3, Some(&[(COOKIE, wrong)])), from).await;
    }
    scripted.answer(&reply(&asked, 0, Some(&[(COOKIE, &cookie)])), from).await;
    assert_eq!(rcode(&client.await.unwrap().unwrap()), 0, "only the right one was taken");
    assert_eq!(scripted.server.pools()[0].cookie_errors, 3);
    assert!(scripted.server.status().wrong_answers >= 3);
    scripted.end().await;
}

#[tokio::test]
async fn an_answer_without_cookie_from_a_server_that_has_them_is_not_taken_and_leads_to_tcp() {
    let scripted = Scripted::with_cookies().await;
    introduce(&scripted).await;
    let client = scripted.ask(query("bare.example", 1));
    let (asked, from) = scripted.receive().await;
    scripted.answer(&reply(&asked, 3, Some(&[])), from).await;
    scripted.answer(&reply(&asked, 3, None), from).await;
    let mut stream = scripted.accept().await;
    let asked = stream.receive().await.unwrap();
    stream.send(&reply(&asked, 0, Some(&[]))).await;
    assert_eq!(rcode(&client.await.unwrap().unwrap()), 0, "the answer over TCP");
    // Over TCP it has none either: it gave cookies up, and is understood at once from then on.
    let client = scripted.ask(query("after.example", 1));
    let (asked, from) = scripted.receive().await;
    assert_eq!(option(&asked, COOKIE), None);
    scripted.answer(&reply(&asked, 3, Some(&[])), from).await;
    assert_eq!(rcode(&client.await.unwrap().unwrap()), 3);
    let row = &scripted.server.pools()[0];
    assert_eq!((row.cookies, row.breaker), (Some("no"), "closed"));
    scripted.end().await;
}

#[tokio::test]
async fn a_right_answer_behind_one_without_cookie_is_taken() {
    let scripted = Scripted::with_cookies().await;
    let cookie = introduce(&scripted).await;
    let client = scripted.ask(query("behind.example", 1));
    let (asked, from) = scripted.receive().await;
    scripted.answer(&reply(&asked, 3, Some(&[])), from).await;
    scripted.answer(&reply(&asked, 0, Some(&[(COOKIE, &cookie)])), from).await;
    assert_eq!(rcode(&client.await.unwrap().unwrap()), 0);
    scripted.end().await;
}

#[tokio::test]
async fn a_server_without_cookies_is_not_bothered_again() {
    let scripted = Scripted::with_cookies().await;
    let client = scripted.ask(query("first.example", 1));
    let (asked, from) = scripted.receive().await;
    assert!(option(&asked, COOKIE).is_some());
    scripted.answer(&reply(&asked, 0, Some(&[])), from).await;
    client.await.unwrap().unwrap();
    for query in [query("second.example", 1), without_edns("third.example")] {
        let client = scripted.ask(query.clone());
        let (asked, from) = scripted.receive().await;
        assert_eq!(asked[2..], query[2..], "the client's query, but for its id");
        scripted.answer(&reply(&asked, 0, None), from).await;
        client.await.unwrap().unwrap();
    }
    assert_eq!(scripted.server.pools()[0].cookies, Some("no"));
    scripted.end().await;
}

#[tokio::test]
async fn a_client_without_edns_gets_none_though_the_query_went_with_some() {
    let scripted = Scripted::with_cookies().await;
    for (code, seen) in [(0, 0), (3, 3), (16, 2), (24, 2)] {
        let client = scripted.ask(without_edns(&format!("plain{code}.example")));
        let (mut asked, mut from) = scripted.receive().await;
        let cookie = full(&option(&asked, COOKIE).unwrap(), 7);
        let at = question_end(&asked);
        assert_eq!(asked[at..at + 9], [0, 0, 41, 4, 208, 0, 0, 0, 0], "our own payload size, and DO is clear");
        scripted.answer(&reply(&asked, code, Some(&[(COOKIE, &cookie)])), from).await;
        if code == 16 {
            // BADVERS to version 0 may be about the options.
            (asked, from) = scripted.receive().await;
            assert_eq!(options(&asked), None);
            scripted.answer(&reply(&asked, code, Some(&[])), from).await;
        }
        let answer = client.await.unwrap().unwrap();
        assert_eq!((options(&answer), u16::from(rcode(&answer))), (None, seen), "rcode {code}");
    }
    scripted.end().await;
}

#[tokio::test]
async fn a_server_that_refuses_edns_is_asked_without_and_remembered() {
    let scripted = Scripted::with_cookies().await;
    let client = scripted.ask(without_edns("old.example"));
    let (asked, from) = scripted.receive().await;
    assert!(option(&asked, COOKIE).is_some());
    scripted.answer(&reply(&asked, 1, None), from).await;
    let (asked, from) = scripted.receive().await;
    assert_eq!(options(&asked), None, "as the client sent it");
    scripted.answer(&reply(&asked, 0, None), from).await;
    assert_eq!(rcode(&client.await.unwrap().unwrap()), 0);
    let client = scripted.ask(without_edns("again.example"));
    let (asked, from) = scripted.receive().await;
    assert_eq!(options(&asked), None);
    scripted.answer(&reply(&asked, 0, None), from).await;
    client.await.unwrap().unwrap();
    scripted.end().await;
}

#[tokio::test]
async fn an_error_about_the_query_itself_is_the_clients_answer() {
    let scripted = Scripted::with_cookies().await;
    introduce(&scripted).await;
    let client = scripted.ask(query("strange.example", 1));
    for round in 0..2 {
        let (asked, from) = scripted.receive().await;
        let cookie = option(&asked, COOKIE);
        assert_eq!(cookie.is_some(), round == 0);
        let cookie = cookie.map(|cookie| [(COOKIE, cookie)]);
        let options: Vec<(u16, &[u8])> = cookie.iter().flatten().map(|(code, data)| (*code, &data[..])).collect();
        scripted.answer(&reply(&asked, 1, Some(&options)), from).await;
    }
    assert_eq!(rcode(&client.await.unwrap().unwrap()), 1);
    // It refused the query without options too: nothing is learned from that, whatever a client may send.
    let client = scripted.ask(query("usual.example", 1));
    let (asked, from) = scripted.receive().await;
    let cookie = option(&asked, COOKIE).expect("cookies go on");
    scripted.answer(&reply(&asked, 0, Some(&[(COOKIE, &cookie)])), from).await;
    client.await.unwrap().unwrap();
    scripted.end().await;
}

#[tokio::test]
async fn silence_towards_a_first_cookie_is_met_without_one() {
    let scripted = Scripted::with_cookies().await;
    let client = scripted.ask(query("silent.example", 1));
    let (asked, _) = scripted.receive().await;
    assert!(option(&asked, COOKIE).is_some());
    let (asked, from) = scripted.receive().await;
    assert_eq!(option(&asked, COOKIE), None);
    scripted.answer(&reply(&asked, 0, Some(&[])), from).await;
    client.await.unwrap().unwrap();
    assert_eq!(scripted.server.pools()[0].cookies, Some("no"));
    scripted.end().await;
}

#[tokio::test]
async fn a_signed_query_goes_as_it_is() {
    let scripted = Scripted::with_cookies().await;
    let mut signed = with_options("signed.example", &[(COOKIE, &[9; 8])]);
    // TSIG with an empty algorithm and no data, which only the one who signed could judge.
    signed.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
    signed[11] = 2;
    let _client = scripted.ask(signed.clone());
    let (asked, _) = scripted.receive().await;
    assert_eq!(asked[2..], signed[2..]);
    scripted.server.stop(std::time::Duration::from_millis(50)).await;
}

#[tokio::test]
async fn an_upstream_that_lowers_letters_is_asked_over_tcp_and_then_spared_0x20() {
    let scripted = Scripted::start(|config| config.upstreams[0].case_randomization = true).await;
    let name = "a.long.name.with.so.many.letters.that.chance.is.no.reason";
    let mut stream = None;
    for round in 0..5 {
        let query = query(&format!("{name}.n{round}"), 1);
        let end = question_end(&query);
        let client = scripted.ask(query.clone());
        let (asked, from) = scripted.receive().await;
        let randomized = asked[12..end] != query[12..end];
        assert_eq!(randomized, round < 3, "round {round}");
        let mut answer = reply(&asked, 3, None);
        answer[12..end].make_ascii_lowercase();
        scripted.answer(&answer, from).await;
        if randomized {
            if stream.is_none() {
                stream = Some(scripted.accept().await);
            }
            let stream = stream.as_mut().unwrap();
            let asked = stream.receive().await.unwrap();
            stream.send(&reply(&asked, 0, None)).await;
        }
        let answer = client.await.unwrap().unwrap();
        assert_eq!(rcode(&answer), if randomized { 0 } else { 3 }, "round {round}");
        assert_eq!(answer[12..end], query[12..end], "the client's own case");
        assert_eq!(scripted.server.pools()[0].keeps_case, Some(round < 2));
    }
    // All else is still demanded.
    let query = query("still.example", 1);
    let client = scripted.ask(query);
    let (asked, from) = scripted.receive().await;
    let mut forged = reply(&asked, 3, None);
    forged[13] ^= 1;
    scripted.answer(&forged, from).await;
    scripted.answer(&reply(&asked, 0, None), from).await;
    assert_eq!(rcode(&client.await.unwrap().unwrap()), 0);
    scripted.end().await;
}
