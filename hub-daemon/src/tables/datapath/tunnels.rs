//! The programs on the devices of tunnels that are in namespaces of others.
//!
//! Such a device is a port of one segment: what comes out of it goes to the segment, what goes into it is from it. It
//! is known by an interface index that no other interface of the machine has. Its entry is there before the device is
//! up, so that nothing passes unjudged; the programs go with the device, and their pins one pass later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use hub_common::segment::{PORT_L3_ONLY, PORT_TUNNEL, Port as Entry, ROLE_UPLINK, TUNNEL_INDEX};

use super::{MapFault, take};
use crate::desired::interfaces::Tunnel;
use crate::desired::shared_map::SharedMap;
use crate::kernel::attach::{self, AttachError, Hook, Place};
use crate::kernel::clsact;
use crate::kernel::namespace::{NamespaceError, OpenNamespace};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::outputs::status::Attachment;
use crate::reconcile::{Against, Report};

const NAME: &str = "tunnel ports";
const PLACES: [(Place, TcAttachType, &str); 2] =
    [(Place::TcIn, TcAttachType::Ingress, "tc_in"), (Place::TcOut, TcAttachType::Egress, "tc_out")];

/// Why a tunnel is not judged, and so is not up.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("ask for the programs on the device: {0}")]
    Query(#[from] ProgramError),
    #[error("map TUNNELS: {0}")]
    Map(#[from] aya::maps::MapError),
    #[error(
        "tunnel `{0}` has the same number: give one of them another name (`vpn_tunnel_config.interface`)"
    )]
    Taken(String),
}

/// The tunnel map, and which devices the programs run on.
pub(super) struct Tunnels {
    map: HashMap<MapData, u32, Entry>,
    live: BTreeMap<String, (u32, Entry)>,
    hook: Hook,
    programs: BTreeMap<&'static str, u32>,
    judged: BTreeSet<String>,
    /// Indexes of devices that were unwanted in the last pass; `None` until it was looked for those of an earlier run.
    retired: Option<BTreeSet<u32>>,
}

impl Tunnels {
    /// Takes the map of an object. What an earlier run left and nobody wants goes with the second pass.
    pub(super) fn new(ebpf: &mut Ebpf, hook: Hook) -> Result<Self, MapFault> {
        let programs =
            PLACES.iter().filter_map(|(place, ..)| Some((place.program(), place.program_id(ebpf)?)));
        let programs = programs.collect();
        let map = take(ebpf, "TUNNELS")?;
        let (live, judged, retired) = (BTreeMap::new(), BTreeSet::new(), None);
        Ok(Self { map, live, hook, programs, judged, retired })
    }

    /// Whether the programs are on the device of a tunnel.
    pub(super) fn judges(&self, name: &str) -> bool {
        self.judged.contains(name)
    }

    /// Where programs run.
    pub(super) fn attachments(&self) -> impl Iterator<Item = Attachment> {
        let judged = self.live.iter().filter(|(name, _)| self.judges(name));
        judged.flat_map(|(name, (ifindex, _))| {
            PLACES.iter().map(|(place, _, hook)| Attachment {
                interface: name.clone(),
                ifindex: *ifindex,
                role: "tunnel".to_owned(),
                hook: (*hook).to_owned(),
                mode: self.hook.name().to_owned(),
                program_id: self.programs.get(place.program()).copied().unwrap_or_default(),
            })
        })
    }

