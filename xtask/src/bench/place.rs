//! Contenders: what can stand in the middle of a lab, set up and ready to forward.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use hub_common::bench::{PLAN_CHECK, PLAN_FROM_MEMBERS, Plan};

use super::{
    bound::{enter, inside, sysctl},
    hub::{Hook, Hub},
    kit::{Kit, index_of},
    lab::{
        FIRST_MEMBER, LAN_MAC, Lab, MEMBER_PORT, MEMBERS, MEMBERS_MAC, PEER, PEER_MAC, Personas, STRIDE,
        WAN_MAC,
    },
    nft,
    wait::until,
};
use crate::command::feed;

/// TTL of packets as they are made.
const TTL: u8 = 64;
/// UDP port of the peer.
const PEER_PORT: u16 = 40_000;
/// Distance between consecutive packets' flows: prime to every number of flows in use.
const STEP: u32 = 40_503;

/// What stands in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: the generator's and the sink's own cost.
    Harness,
    /// A program that redirects, and no more.
    Redirect(Hook),
    /// The kernel's forwarding, without policy.
    Kernel,
    /// nftables with connection tracking.
    Nft,
    /// The hub.
    Hub(Hook),
}

/// Files that set-up needs; the folder goes with the value.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) hubd: PathBuf,
    pub(super) object: PathBuf,
    /// Removed in the end.
    pub(super) folder: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// A contender in a lab of its own. Fields go in this order: the daemon before its interfaces.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) personas: Personas,
    hub: Option<Hub>,
    middle: Option<Kit>,
    peer: Kit,
    members: Kit,
    lab: Lab,
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToMembers,
    FromMembers,
}

impl Place {
    /// Sets a contender up.
    pub(super) fn new(files: &Files, name: &str, kind: Kind, personas: Personas) -> Result<Self> {
        let lab = match kind {
            Kind::Harness => Lab::direct(name)?,
            Kind::Redirect(_) | Kind::Kernel | Kind::Nft | Kind::Hub(_) => {
                let lab = Lab::new(name, personas.families)?;
                lab.receive_frames()?;
                lab
            }
        };
        let peer = end(files, &lab, Way::FromMembers)?;
        let members = end(files, &lab, Way::ToMembers)?;
        let mut place =
            Self { name: name.to_owned(), kind, personas, hub: None, middle: None, peer, members, lab };
        match kind {
            Kind::Harness | Kind::Kernel => {}
            Kind::Redirect(hook) => place.middle = Some(redirect(files, &place.lab, hook)?),
            Kind::Nft => rules(&place.lab, personas)?,
            Kind::Hub(hook) => {
                let folder = files.folder.join(name);
                place.hub = Some(Hub::start(&files.hubd, folder, &place.lab, hook, personas)?);
            }
        }
        if place.lab.middle.is_some() {
            place.lab.route(personas)?;
        }
        Ok(place)
    }

    /// Whether a packet that is forwarded lost one of its TTL.
    fn routes(&self) -> bool {
        match self.kind {
            Kind::Harness | Kind::Redirect(_) => false,
            Kind::Kernel | Kind::Nft | Kind::Hub(_) => true,
        }
    }

    /// Prepares both ends for packets of so many flows. The calling thread then is where they are sent.
    pub(super) fn aim(&mut self, way: Way, flows: u32, check: bool) -> Result<()> {
        let (from, interface, kit) = match way {
            Way::ToMembers => (&self.lab.peer, "peer0", &mut self.peer),
            Way::FromMembers => (&self.lab.members, "members0", &mut self.members),
        };
        enter(from.path())?;
        let mut made = plan(way, flows, self.personas);
        made.ifindex = index_of(interface)?;
        if self.lab.middle.is_none() {
            made.target_mac = if way == Way::ToMembers { MEMBERS_MAC } else { PEER_MAC };
        }
        kit.plan(&made)?;
        let mut expected = made;
        expected.ttl = if self.routes() { TTL - 1 } else { TTL };
        expected.flags |= if check { PLAN_CHECK } else { 0 };
        self.sink(way).plan(&expected)
    }

    fn source(&mut self, way: Way) -> &mut Kit {
        match way {
            Way::ToMembers => &mut self.peer,
            Way::FromMembers => &mut self.members,
        }
    }

    fn sink(&mut self, way: Way) -> &mut Kit {
        match way {
            Way::ToMembers => &mut self.members,
            Way::FromMembers => &mut self.peer,
        }
    }

