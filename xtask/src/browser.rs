//! What BoringSSL needs to build, for the profiles of browsers: cmake, a C++ compiler and libclang.
//!
//! Where the system has no cmake or no libclang, they come from PyPI into the target folder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// Where the tools are; set for every command that builds with profiles of browsers.
pub(crate) struct Tools {
    /// A folder with cmake, to be looked in first; none where cmake is on the path.
    cmake: Option<PathBuf>,
    /// The folder of libclang; none where it is found without help.
    libclang: Option<PathBuf>,
}

impl Tools {
    /// Finds the tools, or fetches them.
    ///
    /// # Errors
    /// What is missing and how it is had.
    pub(crate) fn get() -> Result<Tools, String> {
        let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        if !runs(Command::new(&compiler).arg("--version")) {
            return Err(format!("no C++ compiler ({compiler}); {REMEDY}"));
        }
        let has_cmake = runs(Command::new("cmake").arg("--version"));
        let has_libclang = env::var_os("LIBCLANG_PATH").is_some() || SYSTEM.iter().any(has_libclang);
        if has_cmake && has_libclang {
            return Ok(Tools { cmake: None, libclang: None });
        }
        let folder =
            fetch().map_err(|lack| format!("no {}, and {lack}; {REMEDY}", missing(has_cmake, has_libclang)))?;
        Ok(Tools {
            cmake: (!has_cmake).then(|| folder.join("bin")),
            libclang: if has_libclang { None } else { Some(wheel(&folder)?) },
        })
    }

    /// Lets a command find them.
    pub(crate) fn lend(&self, command: &mut Command) {
        if let Some(cmake) = &self.cmake {
            let rest = env::var_os("PATH").unwrap_or_default();
            let paths = [cmake.clone()].into_iter().chain(env::split_paths(&rest));
            if let Ok(path) = env::join_paths(paths) {
                command.env("PATH", path);
            }
        }
        if let Some(libclang) = &self.libclang {
            command.env("LIBCLANG_PATH", libclang);
            // The wheel lacks the compiler's own headers; the C compiler's do.
            if let Ok(output) = Command::new("cc").arg("-print-file-name=include").output() {
                let headers = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                let own = env::var("BINDGEN_EXTRA_CLANG_ARGS").unwrap_or_default();
                command.env("BINDGEN_EXTRA_CLANG_ARGS", format!("{own} -isystem {headers}").trim());
            }
        }
    }
}

/// `cargo xtask build`: the daemon as it is released, with profiles of browsers.
pub(crate) fn build() -> ExitCode {
    let tools = match Tools::get() {
        Ok(tools) => tools,
        Err(lack) => {
            println!("profiles of browsers cannot be built: {lack}");
            println!("everything else can: cargo build --release");
            return ExitCode::FAILURE;
        }
    };
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "-p", "keepwarm", "--features", "browser"]);
    tools.lend(&mut command);
    match command.status() {
        Ok(status) if status.success() => {
            println!("built: {}/release/keepwarm", target().display());
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

/// Installs the wheels `cmake` and `libclang` into an environment of their own, once.
fn fetch() -> Result<PathBuf, String> {
    let folder = target().join("browser-tools");
    if wheel(&folder).is_ok() && runs(Command::new(folder.join("bin/cmake")).arg("--version")) {
        return Ok(folder);
    }
    println!("== browser profiles: cmake and libclang from PyPI, into {}", folder.display());
    if !runs(Command::new("python3").args(["-m", "venv"]).arg(&folder)) {
        return Err("python3 -m venv failed, which could have fetched it".to_owned());
    }
    let pip = folder.join("bin/pip");
    if !runs(Command::new(pip).args(["install", "-q", "--timeout", "30", "cmake<4", "libclang"])) {
        return Err("PyPI could not be asked for it".to_owned());
    }
    Ok(folder)
}

/// The folder of libclang in the environment of the wheels.
fn wheel(folder: &Path) -> Result<PathBuf, String> {
    let lib = folder.join("lib");
    let pythons = fs::read_dir(&lib).into_iter().flatten().flatten();
    let natives = pythons.map(|python| python.path().join("site-packages/clang/native"));
    let found = natives.into_iter().find(|native| has_libclang(native));
    found.ok_or_else(|| format!("no libclang below {}", lib.display()))
}

fn has_libclang(folder: impl AsRef<Path>) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_it = name.starts_with("libclang.so") || name.starts_with("libclang-") && name.contains(".so");
        is_it || name == "libclang.dylib" || (name.starts_with("llvm-") && has_libclang(path.join("lib")))
    })
}

fn missing(has_cmake: bool, has_libclang: bool) -> &'static str {
    match (has_cmake, has_libclang) {
        (false, false) => "cmake and no libclang",
        (false, true) => "cmake",
        _ => "libclang",
    }
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

fn runs(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Where systems keep libclang; Debian has it below a folder for each version.
const SYSTEM: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu"];

const REMEDY: &str = "on Debian: apt-get install cmake libclang-dev g++";
