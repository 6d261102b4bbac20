//! The unix socket: mode 0660, never open wider for a moment, and replaced only when nobody listens.
//!
//! The socket is bound under a temporary name, given its mode and group, and renamed into place.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use tokio::net::UnixListener;

use super::{ListenError, Listener, Socket};

/// Group that may talk to the hub, where it exists.
const GROUP: &str = "hub";

/// The file of a listening socket.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// Removes the file, unless another process has put its own there.
    pub(super) fn remove(&self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|file| inode(&file) == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

fn inode(file: &std::fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Opens the API's unix socket.
///
/// # Errors
/// When another process listens there, or the path holds something else, or the folder cannot be written.
pub fn bind_unix(path: &Path) -> Result<Listener, ListenError> {
    let io = |intent| move |source| ListenError::Io { intent, place: path.display().to_string(), source };
    refuse_if_taken(path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove the remains of")(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&temporary).map_err(io("bind"))?;
    give_to_group(&temporary);
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o660))
        .map_err(io("set the mode of"))?;
    std::fs::rename(&temporary, path).map_err(io("put in place"))?;
    let file = std::fs::symlink_metadata(path).map_err(io("look at"))?;
    let guard = SocketFile { path: path.to_owned(), inode: inode(&file) };
    Ok(Listener { socket: Socket::Unix { listener, guard }, token: None })
}

fn refuse_if_taken(path: &Path) -> Result<(), ListenError> {
    let place = path.display().to_string();
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ListenError::Io { intent: "look at", place, source }),
        Ok(file) if !file.file_type().is_socket() => return Err(ListenError::NotSocket(place)),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::Taken(place)),
        // A full backlog is somebody who listens and is slow.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ListenError::Taken(place)),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(source) => Err(ListenError::Io { intent: "ask who listens on", place, source }),
    }
}

fn give_to_group(path: &Path) {
    let Ok(Some(group)) = Group::from_name(GROUP) else { return };
    // A service that runs as `hub` has it already, and may not give files away.
    let own = std::fs::metadata(path).is_ok_and(|socket| socket.gid() == group.gid.as_raw());
    if own {
        return;
    }
    if let Err(error) = std::os::unix::fs::chown(path, None, Some(group.gid.as_raw())) {
        tracing::warn!(group = GROUP, %error, "cannot give the socket to its group: only the owner can use it");
    }
}
