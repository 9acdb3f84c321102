//! What browsers may be talked into, and what pages weigh: without a browser.

use std::{net::SocketAddr, sync::Arc};

use keepwarm_control::{Control, ControlOptions, Token};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::fake::Fake;

/// A control plane that serves until this is dropped.
struct Served {
    fake: Arc<Fake>,
    address: SocketAddr,
    _stop: watch::Sender<()>,
}

async fn serve(token: Option<&str>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, fake) = (listener.local_addr().unwrap(), Fake::new());
    fake.tick();
    let (stop, stopped) = watch::channel(());
    let options = ControlOptions { token: token.map(|token| Token::new(token).unwrap()), ..ControlOptions::default() };
    tokio::spawn(Control::new(Arc::clone(&fake) as _, address, options, stopped).serve(listener));
    Served { fake, address, _stop: stop }
}

impl Served {
    /// Status, head and body of the answer to a request with these lines in its head.
    async fn ask(&self, line: &str, head: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let (head, length) = (head.replace("ADDRESS", &self.address.to_string()), body.len());
        let request = format!("{line} HTTP/1.1\n{head}Content-Length: {length}\nConnection: close\n\n");
        stream.write_all((request.replace('\n', "\r\n") + body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.ask(&format!("GET {path}"), "Host: ADDRESS\n", "").await
    }

    /// What our own forms carry.
    async fn secret(&self) -> String {
        let (_, _, page) = self.get("/").await;
        let from = page.split_once("name=\"form\" value=\"").unwrap().1;
        from.split('"').next().unwrap().to_owned()
    }

    /// What was done so far.
    fn calls(&self) -> Vec<String> {
        self.fake.script.lock().calls.clone()
    }
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\n";
const FORMS: [(&str, &str); 10] = [
    ("/reload", ""),
    ("/cache/flush", ""),
    ("/log", "&level=trace"),
    ("/logout", ""),
    ("/pools/dns/limits", "&max_total=65"),
    ("/pools/dns/pause", ""),
    ("/pools/dns/resume", ""),
    ("/pools/dns/drain", ""),
    ("/pools/dns/flush", ""),
    ("/pools/dns/warm", ""),
];

#[tokio::test]
async fn forms_that_are_not_ours_change_nothing() {
    let served = serve(None).await;
    let secret = served.secret().await;
    for (path, more) in FORMS {
        let (ours, none) = (format!("form={secret}{more}"), more.trim_start_matches('&').to_owned());
        let json = format!("{{\"form\":\"{secret}\"}}");
        for (who, head, body, status) in [
            ("no secret", format!("Host: ADDRESS\n{FORM}"), &none, 403),
            ("a wrong secret", format!("Host: ADDRESS\n{FORM}"), &format!("form={secret}0{more}"), 403),
            ("an empty secret", format!("Host: ADDRESS\n{FORM}"), &format!("form={more}"), 403),
            ("another origin", format!("Host: ADDRESS\nOrigin: http://evil.test\n{FORM}"), &ours, 403),
            ("the null origin", format!("Host: ADDRESS\nOrigin: null\n{FORM}"), &ours, 403),
            ("another site", format!("Host: ADDRESS\nSec-Fetch-Site: cross-site\n{FORM}"), &ours, 403),
            ("the same site, another origin", format!("Host: ADDRESS\nSec-Fetch-Site: same-site\n{FORM}"), &ours, 403),
            ("a rebound name", format!("Host: evil.test\n{FORM}"), &ours, 403),
            ("plain text", "Host: ADDRESS\nContent-Type: text/plain\n".to_owned(), &ours, 415),
            ("json", "Host: ADDRESS\nContent-Type: application/json\n".to_owned(), &json, 415),
        ] {
            let (answered, _, page) = served.ask(&format!("POST {path}"), &head, body).await;
            // A form with nothing but a secret, and without it, is not even one of ours.
            assert!(answered == status || (status == 403 && answered == 422), "{who}: {path}: {answered} {page}");
            assert!(!page.contains(&secret), "{who}: {path}: {page}");
        }
        assert_eq!(served.ask(&format!("GET {path}"), "Host: ADDRESS\n", "").await.0, 405, "{path}");
    }
    assert_eq!(served.calls(), Vec::<String>::new());
    for (path, more) in FORMS {
        let line = format!("POST {path}");
        let head = format!("Host: ADDRESS\nOrigin: http://ADDRESS\nSec-Fetch-Site: same-origin\n{FORM}");
        let (answered, _, page) = served.ask(&line, &head, &format!("form={secret}{more}")).await;
        assert_eq!(answered, 303, "{path}: {page}");
    }
    assert_eq!(served.calls(), ["reload", "flush all", "log trace 600", "limits dns.max_total"]);
}

#[tokio::test]
async fn with_a_token_the_pages_and_forms_are_behind_the_login() {
    let served = serve(Some("a-token-for-the-test")).await;
    for (path, more) in FORMS {
        let (answered, ..) = served.ask(&format!("POST {path}"), &format!("Host: ADDRESS\n{FORM}"), more).await;
        assert_eq!(answered, 401, "{path}");
    }
    let (answered, head, _) = served.ask("GET /", "Host: ADDRESS\nAccept: text/html\n", "").await;
    assert!(answered == 303 && head.contains("location: /login"), "{head}");
    let (answered, _, page) = served.get("/login").await;
    assert!(
        answered == 200 && !page.contains("9.9.9") && !page.contains("name=\"form\""),
        "nothing of the daemon: {page}"
    );
    let log_in = async |token: &str| {
        let head = format!("Host: ADDRESS\nOrigin: http://ADDRESS\n{FORM}");
        served.ask("POST /login", &head, &format!("token={token}")).await
    };
    let foreign = format!("Host: ADDRESS\nOrigin: http://evil.test\n{FORM}");
    assert_eq!(served.ask("POST /login", &foreign, "token=a-token-for-the-test").await.0, 403);
    let (answered, head, page) = log_in("%3Cb%3Ewrong%3C/b%3E").await;
    assert!(answered == 401 && !head.contains("set-cookie") && !page.contains("wrong"), "{head} {page}");
    let (answered, head, _) = log_in("a-token-for-the-test").await;
    assert!(answered == 303 && head.contains("location: /\r\n"), "{head}");
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.ends_with("; path=/; httponly; samesite=strict"), "{cookie}");
    let cookie = format!("Host: ADDRESS\nCookie: {}\n", cookie.split(';').next().unwrap());
    assert_eq!(served.ask("GET /", &cookie, "").await.0, 200);
    for _ in 0..4 {
        assert_eq!(log_in("wrong").await.0, 401);
    }
    assert_eq!(log_in("a-token-for-the-test").await.0, 429, "guessing is slow, also with the right one");
    assert_eq!(served.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn pages_stay_small_however_much_there_is() {
    let served = serve(None).await;
    served.fake.script.lock().many = 1000;
    for path in ["/", "/pools/dns"] {
        let (answered, head, page) = served.get(path).await;
        assert_eq!(answered, 200);
        assert!(page.len() < 100_000, "{path} has {} bytes", page.len());
        assert!(head.contains("referrer-policy: same-origin") && head.contains("default-src 'none'"), "{head}");
        assert!(!page.contains(" style=") && !page.contains("<style") && !page.contains(" onclick"), "{path}");
    }
    let (_, _, page) = served.get("/").await;
    assert!(page.contains("983</span> more") && page.contains("986</span> more"), "what is left out is said");
    let (answered, _, page) = served.get("/pools/none%3Cb%3E").await;
    assert!(answered == 404 && !page.contains("<b>"), "{page}");
}

#[tokio::test]
async fn files_are_kept_by_browsers_until_they_change() {
    let served = serve(None).await;
    let (_, _, page) = served.get("/").await;
    let mut files = 0;
    for href in page.split(&['"', ' '][..]).filter(|word| word.starts_with("/assets/")) {
        files += 1;
        let (answered, head, body) = served.get(href).await;
        assert!(answered == 200 && !body.is_empty() && head.contains("max-age=31536000, immutable"), "{href}: {head}");
        let kind = ["text/css", "text/javascript", "image/svg+xml", "text/plain"];
        assert!(kind.iter().any(|kind| head.contains(&format!("content-type: {kind}"))), "{head}");
        let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        let (path, _) = href.split_once('?').unwrap();
        let (answered, head, body) =
            served.ask(&format!("GET {path}"), &format!("Host: ADDRESS\nIf-None-Match: {tag}\n"), "").await;
        assert!(answered == 304 && body.is_empty() && head.contains("cache-control: no-cache"), "{head}");
    }
    assert!(files >= 7, "{files}");
    assert_eq!(served.get("/assets/../Cargo.toml").await.0, 404);
    assert_eq!(served.get("/assets/none.js").await.0, 404);
}
