//! Shared libraries, as the dynamic loader resolves them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::command::text;

/// One line of `ldd`: a library's name and where it is, if anywhere.
#[derive(Debug, PartialEq)]
struct Needed<'a> {
    name: &'a str,
    path: Option<&'a str>,
}

/// Folders below a sysroot that hold the compiler's own libraries.
pub(super) fn folders(sysroot: &Path) -> [PathBuf; 2] {
    let lib = sysroot.join("lib");
    let multiarch = lib.join(format!("{}-linux-gnu", env::consts::ARCH));
    [multiarch, lib]
}

/// The LLVM library that the compiler in this sysroot loads; none when LLVM is inside it.
pub(super) fn llvm_of(sysroot: &Path) -> Result<Option<PathBuf>> {
    let listing = ldd(&sysroot.join("bin/rustc"), &folders(sysroot))?;
    let llvm = parse(&listing).find(|needed| needed.name.starts_with("libLLVM"));
    Ok(llvm.and_then(|needed| needed.path).map(PathBuf::from))
}

/// Names of libraries that a program needs and that are nowhere to be found.
pub(super) fn missing(program: &Path, folders: &[PathBuf]) -> Result<Vec<String>> {
    let listing = ldd(program, folders)?;
    Ok(parse(&listing).filter(|needed| needed.path.is_none()).map(|needed| needed.name.to_owned()).collect())
}

fn ldd(program: &Path, folders: &[PathBuf]) -> Result<String> {
    let path = env::join_paths(folders)?;
    text(Command::new("ldd").arg(program).env("LD_LIBRARY_PATH", path))
}

fn parse(listing: &str) -> impl Iterator<Item = Needed<'_>> {
    listing.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let path = (!rest.starts_with("not found")).then(|| rest.split(" (").next().unwrap_or(rest));
        Some(Needed { name, path })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_tells_found_from_missing() {
        let listing = "\tlinux-vdso.so.1 (0x1)\n\tlibLLVM.so.22.1 => /a b/libLLVM.so.22.1 (0x2)\n\
                       \tlibz3.so.4 => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let needed: Vec<_> = parse(listing).collect();
        let llvm = Needed { name: "libLLVM.so.22.1", path: Some("/a b/libLLVM.so.22.1") };
        assert_eq!(needed, [llvm, Needed { name: "libz3.so.4", path: None }]);
    }
}
