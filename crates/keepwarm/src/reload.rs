//! `keepwarm reload`: the daemon reads its config again, and says what changed, what was kept and what was let go.

use std::{fmt::Write as _, time::Duration};

use clap::Args;

use crate::{
    ask::{AskArgs, OutputArgs, unavailable},
    cli::{Exit, complain, print},
    runtime::block_on,
    table::visible,
};
use keepwarm_control::{
    client::{self, ClientError},
    rows::{DifferenceRow, DrainedRow, ReloadRow},
};

/// Arguments of `keepwarm reload`.
#[derive(Debug, Clone, Args)]
pub struct ReloadArgs {
    /// Which daemon.
    #[command(flatten)]
    pub ask: AskArgs,
    /// How.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Asks the daemon to read its config again. A config that is refused changes nothing: then its faults are shown, and the exit code is
/// that of a refused config.
///
/// # Errors
/// [`NoDaemon`](crate::cli::NoDaemon) when no daemon answers at the address; the daemon's words when it could not.
pub fn main(args: &ReloadArgs) -> anyhow::Result<Exit> {
    let daemon = args.ask.daemon()?;
    let body = serde_json::json!({});
    let done: Result<ReloadRow, ClientError> = block_on(client::post(&daemon, "/api/v1/reload", &body, PATIENCE))?;
    match done {
        Ok(done) => print(&args.output.one(&done, &["generation"], || text(&done))?),
        Err(ClientError::Refused { status: 422, error }) => {
            complain(&format!("{}\n\nkeepwarm: config refused: nothing has changed\n", faults(&error)));
            Ok(Exit::Config)
        }
        Err(error) => Err(unavailable(error)),
    }
}

/// The faults as the daemon wrote them, in lines, without what would steer a terminal.
fn faults(error: &str) -> String {
    error.trim_end().lines().map(visible).collect::<Vec<_>>().join("\n")
}

/// What a reload did, for people.
fn text(done: &ReloadRow) -> String {
    let mut text = format!("reloaded: generation {}\n", done.generation);
    for DifferenceRow { path, from, to } in &done.differences {
        let value = |value: &Option<String>| value.as_deref().map_or_else(|| "(none)".to_owned(), visible);
        let _ = writeln!(text, "  {}: {} -> {}", visible(path), value(from), value(to));
    }
    let drained = done.drained.iter().map(|DrainedRow { name, connections }| match connections {
        1 => format!("{name} (1 connection)"),
        connections => format!("{name} ({connections} connections)"),
    });
    let drained: Vec<String> = drained.collect();
    for (name, list) in [
        ("changed", &done.changed),
        ("added", &done.added),
        ("drained", &drained),
        ("kept", &done.kept),
        ("needs restart", &done.needs_restart),
    ] {
        if !list.is_empty() {
            let _ = writeln!(text, "{name:<14}{}", visible(&list.join(", ")));
        }
    }
    if done.differences.is_empty() && done.changed.is_empty() && done.added.is_empty() && drained.is_empty() {
        text.push_str("nothing has changed\n");
    }
    for warning in &done.warnings {
        let _ = writeln!(text, "warning: {}", visible(warning));
    }
    text
}

/// The new state is built whole before anything changes, which may need look-ups: 60 s.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_tells_what_it_did() {
        let done = ReloadRow {
            generation: 3,
            differences: vec![
                DifferenceRow { path: "dns.pool.max_per_host".into(), from: Some("10".into()), to: Some("4".into()) },
                DifferenceRow { path: "dns.upstream.old".into(), from: Some("tls://192.0.2.1".into()), to: None },
            ],
            kept: vec!["dns.upstream.quad9".into(), "https".into()],
            added: Vec::new(),
            changed: vec!["dns.pool".into()],
            drained: vec![DrainedRow { name: "dns.upstream.old".into(), connections: 1 }],
            needs_restart: vec!["control.listen".into()],
            warnings: vec!["a warning\x1b[2J".into()],
        };
        insta::assert_snapshot!(text(&done), @r"
        reloaded: generation 3
          dns.pool.max_per_host: 10 -> 4
          dns.upstream.old: tls://192.0.2.1 -> (none)
        changed       dns.pool
        drained       dns.upstream.old (1 connection)
        kept          dns.upstream.quad9, https
        needs restart control.listen
        warning: a warning�[2J
        ");
        insta::assert_snapshot!(text(&ReloadRow { generation: 4, kept: vec!["dns".into()], ..ReloadRow::default() }), @r"
        reloaded: generation 4
        kept          dns
        nothing has changed
        ");
    }

    #[test]
    fn faults_stay_in_lines_and_cannot_steer_a_terminal() {
        assert_eq!(faults("error: a\n  --> f:1\x1b[2J\n"), "error: a\n  --> f:1\u{fffd}[2J");
    }
}
