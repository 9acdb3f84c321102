//! wget, nc, ssh over nc, proxychains.

use keepwarm_lab::sha256_hex;

use super::{
    gateway::{BYTES, Gateway, PASSWORD, is_whole, upload},
    program::{Program, file},
    ssh,
};

#[tokio::test]
async fn wget_downloads_and_uploads() {
    let Some(wget) = Program::find("wget", "wget") else { return };
    let gateway = Gateway::guarded().await;
    let (path, checksum) = upload(gateway.folder());
    let ways = ["http_proxy", "https_proxy"].map(|name| format!("{name}=http://{}", gateway.address));
    let (ca, password) = (format!("--ca-certificate={}", gateway.ca()), format!("--proxy-password={PASSWORD}"));
    let proxy = ["-q", "-O", "-", "--tries=1", "-e", "use_proxy=yes", "-e", &ways[0], "-e", &ways[1], &ca];
    let known = [&proxy[..], &["--proxy-user=ann", &password]].concat();
    let post = format!("--post-file={path}");
    for url in [Gateway::plain_url, Gateway::tls_url] {
        is_whole(wget.run(&[&known[..], &[&url(&gateway, BYTES)]].concat()).await);
        let answer = wget.run(&[&known[..], &[&post, &url(&gateway, "/upload")]].concat()).await.text();
        assert!(answer.contains(&checksum), "{answer}");
        let ran = wget.run(&[&proxy[..], &[&url(&gateway, BYTES)]].concat()).await;
        assert!(ran.code != Some(0) && ran.output.is_empty(), "{ran:?}");
    }
    gateway.check().await;
}

#[tokio::test]
async fn nc_carries_bytes_by_every_protocol() {
    let Some(nc) = Program::find("nc.openbsd", "netcat-openbsd") else { return };
    let gateway = Gateway::open().await;
    let (address, port) = (gateway.address.to_string(), gateway.echo.addr(0).port().to_string());
    // Its SOCKS4 takes addresses alone.
    for (protocol, host) in [("5", "echo.test"), ("connect", "echo.test"), ("4", "127.0.0.1")] {
        gateway.carries(&nc, &["-N", "-X", protocol, "-x", &address, host, &port]).await;
    }
    let stats = gateway.watch.stats();
    assert!(stats.socks5 > 0 && stats.socks5 == stats.socks4 && stats.http == stats.socks5, "{stats:?}");
    gateway.check().await;
}

#[tokio::test]
async fn ssh_reaches_its_server_through_nc() {
    let (Some(nc), Some(client)) =
        (Program::find("nc.openbsd", "netcat-openbsd"), Program::find("ssh", "openssh-client"))
    else {
        return;
    };
    let Some(sshd) = ssh::Sshd::start().await else { return };
    let gateway = Gateway::open().await;
    gateway.proxy.pin("ssh.test", ([127, 0, 0, 1], sshd.port()).into());
    let command = format!("ProxyCommand={} -X 5 -x {} %h %p", nc.path(), gateway.address);
    let mut arguments = sshd.client_options();
    arguments.extend(["-o", &command, &format!("{}@ssh.test", sshd.user), "sha256sum"].map(str::to_owned));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let sent = vec![7; 3_000_000];
    let answer = client.feed(&arguments, &sent).await.text();
    assert_eq!(answer.split(' ').next(), Some(&*sha256_hex(&sent)));
    gateway.check().await;
}

/// Writes proxychains' settings: names go to the proxy.
fn settings(gateway: &Gateway, line: &str) -> String {
    // Its own patience is 4 s, which a client that has to wait for a place may need.
    let patience = "tcp_read_time_out 30000\ntcp_connect_time_out 30000";
    let text = format!("strict_chain\nproxy_dns\nremote_dns_subnet 224\n{patience}\n[ProxyList]\n{line}\n");
    file(gateway.folder(), "proxychains.conf", &text)
}

#[tokio::test]
async fn proxychains_leads_curl_and_nc_through() {
    let (Some(chains), Some(curl), Some(nc)) = (
        Program::find("proxychains4", "proxychains4"),
        Program::find("curl", "curl"),
        Program::find("nc.openbsd", "netcat-openbsd"),
    ) else {
        return;
    };
    let gateway = Gateway::open().await;
    let port = gateway.echo.addr(0).port().to_string();
    for protocol in ["socks5", "socks4", "http"] {
        let settings = settings(&gateway, &format!("{protocol} 127.0.0.1 {}", gateway.port()));
        let chained = ["-q", "-f", &settings];
        let (plain, tls, ca) = (gateway.plain_url(BYTES), gateway.tls_url(BYTES), gateway.ca());
        for url in [&plain, &tls] {
            let asked = [curl.path(), "-q", "-sS", "--fail", "--max-time", "30", "--cacert", &ca, url];
            is_whole(chains.run(&[&chained[..], &asked].concat()).await);
        }
        gateway.carries(&chains, &[&chained[..], &[nc.path(), "-N", "echo.test", &port]].concat()).await;
    }
    let stats = gateway.watch.stats();
    assert_eq!((stats.socks5, stats.socks4, stats.http), (14, 14, 14), "{stats:?}");
    gateway.check().await;
}

#[tokio::test]
async fn proxychains_says_who_asks() {
    let (Some(chains), Some(curl)) = (Program::find("proxychains4", "proxychains4"), Program::find("curl", "curl"))
    else {
        return;
    };
    // Words of its settings are parted by spaces, so no password with one.
    let user = keepwarm_tunnel::config::User { name: "bob".into(), password: "p4ss:word".into() };
    let gateway = Gateway::start(vec![user]).await;
    let plain = gateway.plain_url(BYTES);
    for protocol in ["socks5", "http"] {
        for (password, is_right) in [("p4ss:word", true), ("wrong", false)] {
            let line = format!("{protocol} 127.0.0.1 {} bob {password}", gateway.port());
            let settings = settings(&gateway, &line);
            let asked = ["-q", "-f", &settings, curl.path(), "-q", "-sS", "--fail", "--max-time", "30", &plain];
            let ran = chains.run(&asked).await;
            if is_right {
                is_whole(ran);
            } else {
                assert!(ran.code != Some(0) && ran.output.is_empty(), "{ran:?}");
            }
        }
    }
    gateway.check().await;
}
