//! Where things are in this workspace.
//!
//! `hub-daemon/build.rs` looks for the object at the same path as
//! [`Places::object`]: change both together.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folders and files that xtask reads and writes.
pub(crate) struct Places {
    root: PathBuf,
    target: PathBuf,
}

impl Places {
    /// Finds the workspace that this program was built from.
    pub(crate) fn of_this_workspace() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("xtask's folder lies in the workspace")
            .to_path_buf();
        let target = target(&root, env::var_os("CARGO_TARGET_DIR").map(PathBuf::from));
        Self { root, target }
    }

    /// The workspace's folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target folder.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Tools that the set-up builds or unpacks.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A program that `cargo install` put among the tools.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.tools().join("bin").join(name)
    }

    /// The finished object with the kernel programs.
    pub(crate) fn object(&self) -> PathBuf {
        self.target.join("ebpf").join("hub.bpf.o")
    }

    /// The finished object with the programs that `bench` measures with.
    pub(crate) fn bench_object(&self) -> PathBuf {
        self.target.join("ebpf").join("hub-bench.bpf.o")
    }

    /// Kernels and archives for emulated machines.
    pub(crate) fn vm(&self) -> PathBuf {
        self.target.join("vm")
    }

    /// Cargo's target folder for the kernel programs.
    pub(crate) fn ebpf_build(&self) -> PathBuf {
        self.target.join("ebpf-build")
    }
}

fn target(root: &Path, chosen: Option<PathBuf>) -> PathBuf {
    chosen
        .filter(|path| !path.as_os_str().is_empty())
        .map_or_else(|| root.join("target"), |path| root.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_lies_in_the_workspace_unless_chosen() {
        let root = Path::new("/hub");
        assert_eq!(target(root, None), Path::new("/hub/target"));
        assert_eq!(target(root, Some(PathBuf::new())), Path::new("/hub/target"));
        assert_eq!(target(root, Some("out".into())), Path::new("/hub/out"));
        assert_eq!(target(root, Some("/out".into())), Path::new("/out"));
    }
}
