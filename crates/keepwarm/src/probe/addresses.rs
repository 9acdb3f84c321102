//! `keepwarm probe --all`: every address of the name, each over a connection of its own with a full handshake.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use comfy_table::CellAlignment::{Left, Right};
use keepwarm_https::RequestOptions;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{
    ask::{Answer, Failed, ask},
    origin::{Found, Origin},
    report::{AnswerRow, Phases, explained, maybe_seconds, or_none},
};
use crate::table::{self, Column};

/// What the addresses said, in the order in which the name has them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct AllReport {
    url: String,
    method: String,
    profile: String,
    proxy: Option<String>,
    /// Looking up the name; `null` when nothing had to be.
    #[serde(serialize_with = "maybe_seconds")]
    dns: Option<Duration>,
    addresses: Vec<AddressRow>,
    /// Addresses beyond the most that are asked.
    left_out: usize,
    /// Whether all that were asked answered.
    pub(super) ok: bool,
}

/// One address.
#[derive(Debug, Clone, Serialize)]
struct AddressRow {
    ip: IpAddr,
    /// `null` when it failed.
    answer: Option<AnswerRow>,
    phases: Phases,
    #[serde(serialize_with = "maybe_seconds")]
    total: Option<Duration>,
    failed: Option<Failed>,
}

/// Asks each address once, a few at a time.
///
/// # Errors
/// When the name has no address, or the profile cannot be used here.
pub(super) async fn probe(origin: &Origin, method: &hyper::Method) -> anyhow::Result<AllReport> {
    let Found { mut addresses, dns } = origin.find().await?;
    let left_out = addresses.len().saturating_sub(ADDRESSES_MAX);
    addresses.truncate(ADDRESSES_MAX);
    let mut waiting: VecDeque<_> = addresses.iter().copied().enumerate().collect();
    let mut tasks = JoinSet::new();
    let mut rows: Vec<(usize, AddressRow)> = Vec::with_capacity(addresses.len());
    while !waiting.is_empty() || !tasks.is_empty() {
        while let Some((index, ip)) = waiting.pop_front_if(|_| tasks.len() < AT_A_TIME) {
            // A client of its own has no ticket of another address.
            let client = origin.client(&[ip], 1)?;
            let (url, method) = (origin.url.clone(), method.clone());
            tasks.spawn(async move {
                let options = RequestOptions { address: Some(ip), ..RequestOptions::default() };
                let result = ask(&client, &url, &method, options).await;
                client.close(Duration::ZERO).await;
                (index, AddressRow::new(ip, result))
            });
        }
        if let Some(row) = tasks.join_next().await {
            rows.push(row?);
        }
    }
    rows.sort_by_key(|(index, _)| *index);
    let addresses: Vec<AddressRow> = rows.into_iter().map(|(_, row)| row).collect();
    Ok(AllReport {
        url: origin.url.to_string(),
        method: method.to_string(),
        profile: origin.profile(),
        proxy: origin.proxy(),
        dns,
        left_out,
        ok: addresses.iter().all(|row| row.failed.is_none()),
        addresses,
    })
}

impl AllReport {
    /// For people.
    pub(super) fn text(&self) -> String {
        let good = self.addresses.iter().filter(|row| row.failed.is_none()).count();
        let mut text = format!("{} {}, profile {}\n\n", self.method, self.url, self.profile);
        text += &table::render(&ADDRESSES, self.addresses.iter().map(AddressRow::cells));
        text += &format!("\n{good} of {} addresses answered", self.addresses.len());
        if let Some(dns) = self.dns {
            text += &format!("; finding them took {}", or_none(Some(dns)));
        }
        if self.left_out > 0 {
            text += &format!("; {} more were not asked", self.left_out);
        }
        text + "\n"
    }
}

impl AddressRow {
    fn new(ip: IpAddr, result: Result<Answer, Failed>) -> AddressRow {
        match result {
            Ok(answer) => AddressRow {
                ip,
                answer: Some(AnswerRow::new(&answer)),
                phases: Phases::new(&answer),
                total: Some(answer.total),
                failed: None,
            },
            Err(failed) => {
                AddressRow { ip, answer: None, phases: Phases::default(), total: None, failed: Some(failed) }
            }
        }
    }

    fn cells(&self) -> Vec<String> {
        let Phases { tcp, tls, h2, first_byte, .. } = self.phases;
        let mut cells = vec![self.ip.to_string()];
        cells.extend([tcp, tls, h2, first_byte].map(or_none));
        let answer = |tell: fn(&AnswerRow) -> String| self.answer.as_ref().map_or_else(|| "-".to_owned(), tell);
        cells.push(answer(|answer| answer.status.to_string()));
        cells.push(answer(|answer| answer.protocol.to_owned()));
        cells.push(self.failed.as_ref().map_or_else(String::new, explained));
        cells
    }
}

/// Addresses that are asked; no name has so many, but arguments may.
const ADDRESSES_MAX: usize = 256;

/// Addresses that are asked at a time.
const AT_A_TIME: usize = 4;

const ADDRESSES: [Column; 8] = [
    ("ADDRESS", Left),
    ("TCP", Right),
    ("TLS", Right),
    ("H2", Right),
    ("FIRST BYTE", Right),
    ("STATUS", Right),
    ("PROTOCOL", Left),
    ("ERROR", Left),
];
