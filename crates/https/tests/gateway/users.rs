//! Who may use the gateway.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keepwarm_https::{
    Client, Gateway,
    config::{GatewayConfig, HttpsConfig, User},
};
use keepwarm_transport::resolve::Fixed;

use crate::setup::{Settings, start};

fn users() -> Vec<User> {
    vec![User { name: "ann".to_owned(), password: "correct horse".to_owned() }]
}

#[tokio::test]
async fn with_users_only_they_are_served_in_either_form() {
    let gateway = GatewayConfig { users: users(), ..Settings::default().gateway };
    let rig = start(Settings { gateway, is_at_443: true, ..Settings::default() }).await;
    let right = format!("Basic {}", STANDARD.encode("ann:correct horse"));
    let wrong = format!("Basic {}", STANDARD.encode("ann:wrong horse"));
    for target in ["/https/tiles.test/echo", "http://tiles.test/echo"] {
        for header in ["proxy-authorization", "keepwarm-authorization"] {
            let answer = rig.ask(rig.request("GET", target, &[(header, &right)])).await;
            let names: Vec<_> = answer.echo().headers.into_iter().map(|(name, _)| name).collect();
            assert!(!names.iter().any(|name| name.contains("authorization")), "{names:?}");
            let answer = rig.ask(rig.request("GET", target, &[(header, &wrong)])).await;
            assert_eq!(answer.error(), (407, "proxy_auth"));
            assert_eq!(answer.header("proxy-authenticate"), "Basic realm=\"keepwarm\", charset=\"UTF-8\"");
        }
        let origins_own = rig.ask(rig.request("GET", target, &[("authorization", &right)])).await;
        assert_eq!(origins_own.error(), (407, "proxy_auth"));
    }
    assert_eq!(rig.lab.total().requests, 4);
}

#[tokio::test]
async fn beyond_loopback_there_are_users_or_no_gateway() {
    let client = || Client::new(HttpsConfig::default(), std::sync::Arc::new(Fixed(Vec::new()))).expect("a client");
    let listen = |address: &str| vec!["127.0.0.1:0".parse().expect("valid"), address.parse().expect("valid")];
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
        let config = GatewayConfig { listen: listen(address), ..GatewayConfig::default() };
        let error = Gateway::bind(&config, client()).expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("set users"), "{error}");
    }
    let config = GatewayConfig { listen: listen("0.0.0.0:0"), users: users(), ..GatewayConfig::default() };
    let gateway = Gateway::bind(&config, client()).expect("with users");
    assert_eq!(gateway.addresses().len(), 2);
    for config in [
        GatewayConfig { listen: Vec::new(), ..GatewayConfig::default() },
        GatewayConfig { listen: listen("127.0.0.1:0"), max_clients: 0, ..GatewayConfig::default() },
        GatewayConfig {
            listen: listen("127.0.0.1:0"),
            users: vec![User { name: "a:b".to_owned(), password: String::new() }],
            ..GatewayConfig::default()
        },
    ] {
        assert_eq!(Gateway::bind(&config, client()).expect_err("refused").kind(), std::io::ErrorKind::InvalidInput);
    }
    let taken = GatewayConfig { listen: vec![gateway.addresses()[0]], ..GatewayConfig::default() };
    let error = Gateway::bind(&taken, client()).expect_err("taken");
    assert!(error.to_string().starts_with(&format!("listen on {}", gateway.addresses()[0])), "{error}");
}
