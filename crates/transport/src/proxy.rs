//! Proxies that connections are made through: SOCKS5 (RFC 1928, 1929) and HTTP CONNECT (RFC 9110 section 9.3.6).

use std::fmt;

/// A proxy and how it is asked. Two are the same when every field is, the credential included: connections are never shared between
/// credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// How it is asked.
    pub protocol: ProxyProtocol,
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password; never shown.
    pub credential: Option<Credential>,
}

/// How a proxy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// SOCKS5.
    Socks5,
    /// HTTP CONNECT over plain TCP.
    Http,
}

/// User and password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("protocol", &self.protocol)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).finish_non_exhaustive()
    }
}