    /// Sends packets and returns how many arrived.
    pub(super) fn send(&mut self, way: Way, packets: u32) -> Result<u64> {
        let before = self.sink(way).seen()?.packets;
        self.source(way).generate(packets)?;
        let mut arrived = 0;
        // Another CPU may still be at work.
        until(20, || {
            arrived = self.sink(way).seen()?.packets - before;
            Ok(arrived >= u64::from(packets))
        })?;
        Ok(arrived)
    }

    /// Makes flows established and checks that all packets arrive as they should.
    pub(super) fn establish(&mut self, flows: u32) -> Result<()> {
        if matches!(self.kind, Kind::Redirect(_) | Kind::Harness) {
            return self.verify(flows);
        }
        for way in [Way::ToMembers, Way::FromMembers, Way::ToMembers] {
            self.aim(way, flows, false)?;
            let arrived = self.send(way, flows)?;
            if arrived == 0 {
                bail!("{}: nothing arrived ({way:?}, {flows} flows){}", self.name, self.excuse());
            }
        }
        self.verify(flows)
    }

    fn verify(&mut self, flows: u32) -> Result<()> {
        let packets = flows.max(1_024);
        self.aim(Way::ToMembers, flows, true)?;
        let wrong = self.members.seen()?.wrong;
        let arrived = self.send(Way::ToMembers, packets)?;
        let wrong = self.members.seen()?.wrong - wrong;
        if arrived != u64::from(packets) || wrong != 0 {
            let excuse = self.excuse();
            bail!("{}: of {packets} packets {arrived} arrived, {wrong} of them wrong{excuse}", self.name);
        }
        Ok(())
    }

    /// What the hub counted, for a message about packets that are missing.
    fn excuse(&self) -> String {
        let counters = self.hub.as_ref().and_then(|hub| hub.get("/counters").ok());
        counters.map_or_else(String::new, |counters| format!("; the hub counted {counters}"))
    }
}

/// Packets that go one way, as they are made.
pub(super) fn plan(way: Way, flows: u32, personas: Personas) -> Plan {
    let (target_mac, source_mac, flags) = match way {
        Way::ToMembers => (WAN_MAC, PEER_MAC, 0),
        Way::FromMembers => (LAN_MAC, MEMBERS_MAC, PLAN_FROM_MEMBERS),
    };
    Plan {
        flows,
        step: STEP,
        personas: personas.count,
        stride: if personas.count == 1 { 0 } else { STRIDE },
        first_member: MEMBERS.to_bits() + FIRST_MEMBER,
        peer: PEER.to_bits(),
        flags,
        member_port: MEMBER_PORT,
        peer_port: PEER_PORT,
        target_mac,
        source_mac,
        ttl: TTL,
        ..Plan::ZERO
    }
}

/// An end of the lab: sends, and counts what comes.
fn end(files: &Files, lab: &Lab, receives: Way) -> Result<Kit> {
    let (namespace, interface) = match receives {
        Way::ToMembers => (&lab.members, "members0"),
        Way::FromMembers => (&lab.peer, "peer0"),
    };
    inside(namespace.path(), || {
        let mut kit = Kit::load(&files.object)?;
        kit.attach_xdp("bench_count", interface)?;
        kit.xdp("bench_generate")?;
        Ok(kit)
    })
}

fn redirect(files: &Files, lab: &Lab, hook: Hook) -> Result<Kit> {
    inside(lab.middle()?.path(), || {
        let mut kit = Kit::load(&files.object)?;
        let ifindex = index_of("lan0")?;
        kit.plan(&Plan { ifindex, target_mac: MEMBERS_MAC, source_mac: LAN_MAC, ..Plan::ZERO })?;
        match hook {
            Hook::Tc => kit.attach_tc("bench_redirect_tc", "wan0")?,
            Hook::Xdp => kit.attach_xdp("bench_redirect_xdp", "wan0")?,
        }
        Ok(kit)
    })
}

/// Loads the nftables policy into the middle.
pub(super) fn rules(lab: &Lab, personas: Personas) -> Result<()> {
    let middle = lab.middle()?.path();
    let mut nft = Command::new("nsenter");
    nft.arg(format!("--net={}", middle.display())).args(["--", "nft", "-f", "-"]);
    feed(&mut nft, &nft::ruleset(personas)).context("load the nftables policy")?;
    // Flows must live as long as the rounds take.
    inside(middle, || {
        sysctl("net/netfilter/nf_conntrack_udp_timeout", "600")?;
        sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "600")
    })
}
