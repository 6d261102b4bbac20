//! The port table and the programs on the ports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use hub_common::limits;
use hub_common::segment::{
    PORT_FAILSAFE, PORT_L3_ONLY, PORT_TRANSLATED, PORT_XDP_TARGET, Port as Entry, ROLE_SEGMENT, ROLE_UPLINK,
    TUNNEL_INDEX,
};

use ipnet::IpNet;

use super::{MapFault, take};
use crate::command::{Inventory, Link};
use crate::desired::shared_map::SharedMap;
use crate::desired::{Desired, Port, Role, Translation, View, Xdp};
use crate::kernel::attach::{self, AttachError, Hook, Place};
use crate::kernel::batch::from_map;
use crate::kernel::netlink::Netlink;
use crate::kernel::{clsact, ethtool};
use crate::model::SegmentId;
use crate::outputs::status::Attachment;
use crate::reconcile::{Failure, Report};

const NAME: &str = "ports";

/// What is on one port.
struct Live {
    ifindex: u32,
    entry: Entry,
    xdp: bool,
    is_veth: bool,
}

/// The port map, and which programs run where.
pub struct Ports {
    map: Array<MapData, Entry>,
    live: BTreeMap<String, Live>,
    /// How the TC programs get onto ports.
    hook: Hook,
    /// Ports where XDP was wanted and TC alone runs, with the reason.
    fallbacks: BTreeMap<String, String>,
    /// Numbers of the loaded programs.
    programs: BTreeMap<&'static str, u32>,
    /// Whether ports that an earlier run left were looked at.
    swept: bool,
    /// Ports where programs of now could not be put, and those of an earlier run judge packets, with their indices.
    before: BTreeMap<String, u32>,
}

