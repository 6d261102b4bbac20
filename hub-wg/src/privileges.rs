//! What the process may do once its device is there.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

/// Keeps what firewall marks on packets need (`CAP_NET_ADMIN`), where it was there, and nothing else. Threads
/// that start later inherit that.
pub(crate) fn drop_all_but_marking() -> io::Result<()> {
    set_no_new_privs(true)?;
    let kept = capabilities(None)?.permitted & CapabilitySet::NET_ADMIN;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    match set_capabilities(None, sets) {
        // A filter of system calls that leaves no way to drop anything is strict enough itself.
        Err(rustix::io::Errno::PERM) => Ok(()),
        other => Ok(other?),
    }
}
