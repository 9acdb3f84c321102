//! What a query says of the client's network (RFC 7871): taken out, or put in, before anything else is made of the query, so
//! that neither the cache nor queries in flight are shared across networks.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::{
    PAYLOAD_SIZE, Query,
    wire::{OPTION_SUBNET, Options, put_u16},
};
use crate::config::ClientSubnet;

/// A query whose client subnet is the policy's.
pub(crate) struct Readdressed {
    pub(crate) message: SmallVec<[u8; 512]>,
    pub(crate) query: Query,
}

/// The query as the policy wants it; `None` when it is that already. `client` is the address that it came from, if it came
/// from outside.
pub(crate) fn readdress(
    policy: ClientSubnet,
    message: &[u8],
    query: &Query,
    client: Option<IpAddr>,
) -> Option<Readdressed> {
    if policy == ClientSubnet::Pass || query.signed {
        return None;
    }
    let sent = query.edns.as_ref().filter(|edns| edns.subnet);
    let option = match policy {
        ClientSubnet::Pass | ClientSubnet::Strip => None,
        // RFC 7871 section 7.1.2: length 0 is the wish that no address be told.
        ClientSubnet::Set { .. } | ClientSubnet::Fixed(_)
            if sent.is_some_and(|edns| wants_none(message, edns.rdata.clone())) =>
        {
            return None;
        }
        ClientSubnet::Set { v4, v6 } => client.and_then(|address| {
            let address = address.to_canonical();
            is_public(address).then(|| option(address, if address.is_ipv4() { v4 } else { v6 }))
        }),
        ClientSubnet::Fixed(network) => Some(option(network.addr(), network.prefix_len())),
    };
    if option.is_none() && sent.is_none() {
        return None;
    }
    let message = rewrite(message, query, option.as_deref().unwrap_or_default())?;
    let query = Query::parse(&message).ok()?;
    Some(Readdressed { message, query })
}

/// The first client subnet option of a query, with its header.
pub(crate) fn subnet_of<'a>(message: &'a [u8], query: &Query) -> Option<&'a [u8]> {
    let edns = query.edns.as_ref().filter(|edns| edns.subnet)?;
    let mut options = Options::new(message, edns.rdata.clone()).flatten();
    let (_, option) = options.find(|(code, _)| *code == OPTION_SUBNET)?;
    message.get(option)
}

fn wants_none(message: &[u8], rdata: std::ops::Range<usize>) -> bool {
    let mut options = Options::new(message, rdata).flatten();
    let first = options.find(|(code, _)| *code == OPTION_SUBNET);
    // Code, length, family, prefix length, scope.
    first.is_some_and(|(_, option)| option.len() == 8 && message[option.start + 6] == 0)
}

/// RFC 7871 section 6, with the scope 0 that a query has.
fn option(address: IpAddr, prefix: u8) -> SmallVec<[u8; 24]> {
    let (family, octets): (u8, SmallVec<[u8; 16]>) = match address {
        IpAddr::V4(address) => (1, SmallVec::from_slice(&address.octets())),
        IpAddr::V6(address) => (2, SmallVec::from_slice(&address.octets())),
    };
    let prefix = usize::from(prefix).min(octets.len() * 8);
    let length = prefix.div_ceil(8);
    let [high, low] = OPTION_SUBNET.to_be_bytes();
    let (data, bits) = (u8::try_from(4 + length), u8::try_from(prefix));
    let (data, bits) = (data.expect("20 bytes at most"), bits.expect("128 at most"));
    let mut option = SmallVec::from_slice(&[high, low, 0, data, 0, family, bits, 0]);
    option.extend_from_slice(&octets[..length]);
    // Bits beyond the prefix are 0.
    if let (Some(last), rest @ 1..) = (option.last_mut(), prefix % 8) {
        *last &= 0xff << (8 - rest);
    }
    option
}

/// An address that means something outside of the network that it is in (RFC 7871 section 11; RFC 6890 has the list).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            // 0.0.0.0/8, 100.64.0.0/10 of carriers, and what is reserved or multicast.
            let special = a == 0 || a == 100 && b & 0xc0 == 64 || a >= 224;
            !(special || address.is_private() || address.is_loopback() || address.is_link_local())
        }
        // Global unicast is 2000::/3 (RFC 4291 section 2.5.4); all that is local or mapped lies outside.
        IpAddr::V6(address) => address.segments()[0] >> 13 == 1,
    }
}

