use super::*;

/// A config with each kind of secret that there is.
const SECRETIVE: &str = r#"version = 1
# The comment says pw-in-comment.
[dns]
listen = ["127.0.0.1:5300"]
[[dns.upstream]]
name = "router"
address = "udp://127.0.0.1:53"
[https]
gateway = "127.0.0.1:8180"
[https.users]
ann = "pw-of-ann"
bob = { password_file = "bob.password" }
[[https.origin]]
host = "tiles.example"
proxy = "socks5://me:pw-of-proxy@127.0.0.1:1080"
[tunnel]
listen = ["127.0.0.1:1080"]
[tunnel.users]
eve = "pw-of-eve"
[[tunnel.upstream]]
name = "a"
address = "socks5://me:pw-in-url@127.0.0.1:1081"
[[tunnel.upstream]]
name = "b"
address = "http://127.0.0.1:8080"
username = "user-of-b"
password = "pw-of-b"
[[tunnel.upstream]]
name = "c"
address = "http://127.0.0.1:8081"
username = "user-of-c"
password_file = "c.password"
[[tunnel.upstream]]
name = "d"
address = "socks5://127.0.0.1:1082"
through = "http://me:pw-of-through@127.0.0.1:8082"
"#;

const SECRETS: [&str; 9] = [
    "pw-in-comment",
    "pw-of-ann",
    "pw-of-bob",
    "pw-of-proxy",
    "pw-of-eve",
    "pw-in-url",
    "pw-of-b",
    "pw-of-c",
    "pw-of-through",
];

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bob.password"), "pw-of-bob\n").unwrap();
    std::fs::write(folder.path().join("c.password"), "pw-of-c\n").unwrap();
    let file = folder.path().join("keepwarm.toml");
    std::fs::write(&file, SECRETIVE).unwrap();
    (folder, file)
}

/// An address that nobody listens on.
fn nobody() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn made_of(config: Option<PathBuf>, control: std::net::SocketAddr) -> String {
    let ask = AskArgs { control: Some(control), token_file: None };
    bundle(&DiagArgs { file: None, config, ask }).await
}

#[tokio::test]
async fn no_secret_of_the_config_is_in_the_bundle() {
    let (_folder, file) = folder();
    let text = made_of(Some(file.clone()), nobody()).await;
    assert!(text.contains("name = \"d\""), "the config was read and accepted: {text}");
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    // A config that is refused, and one that is not even TOML, are shown by their faults.
    for spoilt in
        [SECRETIVE.replace("[tunnel.users]", "[tunnel.user]"), SECRETIVE.replace("= \"pw-of-eve\"", "= \"pw-of-eve")]
    {
        std::fs::write(&file, spoilt).unwrap();
        let text = made_of(Some(file.clone()), nobody()).await;
        assert!(text.contains("refused:\nerror:"), "{text}");
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_no_error() {
    let text = made_of(None, nobody()).await;
    for part in
        ["version: 0.", "cores: ", "=== config\nfile: none: the built-in default", "no keepwarm daemon at 127.0.0.1:"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[cfg(unix)]
#[test]
fn the_file_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.txt");
    write(&path, "text").unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
