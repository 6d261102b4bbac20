//! The task that owns the hub: commands in, passes out, snapshots and events to everybody.
//!
//! A change by the API is stored on disk before it is answered, and answered when the kernel holds it.
//! Passes do not overlap; what changes during one is in the next.

mod answers;
mod one_sided;
mod steps;
mod switches;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::applier::{Done, Job, Pass};
use crate::command::{Command, Inventory, Problem, Rejection, RejectionKind, Reply};
use crate::datapath_view::EventView;
use crate::hub::Hub;
use crate::inputs::{CommandRequest, HubHandle};
use crate::kernel::monitor::Change;
use crate::kernel::step::{ClockSettings, Steps};
use crate::kernel::{boot, clock, names};
use crate::model::{PersonaId, SegmentId};
use crate::outputs::stats::ReconcileStats;
use crate::outputs::status::Attachment;
use crate::outputs::switches::SwitchLog;
use crate::reconcile::Against;
use crate::store::Store;
use crate::view::{PersonaState, Snapshot};

/// Deadlines are looked at this often, so that steps of the wall clock are seen in time.
const LOOK_AT_CLOCK: Duration = Duration::from_millis(200);
/// Changes of the kernel's state are gathered for this long.
const SETTLE: Duration = Duration::from_millis(20);
/// A pass without any cause, to find what no message told.
const FULL_PASS: Duration = Duration::from_secs(30);
/// What failed is tried again after this long at first, then after twice as long each time.
const RETRY: Duration = Duration::from_secs(1);
/// Idle flows are removed this often.
const COLLECT: Duration = Duration::from_secs(10);
/// A pass that takes longer is stuck: the watchdog is told no more.
const LONGEST_PASS: Duration = Duration::from_mins(1);

/// Everything that the owner hears from and talks to.
pub struct Channels {
    /// Requests to change what the hub wants.
    pub commands: mpsc::Receiver<CommandRequest>,
    /// Changes of the kernel's state.
    pub changes: mpsc::Receiver<Change>,
    /// Texts of refused reads of the documents.
    pub refused: mpsc::Receiver<String>,
    /// Conditions of helpers, by reason; without a text they are over.
    pub conditions: mpsc::Receiver<(&'static str, Option<String>)>,
    /// What the applier did.
    pub done: UnboundedReceiver<Done>,
    /// To the applier.
    pub jobs: blocking::Sender<Job>,
    /// Tells the applier that something was deleted.
    pub hurry: Arc<AtomicBool>,
    /// To everybody who reads.
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    /// To everybody who follows.
    pub events: broadcast::Sender<EventView>,
    /// Where programs run.
    pub attachments: watch::Sender<Vec<Attachment>>,
}

/// The task's state.
pub struct Owner {
    hub: Hub,
    store: Store,
    channels: Channels,
    stats: Arc<ReconcileStats>,
    /// What the kernel was seen to hold. Without it every interface seems to be gone, so no pass begins.
    inventory: Option<Arc<Inventory>>,
    /// A pass is under way, and stuck if it lasts longer than this.
    busy: Option<Instant>,
    /// Something changed since the last pass began.
    dirty: bool,
    /// The kernel is to be looked at before the next pass.
    look_at: Option<Instant>,
    /// The next pass is to read back what the kernel holds.
    whole: bool,
    /// When the last look began, and how long it took to make the kernel right after it.
    look: steps::Look,
    /// The kernel is being looked at. In a storm of changes looks would pile up.
    looking: bool,
    flows_max: u64,
    waiting: Vec<Waiting>,
    steps: Steps,
    one_sided: one_sided::OneSided,
    switches: switches::Journal,
    switch_log: Arc<SwitchLog>,
    /// Passes with failures since the last one without.
    failed_passes: u32,
}

/// An answer that waits for the kernel.
struct Waiting {
    revision: u64,
    reply: Reply,
    answer: oneshot::Sender<Result<Reply, Rejection>>,
}

impl Owner {
    /// An owner of a hub as it was restored.
    pub fn new(hub: Hub, store: Store, channels: Channels, handle: &HubHandle) -> Self {
        let flows_max = u64::from(hub.config().limits.flows);
        let switches = switches::Journal::new(handle.switches.path());
        Self {
            hub,
            store,
            channels,
            stats: Arc::clone(&handle.reconcile),
            inventory: None,
            busy: None,
            dirty: true,
            look_at: None,
            whole: true,
            look: steps::Look::default(),
            looking: false,
            flows_max,
            waiting: Vec::new(),
            steps: Steps::new(clock::wall_before_boot()),
            one_sided: one_sided::OneSided::default(),
            switches,
            switch_log: Arc::clone(&handle.switches),
            failed_passes: 0,
        }
    }