/// The query with this client subnet option, or none, in place of those that it has.
fn rewrite(message: &[u8], query: &Query, option: &[u8]) -> Option<SmallVec<[u8; 512]>> {
    let mut out = SmallVec::new();
    let Some(edns) = &query.edns else {
        // A record that is not OPT may be anything, so nothing is put behind it.
        if query.header.additionals() > 0 {
            return None;
        }
        out.extend_from_slice(message);
        put_u16(&mut out, 10, 1);
        let [high, low] = PAYLOAD_SIZE.to_be_bytes();
        out.extend_from_slice(&[0, 0, 41, high, low, 0, 0, 0, 0]);
        out.extend_from_slice(&u16::try_from(option.len()).ok()?.to_be_bytes());
        out.extend_from_slice(option);
        return Some(out);
    };
    out.extend_from_slice(&message[..edns.rdata.start]);
    for (code, other) in Options::new(message, edns.rdata.clone()).flatten() {
        if code != OPTION_SUBNET {
            out.extend_from_slice(&message[other]);
        }
    }
    out.extend_from_slice(option);
    let length = u16::try_from(out.len() - edns.rdata.start).ok()?;
    put_u16(&mut out, edns.rdata.start - 2, length);
    out.extend_from_slice(&message[edns.rdata.end..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{OptWriter, build_query};

    fn query(options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut query = build_query("a.example", 1).unwrap();
        let end = Query::parse(&query).unwrap().question.end;
        for (code, data) in options {
            OptWriter::open(&mut query, 0, end).unwrap().push(*code, data);
        }
        query
    }

    fn bare() -> Vec<u8> {
        let mut query = query(&[]);
        query.truncate(query.len() - 11);
        put_u16(&mut query, 10, 0);
        query
    }

    /// The options that go out.
    fn sent(policy: ClientSubnet, message: &[u8], client: &str) -> Vec<(u16, Vec<u8>)> {
        let parsed = Query::parse(message).unwrap();
        let readdressed = readdress(policy, message, &parsed, Some(client.parse().unwrap()));
        let (message, parsed) =
            readdressed.as_ref().map_or((message, &parsed), |readdressed| (&readdressed.message, &readdressed.query));
        let Some(edns) = &parsed.edns else { return Vec::new() };
        let options = Options::new(message, edns.rdata.clone()).map(Result::unwrap);
        options.map(|(code, option)| (code, message[option.start + 4..option.end].to_vec())).collect()
    }

    const SET: ClientSubnet = ClientSubnet::Set { v4: 24, v6: 56 };
    const OWN: &[u8] = &[0, 1, 16, 0, 192, 0];
    const NONE: &[u8] = &[0, 1, 0, 0];

    #[test]
    fn strip_takes_subnets_out_and_leaves_the_rest() {
        let options = [(8, OWN), (65_001, &[1][..]), (8, OWN)];
        assert_eq!(sent(ClientSubnet::Strip, &query(&options), "198.51.100.7"), [(65_001, vec![1])]);
        assert_eq!(sent(ClientSubnet::Strip, &bare(), "198.51.100.7"), []);
    }

    #[test]
    fn pass_leaves_the_query_alone() {
        assert_eq!(sent(ClientSubnet::Pass, &query(&[(8, OWN)]), "198.51.100.7"), [(8, OWN.to_vec())]);
        assert_eq!(sent(ClientSubnet::Pass, &query(&[]), "198.51.100.7"), []);
    }

    #[test]
    fn set_tells_the_clients_network_cut_to_the_prefix() {
        let v4 = vec![0, 1, 24, 0, 198, 51, 100];
        assert_eq!(sent(SET, &query(&[]), "198.51.100.7"), [(8, v4.clone())]);
        assert_eq!(sent(SET, &bare(), "198.51.100.7"), [(8, v4.clone())]);
        assert_eq!(sent(SET, &query(&[(8, OWN)]), "198.51.100.7"), [(8, v4.clone())], "in place of the client's");
        assert_eq!(sent(SET, &query(&[]), "::ffff:198.51.100.7"), [(8, v4)]);
        let v6 = vec![0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 1, 0];
        assert_eq!(sent(SET, &query(&[]), "2001:db8:1:2:3::1"), [(8, v6)]);
        let odd = ClientSubnet::Set { v4: 21, v6: 0 };
        assert_eq!(sent(odd, &query(&[]), "198.51.255.7"), [(8, vec![0, 1, 21, 0, 198, 51, 0xf8])]);
        assert_eq!(sent(odd, &query(&[]), "2001:db8::1"), [(8, vec![0, 2, 0, 0])]);
    }

    #[test]
    fn a_client_that_wants_no_address_told_is_heard() {
        for policy in [SET, ClientSubnet::Fixed("203.0.113.0/24".parse().unwrap())] {
            assert_eq!(sent(policy, &query(&[(8, NONE)]), "198.51.100.7"), [(8, NONE.to_vec())]);
        }
    }

    #[test]
    fn private_addresses_are_not_told() {
        for client in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(sent(SET, &query(&[]), client), [], "{client}");
            assert_eq!(sent(SET, &query(&[(8, OWN)]), client), [], "{client}: nor what the client says instead");
        }
        let message = query(&[]);
        assert!(readdress(SET, &message, &Query::parse(&message).unwrap(), None).is_none(), "the daemon has none");
    }

    #[test]
    fn fixed_tells_the_same_of_everybody() {
        let policy = ClientSubnet::Fixed("203.0.113.77/24".parse().unwrap());
        let told = vec![0, 1, 24, 0, 203, 0, 113];
        assert_eq!(sent(policy, &query(&[]), "10.0.0.1"), [(8, told.clone())]);
        assert_eq!(sent(policy, &query(&[(8, OWN)]), "198.51.100.7"), [(8, told)]);
    }

    #[test]
    fn a_signed_query_is_not_touched() {
        let mut message = query(&[(8, OWN)]);
        message.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]);
        put_u16(&mut message, 10, 2);
        let parsed = Query::parse(&message).unwrap();
        assert!(parsed.signed);
        assert!(readdress(ClientSubnet::Strip, &message, &parsed, None).is_none());
    }
}
