//! The runtime of a command that asks by itself.
//!
//! What is deliberately not here: the daemon's runtime, which is in `run`.

use anyhow::Context as _;
use tokio::runtime::Builder;

/// Runs a future to its end on a runtime of its own, in this thread. What it started in the background is not waited for: the system's
/// look-ups cannot be interrupted, and may go on long after the command's own limit.
///
/// # Errors
/// When the runtime cannot be started.
pub(crate) fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    let runtime = Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn a_look_up_that_does_not_end_is_not_waited_for() {
        let (release, held) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        // As a look-up does: it blocks a thread of the runtime.
        let look_up = move || tell.send(held.recv_timeout(Duration::from_secs(20))).unwrap();
        let output = block_on(async move {
            tokio::task::spawn_blocking(look_up);
            7
        });
        assert_eq!(output.unwrap(), 7);
        release.send(()).expect("it still looks up");
        assert_eq!(told.recv().unwrap(), Ok(()), "it was released, and did not run out of time");
    }
}
