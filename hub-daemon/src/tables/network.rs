//! The tables that netlink and `/proc/sys` give access to, in the order of [`crate::reconcile`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use super::addresses::{self, Addresses};
use super::endpoints::Endpoints;
use super::gates::{self, Gates};
use super::interfaces::Interfaces;
use super::queues::{self, Queues};
use super::resolvers::{self, Resolvers, Roots};
use super::routes::{self, Routes};
use super::rules::{self, Rules};
use super::sysctls::{self, Scope, Sysctls};
use super::tunnels::Tunnels;
use crate::desired::{Desired, RouteKey, Rule, TABLE_BASE};
use crate::kernel::monitor::Change;
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::model::{PersonaId, SegmentId, prefix};
use crate::reconcile::{Against, Failure, Report, Round, Tracked};
use tokio::sync::mpsc::Sender;

/// Links, queues, addresses, routes, rules and switches of one network namespace.
pub struct Network {
    host_switches: Tracked<Sysctls>,
    endpoints: Tracked<Endpoints>,
    tunnels: Tracked<Tunnels>,
    queues: Tracked<Queues>,
    switches: Tracked<Sysctls>,
    addresses: Tracked<Addresses>,
    routes: Tracked<Routes>,
    rules: Tracked<Rules>,
    gates: Tracked<Gates>,
    interfaces: Interfaces,
    resolvers: Tracked<Resolvers>,
    against: Against,
    /// Numbers of the sockets that addresses, routes and rules are put by.
    ports: BTreeSet<u32>,
}

/// What a teardown did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Teardown {
    /// Every object that is gone, in words.
    pub removed: Vec<String>,
    /// Every object that is not.
    pub failures: Vec<Failure>,
}

impl Network {
    /// The tables of the namespace that the calling thread is in. Values of switches from before are kept
    /// in `runtime_dir`.
    pub fn open(runtime_dir: &Path, roots: Roots) -> Result<Self, NetlinkError> {
        let mut ports = BTreeSet::new();
        let mut open = || -> Result<Netlink, NetlinkError> {
            let netlink = Netlink::open()?;
            ports.insert(netlink.port());
            Ok(netlink)
        };
        let (addresses, routes, rules) = (open()?, open()?, open()?);
        Ok(Self {
            host_switches: Tracked::new(Sysctls::new(runtime_dir, Scope::Host)),
            endpoints: Tracked::new(Endpoints::new(Netlink::open()?)),
            tunnels: Tracked::new(Tunnels::new(Netlink::open()?, runtime_dir)),
            queues: Tracked::new(Queues::new(Netlink::open()?)),
            switches: Tracked::new(Sysctls::new(runtime_dir, Scope::Interface)),
            addresses: Tracked::new(Addresses::new(addresses)),
            routes: Tracked::new(Routes::new(routes)),
            rules: Tracked::new(Rules::new(rules)),
            gates: Tracked::new(Gates::new(Netlink::open()?)),
            interfaces: Interfaces::new(runtime_dir),
            resolvers: Tracked::new(Resolvers::new(roots)),
            against: Against::Kernel,
            ports,
        })
    }

    /// Has the ends of processes that encrypt told, as changes of links.
    pub fn tell(&mut self, changes: Sender<Change>) {
        self.tunnels.table().tell(changes);
    }

    /// Numbers of the sockets that addresses, routes and rules are put by: what the kernel says of their work is
    /// known.
    pub fn ports(&self) -> BTreeSet<u32> {
        self.ports.clone()
    }

    /// A whole pass, where nothing comes between links and paths.
    pub fn apply(&mut self, desired: &Desired) -> Vec<Report> {
        let mut round = Round::new(desired, || true);
        self.withdraw(desired);
        self.put_links(desired, Against::Kernel, &mut round);
        self.raise_tunnels(desired, |_| true);
        self.prepare_interfaces(desired);
        self.switch(desired);
        self.put_paths(desired, &mut round);
        self.undo(desired, &round.failed);
        self.delete(desired);
        self.reports()
    }

