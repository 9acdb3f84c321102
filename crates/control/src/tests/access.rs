//! Who is let in: every endpoint that may change something, against everybody who must not.

use super::*;

const TOKEN: &str = "a-token-of-enough-characters";

fn with_token() -> ControlOptions {
    ControlOptions { token: Some(Token::new(TOKEN).unwrap()), ..ControlOptions::default() }
}

/// A path of the table with names filled in.
fn path(endpoint: &Endpoint) -> String {
    endpoint.path.replace("{name}", "lab")
}

/// A request as its attacker sends it: a body that would be taken, and these lines in its head.
async fn attempt(address: std::net::SocketAddr, endpoint: &Endpoint, head: &str) -> (u16, String) {
    let (method, path, body) = (&endpoint.method, path(endpoint), "{}");
    let head = head.replace("ADDRESS", &address.to_string());
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\n{head}Content-Length: {length}\nConnection: close\n\n{body}");
    raw(address, &request).await
}

const JSON: &str = "Content-Type: application/json\n";

#[tokio::test]
async fn nothing_is_changed_by_who_has_no_token() {
    let fake = Fake::default();
    let (reloads, pool) = (fake.reloads.clone(), fake.pool.clone());
    drop(pool.acquire(&"up").await.unwrap());
    let served = served_with(fake, with_token()).await;
    let changes: Vec<Endpoint> = endpoints().into_iter().filter(Endpoint::is_change).collect();
    assert!(changes.len() >= 12, "the table has them all");
    for endpoint in &changes {
        for (who, head, status) in [
            ("nobody", format!("Host: ADDRESS\n{JSON}"), 401),
            ("a wrong token", format!("Host: ADDRESS\n{JSON}Authorization: Bearer {TOKEN}x\n"), 401),
            ("an empty token", format!("Host: ADDRESS\n{JSON}Authorization: Bearer \n"), 401),
            ("another scheme", format!("Host: ADDRESS\n{JSON}Authorization: Basic {TOKEN}\n"), 401),
            ("a made-up session", format!("Host: ADDRESS\n{JSON}Cookie: keepwarm_session={TOKEN}\n"), 401),
            ("two hosts", format!("Host: ADDRESS\nHost: evil.test\n{JSON}Authorization: Bearer {TOKEN}\n"), 400),
            (
                "another origin",
                format!("Host: ADDRESS\nOrigin: http://evil.test\n{JSON}Authorization: Bearer {TOKEN}\n"),
                403,
            ),
            ("the null origin", format!("Host: ADDRESS\nOrigin: null\n{JSON}Authorization: Bearer {TOKEN}\n"), 403),
            (
                "another site",
                format!("Host: ADDRESS\nSec-Fetch-Site: cross-site\n{JSON}Authorization: Bearer {TOKEN}\n"),
                403,
            ),
            (
                "a form",
                format!(
                    "Host: ADDRESS\nContent-Type: application/x-www-form-urlencoded\nAuthorization: Bearer {TOKEN}\n"
                ),
                415,
            ),
            ("plain text", format!("Host: ADDRESS\nContent-Type: text/plain\nAuthorization: Bearer {TOKEN}\n"), 415),
        ] {
            let (answered, body) = attempt(served.address, endpoint, &head).await;
            let refused = answered == status || (status == 400 && answered == 403);
            assert!(refused, "{who}: {} {}: {answered} {body}", endpoint.method, endpoint.path);
            assert!(!body.contains(TOKEN), "{who}: {body}");
        }
    }
    assert_eq!((reloads.load(Ordering::Relaxed), pool.stats().gauges.idle), (0, 1), "nothing happened");
    let (status, _) = attempt(
        served.address,
        changes.iter().find(|endpoint| endpoint.path == "/api/v1/reload").unwrap(),
        &format!("Host: keepwarm.example\n{JSON}Authorization: bearer {TOKEN}\n"),
    )
    .await;
    assert_eq!((status, reloads.load(Ordering::Relaxed)), (200, 1), "who has it is let in");
}

#[tokio::test]
async fn without_a_token_nobody_elsewhere_changes_anything() {
    let fake = Fake::default();
    let (reloads, pool) = (fake.reloads.clone(), fake.pool.clone());
    drop(pool.acquire(&"up").await.unwrap());
    let served = served_by(fake).await;
    for endpoint in endpoints().iter().filter(|endpoint| endpoint.is_change()) {
        for (who, head, status) in [
            ("a rebound name", format!("Host: evil.test:9180\n{JSON}"), 403),
            ("a name that looks local", format!("Host: localhost.evil.test\n{JSON}"), 403),
            ("no host", JSON.to_owned(), 403),
            ("another origin", format!("Host: ADDRESS\nOrigin: https://evil.test\n{JSON}"), 403),
            ("another local port", format!("Host: ADDRESS\nOrigin: http://127.0.0.1:1\n{JSON}"), 403),
            ("another site", format!("Host: ADDRESS\nSec-Fetch-Site: cross-site\n{JSON}"), 403),
            ("the same site, another origin", format!("Host: ADDRESS\nSec-Fetch-Site: same-site\n{JSON}"), 403),
            ("a form", "Host: ADDRESS\nContent-Type: application/x-www-form-urlencoded\n".to_owned(), 415),
            ("no type", "Host: ADDRESS\n".to_owned(), 415),
        ] {
            let (answered, body) = attempt(served.address, endpoint, &head).await;
            let refused = answered == status || (who == "no host" && answered == 400);
            assert!(refused, "{who}: {} {}: {answered} {body}", endpoint.method, endpoint.path);
        }
    }
    assert_eq!((reloads.load(Ordering::Relaxed), pool.stats().gauges.idle), (0, 1), "nothing happened");
}

