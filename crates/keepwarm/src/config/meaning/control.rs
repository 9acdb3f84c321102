//! `[control]`: that nobody beyond this machine reaches the status endpoint without a token, and that the token is one.

use std::path::Path;

use keepwarm_control::Token;

use super::{Check, DAY, MINUTE};
use crate::config::{
    ControlConfig,
    fault::Fault,
    read::{At, Section as _},
    spec::ControlSpec,
    value::{ControlAddress, Text},
};

impl Check<'_> {
    pub(super) fn control(&mut self, spec: &ControlSpec, base: &Path) -> ControlConfig {
        let default = ControlConfig::default();
        let file =
            spec.token_file.as_ref().and_then(|at| Some(At { value: at.value.0.clone()?, span: at.span.clone() }));
        let token = file.as_ref().and_then(|file| self.token(file, base));
        let config = ControlConfig {
            listen: spec.listen.as_ref().map_or(default.listen, |at| at.value.0),
            token,
            token_file: file.as_ref().map(|file| base.join(&file.value.0)),
            watch: spec.watch.as_ref().map_or(default.watch, |at| at.value),
            history: self.duration("control.history", spec.history.as_ref(), MINUTE..=DAY, default.history),
        };
        // A token file that was refused is a fault of its own.
        let has_token = file.is_some() || spec.refused("token_file", spec.token_file.as_ref());
        if let Some(at) =
            spec.listen.as_ref().filter(|_| !has_token && !config.listen.ip().to_canonical().is_loopback())
        {
            self.control_is_open(at);
        }
        config
    }

    fn token(&mut self, file: &At<Text>, base: &Path) -> Option<Token> {
        const KEY: &str = "control.token_file";
        let text = self.text_file(KEY, &file.value.0, &file.span, base, "a file with the token as its only line")?;
        self.is_private(KEY, file, base);
        match Token::new(&text) {
            Ok(token) => Some(token),
            Err(error) => {
                let title = format!("`{KEY}`: the token in {} {error}", base.join(&file.value.0).display());
                let help = "accepted: 16 to 4096 visible ASCII characters, as the file's only line, such as `openssl rand -hex 32` writes";
                self.faults.push(Fault::error(file.span.clone(), title).help(help));
                None
            }
        }
    }

    /// Anybody who reaches the endpoint may see clients' names and steer the pools.
    fn control_is_open(&mut self, at: &At<ControlAddress>) {
        let address = at.value.0;
        self.faults.push(
            Fault::error(
                at.span.clone(),
                format!("`control.listen` is {address}, which other machines can reach, and there is no token"),
            )
            .label("anybody could steer the daemon through it")
            .help(format!(
                "write a loopback address, such as \"127.0.0.1:{0}\" or \"[::1]:{0}\", or add token_file = \"control.token\" to [control]",
                address.port()
            )),
        );
    }
}