    /// Puts an entry for each tunnel, and the programs on those devices that are there. A pass by memory believes that
    /// they are still on devices that had them.
    pub(super) fn put(
        &mut self,
        ebpf: &mut Ebpf,
        pins: &Path,
        wanted: &SharedMap<String, Tunnel>,
        against: Against,
    ) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        self.forget(pins, wanted);
        self.judged.retain(|name| against == Against::Memory && wanted.contains_key(name));
        for (name, tunnel) in wanted {
            let Some(entry) = entry(name, tunnel) else { continue };
            if self.judges(name) && self.live.get(name).is_some_and(|(_, live)| *live == entry) {
                continue;
            }
            let put = self.put_one(ebpf, pins, name, tunnel, entry);
            report.note(put, || format!("programs on tunnel {name}"), Some(&tunnel.persona));
        }
        report
    }

    fn put_one(
        &mut self,
        ebpf: &mut Ebpf,
        pins: &Path,
        name: &str,
        tunnel: &Tunnel,
        entry: Entry,
    ) -> Result<bool, Fault> {
        let Some(namespace) = &tunnel.namespace else { return Ok(false) };
        let other = self.live.iter().find(|(other, (index, _))| *index == entry.ifindex && *other != name);
        if let Some((other, _)) = other {
            return Err(Fault::Taken(other.clone()));
        }
        let mut changed = self.live.get(name).is_none_or(|(_, live)| *live != entry);
        if changed {
            self.map.insert(entry.ifindex, entry, 0)?;
            self.live.insert(name.to_owned(), (entry.ifindex, entry));
        }
        let judged = OpenNamespace::open(namespace)?.run(|| -> Result<bool, Fault> {
            let there = Netlink::open()?.link(name)?;
            // Without a device, and with one that is about to be made anew, there is nothing to judge.
            if there.is_none_or(|link| link.index != entry.ifindex) {
                return Ok(false);
            }
            if !self.is_whole(name, entry.ifindex)? {
                attach::attach_tc(ebpf, pins, name, entry.ifindex, self.hook)?;
                changed = true;
            }
            Ok(true)
        })??;
        if judged {
            self.judged.insert(name.to_owned());
        }
        Ok(changed)
    }

    /// Whether the loaded programs run on a device of the calling thread's namespace.
    fn is_whole(&self, name: &str, ifindex: u32) -> Result<bool, Fault> {
        for (place, kind, _) in PLACES {
            let wanted = self.programs.get(place.program()).copied();
            let runs = match self.hook {
                Hook::Tcx => {
                    let (_, found) = SchedClassifier::query_tcx(name, kind)?;
                    found.iter().any(|program| Some(program.id()) == wanted)
                }
                Hook::Clsact => clsact::find(&mut Netlink::open()?, ifindex, place)? == wanted,
            };
            if !runs {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the entries of tunnels away that nobody wants, which then pass nothing, and what is left of those whose
    /// devices went with the last pass.
    fn forget(&mut self, pins: &Path, wanted: &SharedMap<String, Tunnel>) {
        let stay: BTreeSet<u32> = wanted.iter().filter_map(|(name, tunnel)| tunnel.index(name)).collect();
        let goes = self.live.values().any(|(ifindex, _)| !stay.contains(ifindex));
        if !goes && self.retired.as_ref().is_some_and(BTreeSet::is_empty) {
            return;
        }
        let pinned = attach::pinned(pins).into_iter().map(|(ifindex, _)| ifindex);
        let left = pinned.chain(clsact::marked(pins)).filter(|ifindex| *ifindex >= TUNNEL_INDEX);
        let left: BTreeSet<u32> = left.filter(|ifindex| !stay.contains(ifindex)).collect();
        for ifindex in self.retired.iter().flat_map(|retired| left.intersection(retired)) {
            for place in Place::ALL {
                if let Err(error) = attach::detach(pins, *ifindex, place) {
                    tracing::warn!(ifindex, %error, "a pin of a tunnel is left behind");
                }
            }
            clsact::forget(pins, *ifindex);
        }
        let gone = |ifindex: &u32| !stay.contains(ifindex);
        for ifindex in self.map.keys().filter_map(Result::ok).filter(gone).collect::<Vec<_>>() {
            // An entry too many passes nothing once its device is gone.
            drop(self.map.remove(&ifindex));
        }
        self.live.retain(|_, (ifindex, _)| stay.contains(ifindex));
        self.retired = Some(left);
    }
}

/// The entry of a tunnel that is in a namespace of others.
fn entry(name: &str, tunnel: &Tunnel) -> Option<Entry> {
    let (segment, ifindex) = (tunnel.segment?.0, tunnel.index(name)?);
    Some(Entry { ifindex, segment, role: ROLE_UPLINK, flags: PORT_L3_ONLY | PORT_TUNNEL, ..Entry::ZERO })
}