    /// Deletes rules and routes of which the last pass knew and that nobody wants, where no packet misses
    /// them: a route stays until the one that its packets are to take is there.
    pub fn withdraw(&mut self, desired: &Desired) {
        let takes_over = |coming: &BTreeSet<&Rule>, gone: &Rule| {
            coming.iter().any(|rule| prefix::overlaps(&rule.source, &gone.source))
        };
        self.rules.withdraw(&rules::wanted(desired), takes_over);
        self.routes.withdraw(&routes::wanted(desired), routes::takes_over);
    }

    /// Puts endpoints, tunnels, queues and the switches of interfaces: what ports of the data path refer to. Where one
    /// of them changes, the whole pass reads the kernel: what refers to interfaces must know them.
    pub fn put_links(&mut self, desired: &Desired, against: Against, round: &mut Round<'_>) {
        let wanted = sysctls::wanted(desired, Scope::Interface);
        let same = self.endpoints.left(&desired.endpoints)
            && self.tunnels.left(&desired.tunnels)
            && self.queues.left(&desired.queues)
            && self.switches.left(&wanted);
        self.against = if same { against } else { Against::Kernel };
        let against = self.against;
        self.endpoints.put_against(against, &desired.endpoints, |name| port_owner(desired, name), round);
        self.tunnels.put_against(against, &desired.tunnels, |name| tunnel_owner(desired, name), round);
        self.queues.put_against(against, &desired.queues, |key| queues::owner(desired, key), round);
        self.switches.put_against(against, &wanted, |key| switch_owner(desired, key), round);
    }

    /// What this pass compares with, from [`Self::put_links`] on.
    pub fn against(&self) -> Against {
        self.against
    }

    /// Sets up tunnels that are judged; routes through them come after.
    pub fn raise_tunnels(&mut self, desired: &Desired, is_judged: impl Fn(&String) -> bool) {
        self.tunnels.table().raise(&desired.tunnels, is_judged);
    }

    /// Puts addresses of interfaces with a personality and both slots of their routing tables, of which none comes
    /// into use by it. What fails of an interface takes nothing of its persona back.
    pub fn prepare_interfaces(&mut self, desired: &Desired) {
        self.interfaces.prepare(desired, self.against);
    }

    /// Makes interfaces use the slots that are wanted; belongs right after the data path was changed.
    pub fn switch(&mut self, desired: &Desired) {
        self.interfaces.flip_all(desired);
    }

    /// Puts addresses, routes and rules: what brings packets to the data path. Forwarding is switched on
    /// here, so that a host which did not forward before does not begin until programs judge its ports.
    pub fn put_paths(&mut self, desired: &Desired, round: &mut Round<'_>) {
        let against = self.against;
        self.host_switches.put_against(against, &sysctls::wanted(desired, Scope::Host), |_| None, round);
        let owner = |(name, _): &(String, _)| address_owner(desired, name);
        self.addresses.put_against(against, &addresses::wanted(desired), owner, round);
        self.routes.put_against(against, &routes::wanted(desired), |key| route_owner(desired, key), round);
        self.rules.put_against(against, &rules::wanted(desired), |rule| rule_owner(desired, rule), round);
        // Like other things of interfaces, what fails of it takes nothing of the persona back.
        let owner = |record: &String| resolvers::owner(desired, record);
        let mut resolvers = Cow::Borrowed(&desired.resolvers);
        for record in desired.resolvers.keys().filter(|record| self.interfaces.is_twin(record)) {
            resolvers.to_mut().remove(record);
        }
        self.resolvers.put_against(against, &resolvers, owner, &mut Round::default());
    }

    /// Closes the gates of ports without programs. Those of ports with programs are opened with the next
    /// deletes.
    pub fn close_gates(&mut self, closed: &BTreeSet<String>) {
        self.gates.put_against(self.against, &gates::wanted(closed), |_| None, &mut Round::default());
    }

    /// Takes back what this pass put for personas that failed.
    pub fn undo(&mut self, desired: &Desired, failed: &BTreeSet<PersonaId>) {
        self.rules.undo(|rule| rule_owner(desired, rule), failed);
        self.routes.undo(|key| route_owner(desired, key), failed);
        self.addresses.undo(|(name, _)| address_owner(desired, name), failed);
        self.switches.undo(|key| switch_owner(desired, key), failed);
        self.queues.undo(|key| queues::owner(desired, key), failed);
        self.tunnels.undo(|name| tunnel_owner(desired, name), failed);
        self.endpoints.undo(|name| port_owner(desired, name), failed);
    }

