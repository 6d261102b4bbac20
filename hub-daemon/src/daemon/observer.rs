//! The task that answers what the hub wants to know of interfaces: checks, and connections that a switch waits for.
//!
//! It looks at every published snapshot. A question is worked on until it is no longer asked; answers carry its
//! ticket, so that one that comes late is none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, sleep};

use crate::checks::{self, Handshake, Origin, Pace, Tools};
use crate::command::Command;
use crate::command::switch::{FlowCount, Observation};
use crate::datapath_view::Impacts;
use crate::desired::interfaces::Place;
use crate::inputs::datapath::Datapath;
use crate::inputs::{CommandRequest, HubHandle};
use crate::kernel::impacted::Change;
use crate::kernel::reader::ReadError;
use crate::kernel::wireguard;
use crate::model::check::{Check, CheckAsked};
use crate::model::set;
use crate::view::Snapshot;
use crate::view::switch::{Question, Wanted};

/// Ended connections are looked at this often; a switch is to go on within 100 ms after the last one.
const LOOK: Duration = Duration::from_millis(20);
/// Connections are counted anew after this long, also when none of TCP has ended.
const COUNT: Duration = Duration::from_secs(1);
/// How long a handshake that is wanted before a switch may take.
const SHAKE: Duration = Duration::from_secs(5);

/// Who asks and with which ticket.
type Asked = (String, u64);

/// Work on a question that ends with the question.
struct Work(AbortHandle);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What answers are made with.
#[derive(Clone)]
struct Observer {
    commands: mpsc::Sender<CommandRequest>,
    datapath: Arc<dyn Datapath>,
    runtime_dir: PathBuf,
    snapshot: tokio::sync::watch::Receiver<Arc<Snapshot>>,
}

