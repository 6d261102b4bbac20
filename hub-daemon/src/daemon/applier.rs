//! The thread that makes the kernel equal to what is wanted. The only writer of kernel state.
//!
//! System calls of this kind block, so they have a thread of their own; one job at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::command::{Inventory, Rejection, Reply};
use crate::desired::shared_map::SharedMap;
use crate::desired::{Desired, SegmentState};
use crate::inputs::trace::Placement;
use crate::kernel::clock::Clock;
use crate::kernel::collect::{Collected, Collector};
use crate::kernel::netlink::Netlink;
use crate::model::{PersonaId, SegmentId};
use crate::outputs::status::Attachment;
use crate::reconcile::{Against, Report, Round, Tracked, faults, reconcile};
use crate::tables::datapath::Datapath;
use crate::tables::network::Network;
use crate::tables::pins::Pins;

/// A pass takes on what is slow to make for so long at least. When something was deleted after that, or ends
/// before the pass would be over, it takes on no more: the next pass begins with withdrawals.
const TAKES_ON_FOR: Duration = Duration::from_millis(50);
/// The rest of a pass takes up to this many times as long as what is slow to make: programs go on new interfaces.
const REST_OF_PASS: u32 = 8;
/// Pins that nobody needs are looked for this often.
const SWEEP: Duration = Duration::from_secs(30);

/// What the applier is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Read links, addresses and foreign routes.
    Look,
    /// Make the kernel equal to this.
    Pass {
        /// `Hub::revision` before `Hub::desired`.
        revision: u64,
        /// What is wanted.
        desired: Box<Desired>,
        /// What the hub knew of the kernel when it wanted that.
        inventory: Arc<Inventory>,
        /// What to compare it with.
        against: Against,
    },
    /// Name what is ours in the kernel and not wanted.
    Inspect {
        /// What is wanted.
        desired: Box<Desired>,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Reply, Rejection>>,
    },
    /// Routes or neighbours changed: cached next hops are void.
    RoutesChanged,
    /// Take an address out of a segment's quarantine, whoever put it in.
    Release(SegmentId, IpAddr),
    /// Remove flows that have been idle for too long.
    Collect,
    /// Begin or end a trace.
    Trace(Placement),
}

/// What the applier did.
#[derive(Debug)]
pub enum Done {
    /// Links, addresses and foreign routes.
    Looked(Result<Inventory, String>),
    /// A pass.
    Passed(Box<Pass>),
    /// Flows were collected: how many went, how many stay.
    Collected(Result<Collected, String>),
}

/// What a pass did.
#[derive(Debug)]
pub struct Pass {
    /// The revision that it made the kernel equal to.
    pub revision: u64,
    /// Segments that it changed over to policies that waited, with the time from the first store to the last rule.
    pub flips: Vec<(SegmentId, Duration)>,
    /// What it did, table by table.
    pub reports: Vec<Report>,
    /// What could not be done, by persona.
    pub faults: BTreeMap<PersonaId, Vec<String>>,
    /// Personas that wait for the next pass.
    pub postponed: BTreeSet<PersonaId>,
    /// Ports where XDP was wanted and does not run: interface and reason.
    pub fallbacks: BTreeMap<String, String>,
    /// Ports with XDP whose far ends the hub cannot see.
    pub unseen_ends: Vec<String>,
    /// Where programs run.
    pub attachments: Vec<Attachment>,
}

/// What the applier works with.
pub struct Applier {
    /// Links, addresses, routes, rules, switches.
    pub network: Network,
    /// Maps and programs.
    pub datapath: Datapath,
    /// Pins that nobody needs.
    pub leftovers: Tracked<Pins>,
    /// Questions to the kernel.
    pub netlink: Netlink,
    /// Removes idle flows.
    pub collector: Collector,
    /// Ticks of the data path.
    pub clock: Clock,
    /// Folder of the pinned maps.
    pub pins: PathBuf,
    /// Somebody waits for what has been deleted: what is slow to make comes later.
    pub hurry: Arc<AtomicBool>,
    /// When pins that nobody needs are looked for again; asked for them, the next pass does.
    pub sweep_at: Option<Instant>,
}