    /// Works until every sender of commands is gone or the applier has died.
    pub async fn work(mut self) {
        self.look();
        let mut full_pass = tokio::time::interval(FULL_PASS);
        let mut collect = tokio::time::interval(COLLECT);
        let mut clock = tokio::time::interval(LOOK_AT_CLOCK);
        let settings = ClockSettings::watch()
            .inspect_err(|error| tracing::warn!(%error, "that the clock is set is seen late"))
            .ok();
        let far = Duration::from_hours(1);
        loop {
            let look_at = self.look_at.unwrap_or_else(|| deadline_in(far));
            tokio::select! {
                request = self.channels.commands.recv() => match request {
                    Some((command, answer)) => self.command(command, answer),
                    None => return,
                },
                Some(change) = self.channels.changes.recv() => self.change(change),
                Some(text) = self.channels.refused.recv() => {
                    self.hub.documents_failed(text);
                    self.publish();
                }
                Some((reason, text)) = self.channels.conditions.recv() => {
                    self.hub.set_condition(reason, text);
                    self.publish();
                }
                done = self.channels.done.recv() => {
                    let Some(done) = done else {
                        tracing::error!("the applier has died: the kernel is no longer kept in step");
                        return;
                    };
                    self.done(done);
                }
                () = sleep_until(look_at), if self.look_at.is_some() && !self.looking => self.look(),
                _ = full_pass.tick() => self.look_soon(),
                _ = collect.tick() => self.send(Job::Collect),
                _ = clock.tick() => self.look_at_clock(),
                () = steps::set(settings.as_ref()) => self.look_for_step(),
            }
        }
    }

    fn send(&self, job: Job) {
        if self.channels.jobs.send(job).is_err() {
            tracing::error!("the applier does not take work");
        }
    }

    /// Has the kernel looked at; what changes from here on is the next look's.
    fn look(&mut self) {
        self.look_at = None;
        self.looking = true;
        self.look.begin();
        self.send(Job::Look);
    }

    /// Does what a command asks, stores it, and answers when the kernel holds it.
    fn command(&mut self, command: Command, answer: oneshot::Sender<Result<Reply, Rejection>>) {
        self.look_for_step();
        let now = Timestamp::now();
        if matches!(command, Command::Orphans) {
            let desired = Box::new(self.hub.desired(now));
            return self.send(Job::Inspect { desired, answer });
        }
        let lifted = if let Command::Quarantine { address, until: None, .. } = &command {
            Some(*address)
        } else {
            None
        };
        let deletes = matches!(command, Command::Delete { .. });
        let hasty = matches!(command, Command::Begin { .. } | Command::CreateOnce { hasty: true, .. });
        let observes = matches!(command, Command::Observed { .. } | Command::Measured(_));
        let before = self.hub.mark();
        let mut changed = true;
        let result = self.hub.handle(command, now).and_then(|reply| {
            changed = !observes || self.hub.must_be_stored();
            if !changed {
                return Ok(reply);
            }
            self.store.keep(&mut self.hub).map_err(|error| {
                tracing::error!(%error, "change refused: it cannot be stored");
                Rejection {
                    kind: RejectionKind::Full,
                    problems: vec![Problem::new("", format!("the change cannot be stored: {error}"))],
                }
            })?;
            Ok(reply)
        });
        match result {
            Ok(reply) => {
                if let (Some(address), Reply::Segment(segment)) = (lifted, &reply) {
                    self.send(Job::Release(*segment, address));
                }
                self.write_switches();
                if observes || hasty {
                    self.dirty |= changed;
                    self.begin_pass();
                    self.publish();
                    // Who saw something, or is in a hurry, does not wait for the kernel.
                    return drop(answer.send(Ok(reply)));
                }
                self.channels.hurry.fetch_or(deletes, Ordering::Relaxed);
                let revision = self.hub.revision();
                self.waiting.push(Waiting { revision, reply, answer });
                self.dirty = true;
                self.begin_pass();
                self.publish();
            }
            Err(rejection) => {
                self.hub.undo(before);
                // Who asked may have gone.
                drop(answer.send(Err(rejection)));
            }
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            // What the hub did is known.
            Change::Neighbours | Change::Own => self.send(Job::RoutesChanged),
            Change::Resync => {
                self.stats.resyncs.add(1);
                tracing::warn!("kernel messages were lost: everything is read again");
                self.whole = true;
                self.send(Job::RoutesChanged);
                self.look_soon();
            }
            // Ways stay as they are.
            Change::Queues => self.look_soon(),
            Change::Links => {
                // What is remembered of interfaces may be wrong.
                self.whole = true;
                self.send(Job::RoutesChanged);
                self.look_at_links();
            }
            Change::Routes | Change::Addresses | Change::Rules | Change::Switches => {
                self.send(Job::RoutesChanged);
                self.look_soon();
            }
        }
    }