#[tokio::test]
async fn pages_of_other_sites_read_nothing_and_may_link_to_pages() {
    let served = served().await;
    let ask = async |path: &str, head: &str| {
        let request = format!("GET {path} HTTP/1.1\nHost: {}\n{head}Connection: close\n\n", served.address);
        raw(served.address, &request).await.0
    };
    for site in ["cross-site", "same-site"] {
        let fetched = format!("Sec-Fetch-Site: {site}\nSec-Fetch-Mode: no-cors\n");
        for endpoint in endpoints().iter().filter(|endpoint| !endpoint.is_change()) {
            assert_eq!(ask(&path(endpoint), &fetched).await, 403, "{site}: {}", endpoint.path);
        }
        let link = format!("Sec-Fetch-Site: {site}\nSec-Fetch-Mode: navigate\nSec-Fetch-Dest: document\n");
        assert_eq!(ask("/", &link).await, 200);
        assert_eq!(ask("/pools/lab", &link).await, 200);
        assert_eq!(ask("/login", &link).await, 303, "there is no token");
        assert_eq!(ask("/api/v1/history", &link).await, 403, "that is no page");
        assert_eq!(ask("/", &link.replace("document", "iframe")).await, 403);
    }
    for own in ["Sec-Fetch-Site: same-origin\n", "Sec-Fetch-Site: none\n", ""] {
        assert_eq!(ask("/api/v1/status", own).await, 200, "{own}");
    }
}

#[tokio::test]
async fn everything_but_being_alive_needs_the_token() {
    let served = served_with(Fake::default(), with_token()).await;
    for endpoint in endpoints().iter().filter(|endpoint| !endpoint.is_change()) {
        let public = ["/livez", "/readyz", "/login"].contains(&endpoint.path) || endpoint.path.starts_with("/assets/");
        let (status, body) = attempt(served.address, endpoint, "Host: keepwarm.example\n").await;
        assert_eq!(status == 401, !public, "{}: {status} {body}", endpoint.path);
    }
    let (status, body) = raw(served.address, "GET /readyz?verbose HTTP/1.1\nHost: a.test\nConnection: close\n\n").await;
    assert_eq!((status, &*body), (200, "ok\n"), "what is checked is for those who may ask");
    let known =
        format!("GET /readyz?verbose HTTP/1.1\nHost: a.test\nAuthorization: Bearer {TOKEN}\nConnection: close\n\n");
    assert_eq!(raw(served.address, &known).await, (200, "[+] upstreams: of dns\nok\n".into()));
}

#[tokio::test]
async fn no_answer_invites_other_origins() {
    let served = served().await;
    for endpoint in endpoints() {
        let preflight = Endpoint { method: axum::http::Method::OPTIONS, ..endpoint.clone() };
        for endpoint in [preflight, endpoint].iter().filter(|endpoint| endpoint.path != "/api/v1/events") {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            let (method, path) = (&endpoint.method, path(endpoint));
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n",
                served.address
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
            assert!(!answer.contains("access-control-allow"), "{method} {path}: {answer}");
            assert!(answer.contains("x-content-type-options: nosniff"), "{method} {path}: {answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_ends_its_connection() {
    let served = served_with(Fake::default(), with_token()).await;
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let request = format!("POST /login HTTP/1.1\nHost: a.test\n{head}\n\n");
        let answer = tokio::time::timeout(Duration::from_secs(60), raw(served.address, &request)).await;
        let (answered, body) = answer.expect("it is given up on");
        assert_eq!(answered, 408, "{head}: {body}");
    }
}

#[tokio::test]
async fn streams_end_with_the_token_that_opened_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(());
    let control = Control::new(Arc::new(Fake::default()), address, with_token(), stopped);
    tokio::spawn(Arc::clone(&control).serve(listener));
    let listen = async |head: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: a.test\r\n{head}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        stream
    };
    let ends = async |mut stream: TcpStream| {
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    };
    let session = control.access.log_in(TOKEN).unwrap();
    let stream = listen(&format!("Cookie: keepwarm_session={session}")).await;
    control.access.log_out(&session);
    ends(stream).await;
    let stream = listen(&format!("Authorization: Bearer {TOKEN}")).await;
    control.set_token(Some(Token::new("another-token-of-enough-characters").unwrap()));
    ends(stream).await;
}
