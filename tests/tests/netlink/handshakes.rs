//! The check of a tunnel's handshakes, with a real tunnel.

use std::time::Duration;

use hub_daemon::checks::handshake::ask;
use hub_daemon::desired::interfaces::TunnelBackend;
use hub_daemon::kernel::wireguard::Place;

use crate::lab::{Folder, Member, lab, open};
use crate::tunnels::{HERE, all_well, desired, key, peer};

const WITHIN: Duration = Duration::from_mins(3);

#[test]
fn each_peer_is_called_and_who_does_not_answer_is_told() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let mut network = open(&folder);
        let mut desired = desired(folder.path(), &red.namespace(), TunnelBackend::Userspace);
        let peers = &mut desired.tunnels.get_mut(HERE).unwrap().peers;
        let there = peers.keys().next().unwrap().clone();
        let (_, nobody) = key(folder.path(), 9);
        peers.insert(nobody.clone(), peer("10.1.1.5:51899", 3));
        all_well(&network.apply(&desired));
        let here = Place::new(folder.path(), HERE, None);
        // Nothing was ever sent: the check itself calls, and waits for nobody that it is not about.
        let age = ask(&here, std::slice::from_ref(&there), WITHIN).unwrap();
        assert!(age < Duration::from_secs(6), "{age:?}");
        let why = ask(&here, &[there.clone(), nobody.clone()], WITHIN).unwrap_err();
        assert!(why.contains(&format!("{nobody} at 10.1.1.5:51899")) && !why.contains(&there), "{why}");
    });
}
