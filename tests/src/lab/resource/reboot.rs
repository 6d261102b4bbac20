//! What a reboot takes with it, and what it leaves.

use std::fs;

use super::{BOTH, OPEN_ONLY, Resource, SHUT_ONLY, SWITCH};
use crate::lab::world::{FAMILIES, gateway, member_at};

impl Resource {
    /// Ends the hub as a reboot does, and starts it anew: programs, maps, files of the running system, and all that
    /// was in the member's namespace are gone, and the kernel's run has another number. What the hub stored and what
    /// is below `/etc` is there.
    pub fn reboot(&mut self) {
        let world = &mut self.world;
        world.hub.process().kill();
        world.router.ip("link delete seg0");
        world.members[0].remove();
        for family in ["-4", "-6"] {
            let rules = world.router.sh(&format!("ip {family} rule list"));
            for rule in rules.lines().filter(|rule| rule.contains("proto 177")) {
                let (priority, _) = rule.split_once(':').unwrap();
                world.router.sh(&format!("ip {family} rule delete priority {priority}"));
            }
            // Nothing to flush is no failure.
            world.router.try_sh(&format!("ip {family} route flush table all proto 177"), SWITCH);
        }
        let bpf = world.hub.folder().join("bpf");
        nix::mount::umount2(&bpf, nix::mount::MntFlags::MNT_DETACH).unwrap();
        fs::remove_dir_all(world.hub.folder().join("run")).unwrap();
        fs::create_dir(world.hub.folder().join("run")).unwrap();
        let file = world.hub.folder().join("state/state.json");
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let state = fs::read_to_string(&file).unwrap();
        assert!(state.contains(boot_id.trim()), "the state says in which run of the kernel it was written");
        fs::write(&file, state.replace(boot_id.trim(), "00000000-0000-0000-0000-000000000000")).unwrap();
        // What an operator's own configuration puts there.
        let member = world.lab.space("member0");
        let own = FAMILIES.map(|v4| format!("{}/{}", member_at(0, v4), if v4 { 24 } else { 64 }));
        world.router.wire(("seg0", &[]), (&member, "eth0", &own.each_ref().map(String::as_str)));
        for v4 in FAMILIES {
            member.ip(&format!("route add default via {}", gateway(0, v4)));
        }
        drop(std::mem::replace(&mut self.server, member.serve(&[BOTH, OPEN_ONLY, SHUT_ONLY])));
        self.world.hub.restart();
    }
}
