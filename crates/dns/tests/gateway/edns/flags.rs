//! AD, CD, DO and RA pass through untouched (RFC 4035 section 3.2, RFC 6840 sections 5.7 to 5.9, RFC 3225 section 3), and
//! answers are not shared between queries that differ in them.

use keepwarm_dns::config::CacheSettings;

use super::*;

const AD: u8 = 0x20;
const CD: u8 = 0x10;
const RA: u8 = 0x80;

/// What a client sends.
#[derive(Debug, Clone, Copy)]
struct Asks {
    ad: bool,
    cd: bool,
    /// `None`: no EDNS.
    dnssec_ok: Option<bool>,
}

fn asks() -> impl Iterator<Item = Asks> {
    let both = [false, true];
    both.into_iter().flat_map(move |ad| {
        both.into_iter().flat_map(move |cd| {
            [None, Some(false), Some(true)].into_iter().map(move |dnssec_ok| Asks { ad, cd, dnssec_ok })
        })
    })
}

fn asked_with(name: &str, asks: Asks) -> Vec<u8> {
    let mut query = if asks.dnssec_ok.is_some() { query(name, 1) } else { without_edns(name) };
    query[3] |= if asks.ad { AD } else { 0 } | if asks.cd { CD } else { 0 };
    if asks.dnssec_ok == Some(true) {
        let flags = query.len() - 4;
        query[flags] |= 0x80;
    }
    query
}

/// The DO bit; `None` without EDNS.
fn dnssec_ok(message: &[u8]) -> Option<bool> {
    (message[11] > 0).then(|| message[question_end(message) + 7] & 0x80 != 0)
}

#[tokio::test]
async fn bits_of_dnssec_pass_both_ways_untouched() {
    let scripted = Scripted::with_cookies().await;
    for (number, asks) in asks().enumerate() {
        for (says, bits) in [0, AD, RA, RA | AD].into_iter().enumerate() {
            let query = asked_with(&format!("n{number}.s{says}.example"), asks);
            let client = scripted.ask(query.clone());
            let (asked, from) = scripted.receive().await;
            assert_eq!(asked[2..4], query[2..4], "{asks:?}: the header's flags");
            assert_eq!(dnssec_ok(&asked).unwrap_or(false), asks.dnssec_ok == Some(true), "{asks:?}: DO");
            let mut answer = reply(&asked, 0, options(&asked).map(|_| &[][..]));
            answer[3] = bits | asked[3] & CD;
            if asks.dnssec_ok == Some(true) {
                let flags = answer.len() - 4;
                answer[flags] |= 0x80;
            }
            scripted.answer(&answer, from).await;
            let got = client.await.unwrap().unwrap();
            assert_eq!(got[3], bits | query[3] & CD, "{asks:?}: AD and RA are the upstream's, CD is the client's");
            assert_eq!(dnssec_ok(&got), asks.dnssec_ok, "{asks:?}: OPT and DO are the client's");
        }
    }
    scripted.end().await;
}

#[tokio::test]
async fn an_answer_is_not_shared_between_queries_with_other_bits() {
    let scripted = Scripted::start(|config| config.cache = CacheSettings::default()).await;
    let mut seen = std::collections::HashSet::new();
    for asks in asks() {
        // A client without EDNS and one with empty EDNS ask the same.
        let key = (asks.ad, asks.cd, asks.dnssec_ok == Some(true));
        let query = asked_with("shared.example", asks);
        let client = scripted.ask(query);
        if seen.insert(key) {
            let (asked, from) = scripted.receive().await;
            let mut answer = reply(&asked, 0, None);
            let opt = (answer.split_off(question_end(&asked)), asked[question_end(&asked)..].to_vec()).1;
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            (answer[7], answer[11]) = (1, asked[11]);
            answer.extend_from_slice(&opt);
            answer[3] |= if asks.ad { AD } else { 0 };
            scripted.answer(&answer, from).await;
        }
        let got = client.await.unwrap().unwrap();
        assert_eq!((got[3] & AD != 0, got[3] & CD != 0), (asks.ad, asks.cd), "{asks:?}");
    }
    assert_eq!((seen.len(), scripted.server.status().cache_hits), (8, 4));
    scripted.end().await;
}
