//! The policy on client subnets (RFC 7871), end to end. How addresses are cut is tested where it is done.

use keepwarm_dns::config::{CacheSettings, ClientSubnet};

use super::*;

const OWN: &[u8] = &[0, 1, 24, 0, 192, 0, 2];
const NONE: &[u8] = &[0, 1, 0, 0];
const FIXED: &[u8] = &[0, 1, 24, 0, 203, 0, 113];

/// Policy, what the client sends, what the upstream is told, and whether the client hears of it.
type Row = (ClientSubnet, Option<&'static [u8]>, Option<&'static [u8]>, bool);

async fn with_policy(policy: ClientSubnet) -> Scripted {
    Scripted::start(|config| {
        config.client_subnet = policy;
        config.cache = CacheSettings::default();
    })
    .await
}

fn fixed() -> ClientSubnet {
    ClientSubnet::Fixed("203.0.113.0/24".parse().unwrap())
}

/// What the upstream is told, and what the client hears when the upstream answers with the option that it was sent (or one
/// that nobody asked for) and scope 24. Of an address, so that it is kept.
async fn told_and_heard(scripted: &Scripted, query: Vec<u8>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let client = scripted.ask(query);
    let (asked, from) = scripted.receive().await;
    let told = option(&asked, SUBNET);
    let mut said = told.clone().unwrap_or_else(|| OWN.to_vec());
    said[3] = said[2];
    scripted.answer(&with_address(&asked, &[(SUBNET, &said)]), from).await;
    (told, heard(&client.await.unwrap().unwrap()))
}

fn with_address(asked: &[u8], options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut answer = reply(asked, 0, Some(options));
    let address = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
    answer[7] = 1;
    let at = question_end(asked);
    answer.splice(at..at, address);
    answer
}

/// The option in an answer with one address.
fn heard(answer: &[u8]) -> Option<Vec<u8>> {
    let mut bare = answer.to_vec();
    assert_eq!(bare[7], 1, "the address is there");
    let at = question_end(&bare);
    bare.drain(at..at + 16);
    bare[7] = 0;
    option(&bare, SUBNET)
}

fn scoped(option: &[u8]) -> Vec<u8> {
    let mut option = option.to_vec();
    option[3] = option[2];
    option
}

#[tokio::test]
async fn each_policy_tells_upstreams_and_clients_what_is_theirs() {
    let set = ClientSubnet::Set { v4: 24, v6: 56 };
    // Clients on loopback have no network that could be told.
    let table: [Row; 10] = [
        (ClientSubnet::Pass, None, None, false),
        (ClientSubnet::Pass, Some(OWN), Some(OWN), true),
        (ClientSubnet::Strip, None, None, false),
        (ClientSubnet::Strip, Some(OWN), None, false),
        (set, None, None, false),
        (set, Some(OWN), None, false),
        (set, Some(NONE), Some(NONE), true),
        (fixed(), None, Some(FIXED), false),
        (fixed(), Some(OWN), Some(FIXED), false),
        (fixed(), Some(FIXED), Some(FIXED), true),
    ];
    for (policy, sends, told, hears) in table {
        let scripted = with_policy(policy).await;
        let option = sends.map(|data| (SUBNET, data));
        let got = told_and_heard(&scripted, with_options("policy.example", option.as_slice())).await;
        let expected = (told.map(<[u8]>::to_vec), told.filter(|_| hears).map(scoped));
        assert_eq!(got, expected, "{policy:?}, client sends {sends:?}");
        // The same out of the cache.
        let client = scripted.ask(with_options("policy.example", option.as_slice()));
        assert_eq!(heard(&client.await.unwrap().unwrap()), expected.1, "{policy:?}, kept");
        assert_eq!(scripted.server.status().cache_hits, 1);
        scripted.end().await;
    }
}

#[tokio::test]
async fn clients_without_edns_are_told_of_too_and_get_none() {
    let scripted = with_policy(fixed()).await;
    let client = scripted.ask(without_edns("old.example"));
    let (asked, from) = scripted.receive().await;
    assert_eq!(options(&asked), Some(vec![(SUBNET, FIXED.to_vec())]));
    scripted.answer(&reply(&asked, 0, Some(&[(SUBNET, &scoped(FIXED))])), from).await;
    assert_eq!(options(&client.await.unwrap().unwrap()), None);
    scripted.end().await;
}

#[tokio::test]
async fn answers_are_not_shared_across_subnets() {
    let scripted = with_policy(ClientSubnet::Pass).await;
    let other = [0, 1, 24, 0, 198, 51, 100];
    for option in [None, Some(OWN), Some(&other[..]), Some(NONE)] {
        let option = option.map(|data| (SUBNET, data));
        // Each is asked for: none of the others is good for it.
        told_and_heard(&scripted, with_options("apart.example", option.as_slice())).await;
    }
    assert_eq!(scripted.server.status().cache_hits, 0);
    scripted.end().await;
}