    fn look_at_clock(&mut self) {
        if self.busy.is_none_or(|late| late > deadline_in(Duration::ZERO)) {
            self.stats.heartbeat.add(1);
        }
        self.look_for_step();
        let now = Timestamp::now();
        let unconfirmed = self.hub.pending().is_some_and(boot::is_over);
        if unconfirmed {
            tracing::warn!("a change was not confirmed in time: it is taken back");
            self.internal(Command::Revert { why: "it was not confirmed in time".to_owned() }, now);
        }
        if unconfirmed || self.hub.deadline().is_some_and(|deadline| deadline <= now) {
            self.internal(Command::Tick, now);
            self.dirty = true;
            self.keep();
            self.publish();
            self.begin_pass();
        }
    }

    /// A command of our own cannot be refused.
    fn internal(&mut self, command: Command, now: Timestamp) {
        if let Err(rejection) = self.hub.handle(command, now) {
            tracing::error!(?rejection, "the hub refused its own command");
        }
        // A switch that went on asks something else of the kernel.
        self.dirty |= self.hub.must_be_stored();
        self.keep_switches();
    }

    fn begin_pass(&mut self) {
        let Some(inventory) = self.inventory.clone().filter(|_| self.dirty && self.busy.is_none()) else {
            return;
        };
        let now = Timestamp::now();
        let revision = self.hub.revision();
        self.hub.begin_pass();
        let desired = Box::new(self.hub.wanted(now));
        self.busy = Some(deadline_in(LONGEST_PASS));
        self.dirty = false;
        let against = if std::mem::take(&mut self.whole) { Against::Kernel } else { Against::Memory };
        self.send(Job::Pass { revision, desired, inventory, against });
    }

    fn done(&mut self, done: Done) {
        self.looking &= !matches!(done, Done::Looked(_));
        match done {
            Done::Looked(Ok(inventory)) => {
                self.internal(Command::Inventory(inventory.clone()), Timestamp::now());
                self.inventory = Some(Arc::new(inventory));
                self.whole = true;
                self.hub.set_condition("KernelUnreadable", None);
                self.dirty = true;
                self.begin_pass();
            }
            Done::Looked(Err(error)) => {
                tracing::error!(error, "links and routes cannot be read");
                self.hub.set_condition("KernelUnreadable", Some(error));
                self.look_within(RETRY);
            }
            Done::Passed(pass) => self.passed(*pass),
            Done::Collected(Ok(collected)) => {
                let known = self.channels.snapshot.borrow().clone();
                let name = |id: SegmentId| Some(names::persona(&known, id.0)?.definition.name.clone());
                let told = self.one_sided.look(&collected.one_sided, name);
                self.hub.set_condition("AsymmetricReturn", told);
                self.collected((collected.seen - collected.stale - collected.orphaned) as u64);
            }
            Done::Collected(Err(error)) => tracing::warn!(error, "idle flows cannot be removed"),
        }
    }

    fn passed(&mut self, pass: Pass) {
        self.busy = None;
        self.flipped(&pass.flips);
        self.look.end();
        let now = Timestamp::now();
        self.count(&pass, now);
        let has_failed = pass.reports.iter().any(|report| !report.failures.is_empty());
        // What was left of it is not known by heart.
        self.whole |= has_failed;
        self.retry(has_failed);
        // What fails on its way in is wanted no longer, until it is tried again: the kernel must follow.
        let known = self.channels.snapshot.borrow().clone();
        let on_its_way = |id: &PersonaId| {
            let state = known.personas.get(id).map(|view| view.state);
            matches!(state, Some(PersonaState::Pending | PersonaState::Provisioning))
        };
        self.dirty |= pass.faults.keys().any(on_its_way) || !pass.postponed.is_empty();
        let (revision, faults, postponed) = (pass.revision, pass.faults, pass.postponed.clone());
        self.internal(Command::Faults { revision, faults, postponed }, now);
        let fallbacks: Vec<String> =
            pass.fallbacks.iter().map(|(port, why)| format!("{port}: {why}")).collect();
        self.hub.set_condition("XdpFallback", (!fallbacks.is_empty()).then(|| fallbacks.join("; ")));
        let ends = pass.unseen_ends.join(", ");
        let advice = "redirected frames vanish unless the far end has GRO on or an XDP program, and \
                      senders there must complete checksums (`ethtool -K IFACE gro on tx off`), or set `xdp: off`";
        let message = format!("XDP runs on {ends}: {advice}");
        self.hub.set_condition("XdpOnVeth", (!ends.is_empty()).then_some(message));
        let faults: Vec<String> = pass
            .reports
            .iter()
            .flat_map(|report| &report.failures)
            .filter(|failure| failure.persona.is_none())
            .map(|failure| failure.error.clone())
            .collect();
        self.hub.set_condition("KernelRefused", (!faults.is_empty()).then(|| faults.join("; ")));
        self.channels.attachments.send_replace(pass.attachments);
        self.begin_pass();
        self.publish();
        self.answer(pass.revision, &pass.postponed);
    }
}

fn deadline_in(wait: Duration) -> Instant {
    Instant::now() + wait
}
