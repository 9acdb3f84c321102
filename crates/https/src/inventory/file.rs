//! Files of addresses: one address or network a line.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::address::bounded;

/// Reads files of addresses.
#[derive(Debug, Clone, Copy)]
pub struct AddressFile;

/// Why a file of addresses could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressFileError {
    /// The line, from 1 on.
    pub line: usize,
    reason: String,
}

impl AddressFile {
    /// Reads the text of a file: an address or a network (`192.0.2.0/24`, `2001:db8::/48`) a line; `#` starts a comment, empty lines say
    /// nothing.
    ///
    /// # Errors
    /// For the first line that is something else, and for a file of more than 65,536 lines.
    pub fn parse(text: &str) -> Result<Vec<IpNet>, AddressFileError> {
        let mut nets = Vec::new();
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (line, content) in (1..).zip(text.lines()) {
            let error = |reason| AddressFileError { line, reason };
            if line > LINES_MAX {
                return Err(error(format!("there are more than {LINES_MAX} lines")));
            }
            let entry = content.split('#').next().unwrap_or_default().trim();
            if !entry.is_empty() {
                nets.push(net(entry).map_err(error)?);
            }
        }
        Ok(nets)
    }
}

fn net(entry: &str) -> Result<IpNet, String> {
    if let Ok(ip) = entry.parse::<IpAddr>() {
        return Ok(ip.into());
    }
    let wrong = |_| {
        format!(
            "\"{}\" is no address and no network, such as 192.0.2.1, 192.0.2.0/24, 2001:db8::1 or 2001:db8::/48",
            bounded(entry)
        )
    };
    let net = entry.parse::<IpNet>().map_err(wrong)?;
    match net == net.trunc() {
        true => Ok(net),
        false => Err(format!("{net} has bits set behind its prefix; the network is {}", net.trunc())),
    }
}

impl fmt::Display for AddressFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for AddressFileError {}

const LINES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_networks_comments_and_empty_lines_are_read() {
        let text = "\u{feff}# mirrors\r\n192.0.2.1\r\n\r\n  2001:db8::/48  # ours\n#192.0.2.9\n192.0.2.0/24";
        let nets = AddressFile::parse(text).unwrap();
        let shown: Vec<String> = nets.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.1/32", "2001:db8::/48", "192.0.2.0/24"]);
        assert_eq!(AddressFile::parse(""), Ok(vec![]));
    }

    #[test]
    fn a_wrong_line_is_refused_with_its_number_and_what_would_do() {
        for (text, line, word) in [
            ("192.0.2.1\n\nhost.example\n", 3, "host.example"),
            ("192.0.2.256", 1, "192.0.2.256"),
            ("# x\n192.0.2.7/24", 2, "192.0.2.0/24"),
            ("192.0.2.0/33", 1, "192.0.2.0/33"),
            ("192.0.2.1 192.0.2.2", 1, "192.0.2.2"),
            ("fe80::1%eth0", 1, "fe80::1%eth0"),
        ] {
            let error = AddressFile::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.to_string().starts_with(&format!("line {line}: ")), "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
        let long = AddressFile::parse(&"x".repeat(1 << 20)).unwrap_err();
        assert!(long.to_string().len() < 500, "the text of an error is bounded");
    }

    #[test]
    fn a_file_has_sixty_four_thousand_lines_at_most() {
        let line = "192.0.2.1\n";
        assert_eq!(AddressFile::parse(&line.repeat(LINES_MAX)).map(|nets| nets.len()), Ok(LINES_MAX));
        assert_eq!(AddressFile::parse(&line.repeat(LINES_MAX + 1)).unwrap_err().line, LINES_MAX + 1);
    }
}
