//! `keepwarm addresses`, and what the status endpoint shows.

use serde_json::Value;

use super::support::*;

fn state(row: &Value) -> &str {
    row["state"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_is_shown_as_it_stands_in_three_forms() {
    let keys = Keys { origin: "addresses = ADDRESSES\nvalidate = true\nwarm = 1".into(), ..Keys::default() };
    let bench = Bench::new(4, &keys).await;
    let bad = bench.ip(1);
    bench.lab.update_faults(bad, |faults| faults.refuse = true);
    let daemon = bench.start().await;
    let known =
        |rows: &[Value]| rows.len() == 4 && rows.iter().all(|row| !matches!(state(row), "candidate" | "probing"));
    let rows = daemon.until("each was probed", known).await;
    let is_sorted = rows.is_sorted_by_key(|row| row["ip"].as_str().unwrap().parse::<std::net::IpAddr>().unwrap());
    assert!(is_sorted, "{rows:?}");
    for row in &rows {
        let is_bad = row["ip"] == bad.to_string();
        assert_eq!(state(row), if is_bad { "quarantined" } else { "validated" }, "{row}");
        assert_eq!(row["last_error"].as_str().is_some_and(|error| error.contains("refused")), is_bad, "{row}");
        assert_eq!(row["source"], "config");
    }

    let origin = daemon.bench.origin();
    let (code, table, _) = daemon.run(&["addresses", &origin, "--sort", "state"]).await;
    assert_eq!(code, Some(0), "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[0].starts_with("ADDRESS") && lines[0].ends_with("LAST ERROR"), "{table}");
    assert!(lines[4].starts_with(&bad.to_string()) && lines[4].contains("quarantined for "), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours where there is no terminal: {table}");

    let url = format!("https://{origin}/0/0/0.png");
    let (code, csv, _) = daemon.run(&["addresses", &url, "--output", "csv", "--sort", "failures"]).await;
    assert_eq!(code, Some(0), "{csv}");
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("ip,state,") && lines[1].starts_with(&format!("{bad},quarantined,")), "{csv}");
    assert_eq!(lines.len(), 5, "{csv}");

    let status = daemon.page("/api/v1/https").await;
    let row = &status["origins"][0];
    assert_eq!((&row["origin"], &row["configured"]), (&origin.clone().into(), &true.into()), "{status}");
    assert_eq!((&row["addresses"]["validated"], &row["addresses"]["quarantined"]), (&3.into(), &1.into()), "{status}");
    assert_eq!(status["gateway"]["listen"][0], daemon.bench.gateway.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_through_the_gateway_are_counted_where_they_went() {
    let daemon = Bench::new(1, &Keys::default()).await.start().await;
    for _ in 0..5 {
        let (status, body) = daemon.fetch("/echo").await;
        let echo: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &echo["path"], &echo["authority"]), (200, &"/echo".into(), &daemon.bench.origin().into()));
    }
    assert_eq!(daemon.fetch("/status/404").await.0, 404);
    let rows = daemon.addresses().await;
    assert_eq!((&rows[0]["successes"], &rows[0]["last_status"]), (&6.into(), &404.into()), "{rows:?}");
    assert!(rows[0]["latency"].as_f64().is_some_and(|latency| latency > 0.0), "{rows:?}");
    let requests = daemon.page("/api/v1/https").await["origins"][0]["requests"].clone();
    assert_eq!((&requests["came"], &requests["answered"], &requests["reused"]), (&6.into(), &6.into(), &5.into()));
    let pools = daemon.json(&["pools", "--json", "--https"]).await;
    assert_eq!((&pools[0]["origin"], &pools[0]["open"]), (&daemon.bench.origin().into(), &1.into()), "{pools}");
    assert_eq!(pools[0]["ip"], daemon.bench.ip(0).to_string());
    assert_eq!(daemon.json(&["upstreams", "--dns", "--json"]).await, Value::Array(Vec::new()), "there is no dns");
    let (_, table, _) = daemon.run(&["pools", "--https"]).await;
    assert!(table.starts_with("ORIGIN") && table.contains("1/10") && table.contains("83.3 %"), "{table}");
    let stats = daemon.page("/api/v1/stats").await;
    assert_eq!((&stats["counters"]["https_requests"], &stats["counters"]["gateway_requests"]), (&6.into(), &6.into()));
    assert_eq!(stats["listen"][0], format!("http://{}", daemon.bench.gateway));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_address_gets_no_request_until_it_is_allowed_again() {
    let keys = Keys { origin: "addresses = ADDRESSES\nvalidate = true\nwarm = 2".into(), ..Keys::default() };
    let daemon = Bench::new(2, &keys).await.start().await;
    let good = |rows: &[Value]| rows.len() == 2 && rows.iter().all(|row| state(row) == "validated");
    daemon.until("both are good", good).await;
    let (kept, banned) = (daemon.bench.ip(0), daemon.bench.ip(1));
    let origin = daemon.bench.origin();
    let (code, table, said) = daemon.run(&["addresses", &origin, "--ban", &banned.to_string()]).await;
    assert_eq!((code, said.as_str()), (Some(0), &*format!("banned {banned}/32: 1 known address\n")), "{table}");
    assert!(table.lines().any(|line| line.starts_with(&banned.to_string()) && line.contains("banned")), "{table}");
    daemon.bench.lab.reset_counters();
    for _ in 0..50 {
        assert_eq!(daemon.fetch("/").await.0, 200);
    }
    let requests = |ip| daemon.bench.lab.counters(ip).requests;
    assert_eq!((requests(kept), requests(banned)), (50, 0));
    // With all of them banned there is nobody left to ask.
    let (code, _, said) = daemon.run(&["addresses", &origin, "--ban", "127.0.0.0/8"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "banned 127.0.0.0/8: 2 known addresses\n"));
    assert!(daemon.fetch("/").await.0 >= 500);
    let (code, _, said) = daemon.run(&["addresses", &origin, "--allow", "127.0.0.0/8"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "allowed 127.0.0.0/8: 2 known addresses\n"));
    let rows = daemon.addresses().await;
    assert!(rows.iter().all(|row| row["banned"] == false), "{rows:?}");
    assert_eq!(daemon.fetch("/").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_daemon_they_are_found_and_asked_once() {
    let bench = Bench::new(3, &Keys::default()).await;
    bench.lab.update_faults(bench.ip(0), |faults| faults.wrong_certificate = true);
    // Any answer is good where the file has no `validate`.
    bench.lab.update_faults(bench.ip(1), |faults| faults.status = Some(503));
    let (file, origin) = (bench.config().display().to_string(), bench.origin());
    let (code, stdout, stderr) = run(vec!["addresses", &origin, "-c", &file, "-o", "json"]).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let rows: Value = serde_json::from_str(&stdout).unwrap();
    let states: Vec<&str> = rows.as_array().unwrap().iter().map(state).collect();
    assert_eq!(states, ["quarantined", "validated", "validated"], "{rows:#}");
    assert!(rows[0]["last_error"].as_str().is_some_and(|error| error.contains("certificate")), "{rows:#}");
    assert_eq!(bench.lab.total().requests, 2, "one question each, to those that could be asked");

    // One that never says anything is waited for no longer than told.
    bench.lab.update_faults(bench.ip(2), |faults| faults.hang = true);
    let (code, stdout, stderr) = run(vec!["addresses", &origin, "-c", &file, "--wait", "1s"]).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.lines().any(|line| line.contains("probing")), "{stdout}");
    assert_eq!(stderr, "keepwarm: 1 address had not answered within 1s\n");

    let (code, _, stderr) = run(vec!["addresses", "other.example", "-c", &file]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("other.example is not an origin of"), "{stderr}");
    let dns = write(
        bench.folder.path(),
        "dns.toml",
        "version = 1\n[[dns.upstream]]\nname = \"a\"\naddress = \"udp://127.0.0.1\"\n",
    );
    let (code, _, stderr) = run(vec!["addresses", &origin, "-c", dns.to_str().unwrap()]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("has no [https]"), "{stderr}");
    let (code, ..) = run(vec!["addresses", &origin, "-c", "no-such-file.toml"]).await;
    assert_eq!(code, Some(78));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_refused_in_words() {
    let daemon = Bench::new(1, &Keys::default()).await.start().await;
    for command in [&["addresses", "other.example"][..], &["warm", "other.example"]] {
        let (code, _, stderr) = daemon.run(command).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert_eq!(stderr, "keepwarm: other.example is not an origin that is known\n");
    }
    let (code, _, stderr) = daemon.run(&["query", "www.example"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("has no [dns]"), "{stderr}");
    let (code, _, stderr) = daemon.run(&["cache"]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("has no [dns]"), "{stderr}");
}
