//! Start, stop, and what keeps it from starting.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::*;
use crate::{
    https::support::{refused, write},
    support::text,
};

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_tunnel_may_end_by_itself_after_sigterm_and_no_new_one_comes_in() {
    // As many threads as there are cores, and a single one for everything.
    for lines in ["", "[limits]\nworkers = 1"] {
        let daemon = Bench::new(lines).await.start().await;
        let listen = daemon.bench.listen;
        let (mut stream, mut tagged) = daemon.tunnel().await;
        say(&mut stream, &mut tagged, 100).await;
        daemon.signal("TERM");
        while TcpStream::connect(listen).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        say(&mut stream, &mut tagged, 10_000).await;
        drop(stream);
        let output = daemon.wait().await;
        let log = text(&output);
        assert_eq!(output.status.code(), Some(0), "{log}");
        for line in ["tunnel listens", "SIGTERM", "stopped"] {
            assert!(log.contains(line), "the log has no `{line}`:\n{log}");
        }
        assert!(!log.contains("cut off"), "{log}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_tunnel_that_does_not_end_is_cut_off_and_said_so() {
    let daemon = Bench::new("").await.start().await;
    let (mut stream, mut tagged) = daemon.tunnel().await;
    say(&mut stream, &mut tagged, 100).await;
    daemon.signal("INT");
    let output = tokio::time::timeout(std::time::Duration::from_secs(30), daemon.wait()).await;
    let output = output.expect("the drain has an end though the tunnel has none");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(
        text(&output).contains("some were cut off") && text(&output).contains("\"tunnels\":1"),
        "{}",
        text(&output)
    );
    assert!(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)), "the tunnel has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_it_from_starting_is_named_with_its_exit_code() {
    let bench = Bench::new("").await;
    let taken = std::net::TcpListener::bind(bench.listen).unwrap();
    let (code, said) = refused(&bench.config());
    assert_eq!(code, Some(69), "{said}");
    let address = bench.listen.to_string();
    assert!(said.contains(&address) && said.contains("address already in use"), "{said}");
    assert!(said.contains("stop it, or change tunnel.listen"), "{said}");
    drop(taken);
    let file = write(bench.folder.path(), "typo.toml", &bench.text("strategy = \"ordred\""));
    let (code, said) = refused(&file);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("ordered") && !said.contains(PASSWORD), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_is_led_to_the_status_endpoint() {
    let daemon = Bench::new("[[tunnel.rule]]\nmatch = [\"127.0.0.0/8\"]\nvia = \"direct\"").await.start().await;
    let Bench { listen, control, echo, .. } = &daemon.bench;
    // Its port counts, not that it is on this machine.
    for (address, code) in [(*control, 2), (*listen, 2), (echo.addr(0), 0)] {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        let request = format!("\x05\x01\0\x05\x01\0\x03\x09{}", address.ip());
        stream.write_all(&[request.as_bytes(), &address.port().to_be_bytes()].concat()).await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [5, 0, 5, code], "{address}");
    }
}
