//! Takes everything of the hub out of the kernel; needs no daemon.

use std::fs;
use std::path::Path;

use super::netlink::Netlink;
use super::{clsact, load};
use crate::reconcile::Failure;
use crate::tables::network::{Network, Teardown};
use crate::tables::resolvers::Roots;

/// Puts name servers back and removes routes, rules, addresses and endpoints first, so that traffic is judged as long as it comes,
/// then programs and maps. Goes on when something fails.
pub fn down(bpffs: &Path, runtime_dir: &Path, state_dir: &Path) -> Teardown {
    let failure = |object: &str, error: String| Failure { object: object.to_owned(), error, persona: None };
    let mut teardown = match Network::open(runtime_dir, Roots::of_machine(state_dir)) {
        Ok(mut network) => network.teardown(),
        Err(error) => {
            Teardown { failures: vec![failure("netlink", error.to_string())], ..Teardown::default() }
        }
    };
    let pins = bpffs.join("hub");
    match Netlink::open().and_then(|mut netlink| clsact::remove_all(&mut netlink, &load::pins(bpffs))) {
        Ok(0) => {}
        Ok(count) => teardown.removed.push(format!("filters of {count} interfaces")),
        Err(error) => teardown.failures.push(failure("filters", error.to_string())),
    }
    if pins.exists() {
        match fs::remove_dir_all(&pins) {
            Ok(()) => teardown.removed.push(format!("programs and maps below {}", pins.display())),
            Err(error) => teardown.failures.push(failure(&pins.display().to_string(), error.to_string())),
        }
    }
    teardown
}
