//! `bpf-linker`, linked against the very LLVM that the eBPF compiler loads, so
//! that the two can never disagree about their bitcode.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::Compiler;
use crate::{
    clock::timed,
    command::{install, run, text},
    places::Places,
    say::say,
};

const VERSION: &str = "0.13.0";

/// Finds the linker for this compiler, or builds it.
pub(super) fn ready(places: &Places, compiler: &Compiler) -> Result<PathBuf> {
    if let Some(chosen) = env::var_os("HUB_BPF_LINKER") {
        return fs::canonicalize(&chosen).with_context(|| format!("HUB_BPF_LINKER {}", chosen.display()));
    }
    let Some(llvm) = &compiler.llvm else {
        bail!(
            "{} has LLVM {major} inside; set HUB_BPF_LINKER to a bpf-linker {VERSION} with LLVM {major}, \
             or HUB_EBPF_RUSTC to a compiler with a shared libLLVM",
            compiler.rustc.display(),
            major = compiler.llvm_major
        );
    };
    let linker = places.tool("bpf-linker");
    let stamp = places.tools().join("bpf-linker.stamp");
    let wanted = format!("bpf-linker {VERSION}, {}, LLVM {}\n", compiler.identity, compiler.llvm_major);
    if !fits(places, &linker, llvm, compiler) {
        link_folder(places, llvm, compiler.llvm_major)?;
        build(places, compiler)?;
        fs::write(&stamp, &wanted)?;
    } else if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        fs::write(&stamp, &wanted)?;
    }
    Ok(linker)
}

/// Says whether the linker that is there runs, and runs with this LLVM.
fn fits(places: &Places, linker: &Path, llvm: &Path, compiler: &Compiler) -> bool {
    let same = |left: &Path, right: &Path| matches!((left.canonicalize(), right.canonicalize()), (Ok(left), Ok(right)) if left == right);
    let mut version = Command::new(linker);
    version.arg("--version");
    if let Some(folders) = compiler.library_path() {
        version.env("LD_LIBRARY_PATH", folders);
    }
    same(&llvm_folder(places).join("libLLVM.so"), llvm)
        && text(&mut version).is_ok_and(|line| line.trim().ends_with(VERSION))
}

fn llvm_folder(places: &Places) -> PathBuf {
    places.tools().join("llvm").join("lib")
}

/// Makes a folder that looks like an installation of LLVM with this library in it.
fn link_folder(places: &Places, llvm: &Path, major: u32) -> Result<()> {
    let folder = llvm_folder(places);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let name = llvm.file_name().context("the LLVM library has a name")?;
    for link in ["libLLVM.so".into(), format!("libLLVM-{major}.so").into(), name.to_owned()] {
        symlink(llvm, folder.join(link))?;
    }
    Ok(())
}

fn build(places: &Places, compiler: &Compiler) -> Result<()> {
    say("setup", &format!("building bpf-linker {VERSION} for LLVM {} (1 to 3 minutes)", compiler.llvm_major));
    let folder = llvm_folder(places);
    let mut install = install(places, "bpf-linker", VERSION);
    install
        .args(["--force", "--no-default-features", "--features", &format!("llvm-{}", compiler.llvm_major)])
        .env("LLVM_PREFIX", folder.parent().expect("lib lies in a folder"));
    if let Some(folders) = compiler.library_path() {
        install.env("LD_LIBRARY_PATH", folders);
    }
    let (outcome, duration) = timed(|| run(&mut install));
    outcome.context("build bpf-linker")?;
    say("setup", &format!("bpf-linker is built ({:.0} s)", duration.as_secs_f64()));
    Ok(())
}
