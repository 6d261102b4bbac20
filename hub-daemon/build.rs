//! Tells the daemon where the object with the kernel programs is.
//!
//! `HUB_EBPF_OBJECT_PATH` is the object that `$HUB_EBPF_OBJECT` names, else
//! `ebpf/hub.bpf.o` in the target folder. Without either it is an empty file:
//! the daemon then builds, and says when it starts how to build the object.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let object = object();
    println!("cargo:rerun-if-env-changed=HUB_EBPF_OBJECT");
    println!("cargo:rerun-if-changed=build.rs");
    // One name however the target folder is named: another would build the daemon anew. A target folder elsewhere has
    // a run of this program of its own.
    if let Ok(object) = object.canonicalize() {
        println!("cargo:rerun-if-changed={}", object.display());
        println!("cargo:rustc-env=HUB_EBPF_OBJECT_PATH={}", object.display());
        return Ok(());
    }
    // Cargo runs this anew every time for a file that is missing, so it watches the folder.
    let folder = object.parent().ok_or(io::ErrorKind::NotFound)?;
    fs::create_dir_all(folder)?;
    println!("cargo:rerun-if-changed={}", folder.display());
    println!("cargo:rustc-env=HUB_EBPF_OBJECT_PATH={}", empty()?.display());
    Ok(())
}

fn object() -> PathBuf {
    let chosen = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if let Some(object) = chosen("HUB_EBPF_OBJECT") {
        return workspace.join(object);
    }
    let target = chosen("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(target).join("ebpf").join("hub.bpf.o")
}

fn empty() -> io::Result<PathBuf> {
    let folder = env::var_os("OUT_DIR").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
    let path = folder.join("no-object");
    fs::write(&path, [])?;
    Ok(path)
}
