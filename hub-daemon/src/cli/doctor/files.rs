//! Files and folders: room on the disk, and who may read and write what.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::Diagnosis;
use crate::check;
use crate::model::config::Config;

/// State is written whole beside the old: this much must be free.
const ROOM_BYTES: u64 = 64 * 1_024 * 1_024;
/// Bits of a mode that let everybody read, and write.
const ALL_READ: u32 = 0o004;
const ALL_WRITE: u32 = 0o002;

pub(super) fn look(config: &Config, diagnosis: &mut Diagnosis) {
    room(&config.state_dir, diagnosis);
    for (check, path, forbidden) in [
        ("state", config.state_dir.join("state.json"), ALL_READ | ALL_WRITE),
        ("state folder", config.state_dir.clone(), ALL_WRITE),
        ("documents folder", config.documents.clone(), ALL_WRITE),
        ("socket", config.api.socket.clone(), ALL_READ | ALL_WRITE),
    ] {
        mode(check, &path, forbidden, diagnosis);
    }
    if let Some(tcp) = &config.api.tcp {
        if let Some(path) = &tcp.token_file {
            mode("token file", path, ALL_READ | ALL_WRITE, diagnosis);
        }
        if let Some(tls) = &tcp.tls {
            mode("TLS key", &tls.key, ALL_READ | ALL_WRITE, diagnosis);
        }
    }
    for path in config.nodes.iter().filter_map(|node| node.token_file.as_ref()) {
        mode("token file of a node", path, ALL_READ | ALL_WRITE, diagnosis);
    }
    documents(config, diagnosis);
}

fn room(folder: &Path, diagnosis: &mut Diagnosis) {
    // A folder that is not there yet is made on the same disk as its parent.
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(folder);
    match statvfs(there) {
        Ok(disk) => {
            let free = disk.blocks_available().saturating_mul(disk.fragment_size());
            let found = format!("{} MiB free for {}", free >> 20, folder.display());
            if free < ROOM_BYTES {
                let advice = "make room: a change that cannot be stored is refused";
                diagnosis.error("disk", found, advice);
            } else {
                diagnosis.ok("disk", found);
            }
        }
        Err(errno) => diagnosis.note("disk", format!("{}: {errno}", there.display()), ""),
    }
}

fn mode(check: &str, path: &Path, forbidden: u32, diagnosis: &mut Diagnosis) {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            diagnosis.ok(check, format!("{} is not there", path.display()));
        }
        Err(error) => diagnosis.note(check, format!("{}: {error}", path.display()), ""),
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o7777;
            let found = format!("{} has mode {mode:04o}", path.display());
            if mode & forbidden == 0 {
                diagnosis.ok(check, found);
            } else {
                let right = format!("{:04o}", mode & !(forbidden | 0o001));
                let advice = format!("`chmod {right} {}`: others have no business there", path.display());
                diagnosis.warning(check, found, advice);
            }
        }
    }
}

fn documents(config: &Config, diagnosis: &mut Diagnosis) {
    if !config.documents.exists() {
        diagnosis.ok("documents", format!("{} is not there", config.documents.display()));
        return;
    }
    match check::check(std::slice::from_ref(&config.documents)) {
        Ok((files, warnings)) if warnings.is_empty() => {
            diagnosis.ok("documents", format!("{files} files, nothing wrong"));
        }
        Ok((files, warnings)) => diagnosis.warning(
            "documents",
            format!("{files} files, nothing wrong, but {} doubtful", warnings.len()),
            "look at what `hubctl check` says",
        ),
        Err(problems) => {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            let found = format!("{} wrong, first {}", problems.len(), first.trim());
            diagnosis.error(
                "documents",
                found,
                "`hubctl check` shows every one; none of them is taken until then",
            );
        }
    }
}