impl Ports {
    /// Takes the map of an object.
    pub fn new(ebpf: &mut Ebpf, hook: Hook) -> Result<Self, MapFault> {
        let programs = Place::ALL.iter().filter_map(|place| Some((place.program(), place.program_id(ebpf)?)));
        let programs = programs.collect();
        let map = take(ebpf, "PORTS")?;
        let (live, fallbacks, before) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { map, live, hook, fallbacks, programs, swept: false, before })
    }

    /// Whether programs of the hub judge what passes a port.
    pub fn judges(&self, name: &str) -> bool {
        self.live.contains_key(name) || self.before.contains_key(name)
    }

    /// Whether no port is known where programs of an earlier run judge.
    pub fn took_over(&self) -> bool {
        self.before.is_empty()
    }

    /// Ports where XDP was wanted and does not run: interface and reason.
    pub fn fallbacks(&self) -> &BTreeMap<String, String> {
        &self.fallbacks
    }

    /// Ports with XDP whose far ends the hub cannot see: a redirected frame vanishes there unless the far
    /// end has GRO on or an XDP program, and a local sender must complete its checksums.
    pub fn unseen_ends(&self) -> Vec<String> {
        self.live.iter().filter(|(_, live)| live.xdp && live.is_veth).map(|(name, _)| name.clone()).collect()
    }

    /// Where programs run.
    pub fn attachments(&self) -> Vec<Attachment> {
        let mut found = Vec::new();
        for (name, live) in &self.live {
            let tc = self.hook.name();
            let mut hooks = vec![("tc_in", tc, Place::TcIn), ("tc_out", tc, Place::TcOut)];
            if live.xdp {
                hooks.push(("xdp_in", "native", Place::Xdp));
            }
            let role = if live.entry.role == ROLE_UPLINK { "uplink" } else { "segment" };
            found.extend(hooks.into_iter().map(|(hook, mode, place)| Attachment {
                interface: name.clone(),
                ifindex: live.ifindex,
                role: role.to_owned(),
                hook: hook.to_owned(),
                mode: mode.to_owned(),
                program_id: self.programs.get(place.program()).copied().unwrap_or_default(),
            }));
        }
        found
    }

    /// Puts ports that exist, table entry first and programs second, and takes programs off all others.
    pub fn put(&mut self, ebpf: &mut Ebpf, pins: &Path, desired: &Desired, inventory: &Inventory) -> Report {
        let wanted = &desired.ports;
        let mut report = Report { table: NAME, ..Report::default() };
        self.remove_gone(pins, wanted, inventory, &mut report);
        let is_same = |name: &String, ifindex: u32| {
            wanted.contains_key(name) && inventory.links.get(name).is_some_and(|link| link.ifindex == ifindex)
        };
        self.before.retain(|name, ifindex| is_same(name, *ifindex));
        let mut is_whole = true;
        if self.hook == Hook::Clsact {
            self.repair(ebpf, pins, &mut report);
        }
        for (name, port) in wanted {
            let Some(link) = inventory.links.get(name) else { continue };
            let translated = if is_translated(port, desired) { PORT_TRANSLATED } else { 0 };
            let put = self.put_one(ebpf, pins, name, port, link, translated);
            self.before.remove(name);
            if put.is_err() && !self.live.contains_key(name) && attach::is_judged(name, link.ifindex) {
                self.before.insert(name.clone(), link.ifindex);
            }
            is_whole &= put.is_ok();
            report.note(put, || format!("port {name}"), None);
        }
        if !self.swept {
            self.swept = true;
            // Programs of an earlier run stay where those of now could not yet be put.
            let found = wanted.keys().filter_map(|name| inventory.links.get(name));
            let stays: BTreeSet<u32> = found.map(|link| link.ifindex).collect();
            self.sweep(pins, &stays, &mut report);
        }
        // Where programs could not be put, there may be some when it is no port any more.
        self.swept &= is_whole;
        report
    }

    fn put_one(
        &mut self,
        ebpf: &mut Ebpf,
        pins: &Path,
        name: &str,
        port: &Port,
        link: &Link,
        flags: u32,
    ) -> Result<bool, String> {
        let was = self.live.get(name).filter(|live| live.ifindex == link.ifindex);
        let xdp = wants_xdp(name, port, link);
        let mut entry = entry(port, link);
        entry.flags |= flags;
        let is_new = was.is_none();
        if let Some(live) = was {
            if live.xdp && xdp {
                entry.flags |= PORT_XDP_TARGET;
            }
            let tried = live.xdp == xdp || self.fallbacks.contains_key(name);
            if tried && live.entry == entry {
                return Ok(false);
            }
        }
        let slot = link.ifindex % limits::PORTS;
        let holder =
            self.map.get(&slot, 0).map_err(|error| format!("read map PORTS: {}", from_map(error)))?;
        if holder.ifindex != 0 && holder.ifindex != link.ifindex && self.is_ours(holder.ifindex) {
            return Err(format!(
                "interface index {} shares a port slot with {}",
                link.ifindex, holder.ifindex
            ));
        }
        self.set(slot, entry)?;
        if is_new {
            attach::attach_tc(ebpf, pins, name, link.ifindex, self.hook)
                .map_err(|error| error.to_string())?;
        }
        self.fallbacks.remove(name);
        let mut runs_xdp = false;
        if xdp {
            let attached = match ethtool::leave_tags(name) {
                Err(error) => Err(error.to_string()),
                Ok(()) => match attach::attach(ebpf, pins, name, link.ifindex, Place::Xdp) {
                    // The program of before judges by what was there before, until this works.
                    Err(error @ AttachError::TakeOver { .. }) => return Err(error.to_string()),
                    attached => attached.map_err(|error| error.to_string()),
                },
            };
            match attached {
                Ok(()) => {
                    runs_xdp = true;
                    entry.flags |= PORT_XDP_TARGET;
                    self.set(slot, entry)?;
                }
                Err(error) => {
                    tracing::warn!(port = name, %error, "XDP does not run here, TC does");
                    self.fallbacks.insert(name.to_owned(), error);
                }
            }
        } else {
            attach::detach(pins, link.ifindex, Place::Xdp).map_err(|error| error.to_string())?;
        }
        self.live.insert(
            name.to_owned(),
            Live { ifindex: link.ifindex, entry, xdp: runs_xdp, is_veth: link.kind == "veth" },
        );
        Ok(true)
    }

    fn set(&mut self, slot: u32, entry: Entry) -> Result<(), String> {
        self.map.set(slot, entry, 0).map_err(|error| format!("write map PORTS: {}", from_map(error)))
    }

    fn is_ours(&self, ifindex: u32) -> bool {
        self.live.values().any(|live| live.ifindex == ifindex)
    }

    fn remove_gone(
        &mut self,
        pins: &Path,
        wanted: &SharedMap<String, Port>,
        inventory: &Inventory,
        report: &mut Report,
    ) {
        let stays = |name: &String, live: &Live| {
            wanted.contains_key(name)
                && inventory.links.get(name).is_some_and(|link| link.ifindex == live.ifindex)
        };
        let gone: Vec<String> = self
            .live
            .iter()
            .filter(|(name, live)| !stays(name, live))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            let Some(live) = self.live.remove(&name) else { continue };
            self.fallbacks.remove(&name);
            self.take_off(pins, live.ifindex, &name, report);
        }
    }

    /// Puts filters back that somebody removed; links cannot be removed by others. A port where that cannot be done is
    /// none on which programs run.
    fn repair(&mut self, ebpf: &mut Ebpf, pins: &Path, report: &mut Report) {
        let mut unjudged = Vec::new();
        for (name, live) in &self.live {
            let is_there = |netlink: &mut Netlink, place: Place| {
                let found = clsact::find(netlink, live.ifindex, place)?;
                Ok(found.is_some() && found == self.programs.get(place.program()).copied())
            };
            let whole = Netlink::open().and_then(|mut netlink| {
                Ok(is_there(&mut netlink, Place::TcIn)? && is_there(&mut netlink, Place::TcOut)?)
            });
            let repaired = match whole {
                Ok(true) => continue,
                Ok(false) => attach::attach_tc(ebpf, pins, name, live.ifindex, self.hook),
                Err(error) => Err(error.into()),
            };
            match repaired {
                Ok(()) => report.drift += 1,
                Err(error) => {
                    report.failures.push(Failure {
                        object: format!("port {name}"),
                        error: error.to_string(),
                        persona: None,
                    });
                    unjudged.extend((!attach::is_judged(name, live.ifindex)).then(|| name.clone()));
                }
            }
        }
        // Their gates close until programs can be put.
        for name in unjudged {
            self.live.remove(&name);
        }
    }

    /// Programs first, so that no packet meets a program without its port.
    fn take_off(&mut self, pins: &Path, ifindex: u32, name: &str, report: &mut Report) {
        let mut errors: Vec<String> = Place::ALL
            .iter()
            .filter_map(|place| attach::detach(pins, ifindex, *place).err())
            .map(|error| error.to_string())
            .collect();
        errors.extend(attach::detach_filters(pins, ifindex).err().map(|error| error.to_string()));
        let slot = ifindex % limits::PORTS;
        if self.map.get(&slot, 0).is_ok_and(|entry| entry.ifindex == ifindex) {
            errors.extend(self.set(slot, Entry::ZERO).err());
        }
        report.deleted += 1;
        // What could not be taken off is looked for again.
        self.swept &= errors.is_empty();
        let failure = |error| Failure { object: format!("port {name}"), error, persona: None };
        report.failures.extend(errors.into_iter().map(failure));
    }

    /// Takes programs of an earlier run off interfaces that are no ports any more.
    fn sweep(&mut self, pins: &Path, stays: &BTreeSet<u32>, report: &mut Report) {
        // Those from `TUNNEL_INDEX` on are in namespaces of others.
        for (ifindex, place) in
            attach::pinned(pins).into_iter().filter(|(ifindex, _)| *ifindex < TUNNEL_INDEX)
        {
            if !stays.contains(&ifindex) {
                self.take_off(pins, ifindex, &format!("{ifindex} ({place:?})"), report);
            }
        }
        for ifindex in clsact::marked(pins).into_iter().filter(|ifindex| *ifindex < TUNNEL_INDEX) {
            if !stays.contains(&ifindex) {
                self.take_off(pins, ifindex, &format!("{ifindex} (filters)"), report);
            }
        }
    }
}

