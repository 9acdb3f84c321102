//! `keepwarm probe` and `keepwarm bench https` before an origin whose counters are exact.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bench;
mod support;

use keepwarm_lab::{OriginFaults, OriginSpec, loopback_addresses};
use serde_json::Value;
use support::Before;

/// The request of that kind in the first round.
fn request<'a>(report: &'a Value, kind: &str) -> &'a Value {
    let requests = report["requests"].as_array().unwrap();
    requests.iter().find(|request| request["kind"] == kind).unwrap()
}

#[tokio::test]
async fn a_probe_is_three_requests_over_two_connections() {
    let before = Before::new().await;
    let report = before.json(&["probe", &before.url("/")], 0).await;
    let [cold, reused, resumed] = ["cold", "reused", "resumed"].map(|kind| request(&report, kind));
    for request in [cold, reused, resumed] {
        assert_eq!(request["answer"]["status"], 200);
        assert_eq!(request["answer"]["address"], format!("127.0.0.1:{}", before.lab.port()));
        assert_eq!((&request["answer"]["protocol"], &request["answer"]["tls"]), (&"h2".into(), &"1.3".into()));
        assert!(request["phases"]["first_byte"].as_f64() <= request["total"].as_f64());
        assert!(request["phases"]["dns"].is_null(), "the address was given");
        let is_new = request["kind"] != "reused";
        for phase in ["tcp", "tls", "h2"] {
            assert_eq!(request["phases"][phase].is_f64(), is_new, "{phase} of {request}");
        }
    }
    let told = |request: &Value| {
        let answer = &request["answer"];
        (answer["reused"].as_bool().unwrap(), answer["resumed"].as_bool().unwrap(), answer["connection"].clone())
    };
    let first = cold["answer"]["connection"].clone();
    assert_eq!(told(cold), (false, false, first.clone()));
    assert_eq!(
        (reused["answer"]["reused"].clone(), reused["answer"]["connection"].clone()),
        (true.into(), first.clone())
    );
    assert_eq!((told(resumed).0, told(resumed).1), (false, true));
    assert_ne!(told(resumed).2, first);
    assert_eq!(report["saved"]["cold"], cold["total"]);
    assert_eq!(report["saved"]["reused"], reused["total"]);
    assert_eq!(report["notes"], Value::Array(Vec::new()));

    let total = before.lab.total();
    assert_eq!((total.handshakes_full, total.handshakes_resumed, total.handshakes_failed), (1, 1, 0));
    assert_eq!(total.paths, [("HEAD /".to_owned(), 3)].into());
}

#[tokio::test]
async fn each_round_knows_nothing_of_the_one_before() {
    let before = Before::new().await;
    let report = before.json(&["probe", &before.url("/"), "--count", "3"], 0).await;
    assert_eq!(report["requests"].as_array().unwrap().len(), 9);
    assert_eq!(report["requests"][8]["round"], 3);
    let total = before.lab.total();
    assert_eq!((total.requests, total.handshakes_full, total.handshakes_resumed), (9, 3, 3));
}

#[tokio::test]
async fn http_1_has_no_settings_and_its_body_is_read_to_the_end() {
    let before = Before::new().await;
    let url = before.url("/bytes/100000");
    let report = before.json(&["probe", &url, "--http", "http1", "--method", "get"], 0).await;
    for kind in ["cold", "reused", "resumed"] {
        let request = request(&report, kind);
        assert_eq!(
            (&request["answer"]["protocol"], &request["answer"]["bytes"]),
            (&"http/1.1".into(), &100_000.into())
        );
        assert!(request["phases"]["h2"].is_null());
        assert_eq!(request["answer"]["reused"], kind == "reused");
    }
    let total = before.lab.total();
    assert_eq!((total.connections_h1, total.handshakes_resumed, total.answers), (2, 1, 3));
}

