//! `[control]`: the settings of the status endpoint.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use keepwarm_control::{ControlOptions, Token};

/// Settings of the status endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlConfig {
    /// Where it listens; a loopback address, unless there is a token. Default 127.0.0.1:9180.
    pub listen: SocketAddr,
    /// What callers have to show; read from `token_file`. Default none.
    pub token: Option<Token>,
    /// Where the token was read, from the config file's folder on. Default none.
    pub token_file: Option<PathBuf>,
    /// Whether a change of the config file is a reload. Default false.
    pub watch: bool,
    /// For how long figures are kept for reports, 1 minute to 1 day. Default 1 hour.
    pub history: Duration,
}

impl Default for ControlConfig {
    fn default() -> Self {
        let ControlOptions { token, history } = ControlOptions::default();
        let listen = SocketAddr::from(([127, 0, 0, 1], 9180));
        ControlConfig { listen, token, token_file: None, watch: false, history }
    }
}

impl ControlConfig {
    /// What the endpoint itself is told.
    pub fn options(&self) -> ControlOptions {
        ControlOptions { token: self.token.clone(), history: self.history }
    }
}
