//! `keepwarm profile capture`: the recorder with words around it.

use std::path::Path;

use anyhow::Context as _;
use keepwarm_https::profile::{
    Profile,
    capture::{Capture, Captures, Recorder},
    preface::Preface,
};
use keepwarm_lab::Ca;
use keepwarm_transport::tls::TlsServer;
use serde_json::json;

use super::{CaptureArgs, Output, print_json, write};
use crate::cli::{Exit, Unavailable, print};

/// Records until there are enough connections or the time is over, and writes what was asked for.
///
/// # Errors
/// [`Unavailable`] when the address cannot be listened on; a certificate or a file that cannot be used; nothing recorded.
pub(super) fn main(args: &CaptureArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let captures = runtime.block_on(record(args))?;
    anyhow::ensure!(!captures.captures.is_empty(), "nobody connected within the time");
    if let Some(path) = &args.out {
        write(path, &captures.to_json().context("write json")?)?;
    }
    if let Some(path) = &args.profile {
        write(path, &profile(&name(path), args, &captures)?)?;
    }
    match args.output.format() {
        Output::Json => print_json(&json!(captures)),
        Output::Table => print(&ending(args, &captures)),
    }
}

/// The profile that the captures make, as a file of it.
fn profile(name: &str, args: &CaptureArgs, captures: &Captures) -> anyhow::Result<String> {
    let profile = Profile::from_captures(name, "", &args.label, &captures.captures)?;
    let text = format!("{}\n", serde_json::to_string_pretty(&profile).context("write json")?);
    // What was captured may be nothing that can be sent, such as a header that is not text.
    Profile::from_json(&text).context("make a profile of the captures")?;
    Ok(text)
}

/// What a profile is called after its file.
fn name(path: &Path) -> String {
    let stem = path.file_stem().map_or_else(|| "captured".into(), |stem| stem.to_string_lossy());
    stem.replace(['@', ' '], "-")
}

async fn record(args: &CaptureArgs) -> anyhow::Result<Captures> {
    let recorder = Recorder::bind(args.listen, tls(args)?).await.map_err(|error| Unavailable(error.to_string()))?;
    let is_shown = args.output.format() == Output::Table;
    if is_shown {
        print(&introduction(args, recorder.local_addr().port()))?;
    }
    let seen = |capture: &Capture| {
        if is_shown {
            // Whoever closed the output still gets the files.
            let _ = print(&line(capture));
        }
    };
    let captures = recorder.record(usize::from(args.count), args.wait, seen).await;
    Ok(Captures { label: args.label.clone(), captures })
}

/// The certificate that was given, or one made for this run, whose files go with the call.
fn tls(args: &CaptureArgs) -> anyhow::Result<TlsServer> {
    if let (Some(certificate), Some(key)) = (&args.certificate, &args.key) {
        return Ok(TlsServer::load(certificate, key)?);
    }
    let (certificate, key) = Ca::new().issue_pem(&["localhost", "127.0.0.1", "::1"]).context("make a certificate")?;
    let folder = tempfile::tempdir().context("make a folder for the certificate")?;
    let paths = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
    for (path, pem) in paths.iter().zip([&certificate, &key]) {
        write(path, pem)?;
    }
    let [certificate, key] = &paths;
    Ok(TlsServer::load(certificate, key)?)
}

fn introduction(args: &CaptureArgs, port: u16) -> String {
    let trust = match args.certificate {
        Some(_) => "",
        None => {
            "\nThe browser does not know the certificate and asks: go on to the page (Advanced, Proceed or Accept the risk)."
        }
    };
    format!(
        "Open https://localhost:{port}/ in the browser to record, in a fresh profile or private window.{trust}\n\
         Waiting for {} connections; the page makes them by itself.\n\n",
        args.count
    )
}

fn line(capture: &Capture) -> String {
    let kind = if capture.is_resuming() { "resumed" } else { "full" };
    let preface = capture.preface.as_ref();
    let http2 = preface.map_or_else(|| "no HTTP/2 request".to_owned(), Preface::akamai);
    format!("{kind:<8}{}  {http2}\n", capture.hello.ja4())
}

fn ending(args: &CaptureArgs, captures: &Captures) -> String {
    let (full, resumed) = (captures.full().count(), captures.resuming().count());
    let mut text = format!("\n{full} full and {resumed} resumed hellos recorded\n");
    if full < 2 {
        text +=
            "one full hello cannot show what the browser varies: capture again after a restart of it, and compare\n";
    }
    for path in [&args.out, &args.profile].into_iter().flatten() {
        text += &format!("written: {}\n", path.display());
    }
    text
}