#[tokio::test]
async fn what_cannot_be_saved_is_said() {
    let faults = OriginFaults { connection_close: true, ..OriginFaults::default() };
    let before = Before::with(OriginSpec { faults, session_tickets: false, ..OriginSpec::default() }).await;
    let report = before.json(&["probe", &before.url("/status/403"), "--http", "http1"], 0).await;
    assert_eq!(request(&report, "reused")["answer"]["reused"], false);
    assert_eq!(request(&report, "resumed")["answer"]["resumed"], false);
    assert_eq!(request(&report, "cold")["answer"]["status"], 403, "a status is an answer");
    assert!(report["saved"].is_null());
    let notes = report["notes"].to_string();
    assert!(notes.contains("could not be used again") && notes.contains("was not resumed"), "{notes}");
    assert_eq!(before.lab.total().handshakes_full, 3);
}

#[tokio::test]
async fn a_name_is_looked_up_before_the_cold_request_alone() {
    let before = Before::with(OriginSpec { host: "localhost".into(), ..OriginSpec::default() }).await;
    let url = format!("https://localhost:{}/", before.lab.port());
    let report = before.json_without_address(&["probe", &url], 0).await;
    assert!(request(&report, "cold")["phases"]["dns"].is_f64());
    assert!(request(&report, "reused")["phases"]["dns"].is_null());
    assert!(report["addresses"].as_array().unwrap().contains(&"127.0.0.1".into()));
    assert_eq!(before.lab.total().handshakes_full, 1);
}

#[tokio::test]
async fn people_get_a_table_and_a_sentence() {
    let before = Before::new().await;
    let (code, text, errors) = before.run(&["probe", &before.url("/")]).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    for words in
        ["HEAD https://tiles.test", "h2 over TLS 1.3 to 127.0.0.1:", "profile plain", "REQUEST", "new, resumed"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.trim_end().lines().last().unwrap().starts_with("Over a warm connection a request took "), "{text}");
}

