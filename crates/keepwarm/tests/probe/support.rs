//! The binary before a lab.

use std::{io::Write as _, process::Stdio};

use keepwarm_lab::{OriginLab, OriginSpec};
use serde_json::Value;
use tempfile::NamedTempFile;

/// An origin, and the file of the authority that it is to be trusted by.
pub(crate) struct Before {
    pub(crate) lab: OriginLab,
    ca: NamedTempFile,
}

impl Before {
    pub(crate) async fn new() -> Before {
        Before::with(OriginSpec::default()).await
    }

    pub(crate) async fn with(spec: OriginSpec) -> Before {
        let lab = OriginLab::start(spec).await.unwrap();
        let mut ca = NamedTempFile::with_suffix(".pem").unwrap();
        ca.write_all(lab.ca_pem().as_bytes()).unwrap();
        Before { lab, ca }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}:{}{path}", self.lab.host(), self.lab.port())
    }

    /// The exit code, standard output and standard error of a command that is given the lab's addresses and authority.
    pub(crate) async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let addresses = self.lab.addresses().into_iter().flat_map(|ip| ["--address".to_owned(), ip.to_string()]);
        self.command(arguments, addresses.collect()).await
    }

    /// The same with the exit code that is expected, as JSON.
    pub(crate) async fn json(&self, arguments: &[&str], code: i32) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        parsed(self.run(&arguments).await, code)
    }

    /// The same for a name that the system knows.
    pub(crate) async fn json_without_address(&self, arguments: &[&str], code: i32) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        parsed(self.command(&arguments, Vec::new()).await, code)
    }

    async fn command(&self, arguments: &[&str], more: Vec<String>) -> (i32, String, String) {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_keepwarm"));
        command.args(arguments).args(more).arg("--cacert").arg(self.ca.path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }
}

fn parsed((code, text, errors): (i32, String, String), expected: i32) -> Value {
    assert_eq!((code, errors.as_str()), (expected, ""), "{text}");
    serde_json::from_str(&text).unwrap()
}
