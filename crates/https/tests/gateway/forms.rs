//! What a request becomes on its way to the origin, and what its answer says.

use http::Request;
use http_body_util::{Full, combinators::BoxBody};
use keepwarm_https::config::GatewayConfig;

use crate::{
    passed,
    setup::{BOTH, Settings, Whole, rig, start},
};

#[tokio::test]
async fn a_url_under_the_prefix_is_the_origins() {
    for http in BOTH {
        let rig = start(Settings { http, ..Settings::default() }).await;
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
            let body = if method == "GET" { "" } else { "a body" };
            let request = Request::builder().method(method).uri(rig.path("/echo/a%20b//c?q=1&r"));
            let request = request.header("host", rig.gateway.to_string()).body(Full::from(body)).expect("valid");
            let answer = rig.ask(request).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let echo = answer.echo();
            assert_eq!((&*echo.method, &*echo.path, &*echo.query), (method, "/echo/a%20b//c", "q=1&r"));
            assert_eq!((&*echo.body, echo.authority), (body, format!("{}:{}", rig.lab.host(), rig.lab.port())));
        }
    }
}

#[tokio::test]
async fn the_origin_sees_what_is_for_it_and_nothing_of_the_gateway_or_the_client() {
    for http in BOTH {
        let rig = start(Settings { http, ..Settings::default() }).await;
        let headers = [
            ("user-agent", "probe/1"),
            ("authorization", "Basic b3JpZ2lu"),
            ("cookie", "a=b"),
            ("proxy-authorization", "Basic eDp5"),
            ("keepwarm-authorization", "Basic eDp5"),
            ("keepwarm-fresh", "true"),
            ("keepwarm-timeout", "5s"),
            ("proxy-connection", "keep-alive"),
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "websocket"),
            ("x-hop", "1"),
        ];
        let echo = rig.ask(rig.request("GET", &rig.path("/echo"), &headers)).await.echo();
        let mut seen: Vec<&str> =
            echo.headers.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "host").collect();
        seen.sort_unstable();
        assert_eq!(seen, ["authorization", "cookie", "user-agent"], "{http:?}");
    }
}

#[tokio::test]
async fn an_answer_says_which_connection_served_it_and_how_long_it_took() {
    let rig = rig().await;
    let first = rig.get("/").await;
    let address = format!("{}:{}", rig.lab.addresses()[0], rig.lab.port());
    let phases = |answer: &Whole| {
        let timing = answer.header("keepwarm-timing").split(", ");
        let reused = answer.header("keepwarm-reused").to_owned();
        (reused, timing.filter_map(|part| part.split(';').next()).collect::<Vec<_>>().join(" "))
    };
    let cold = ("false".to_owned(), "wait connect tls head total".to_owned());
    let hot = ("true".to_owned(), "wait head total".to_owned());
    // The probe of the address may have used the connection before.
    assert!([&cold, &hot].contains(&&phases(&first)), "{first:?}");
    assert_eq!(first.header("keepwarm-address"), address);
    assert_eq!((first.header("keepwarm-protocol"), first.header("keepwarm-tries")), ("h2", "1"));
    assert_eq!(phases(&rig.get("/").await), hot);
    let fresh = rig.ask(rig.request("GET", &rig.path("/"), &[("keepwarm-fresh", "true")])).await;
    assert_eq!(phases(&fresh), cold);
    assert_eq!(rig.lab.total().accepted, 2);
}

#[tokio::test]
async fn a_request_chooses_its_address_its_connection_and_its_time() {
    let rig = start(Settings { addresses: 3, ..Settings::default() }).await;
    let ask = |name: &'static str, value: String| {
        let request = rig.request("GET", &rig.path("/echo"), &[(name, &value)]);
        rig.ask(request)
    };
    // Its addresses are known from then on.
    rig.get("/").await;
    for ip in rig.lab.addresses() {
        assert_eq!(ask("keepwarm-address", ip.to_string()).await.echo().address, ip.to_string());
    }
    assert_eq!(ask("keepwarm-fresh", "true".to_owned()).await.header("keepwarm-reused"), "false");
    assert_eq!(ask("keepwarm-fresh", "false".to_owned()).await.header("keepwarm-reused"), "true");
    assert_eq!(ask("keepwarm-profile", "plain".to_owned()).await.status, 200);
    for (name, value) in [
        ("keepwarm-address", "192.0.2.1"),
        ("keepwarm-address", "tiles"),
        ("keepwarm-profile", "lynx"),
        ("keepwarm-timeout", "soon"),
        ("keepwarm-unheard-of", "1"),
    ] {
        assert_eq!(ask(name, value.to_owned()).await.error(), (400, "request"), "{name}: {value}");
    }
    for ip in rig.lab.addresses() {
        rig.lab.update_faults(ip, |faults| faults.ignore_requests = true);
    }
    assert_eq!(ask("keepwarm-timeout", "200ms".to_owned()).await.error(), (504, "timeout"));
}

#[tokio::test]
async fn a_proxys_http_goes_out_as_https() {
    for http in BOTH {
        let rig = start(Settings { http, is_at_443: true, ..Settings::default() }).await;
        for target in ["http://tiles.test/echo?q", "http://TILES.test:80/echo?q", "https://tiles.test/echo?q"] {
            let answer = rig.ask(rig.request("GET", target, &[("host", "somebody.else")])).await;
            let echo = answer.echo();
            assert_eq!((&*echo.path, &*echo.query, &*echo.authority), ("/echo", "q", "tiles.test"), "{target}");
        }
    }
}

