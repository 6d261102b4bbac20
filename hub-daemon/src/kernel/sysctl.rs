//! Switches of the kernel below `/proc/sys`, those of the namespace that the calling thread is in.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Where the kernel shows its switches.
const ROOT: &str = "/proc/sys";

/// A switch that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{intent} switch `{key}`: {source}")]
pub struct SysctlError {
    /// What was tried.
    pub intent: &'static str,
    /// Path below `/proc/sys`.
    pub key: String,
    /// Why not.
    pub source: io::Error,
}

impl SysctlError {
    /// Whether there is no such switch: the kernel lacks the feature, or the interface is gone.
    pub fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Value of a switch, numbers separated by one space.
pub fn read(key: &str) -> Result<String, SysctlError> {
    let text = path(key).and_then(std::fs::read_to_string);
    let text = text.map_err(|source| SysctlError { intent: "read", key: key.to_owned(), source })?;
    Ok(normal(&text))
}

/// Sets a switch.
pub fn write(key: &str, value: &str) -> Result<(), SysctlError> {
    path(key).and_then(|path| std::fs::write(path, value)).map_err(|source| SysctlError {
        intent: "write",
        key: key.to_owned(),
        source,
    })
}

/// A value as [`read`] gives it.
pub fn normal(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn path(key: &str) -> io::Result<PathBuf> {
    let below = Path::new(key);
    if !below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    Ok(Path::new(ROOT).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_below_the_root() {
        for key in ["../kernel", "/etc/passwd", "net/../../../etc/passwd"] {
            assert!(write(key, "x").is_err(), "{key}");
        }
    }

    #[test]
    fn values_are_separated_by_one_space() {
        assert_eq!(normal("1024\t65000\n"), "1024 65000");
    }
}