impl Applier {
    /// Works until the sender of jobs is gone.
    pub fn work(mut self, jobs: &mpsc::Receiver<Job>, done: &UnboundedSender<Done>) {
        for job in jobs {
            if !self.pins.join("SEGMENTS").exists() {
                // Programs without pins end with their interfaces' next change, and routes would lead past them.
                tracing::error!(pins = %self.pins.display(), "the data path was removed: start hubd again");
                return;
            }
            if matches!(job, Job::Collect) {
                // What has no connection would be taken for over.
                self.datapath.settle();
                self.datapath.sweep(&self.clock);
            }
            let answer = match job {
                Job::Look => Done::Looked(self.netlink.inventory().map_err(|error| error.to_string())),
                Job::Pass { revision, desired, inventory, against } => {
                    Done::Passed(Box::new(self.pass(revision, &desired, inventory, against)))
                }
                Job::Inspect { desired, answer } => {
                    self.sweep_at = None;
                    let mut orphans = self.network.orphans(&desired);
                    orphans.extend(self.leftovers.orphans(&SharedMap::new()));
                    orphans.extend(self.datapath.orphans(&desired));
                    // Who asked may have gone.
                    drop(answer.send(Ok(Reply::Orphans(orphans))));
                    continue;
                }
                Job::RoutesChanged => {
                    self.datapath.routes_changed();
                    continue;
                }
                Job::Trace(Placement { slot, filter, done }) => {
                    let placed = self.datapath.trace(slot, filter, &self.clock);
                    if let Err(error) = &placed {
                        tracing::warn!(slot, %error, "trace not placed");
                    }
                    if let Some(done) = done {
                        // Who asked may have gone.
                        drop(done.send(placed.map_err(|error| error.to_string())));
                    }
                    continue;
                }
                Job::Release(segment, address) => {
                    self.datapath.release(segment, address);
                    continue;
                }
                Job::Collect => Done::Collected(self.collector.collect().map_err(|error| error.to_string())),
            };
            if done.send(answer).is_err() {
                return;
            }
            // Who waits for the pass need not wait for this.
            self.datapath.reuse();
        }
    }

    /// One pass in the order of [`crate::reconcile`].
    fn pass(
        &mut self,
        revision: u64,
        desired: &Desired,
        mut inventory: Arc<Inventory>,
        against: Against,
    ) -> Pass {
        let (begun, hurry) = (Instant::now(), Arc::clone(&self.hurry));
        hurry.store(false, Ordering::Relaxed);
        let next_end = std::cell::OnceCell::new();
        let mut round = Round::new(desired, || {
            let taken = begun.elapsed();
            let over = Timestamp::now().saturating_add(taken * REST_OF_PASS);
            let next_end = || *next_end.get_or_init(|| next_end_of(desired));
            let is_late = || next_end().zip(over.ok()).is_some_and(|(end, over)| end <= over);
            taken < TAKES_ON_FOR || !(hurry.load(Ordering::Relaxed) || is_late())
        });
        // Before anything else: the rest of a pass may take its time.
        let first = Instant::now();
        let flips = self.datapath.flip(desired, &self.clock);
        if !flips.is_empty() {
            self.network.switch(desired);
        }
        let took = first.elapsed();
        let flips = flips.into_iter().map(|segment| (segment, took)).collect();
        self.network.withdraw(desired);
        match Clock::calibrate(&self.pins) {
            Ok(clock) => self.clock = clock,
            Err(error) => tracing::warn!(%error, "deadlines are kept by the clock as it was"),
        }
        self.network.put_links(desired, against, &mut round);
        // Endpoints and tunnels that were just made have an index only now.
        let tunnels = desired.tunnels.iter().filter(|(_, tunnel)| tunnel.namespace.is_none());
        let mut made = desired.endpoints.keys().chain(tunnels.map(|(name, _)| name));
        if made.any(|name| !inventory.links.contains_key(name))
            && let Ok(fresh) = self.netlink.inventory()
        {
            inventory = Arc::new(fresh);
        }
        // Programs come onto ports from here on.
        self.datapath.catch_up();
        let tunnels = self.datapath.put_tunnels(desired, self.network.against());
        if self.network.against() == Against::Kernel || tunnels.put > 0 {
            self.network.raise_tunnels(desired, |name| self.datapath.judges_tunnel(name));
        }
        self.network.prepare_interfaces(desired);
        let mut reports = self.datapath.put(desired, &inventory, &self.clock, &mut round.failed);
        reports.push(tunnels);
        self.datapath.settle();
        self.network.switch(desired);
        let attachments = self.datapath.attachments();
        let closed = desired.gates.iter().filter(|name| !self.datapath.judges(name)).cloned().collect();
        self.network.close_gates(&closed);
        self.network.put_paths(desired, &mut round);
        self.network.undo(desired, &round.failed);
        self.network.delete_paths(desired);
        reports.extend(self.datapath.delete(desired, &inventory));
        self.network.delete_links();
        if self.sweep_at.is_none_or(|at| at <= begun) {
            self.sweep_at = Some(begun + SWEEP);
            self.leftovers.table().keep(desired, &inventory);
            reports.push(reconcile(&mut self.leftovers, &SharedMap::new()));
        }
        reports.extend(self.network.reports());
        Pass {
            revision,
            flips,
            faults: faults(&reports),
            postponed: round.postponed,
            fallbacks: self.datapath.fallbacks().clone(),
            unseen_ends: self.datapath.unseen_ends(),
            attachments,
            reports,
        }
    }
}

/// When the next of the personas that are in the data path ends.
fn next_end_of(desired: &Desired) -> Option<Timestamp> {
    let passing = desired.segments.values().filter(|segment| segment.state != SegmentState::Block);
    passing.filter_map(|segment| segment.expires).min()
}
