//! Where clients come in, and that no two listeners want one socket.

use keepwarm_dns::config::Listen;

use super::Check;
use crate::config::{
    defaults,
    fault::Fault,
    read::{At, List},
};

const LISTEN_MAX: usize = 64;

impl Check<'_> {
    pub(super) fn listen(&mut self, listen: Option<&At<List<Listen>>>) -> Vec<Listen> {
        let Some(listen) = listen else {
            return vec![defaults::listen()];
        };
        self.not_empty_list("dns.listen", listen, LISTEN_MAX, "at least one address, such as \"127.0.0.1:5300\"");
        for (index, item) in listen.value.iter().enumerate() {
            let clash = listen.value[..index].iter().find(|earlier| {
                let same = earlier.value.address == item.value.address && item.value.address.port() != 0;
                let (a, b) = (earlier.value.transport, item.value.transport);
                same && (a.over_udp() && b.over_udp() || a.over_tcp() && b.over_tcp())
            });
            if let Some(earlier) = clash {
                self.faults.push(
                    Fault::error(item.span.clone(), format!("`dns.listen` has {} twice", item.value.address))
                        .also(earlier.span.clone(), "first here; a plain address is UDP and TCP")
                        .help("remove one of them"),
                );
            }
        }
        listen.value.iter().map(|item| item.value.clone()).collect()
    }
}
