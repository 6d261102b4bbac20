//! Finds a Rust compiler for eBPF: one that comes with the sources of `core`
//! of its own version. Nightly is not needed.
//!
//! The first that works is taken: `$HUB_EBPF_RUSTC`, the active compiler, a
//! nightly, `/usr/bin/rustc`, Debian's packages as unpacked before, the active
//! compiler after `rustup component add rust-src`, Debian's packages.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{debian, libraries};
use crate::{
    command::{find, run, text},
    places::Places,
    say::say,
};

/// What to do by hand when no compiler can be had.
const ADVICE: &str = "\
no Rust compiler with the sources of `core`; one of these gives one:
  with rustup:      rustup component add rust-src
  Debian, Ubuntu:   apt-get install rustc rust-src     (1.95 or later)
  Fedora:           dnf install rust rust-src
  another compiler: HUB_EBPF_RUSTC=/path/to/rustc, with its sources in <sysroot>/lib/rustlib/src";

/// A compiler that can build `core` for eBPF.
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    /// Which compiler it is, to the commit.
    pub(crate) identity: String,
    /// The major version of the LLVM that it uses.
    pub(crate) llvm_major: u32,
    /// The LLVM library that it loads; none when LLVM is inside the compiler.
    pub(crate) llvm: Option<PathBuf>,
}

impl Compiler {
    /// Where the linker for eBPF finds the compiler's LLVM and what that needs.
    pub(crate) fn library_path(&self) -> Option<OsString> {
        let folder = self.llvm.as_ref()?.parent()?.to_path_buf();
        let inherited = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let folders = std::iter::once(folder).chain(env::split_paths(&inherited));
        env::join_paths(folders).ok()
    }
}

/// Finds a compiler, or gets one.
pub(super) fn ready(places: &Places) -> Result<Compiler> {
    if let Some(chosen) = env::var_os("HUB_EBPF_RUSTC") {
        return inspect(Path::new(&chosen)).context("HUB_EBPF_RUSTC");
    }
    let unpacked = debian::wrapper(places);
    let present = [active(), nightly(), Some("/usr/bin/rustc".into()), Some(unpacked)];
    if let Some(compiler) = present.into_iter().flatten().find_map(|rustc| inspect(&rustc).ok()) {
        return Ok(compiler);
    }
    if let Some(compiler) = add_sources() {
        return Ok(compiler);
    }
    match debian::unpack(places) {
        Ok(rustc) => inspect(&rustc).context("Debian's compiler"),
        Err(error) => Err(error.context(ADVICE)),
    }
}

fn inspect(rustc: &Path) -> Result<Compiler> {
    let version = text(Command::new(rustc).arg("-vV"))?;
    let facts = Facts::parse(&version).with_context(|| format!("{}: unknown version", rustc.display()))?;
    if facts.minor < minor(env!("CARGO_PKG_RUST_VERSION")).expect("the workspace names its Rust version") {
        bail!("{}: older than {}", rustc.display(), env!("CARGO_PKG_RUST_VERSION"));
    }
    let sysroot = sysroot(rustc)?;
    let sources = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if !sources.exists() {
        bail!("{}: no sources of `core` at {}", rustc.display(), sources.display());
    }
    let llvm = libraries::llvm_of(&sysroot)?;
    Ok(Compiler { rustc: rustc.into(), identity: facts.identity, llvm_major: facts.llvm_major, llvm })
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    let sysroot = text(Command::new(rustc).args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(sysroot.trim()))
}

/// The compiler behind rustup's stand-in, which would choose again by folder and environment.
fn active() -> Option<PathBuf> {
    Some(sysroot(Path::new("rustc")).ok()?.join("bin/rustc"))
}

fn nightly() -> Option<PathBuf> {
    let rustup = find("rustup")?;
    let toolchains = text(Command::new(&rustup).args(["toolchain", "list"])).ok()?;
    let name = toolchains.split_whitespace().find(|name| name.starts_with("nightly"))?;
    let rustc = text(Command::new(&rustup).args(["which", "--toolchain", name, "rustc"])).ok()?;
    Some(PathBuf::from(rustc.trim()))
}

fn add_sources() -> Option<Compiler> {
    let rustup = find("rustup")?;
    say("setup", "adding rust-src to the active toolchain with rustup");
    let mut add = Command::new(rustup);
    add.args(["component", "add", "rust-src"]).env("RUSTUP_MAX_RETRIES", "0");
    if let Err(error) = run(&mut add) {
        say("setup", &format!("rustup cannot add it: {error:#}"));
        return None;
    }
    inspect(&active()?).ok()
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq)]
struct Facts {
    identity: String,
    minor: u32,
    llvm_major: u32,
}

impl Facts {
    fn parse(version: &str) -> Option<Self> {
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let release = field("release:")?;
        let llvm = field("LLVM version:")?;
        Some(Self {
            identity: format!("rustc {release} {}", field("commit-hash:")?),
            minor: minor(release)?,
            llvm_major: llvm.split('.').next()?.parse().ok()?,
        })
    }
}

/// The minor version of Rust 1: 95 for "1.95.0-nightly".
fn minor(release: &str) -> Option<u32> {
    release.strip_prefix("1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_text_gives_commit_and_llvm() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\ncommit-hash: ac68\n\
                    host: x86_64-unknown-linux-gnu\nrelease: 1.96.0-nightly\nLLVM version: 22.1.8\n";
        let facts = Facts { identity: "rustc 1.96.0-nightly ac68".into(), minor: 96, llvm_major: 22 };
        assert_eq!(Facts::parse(text), Some(facts));
    }

    #[test]
    fn other_text_is_no_version() {
        assert_eq!(Facts::parse("gcc 12.2"), None);
        assert_eq!(minor("2.0.0"), None);
    }

    #[test]
    fn workspace_version_is_understood() {
        assert!(minor(env!("CARGO_PKG_RUST_VERSION")).is_some());
    }
}
