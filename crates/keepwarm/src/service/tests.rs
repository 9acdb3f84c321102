#![cfg(unix)]

use std::{os::unix::net::UnixDatagram, sync::atomic::AtomicU32};

use super::*;

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn new(watchdog: Option<&str>) -> (Manager, Service) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let service = Service::new(Notifier::new(Some(path.as_os_str())), Watchdog::new(watchdog, None));
        (Manager { socket, _folder: folder }, service)
    }

    /// What came since it was asked last.
    fn heard(&self) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        heard
    }
}

fn alive(is_alive: &Arc<AtomicBool>) -> Alive {
    let is_alive = is_alive.clone();
    Arc::new(move |_| Box::pin(std::future::ready(is_alive.load(Ordering::Relaxed))))
}

#[tokio::test]
async fn each_stage_of_life_is_told() {
    let (manager, service) = Manager::new(None);
    service.ready().await;
    service.reloading().await;
    service.reloaded(None).await;
    service.reloaded(Some("dns.listen: not an address\nREADY=0")).await;
    service.stopping().await;
    let heard = manager.heard();
    let [ready, reloading, reloaded, refused, stopping] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((&**ready, &**reloaded), ("READY=1", "READY=1"));
    let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0, "{reloading}");
    assert_eq!(refused, "READY=1\nSTATUS=reload refused: dns.listen: not an address");
    assert!(stopping.starts_with("STOPPING=1\nSTATUS=stopping"), "{stopping}");
}

#[tokio::test(start_paused = true)]
async fn the_status_is_told_when_it_changes_and_keeps_the_refused_reload() {
    let (manager, service) = Manager::new(None);
    let connections = Arc::new(AtomicU32::new(1));
    let count = connections.clone();
    let status: StatusLine = Arc::new(move || format!("{} connections", count.load(Ordering::Relaxed)));
    let _reports = service.report(status, alive(&Arc::default()));
    tokio::time::sleep(STATUS_EVERY * 3).await;
    assert_eq!(manager.heard(), ["STATUS=1 connections"]);
    connections.store(2, Ordering::Relaxed);
    tokio::time::sleep(STATUS_EVERY * 2).await;
    assert_eq!(manager.heard(), ["STATUS=2 connections"]);
    service.reloaded(Some("no")).await;
    tokio::time::sleep(STATUS_EVERY * 2).await;
    assert_eq!(manager.heard()[1..], ["STATUS=2 connections; the last reload was refused, see the log"]);
    service.reloaded(None).await;
    tokio::time::sleep(STATUS_EVERY * 2).await;
    assert_eq!(manager.heard(), ["READY=1", "STATUS=2 connections"]);
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_is_fed_only_while_the_data_path_answers() {
    let (manager, service) = Manager::new(Some("2000000"));
    let is_alive = Arc::new(AtomicBool::new(true));
    let _reports = service.report(Arc::new(String::new), alive(&is_alive));
    let fed = || manager.heard().iter().filter(|message| *message == "WATCHDOG=1").count();
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    assert_eq!(fed(), 5, "at once, and each second");
    is_alive.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(fed(), 0);
    is_alive.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fed(), 3, "it came back");
    is_alive.store(false, Ordering::Relaxed);
    service.stopping().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fed(), 3, "what drains is not asked");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_of_the_manager_delays_a_message_and_loses_none() {
    let (manager, service) = Manager::new(None);
    let mut queued = 0;
    while service.shared.notifier.send("STATUS=x").await.is_ok() {
        queued += 1;
    }
    let ready = tokio::spawn(async move { service.ready().await });
    tokio::task::yield_now().await;
    assert_eq!(manager.heard().len(), queued);
    ready.await.unwrap();
    assert_eq!(manager.heard(), ["READY=1"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_abstract_socket_is_spoken_to() {
    use std::os::linux::net::SocketAddrExt as _;
    let name = format!("keepwarm-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    Notifier::new(Some(format!("@{name}").as_ref())).send("READY=1").await.unwrap();
    let mut buffer = [0; 16];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"READY=1");
}

#[tokio::test]
async fn without_a_manager_nothing_happens() {
    for socket in [None, Some(""), Some("vsock:2:1234")] {
        let notifier = Notifier::new(socket.map(AsRef::as_ref));
        let service = Service::new(notifier, Watchdog::new(Some("1000"), None));
        service.ready().await;
        let reports = service.report(Arc::new(|| panic!("nobody listens")), alive(&Arc::default()));
        assert!(reports.tasks.is_empty(), "{socket:?}");
    }
    // A manager that has gone is no reason to fail.
    let service = Service::new(Notifier::new(Some("/nonexistent/notify".as_ref())), None);
    service.ready().await;
}