/// Answers questions until the hub is gone.
pub async fn observe(handle: HubHandle, runtime_dir: PathBuf) {
    let observer = Observer {
        commands: handle.commands.clone(),
        datapath: Arc::clone(&handle.datapath),
        runtime_dir,
        snapshot: handle.snapshot.clone(),
    };
    let mut snapshots = handle.snapshot;
    let mut works: BTreeMap<Asked, Work> = BTreeMap::new();
    loop {
        let wanted = wanted(&snapshots.borrow_and_update());
        works.retain(|asked, _| wanted.contains_key(asked));
        for (asked, (place, question)) in wanted {
            works.entry(asked).or_insert_with_key(|(interface, ticket)| {
                let work = observer.clone().answer(interface.clone(), *ticket, place, question);
                Work(tokio::spawn(work).abort_handle())
            });
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

fn wanted(snapshot: &Snapshot) -> BTreeMap<Asked, (Place, Question)> {
    let questions = snapshot.interfaces.values().filter_map(|view| Some((view, view.place.clone()?)));
    let each = questions.flat_map(|(view, place)| {
        let own = move |Wanted { ticket, question }: &Wanted| {
            ((view.name.clone(), *ticket), (place.clone(), question.clone()))
        };
        view.wants.iter().map(own)
    });
    each.collect()
}

impl Observer {
    async fn answer(self, interface: String, ticket: u64, place: Place, question: Question) {
        match question {
            Question::Checks { asked, every: None, from } => {
                let seen = self.check(&interface, &asked, &place, Pace::default(), from).await;
                self.tell(&interface, ticket, seen).await;
            }
            Question::Checks { asked, every: Some(every), from } => {
                // One try each; that several in a row fail is the hub's to see.
                let pace = Pace { passes: 1, phase: Duration::ZERO, ..Pace::default() };
                loop {
                    sleep(every).await;
                    let seen = self.check(&interface, &asked, &place, pace, from.clone()).await;
                    self.tell(&interface, ticket, seen).await;
                }
            }
            flows @ Question::Flows { .. } => self.count(&interface, ticket, Arc::new(flows)).await,
        }
    }

    async fn tell(&self, interface: &str, ticket: u64, observation: Observation) {
        let (answer, answered) = oneshot::channel();
        let interface = interface.to_owned();
        let command = Command::Observed { interface, ticket, observation };
        // A hub that is gone needs no answer.
        if self.commands.send((command, answer)).await.is_ok() {
            drop(answered.await);
        }
    }

    async fn check(
        &self,
        interface: &str,
        asked: &[CheckAsked],
        place: &Place,
        pace: Pace,
        from: Vec<IpAddr>,
    ) -> Observation {
        let tools = Tools {
            pace,
            origin: Origin { addresses: from, ..Origin::default() },
            servers: Vec::new(),
            handshake: self.handshakes(asked, place).await,
            applied: self.applied(interface),
        };
        Observation::Checks(checks::run(asked, place, &tools).await)
    }

    /// Ages of handshakes. Of a tunnel that is to come the other ends are called first, unless they still have the
    /// session of the last time.
    async fn handshakes(&self, asked: &[CheckAsked], place: &Place) -> Arc<Handshake> {
        let folder = self.runtime_dir.clone();
        for asked in asked {
            let Check::Handshake { link, .. } = &asked.check else { continue };
            if !asked.named {
                continue;
            }
            let tunnel = wireguard::Place::new(&folder, link, place.namespace.as_ref());
            // What came of it is seen by its age.
            drop(spawn_blocking(move || tunnel.shake_hands(SHAKE)).await);
        }
        Arc::new(move |link: &str| {
            // Who checks is inside the namespace already.
            let device = wireguard::Place::new(&folder, link, None).status().ok()?;
            device.peers.values().filter_map(|peer| peer.handshake_age).min()
        })
    }

    /// What passes left undone for the interface, as it is said of its carrier.
    fn applied(&self, interface: &str) -> Arc<dyn Fn() -> Result<(), String> + Send + Sync> {
        let (snapshot, interface) = (self.snapshot.clone(), interface.to_owned());
        Arc::new(move || {
            let snapshot = snapshot.borrow();
            let view = snapshot.interfaces.get(&interface).ok_or("the record is gone")?;
            let refused = view.conditions.iter().find(|condition| condition.reason == "KernelRefused");
            refused.map_or(Ok(()), |refused| Err(refused.message.clone()))
        })
    }

    /// Counts connections that a switch waits for, whenever one ended, and once a second.
    async fn count(&self, interface: &str, ticket: u64, question: Arc<Question>) {
        loop {
            let (datapath, asked) = (Arc::clone(&self.datapath), Arc::clone(&question));
            let counted = spawn_blocking(move || flows(datapath.as_ref(), &asked)).await;
            let ended = match counted {
                Ok(Ok((count, ended))) => {
                    self.tell(interface, ticket, Observation::Flows(count)).await;
                    Some(ended)
                }
                Ok(Err(error)) => {
                    tracing::warn!(interface, %error, "connections cannot be counted");
                    None
                }
                Err(_) => return,
            };
            let begun = Instant::now();
            while begun.elapsed() < COUNT && self.stands(&question, ended) {
                sleep(LOOK).await;
            }
        }
    }

    /// Whether no more connections of TCP have ended.
    fn stands(&self, question: &Question, ended: Option<u64>) -> bool {
        let Question::Flows { segment, .. } = question else { return true };
        ended.is_none() || self.datapath.ended(*segment).ok() == ended
    }
}

/// Connections as the question sees them, and how many of TCP have ended so far.
fn flows(datapath: &dyn Datapath, question: &Question) -> Result<(FlowCount, u64), ReadError> {
    let Question::Flows { segment, policy, sets, failsafe, all, udp, idle_cutoff, exempt } = question else {
        return Ok((FlowCount::default(), 0));
    };
    let now = Timestamp::now();
    let change = Change {
        segment: *segment,
        policy,
        in_set: &|number, address| {
            let held = sets.get(&number);
            held.is_some_and(|elements| set::holds(elements, address, now))
        },
        idle_cutoff: *idle_cutoff,
        drain_udp: *udp,
        failsafe,
        exempt: *exempt,
        now,
    };
    let impacts = datapath.impacted(&change, 0)?;
    Ok((summed(&impacts, *all), impacts.ended))
}

/// Those that a switch waits for; with `all` it waits for those that would go on as well.
fn summed(impacts: &Impacts, all: bool) -> FlowCount {
    let Impacts { breaks_active, breaks_idle, survives_active, survives_idle, .. } = impacts;
    if all {
        FlowCount { active: breaks_active + survives_active, idle: breaks_idle + survives_idle, kept: 0 }
    } else {
        FlowCount { active: *breaks_active, idle: *breaks_idle, kept: survives_active + survives_idle }
    }
}
