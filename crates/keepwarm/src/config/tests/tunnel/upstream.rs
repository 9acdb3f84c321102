//! `[[tunnel.upstream]]`: addresses, credentials, chains, checks, and that no message has a password.

use super::*;

const NO_SSH: &str = "`tunnel.upstream.address` is an SSH server, and this build has no SSH";

#[test]
fn an_ssh_server_needs_a_build_that_speaks_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "id_ed25519", "a key\n");
    write(folder.path(), "known_hosts", "");
    let text = r#"
        version = 1
        [[tunnel.upstream]]
        name = "c"
        address = "ssh://eve@host.example"
        key = "id_ed25519"
        host_key = "known_hosts"
        channels = 4
        through = "http://ann:hunter5@first.example:3128"
        [[tunnel.upstream]]
        name = "d"
        address = "ssh://eve:hunter6@[2001:db8::1]:2222"
        host_key = "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    "#;
    let loaded = Config::parse("test.toml", text, folder.path());
    if !cfg!(feature = "ssh") {
        let Err(ConfigError::Faults(faults)) = loaded else { panic!("{loaded:?}") };
        let said: Vec<_> = faults.iter().map(|fault| &*fault.title).collect();
        assert_eq!(said, [NO_SSH, NO_SSH]);
        return;
    }
    let loaded = loaded.unwrap();
    assert_eq!(places(&loaded.warnings), [""; 0]);
    let upstreams = loaded.config.tunnel.unwrap().upstreams;
    assert!(!format!("{upstreams:?}").contains("hunter"));
    let [c, d] = &upstreams[..] else { panic!("{upstreams:?}") };
    let ssh = |upstream: &UpstreamConfig| match &upstream.kind {
        UpstreamKind::Ssh(ssh) => (**ssh).clone(),
        other => panic!("{other:?}"),
    };
    let (first, second) = (ssh(c), ssh(d));
    assert_eq!((&*first.host, first.port, &*first.user, first.password), ("host.example", 22, "eve", None));
    assert_eq!(first.key, Some(folder.path().join("id_ed25519")));
    assert_eq!(first.host_key, HostKey::KnownHosts(folder.path().join("known_hosts")));
    assert_eq!(login(c.through.as_deref().unwrap()), Some(("ann", "hunter5")));
    assert_eq!((&*second.host, second.port, second.password.as_deref()), ("2001:db8::1", 2222, Some("hunter6")));
    let digest = "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".to_owned();
    assert_eq!((second.key, second.host_key), (None, HostKey::Fingerprint(digest)));
    assert_eq!((first.channels, second.channels), (4, 1));
}

#[test]
fn credentials_come_from_one_place() {
    let socks = |lines: &str| titles(&upstream(&format!("address = \"socks5://proxy\"\n{lines}")));
    let known = |lines: &str| titles(&upstream(&format!("address = \"socks5://ann:hunter2@proxy\"\n{lines}")));
    let key = |key: &str, words: &str| [format!("`tunnel.upstream.{key}` {words}")];
    accepted(&upstream("address = \"socks5://proxy\"\nusername = \"ann\"\npassword = \"\""));
    assert_eq!(socks("username = \"ann\""), key("username", "is without a password"));
    assert_eq!(socks("password = \"x\""), key("password", "is without a user"));
    assert_eq!(known("username = \"ann\""), key("username", "is beside a credential in `address`"));
    assert_eq!(known("password = \"x\""), key("password", "is beside a credential in `address`"));
    assert_eq!(
        socks("username = \"ann\"\npassword = \"x\"\npassword_file = \"y\""),
        key("password_file", "is beside `password`")
    );
    let missing = socks("username = \"ann\"\npassword_file = \"no-such-file\"");
    assert!(missing.len() == 1 && missing[0].contains("no-such-file cannot be read"), "{missing:?}");
    for scheme in ["http", "https"] {
        let colon = format!("address = \"{scheme}://proxy:1\"\nusername = \"a:b\"\npassword = \"x\"");
        assert_eq!(titles(&upstream(&colon)), key("username", "cannot be told to the upstream"));
    }
    let long = format!("username = \"ann\"\npassword = \"{}\"", "x".repeat(256));
    assert_eq!(socks(&long), key("password", "cannot be told to the upstream"));
}

#[test]
fn keys_that_mean_nothing_beside_the_address_are_refused() {
    let no_meaning = |key: &str| format!("`tunnel.upstream.{key}` has no meaning here");
    let direct =
        "address = \"direct://\"\nusername = \"a\"\npassword = \"b\"\nthrough = \"socks5://p\"\nhost_key = \"x\"";
    assert_eq!(titles(&upstream(direct)), ["username", "password", "through", "host_key"].map(no_meaning));
    assert_eq!(
        titles(&upstream("address = \"socks5://p\"\nkey = \"x\"\nchannels = 2")),
        ["key", "channels"].map(no_meaning)
    );
    let titles = |text: &str| titles(text).into_iter().filter(|title| title != NO_SSH).collect::<Vec<_>>();
    let ssh = |lines: &str| titles(&upstream(&format!("address = \"ssh://ann@host\"\n{lines}")));
    let digest = "host_key = \"SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\"";
    assert_eq!(ssh("password = \"x\""), ["`tunnel.upstream.host_key` is missing: the server could be anybody"]);
    assert_eq!(ssh(digest), ["`tunnel.upstream` has neither a `key` nor a password for SSH"]);
    assert_eq!(
        ssh("password = \"x\"\nhost_key = \"SHA256:abc\""),
        ["`tunnel.upstream.host_key` is not a SHA-256 fingerprint"]
    );
    let no_user = format!("address = \"ssh://host\"\nkey = \"no-such-file\"\n{digest}");
    let no_user = titles(&upstream(&no_user));
    assert_eq!(no_user.len(), 2, "{no_user:?}");
    assert_eq!(no_user[0], "`tunnel.upstream.address` names no user");
    assert!(no_user[1].contains("no-such-file cannot be read"), "{no_user:?}");
}