/// Whether XDP should run on a port.
fn wants_xdp(name: &str, port: &Port, link: &Link) -> bool {
    if link.l3_only {
        return false;
    }
    match port.xdp {
        Xdp::On => true,
        Xdp::Off => false,
        Xdp::Auto => ethtool::xdp_pays(name),
    }
}

/// Whether packets carry other addresses beyond a port than in the hub.
fn is_translated(port: &Port, desired: &Desired) -> bool {
    let known = |segment: SegmentId, view: View| {
        let first = Translation { segment, view, other: IpNet::default() };
        let next = desired.translations.range_from(&first).next();
        next.is_some_and(|(key, _)| key.segment == segment && key.view == view)
    };
    match port.role {
        Role::Segment => port.segment.is_some_and(|segment| known(segment, View::Member)),
        Role::Uplink => {
            desired.masquerade || desired.translations.keys().any(|key| key.view == View::Outside)
        }
    }
}

fn entry(port: &Port, link: &Link) -> Entry {
    let (role, failsafe) = match port.role {
        Role::Uplink => (ROLE_UPLINK, PORT_FAILSAFE),
        Role::Segment => (ROLE_SEGMENT, 0),
    };
    Entry {
        ifindex: link.ifindex,
        segment: port.segment.map_or(0, |segment| segment.0),
        role,
        flags: failsafe | if link.l3_only { PORT_L3_ONLY } else { 0 },
        mac: link.mac,
        pad: [0; 2],
    }
}
