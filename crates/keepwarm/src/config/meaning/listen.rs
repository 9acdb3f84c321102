//! Where clients come in: that no two listeners want one socket, and that encrypted ones have a certificate.

use std::path::Path;

use keepwarm_dns::config::{Listen, ListenTls};
use keepwarm_transport::tls::{CertificateFault, TlsServer};

use super::Check;
use crate::config::{
    defaults,
    fault::Fault,
    read::{At, List, Section as _},
    spec::{ControlSpec, DnsSpec, ListenTlsSpec},
    value::Text,
    words::io_words,
};

const LISTEN_MAX: usize = 64;

impl Check<'_> {
    pub(super) fn listen(&mut self, listen: Option<&At<List<Listen>>>) -> Vec<Listen> {
        let Some(listen) = listen else {
            return vec![defaults::listen()];
        };
        self.not_empty_list("dns.listen", listen, LISTEN_MAX, "at least one address, such as \"127.0.0.1:5300\"");
        for (index, item) in listen.value.iter().enumerate() {
            let (address, b) = (item.value.address, item.value.transport);
            let clash = listen.value[..index].iter().filter(|_| address.port() != 0).find_map(|earlier| {
                let a = earlier.value.transport;
                let protocol = match (a.over_udp() && b.over_udp(), a.over_tcp() && b.over_tcp()) {
                    (false, false) => return None,
                    (true, true) => "both are over UDP and TCP",
                    (true, false) => "both are over UDP",
                    (false, true) => "both are over TCP",
                };
                (earlier.value.address == address).then_some((earlier, protocol))
            });
            if let Some((earlier, protocol)) = clash {
                self.faults.push(
                    Fault::error(item.span.clone(), format!("`dns.listen` has {address} twice"))
                        .also(earlier.span.clone(), format!("first here; {protocol}"))
                        .help("remove one of them, or give it another port"),
                );
            }
        }
        listen.value.iter().map(|item| item.value.clone()).collect()
    }

    /// The status endpoint takes TCP connections, and cannot share an address with a listener that does.
    pub(super) fn control_fits(&mut self, control: &ControlSpec, dns: &DnsSpec) {
        let (Some(control), Some(listen)) = (&control.listen, &dns.listen) else {
            return;
        };
        let address = control.value.0;
        let takes_it = |item: &&At<Listen>| item.value.address == address && item.value.transport.over_tcp();
        if let Some(listener) = listen.value.iter().filter(|_| address.port() != 0).find(takes_it) {
            self.faults.push(
                Fault::error(
                    control.span.clone(),
                    format!("`control.listen` is {address}, where `dns.listen` takes TCP"),
                )
                .also(listener.span.clone(), "the listener")
                .help("give one of them another port"),
            );
        }
    }

    /// The certificate. Its files are looked at only where a listener shows them: a section that waits for its first
    /// listener does no harm.
    pub(super) fn listen_tls(
        &mut self,
        tls: Option<&At<ListenTlsSpec>>,
        has_section: bool,
        listen: Option<&At<List<Listen>>>,
        base: &Path,
    ) -> Option<ListenTls> {
        let shown_at = listen.and_then(|list| list.value.iter().find(|item| item.value.transport.is_encrypted()));
        let Some(tls) = tls else {
            if let Some(listener) = shown_at.filter(|_| !has_section) {
                let scheme = listener.value.transport.as_str();
                let article = if scheme.starts_with('h') { "an" } else { "a" };
                self.faults.push(
                    Fault::error(
                        listener.span.clone(),
                        format!("`dns.listen` has {article} {scheme}:// listener, and there is no [dns.tls]"),
                    )
                    .label("needs a certificate")
                    .help("add the certificate, such as:\n[dns.tls]\ncertificate = \"dns.crt\"\nkey = \"dns.key\""),
                );
            }
            return None;
        };
        for (key, what) in [("certificate", "dns.crt"), ("key", "dns.key")] {
            if !tls.value.has(key) {
                self.faults.push(
                    Fault::error(tls.span.clone(), format!("`dns.tls.{key}` is missing"))
                        .help(format!("add the path of a PEM file, such as {key} = \"{what}\"")),
                );
            }
        }
        let path = |at: &At<Text>| base.join(&at.value.0);
        let mut readable = shown_at.is_some();
        if shown_at.is_some() {
            for (key, at) in [("certificate", &tls.value.certificate), ("key", &tls.value.key)] {
                if let Some(at) = at {
                    let accepted = "a PEM file that the daemon's user may read";
                    readable &= self.readable(&format!("dns.tls.{key}"), at, &path(at), accepted);
                }
            }
        }
        let (certificate, key) = (tls.value.certificate.as_ref()?, tls.value.key.as_ref()?);
        let files = ListenTls { certificate: path(certificate), key: path(key) };
        if readable {
            self.pair(&files, certificate, key);
        }
        Some(files)
    }

    /// Reads the certificate and its key as the listeners will.
    fn pair(&mut self, files: &ListenTls, certificate: &At<Text>, key: &At<Text>) {
        match TlsServer::load(&files.certificate, &files.key) {
            Ok(server) => {
                let info = server.certificate();
                if !info.is_valid_now() {
                    let file = files.certificate.display();
                    let title = format!("`dns.tls.certificate`: {file} is not valid today: clients will refuse it");
                    self.faults.push(
                        Fault::warning(certificate.span.clone(), title)
                            .label(format!("for {}, until {}", info.names().join(", "), info.not_after_date()))
                            .help("renew it; the daemon reads the files again when they change"),
                    );
                }
            }
            Err(error) => {
                // Both may be in one file.
                let of_key = matches!(
                    error.fault(),
                    CertificateFault::NoKey | CertificateFault::EncryptedKey | CertificateFault::Mismatch(_)
                );
                let is_key = of_key || error.path() != files.certificate;
                let (name, at) = if is_key { ("key", key) } else { ("certificate", certificate) };
                self.faults.push(
                    Fault::error(at.span.clone(), format!("`dns.tls.{name}`: {error}")).help(if is_key {
                        "accepted: the path of a PEM file with the private key of the certificate, not encrypted"
                    } else {
                        "accepted: the path of a PEM file with the listeners' own certificate and then those that lead to its root"
                    }),
                );
            }
        }
    }

    /// Notes a file that cannot be opened, or is none; whether it can.
    pub(super) fn readable(&mut self, key: &str, at: &At<Text>, path: &Path, accepted: &str) -> bool {
        let opened = std::fs::File::open(path).and_then(|file| file.metadata());
        let problem = match opened {
            Ok(metadata) if metadata.is_dir() => "is a directory".to_owned(),
            Ok(_) => return true,
            Err(error) => format!("cannot be read: {}", io_words(&error)),
        };
        self.faults.push(
            Fault::error(at.span.clone(), format!("`{key}`: {} {problem}", path.display()))
                .help(format!("accepted: the path of {accepted}; a relative path starts at this file's folder")),
        );
        false
    }
}