#[test]
fn chains_are_of_two_proxies() {
    let chain = |second: &str, third: &str| {
        file(
            "",
            &format!(
                "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://a\"\nthrough = \"b\"\n\
                 [[tunnel.upstream]]\nname = \"b\"\naddress = \"{second}\"\n{third}"
            ),
        )
    };
    accepted(&chain("http://b:1", ""));
    let refused = |words: &str| [format!("`tunnel.upstream.through` names \"b\", which {words}")];
    let second = "has a `through` of its own; chains are of two";
    assert_eq!(titles(&chain("http://b:1", "through = \"socks5://c\"")), refused(second));
    assert_eq!(titles(&chain("direct://", "")), refused("is not a proxy"));
    assert_eq!(titles(&upstream("address = \"socks5://a\"\nthrough = \"b\"")), refused("is no upstream"));
    let own = titles(&upstream("address = \"socks5://a\"\nthrough = \"exit\""));
    assert_eq!(own, ["`tunnel.upstream.through` names \"exit\", which is the upstream itself"]);
    // One fault is enough where the second is faulty itself.
    assert_eq!(titles(&chain("socks9://b", "")).len(), 1);
}

#[test]
fn a_check_without_a_port_is_taken_for_http() {
    let with = |check: &str| upstream(&format!("address = \"socks5://proxy\"\ncheck = \"{check}\""));
    assert_eq!(warned(&with("www.example")), ["`tunnel.upstream.check` has no port: 80 is taken"]);
    let target = |text: &str| parse(text).unwrap().config.tunnel.unwrap().upstreams[0].check.clone().unwrap();
    assert_eq!(target(&with("www.example")).to_string(), "www.example:80");
    assert_eq!(target(&with("[2001:db8::1]:81")).to_string(), "[2001:db8::1]:81");
    assert_eq!(
        titles(&with("http://www.example")),
        ["`tunnel.upstream.check` is a URL, and a destination is a host and a port"]
    );
}

#[cfg(unix)]
#[test]
fn a_secret_that_everybody_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exit.password");
    std::fs::write(&path, "hunter2\n").unwrap();
    let text = upstream("address = \"socks5://ann@proxy\"\npassword_file = \"exit.password\"");
    for (mode, warnings) in [(0o644, 1), (0o640, 0), (0o600, 0)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let loaded = Config::parse("test.toml", &text, folder.path()).unwrap();
        let said: Vec<_> = loaded.warnings.iter().map(|fault| fault.title.clone()).collect();
        assert_eq!(said.len(), warnings, "{mode:o}: {said:?}");
        assert!(said.iter().all(|title| title.contains("everybody on this machine may read")), "{said:?}");
    }
}

#[test]
fn passwords_of_tunnels_are_in_no_message() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("two.password"), "hunter2\nhunter2\n").unwrap();
    for text in [
        "[tunnel.users]\nann = \"hunter2\"\nbob = 3\n",
        "[tunnel.users]\nbob = 3 \nann = \"hunter2\"\n",
        "[tunnel.users]\nann = { pasword = \"hunter2\" }\n",
        "[tunnel]\nusers = \"ann:hunter2\"\n",
        "[tunnel]\nuser = { ann = \"hunter2\" }\n",
        "[tunnel]\nauth = { ann = \"hunter2\" }\n",
        "[tunnel.users]\nann = { password_file = \"two.password\" }\n",
        "[tunnel.users]\nann = \"hunter2\n",
        "[tunnel]\nusers = { ann = \"hunter2\", ann = \"hunter2\" }\n",
        "[tunnel]\nlisten = \"ann:hunter2@127.0.0.1:1080\"\n",
        "[[tunnel.upstream]]\npassword = \"hunter2\"\nnam = \"a\"\n",
        "[[tunnel.upstream]]\npassword = [\"hunter2\"]\n",
        "[[tunnel.upstream]]\npasword = \"hunter2\"\n",
        "[[tunnel.upstream]]\npassword = \"hunter2\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://p\"\npassword = \"hunter2\"\npassword_file = \"hunter\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://p\"\nusername = \"ann\"\npassword_file = \"two.password\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://ann:hunter2@p\"\nusername = \"ann\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"ann:hunter2@p:1\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"http://ann:hunter2@p\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"ssh://ann:hunter2@p:0\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = [\"socks5://ann:hunter2@p\"]\n",
        "[[tunnel.upstream]]\nname = \"a\"\nadress = \"socks5://ann:hunter2@p\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://p\"\nthrough = \"ann:hunter2@p\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://p\"\nthrough = \"http://ann:hunter2@p\"\n",
        "[[tunnel.upstream]]\nname = \"a\"\naddress = \"socks5://p\"\ncheck = \"ann:hunter2@p:1\"\n",
        "[[tunnel.rule]]\nmatch = [\"ann:hunter2@p\"]\nvia = \"direct\"\n",
    ] {
        let said = rendered(&format!("version = 1\n{text}"), folder.path());
        assert!(!said.contains("hunter2"), "{said}");
        assert!(said.contains("test.toml:"), "{said}");
    }
}