#[tokio::test]
async fn a_failure_names_its_phase_and_is_told_once() {
    let fault = |change: fn(&mut OriginFaults)| {
        let mut faults = OriginFaults::default();
        change(&mut faults);
        faults
    };
    let cases = [
        (fault(|faults| faults.refuse = true), "tcp", "refused", "connection refused"),
        (fault(|faults| faults.hang = true), "tls", "timeout", "tls handshake timed out"),
        (fault(|faults| faults.hang_tls = true), "tls", "timeout", "tls handshake timed out"),
        (fault(|faults| faults.wrong_certificate = true), "tls", "certificate", "tiles.test"),
        (fault(|faults| faults.untrusted = true), "tls", "certificate", "--cacert"),
        (fault(|faults| faults.ignore_requests = true), "first_byte", "timeout", "no answer came"),
    ];
    for (faults, phase, kind, words) in cases {
        let before = Before::with(OriginSpec { faults: faults.clone(), ..OriginSpec::default() }).await;
        let url = before.url("/secret-path");
        let arguments = ["probe", &url, "--connect-timeout", "500ms", "--timeout", "1s"];
        let (code, text, errors) = before.run(&arguments).await;
        assert_eq!((code, text.as_str()), (1, ""), "{faults:?}");
        assert!(errors.starts_with("keepwarm: head https://tiles.test:") && errors.contains(words), "{errors}");
        assert!(!errors.contains("secret"), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        let report = before.json(&arguments, 1).await;
        let failed = &request(&report, "cold")["failed"];
        assert_eq!((&failed["phase"], &failed["kind"]), (&phase.into(), &kind.into()), "{failed}");
        assert_eq!(report["requests"].as_array().unwrap().len(), 1, "nothing is asked after it");
        assert_eq!(report["ok"], false);
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_not_the_servers_fault() {
    let before = Before::new().await;
    let report = before.json(&["probe", &before.url("/"), "--proxy", "socks5://ann:secret@127.0.0.1:1"], 1).await;
    assert_eq!(request(&report, "cold")["failed"]["phase"], "proxy");
    assert_eq!(report["proxy"], "socks5://127.0.0.1:1");
    assert!(!report.to_string().contains("secret"));
    assert_eq!(before.lab.total().accepted, 0);
}

#[tokio::test]
async fn every_address_is_asked_once_with_a_full_handshake() {
    let before = Before::with(OriginSpec { addresses: loopback_addresses(6), ..OriginSpec::default() }).await;
    let ips = before.lab.addresses();
    before.lab.update_faults(ips[1], |faults| faults.refuse = true);
    before.lab.update_faults(ips[2], |faults| faults.hang_tls = true);
    before.lab.update_faults(ips[3], |faults| faults.wrong_certificate = true);
    before.lab.update_faults(ips[4], |faults| faults.status = Some(403));
    let arguments = ["probe", &before.url("/"), "--all", "--connect-timeout", "500ms"];
    let report = before.json(&arguments, 1).await;
    let rows = report["addresses"].as_array().unwrap();
    assert_eq!(
        rows.iter().map(|row| row["ip"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        ips.iter().map(ToString::to_string).collect::<Vec<_>>()
    );
    let told: Vec<(&Value, &Value)> =
        rows.iter().map(|row| (&row["answer"]["status"], &row["failed"]["phase"])).collect();
    let (null, ok, forbidden) = (Value::Null, Value::from(200), Value::from(403));
    let [tcp, tls] = ["tcp", "tls"].map(Value::from);
    assert_eq!(told, [(&ok, &null), (&null, &tcp), (&null, &tls), (&null, &tls), (&forbidden, &null), (&ok, &null)]);
    let total = before.lab.total();
    assert_eq!((total.handshakes_full, total.handshakes_resumed, total.requests), (3, 0, 3));

    let (code, text, errors) = before.run(&arguments).await;
    assert_eq!((code, errors.as_str()), (1, ""));
    assert!(text.contains("3 of 6 addresses answered") && text.contains("connection refused"), "{text}");
}

#[tokio::test]
async fn an_address_that_fails_before_another_answers_is_noted() {
    let before = Before::with(OriginSpec { addresses: loopback_addresses(2), ..OriginSpec::default() }).await;
    let ips = before.lab.addresses();
    before.lab.update_faults(ips[0], |faults| faults.refuse = true);
    // Which of them is tried first is drawn: in so many rounds it is each.
    let report = before.json(&["probe", &before.url("/"), "--count", "40"], 0).await;
    let notes = report["notes"].as_array().unwrap();
    assert!(
        notes.iter().any(|note| note.as_str().unwrap().starts_with("127.0.1.1 failed: connect to 127.0.1.1:")),
        "{notes:?}"
    );
    assert_eq!(before.lab.counters(ips[1]).requests, 120);
}

#[cfg(feature = "browser")]
#[tokio::test]
async fn a_browsers_connection_is_probed_as_any_other() {
    let before = Before::new().await;
    let report = before.json(&["probe", &before.url("/"), "--profile", "chrome"], 0).await;
    assert_eq!(report["profile"], "chrome@156");
    assert_eq!(request(&report, "reused")["answer"]["reused"], true);
    assert_eq!(request(&report, "resumed")["answer"]["resumed"], true);
    let total = before.lab.total();
    assert_eq!((total.handshakes_full, total.handshakes_resumed, total.requests), (1, 1, 3));
}

#[cfg(not(feature = "browser"))]
#[tokio::test]
async fn a_browsers_profile_that_was_left_out_is_refused_in_words() {
    let before = Before::new().await;
    let (code, text, errors) = before.run(&["probe", &before.url("/"), "--profile", "chrome"]).await;
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(errors.contains("chrome@156 needs BoringSSL"), "{errors}");
    assert_eq!(before.lab.total().accepted, 0);
}
