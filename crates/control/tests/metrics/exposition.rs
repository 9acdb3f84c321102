//! Reads what a scrape brings, without the code that wrote it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use keepwarm_control::{Control, ControlOptions, Snapshots};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A served endpoint; dropping `stop` ends it.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) _stop: watch::Sender<()>,
}

pub(crate) async fn served(snapshots: impl Snapshots, options: ControlOptions) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(());
    let control = Control::new(Arc::new(snapshots), address, options, stopped);
    tokio::spawn(control.serve(listener));
    Served { address, _stop: stop }
}

/// An answer: its status, its head in lower case, its body.
pub(crate) async fn ask(address: SocketAddr, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = match head.to_lowercase().contains("transfer-encoding: chunked") {
        true => panic!("the length of a scrape is known"),
        false => body.to_owned(),
    };
    (status, head.to_lowercase(), body)
}

pub(crate) async fn scraped(snapshots: impl Snapshots) -> Exposition {
    let served = served(snapshots, ControlOptions::default()).await;
    let (status, _, body) = ask(served.address, "").await;
    assert_eq!(status, 200, "{body}");
    Exposition::read(&body)
}

/// The series of a scrape in the text format 0.0.4.
pub(crate) struct Exposition {
    /// Name, kind, help.
    pub(crate) families: BTreeMap<String, (String, String)>,
    /// Series with their labels sorted, and their values.
    pub(crate) series: BTreeMap<String, f64>,
}

impl Exposition {
    pub(crate) fn read(text: &str) -> Exposition {
        let mut families: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut series = BTreeMap::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                let new = families.insert(name.to_owned(), (String::new(), help.to_owned()));
                assert!(new.is_none(), "{name} has two heads");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                families.get_mut(name).unwrap().0 = kind.to_owned();
            } else {
                assert!(!line.starts_with('#'), "{line}");
                let (name, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
                let labels = labels.strip_suffix('}').unwrap();
                let mut labels: Vec<&str> = labels.split("\",").map(|label| label.trim_end_matches('"')).collect();
                labels.sort_unstable();
                let labels = labels.join(" ").replace("=\"", "=");
                let key = if labels.is_empty() { name.to_owned() } else { format!("{name} {labels}") };
                let old = series.insert(key.clone(), value.parse().unwrap());
                assert!(old.is_none(), "{key} is there twice");
            }
        }
        Exposition { families, series }
    }

    /// The value of a series such as `keepwarm_pool_waiters pool=dns`; labels in the order of the alphabet.
    #[track_caller]
    pub(crate) fn value(&self, series: &str) -> f64 {
        match self.series.get(series) {
            Some(value) => *value,
            None => panic!("no {series} in {:#?}", self.series.keys().collect::<Vec<_>>()),
        }
    }

    /// The sum of the series of a metric that have a label.
    pub(crate) fn sum(&self, metric: &str, label: &str) -> f64 {
        let of = |(key, value): (&String, &f64)| {
            let mut words = key.split(' ');
            (words.next() == Some(metric) && words.any(|word| word == label)).then_some(*value)
        };
        self.series.iter().filter_map(of).sum()
    }

    /// Every name that a query may use.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.series.keys().filter_map(|key| key.split(' ').next()).map(str::to_owned).collect()
    }
}
