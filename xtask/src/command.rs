//! Runs other programs, with errors that show the command line.

use std::{
    env,
    ffi::OsStr,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::places::Places;

/// Folders of system programs that are often missing from a user's `PATH`.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Cargo in the workspace, without what `cargo run` adds to the environment.
pub(crate) fn cargo(places: &Places) -> Command {
    let mut command = bare_cargo();
    command.current_dir(places.root()).env("CARGO_TARGET_DIR", places.target());
    command
}

/// Cargo outside of the workspace: `cargo install` then builds in a temporary folder.
fn bare_cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if is_of_this_package(&name) {
            command.env_remove(name);
        }
    }
    command.env_remove("CARGO_TARGET_DIR").stdin(Stdio::null());
    command
}

/// Cargo that is about to build a tool into the folder of tools. Without optimisations: building takes longer than all
/// that these tools ever do.
pub(crate) fn install(places: &Places, name: &str, version: &str) -> Command {
    let mut install = bare_cargo();
    install.args(["install", name, "--version", version, "--locked", "--quiet", "--debug", "--root"]);
    install.arg(places.tools()).env("CARGO_PROFILE_DEV_DEBUG", "false");
    install
}

fn is_of_this_package(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
}

/// Runs a command to its end; fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{}: `{}`", status, line(command));
    }
    Ok(())
}

/// Runs a command to its end and hands on how it ended.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("start `{}`", line(command)))
}

/// Runs a command on a text; fails with its complaints when it fails.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<()> {
    let started = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = started.with_context(|| format!("start `{}`", line(command)))?;
    let mut stdin = child.stdin.take().context("standard input is a pipe")?;
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("wait for `{}`", line(command)))?;
    if !output.status.success() {
        let complaints = String::from_utf8_lossy(&output.stderr);
        bail!("{}: `{}`: {}", output.status, line(command), complaints.trim());
    }
    written.with_context(|| format!("write to `{}`", line(command)))
}

/// What a command prints; fails with its complaints when it fails.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("start `{}`", line(command)))?;
    if !output.status.success() {
        let complaints = String::from_utf8_lossy(&output.stderr);
        bail!("{}: `{}`: {}", output.status, line(command), complaints.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The exit code for a program that ended so; 1 when a signal ended it.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Finds a program on `PATH` or in the folders of system programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from)).collect();
    folders.into_iter().map(|folder| folder.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_shows_the_command_line_and_the_complaint() {
        let error = text(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c"), "{error}");
        assert!(error.contains("broken"), "{error}");
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-here"), None);
    }

    #[test]
    fn only_this_package_is_hidden_from_cargo() {
        assert!(is_of_this_package(OsStr::new("CARGO_PKG_NAME")));
        assert!(is_of_this_package(OsStr::new("CARGO_MANIFEST_DIR")));
        assert!(!is_of_this_package(OsStr::new("CARGO_HOME")));
    }
}
