//! A `resolv.conf` that the hub writes, and what was there before.
//!
//! A file is replaced by renaming a new one over it, so that readers find the old one or the new one. Ours begin
//! with a line that says so: one that does not was written by somebody else since, and is left alone.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How a file of ours begins.
const MARKER: &[u8] = b"# Written by hubd: what was here before comes back when its personality ends.\n";

/// What a path held before the hub wrote there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Before {
    /// Nothing; `folder` says whether the folder that it is in was there.
    Absent {
        /// Whether the folder was there.
        folder: bool,
    },
    /// A file.
    File {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        owner: u32,
        /// Its group.
        group: u32,
    },
    /// A symbolic link to there.
    Link(PathBuf),
}

/// The text for servers and search domains.
pub fn text(servers: &[IpAddr], search: &[String]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(MARKER).into_owned();
    if !search.is_empty() {
        writeln!(text, "search {}", search.join(" ")).expect("a string takes any text");
    }
    for server in servers {
        writeln!(text, "nameserver {server}").expect("a string takes any text");
    }
    text.into_bytes()
}

/// Whether the hub wrote these bytes.
pub fn is_ours(bytes: &[u8]) -> bool {
    bytes.starts_with(MARKER)
}

/// What a path holds; a file of ours too.
pub fn look(path: &Path) -> io::Result<Before> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Before::Absent { folder: path.parent().is_some_and(Path::exists) });
        }
        Err(error) => return Err(error),
    };
    if metadata.is_symlink() {
        return Ok(Before::Link(fs::read_link(path)?));
    }
    let (owner, group) = (metadata.uid(), metadata.gid());
    Ok(Before::File { bytes: fs::read(path)?, mode: metadata.mode() & 0o7777, owner, group })
}

/// Puts a file of ours at a path.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let fresh = fresh(path);
    put(&fresh, bytes, 0o644)?;
    fs::rename(&fresh, path)?;
    sync_folder(path)
}

/// Puts back what was there before, unless somebody else has written there since; whether it was ours.
pub fn restore(path: &Path, before: &Before) -> io::Result<bool> {
    match look(path)? {
        Before::File { bytes, .. } if is_ours(&bytes) => {}
        Before::Absent { .. } | Before::File { .. } | Before::Link(_) => return Ok(false),
    }
    let fresh = fresh(path);
    match before {
        Before::Absent { folder } => {
            fs::remove_file(path)?;
            if !folder && let Some(made) = path.parent() {
                // Somebody may have put something else there.
                match fs::remove_dir(made) {
                    Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => return Err(error),
                    Ok(()) => return Ok(true),
                    Err(_) => {}
                }
            }
        }
        Before::File { bytes, mode, owner, group } => {
            put(&fresh, bytes, *mode)?;
            std::os::unix::fs::chown(&fresh, Some(*owner), Some(*group))?;
            // Changing the owner may clear bits.
            fs::set_permissions(&fresh, fs::Permissions::from_mode(*mode))?;
            fs::rename(&fresh, path)?;
        }
        Before::Link(target) => {
            remove_if_there(&fresh)?;
            std::os::unix::fs::symlink(target, &fresh)?;
            fs::rename(&fresh, path)?;
        }
    }
    sync_folder(path)?;
    Ok(true)
}

/// Writes a file that is on the disk when this returns.
pub fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    remove_if_there(path)?;
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Makes a rename in a folder be on the disk.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn fresh(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".hub-new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Vec<u8> {
        text(&["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()], &["red.example".into()])
    }

    #[test]
    fn text_names_search_and_servers() {
        let text = String::from_utf8(ours()).unwrap();
        let rest: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(rest, ["search red.example", "nameserver 10.0.0.1", "nameserver fd00::1"]);
        assert!(is_ours(text.as_bytes()));
    }

    #[test]
    fn every_kind_of_before_comes_back_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("red/resolv.conf");
        let restored = |before: &Before| {
            write(&path, &ours()).unwrap();
            assert!(restore(&path, before).unwrap());
            look(&path).unwrap()
        };
        assert_eq!(restored(&look(&path).unwrap()), Before::Absent { folder: false });
        assert!(!folder.path().join("red").exists(), "the folder went too");

        fs::create_dir(folder.path().join("red")).unwrap();
        assert_eq!(restored(&look(&path).unwrap()), Before::Absent { folder: true });

        fs::write(&path, b"nameserver 192.0.2.1\r\n# \xff no UTF-8, no line end").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let before = look(&path).unwrap();
        assert_eq!(restored(&before), before);

        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("../elsewhere", &path).unwrap();
        assert_eq!(restored(&look(&path).unwrap()), Before::Link("../elsewhere".into()));
    }

    #[test]
    fn what_somebody_else_wrote_since_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let before = Before::Absent { folder: true };
        write(&path, &ours()).unwrap();
        fs::write(&path, "nameserver 192.0.2.7\n").unwrap();
        assert!(!restore(&path, &before).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"nameserver 192.0.2.7\n");
    }
}