    /// Deletes what nobody wants, paths first.
    pub fn delete(&mut self, desired: &Desired) {
        self.delete_paths(desired);
        self.delete_links();
    }

    /// Opens gates; deletes rules, routes and addresses that nobody wants.
    pub fn delete_paths(&mut self, desired: &Desired) {
        self.resolvers.delete();
        self.interfaces.retire(desired);
        self.gates.delete();
        self.rules.delete();
        self.routes.delete();
        self.addresses.delete();
    }

    /// Deletes endpoints and tunnels and puts switches back that nobody wants.
    pub fn delete_links(&mut self) {
        self.switches.delete();
        self.queues.delete();
        self.tunnels.delete();
        self.endpoints.delete();
        self.host_switches.delete();
    }

    /// Names what is ours in the kernel and wanted by nobody.
    pub fn orphans(&mut self, desired: &Desired) -> Vec<String> {
        let mut orphans = self.endpoints.orphans(&desired.endpoints);
        orphans.extend(self.tunnels.orphans(&desired.tunnels));
        orphans.extend(self.switches.orphans(&sysctls::wanted(desired, Scope::Interface)));
        orphans.extend(self.addresses.orphans(&addresses::wanted(desired)));
        orphans.extend(self.routes.orphans(&routes::wanted(desired)));
        orphans.extend(self.rules.orphans(&rules::wanted(desired)));
        orphans.extend(self.interfaces.orphans(desired));
        orphans.extend(self.resolvers.orphans(&desired.resolvers));
        orphans
    }

    /// Ends a pass: what it did, in the order of puts.
    pub fn reports(&mut self) -> Vec<Report> {
        vec![
            self.host_switches.report(),
            self.endpoints.report(),
            self.tunnels.report(),
            self.queues.report(),
            self.switches.report(),
            self.addresses.report(),
            self.routes.report(),
            self.rules.report(),
            self.gates.report(),
            self.interfaces.report(),
            self.resolvers.report(),
        ]
    }

    /// Removes every object of ours; goes on when something fails. Needs no daemon and no documents.
    pub fn teardown(&mut self) -> Teardown {
        let mut teardown = Teardown::default();
        for (removed, failures) in [
            self.resolvers.teardown(),
            self.interfaces.teardown(),
            self.gates.teardown(),
            self.rules.teardown(),
            self.routes.teardown(),
            self.addresses.teardown(),
            self.switches.teardown(),
            self.queues.teardown(),
            self.tunnels.teardown(),
            self.endpoints.teardown(),
            self.host_switches.teardown(),
        ] {
            teardown.removed.extend(removed);
            teardown.failures.extend(failures);
        }
        teardown
    }
}

/// Whose the only segment behind a port is.
fn port_owner(desired: &Desired, port: &str) -> Option<PersonaId> {
    let segment = desired.ports.get(port)?.segment?;
    Some(desired.segments.get(&segment)?.persona.clone())
}

fn tunnel_owner(desired: &Desired, tunnel: &str) -> Option<PersonaId> {
    Some(desired.tunnels.get(tunnel)?.persona.clone())
}

fn address_owner(desired: &Desired, interface: &str) -> Option<PersonaId> {
    tunnel_owner(desired, interface).or_else(|| port_owner(desired, interface))
}

fn switch_owner(desired: &Desired, key: &str) -> Option<PersonaId> {
    port_owner(desired, sysctls::interface(key)?)
}

fn route_owner(desired: &Desired, key: &RouteKey) -> Option<PersonaId> {
    let exact = desired.routes.get(key);
    // IPv6 metric 0 reads back as another one.
    let route = exact.or_else(|| desired.routes.get(&RouteKey { metric: 0, ..key.clone() }))?;
    Some(route.persona.clone())
}

/// The table of a segment is `TABLE_BASE` plus its number.
fn rule_owner(desired: &Desired, rule: &Rule) -> Option<PersonaId> {
    let segment = SegmentId(rule.table.checked_sub(TABLE_BASE)?);
    Some(desired.segments.get(&segment)?.persona.clone())
}