#[tokio::test]
async fn what_is_not_served_is_refused_in_one_line_and_the_connection_goes_on() {
    let rig = rig().await;
    let other = format!("localhost:{}", rig.gateway.port());
    for (method, target, headers, expected) in [
        ("GET", "/".to_owned(), vec![], (404, "not_found")),
        ("GET", "/https/".to_owned(), vec![], (400, "request")),
        ("GET", "/https/other.test/".to_owned(), vec![], (403, "not_configured")),
        ("GET", "http://other.test/".to_owned(), vec![], (403, "not_configured")),
        ("GET", "http://tiles.test:8080/".to_owned(), vec![], (400, "request")),
        ("CONNECT", "tiles.test:443".to_owned(), vec![], (501, "connect")),
        ("GET", rig.path("/"), vec![("host", "attacker.test")], (421, "misdirected")),
        ("GET", rig.path("/"), vec![("origin", "http://attacker.test")], (403, "cross_site")),
        ("GET", rig.path("/"), vec![("sec-fetch-site", "cross-site")], (403, "cross_site")),
        ("GET", rig.path("/"), vec![("host", &*other), ("sec-fetch-site", "same-site")], (403, "cross_site")),
    ] {
        let answer = rig.ask(rig.request(method, &target, &headers)).await;
        assert_eq!(answer.error(), expected, "{method} {target}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    assert_eq!((rig.watch.stats().refused, rig.watch.stats().failed), (8, 2));
    assert_eq!(rig.lab.total().requests, 0);
    let asks = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\n\r\nGET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        rig.path("/")
    );
    let answers = rig.raw(&asks).await;
    let answers = String::from_utf8_lossy(&answers);
    assert!(answers.starts_with("HTTP/1.1 404 ") && answers.contains("HTTP/1.1 200 OK\r\n"), "{answers}");
}

#[tokio::test]
async fn an_origin_that_fails_is_a_bad_gateway() {
    let rig = rig().await;
    rig.lab.update_faults(rig.lab.addresses()[0], |faults| faults.wrong_certificate = true);
    assert_eq!(rig.get("/").await.error(), (502, "certificate"));
    let settings = Settings { timeout: std::time::Duration::from_millis(300), ..Settings::default() };
    let rig = start(settings).await;
    rig.lab.update_faults(rig.lab.addresses()[0], |faults| faults.ignore_requests = true);
    let answer = rig.get("/secret-path").await;
    assert_eq!(answer.error(), (504, "timeout"));
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret-path"), "{answer:?}");
}

#[tokio::test]
async fn without_upgrade_only_https_is_served() {
    let gateway = GatewayConfig { upgrade: false, ..Settings::default().gateway };
    let rig = start(Settings { gateway, is_at_443: true, ..Settings::default() }).await;
    let ask = |target: &str| rig.ask(rig.request("GET", target, &[]));
    assert_eq!(ask("http://tiles.test/").await.error(), (400, "request"));
    assert_eq!(ask("https://tiles.test/").await.status, 200);
}

#[tokio::test]
async fn a_browser_keeps_nothing_of_an_origin_under_the_gateways_name() {
    let rig = rig().await;
    let headers = [
        ("sec-fetch-site", "none"),
        ("sec-fetch-mode", "navigate"),
        ("cookie", "of=something-else"),
        ("authorization", "Basic b3RoZXI6b3JpZ2lu"),
    ];
    let answer = rig.ask(rig.request("GET", &rig.path("/echo"), &headers)).await;
    assert_eq!(answer.header("content-security-policy"), "sandbox");
    assert!(!answer.echo().headers.iter().any(|(name, _)| name == "cookie" || name == "authorization"), "{answer:?}");
    let mine = [("cookie", "mine=1"), ("authorization", "Basic bWluZTox")];
    let answer = rig.ask(rig.request("GET", &rig.path("/echo"), &mine)).await;
    assert_eq!(answer.header("content-security-policy"), "");
    for (name, value) in mine {
        assert!(answer.echo().headers.contains(&(name.to_owned(), value.to_owned())), "{name}");
    }

    let wants = "HTTP/1.1 401 Unauthorized\r\nset-cookie: a=b\r\nwww-authenticate: Basic realm=\"a\"\r\nwww-authenticate: Negotiate\r\n\
                 clear-site-data: \"*\"\r\nrefresh: 0; url=/https/other.test/\r\ncontent-length: 2\r\n\r\nhi";
    let browser = passed::ask(wants, "sec-fetch-site: none\r\n").await;
    let program = passed::ask(wants, "").await;
    for name in ["set-cookie: ", "www-authenticate: ", "clear-site-data: ", "refresh: "] {
        assert!(!browser.contains(name), "{browser}");
        assert!(program.contains(name), "{program}");
    }
    assert!(browser.starts_with("HTTP/1.1 401 ") && browser.ends_with("hi"), "{browser}");
}

#[tokio::test]
async fn many_clients_get_each_their_own_answer() {
    for http in BOTH {
        let rig = std::sync::Arc::new(start(Settings { http, addresses: 2, ..Settings::default() }).await);
        let asks = (0..64).map(|client| {
            let rig = rig.clone();
            tokio::spawn(async move {
                for request in 0..10 {
                    let mark = format!("{client}-{request}");
                    let body = BoxBody::new(Full::from(mark.clone()));
                    let ask = Request::post(rig.path(&format!("/echo?{mark}")))
                        .header("host", "localhost")
                        .header("x-mark", &mark);
                    let echo = rig.ask(ask.body(body).expect("valid")).await.echo();
                    assert_eq!((&echo.query, &echo.body), (&mark, &mark));
                    assert!(echo.headers.contains(&("x-mark".to_owned(), mark.clone())));
                }
            })
        });
        for ask in asks.collect::<Vec<_>>() {
            ask.await.expect("each got its own");
        }
        assert_eq!(rig.watch.stats().requests, 640);
    }
}
