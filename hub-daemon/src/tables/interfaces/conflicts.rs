//! Addresses that somebody else on the link has: asked for on all links at once, before any is put.
//!
//! What is there already is not asked for, so that a restart asks nothing. An address that somebody has is not put, and
//! its owner is named. Passes for a change of something else do not ask again for a while: whoever changed that waits.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use super::Home;
use super::outcome::{InterfaceError, Outcome};
use super::space::Space;
use crate::desired::interfaces::mac_text;
use crate::kernel::links::FoundLink;
use crate::kernel::probe::{self, Probe, Question};

/// How long an answer that somebody has an address holds, unless something changes about its interface, or everything is
/// looked at.
const HOLDS: Duration = Duration::from_secs(10);

/// Who has addresses that were to be put, as they answered last.
#[derive(Default)]
pub(super) struct Conflicts(BTreeMap<(Home, u32, IpAddr), Owner>);

struct Owner {
    record: String,
    mac: [u8; 6],
    since: Instant,
}

/// One link with what is to be put there.
struct Asked {
    home: Home,
    index: u32,
    record: String,
    question: Question,
}

impl Conflicts {
    /// These interfaces are asked about again.
    pub(super) fn forget(&mut self, changed: impl Fn(&str) -> bool) {
        self.0.retain(|_, owner| !changed(&owner.record));
    }

    /// Asks on all links of these namespaces who has what is to be put there; tells it, and the namespaces not to.
    pub(super) fn ask(&mut self, spaces: &mut BTreeMap<Home, Space>, outcomes: &mut BTreeMap<Home, Outcome>) {
        self.0.retain(|_, owner| owner.since.elapsed() < HOLDS);
        for (home, space) in spaces.iter_mut().filter(|(home, _)| outcomes.contains_key(*home)) {
            space.taken = self.held(*home);
        }
        let due = outcomes.keys().filter_map(|home| Some((*home, spaces.get(home)?)));
        let all: Vec<Asked> = due.flat_map(|(home, space)| space.questions(home)).collect();
        for some in all.chunks(probe::AT_ONCE) {
            let (mut asked, mut probes) = (Vec::new(), Vec::new());
            for (link, probe) in some.iter().zip(open(some, spaces)) {
                match probe {
                    Ok(probe) => {
                        asked.push(link);
                        probes.push(probe);
                    }
                    Err(error) => fail(link, error, spaces, outcomes),
                }
            }
            for (link, owners) in asked.into_iter().zip(probe::owners(probes)) {
                match owners {
                    Ok(owners) => self.learn(link, &owners),
                    Err(error) => fail(link, error, spaces, outcomes),
                }
            }
        }
        for (home, outcome) in outcomes {
            let Some(space) = spaces.get_mut(home) else { continue };
            space.taken.extend(self.held(*home));
            self.tell(*home, space, outcome);
        }
    }

    fn learn(&mut self, link: &Asked, owners: &BTreeMap<IpAddr, [u8; 6]>) {
        let since = Instant::now();
        self.0.extend(owners.iter().map(|(address, mac)| {
            let owner = Owner { record: link.record.clone(), mac: *mac, since };
            ((link.home, link.index, *address), owner)
        }));
    }

    fn held(&self, home: Home) -> BTreeSet<(u32, IpAddr)> {
        let here = self.0.keys().filter(|(of, ..)| *of == home);
        here.map(|(_, index, address)| (*index, *address)).collect()
    }

    /// Names the owners of what is not put.
    fn tell(&self, home: Home, space: &Space, outcome: &mut Outcome) {
        for (index, net) in space.missing_addresses() {
            let Some(owner) = self.0.get(&(home, index, net.addr())) else { continue };
            let Some(link) = space.held.links.iter().find(|link| link.index == index) else { continue };
            let (interface, mac) = (link.name.clone(), mac_text(owner.mac));
            outcome.fail(&owner.record, InterfaceError::Conflict { address: net, interface, mac });
        }
    }
}

/// Sockets for questions, each made in the namespace of its link.
fn open(asked: &[Asked], spaces: &BTreeMap<Home, Space>) -> Vec<io::Result<Probe>> {
    let of_space = |some: &[Asked]| {
        let questions: Vec<Question> = some.iter().map(|asked| asked.question.clone()).collect();
        let space = some.first().and_then(|asked| spaces.get(&asked.home));
        let opened = space.map(|space| space.within(|| probe::open(questions)));
        match opened {
            Some(Ok(probes)) => probes,
            Some(Err(error)) => some.iter().map(|_| Err(io::Error::other(error.to_string()))).collect(),
            None => some.iter().map(|_| Err(io::ErrorKind::NotFound.into())).collect(),
        }
    };
    asked.chunk_by(|one, next| one.home == next.home).flat_map(of_space).collect()
}

/// Nobody could be asked on a link: nothing is put there.
fn fail(
    link: &Asked,
    source: io::Error,
    spaces: &mut BTreeMap<Home, Space>,
    outcomes: &mut BTreeMap<Home, Outcome>,
) {
    if let Some(space) = spaces.get_mut(&link.home) {
        space.taken.extend(link.question.addresses.iter().map(|address| (link.index, *address)));
    }
    if let Some(outcome) = outcomes.get_mut(&link.home) {
        let interface = link.question.interface.clone();
        outcome.fail(&link.record, InterfaceError::Probe { interface, source });
    }
}

impl Space {
    /// What is to be asked on the links of this namespace.
    fn questions(&self, home: Home) -> Vec<Asked> {
        let mut asked: Vec<Asked> = Vec::new();
        for (index, net) in self.missing_addresses() {
            if self.taken.contains(&(index, net.addr())) {
                continue;
            }
            if asked.last().is_none_or(|last| last.index != index) {
                // Without a carrier there is nobody to be asked.
                let answers = |link: &&FoundLink| link.index == index && link.running && !link.l3_only;
                let Some(link) = self.held.links.iter().find(answers) else { continue };
                let question =
                    Question { interface: link.name.clone(), mac: link.mac, addresses: Vec::new() };
                let record = self.wanted.owners.get(&index).cloned().unwrap_or_default();
                asked.push(Asked { home, index, record, question });
            }
            if let Some(last) = asked.last_mut() {
                last.question.addresses.push(net.addr());
            }
        }
        asked
    }

    /// Addresses that are to be put and are not there, by link.
    fn missing_addresses(&self) -> impl Iterator<Item = (u32, IpNet)> {
        self.wanted.addresses.keys().filter(|key| !self.held.addresses.contains_key(*key)).copied()
    }
}
