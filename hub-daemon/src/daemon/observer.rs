//! The task that answers what the hub wants to know of interfaces: checks, and connections that a switch waits for.
//!
//! It looks at every published snapshot. A question is worked on until it is no longer asked; answers carry its
//! ticket, so that one that comes late is none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hub_common::event::Reason;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, sleep};

use crate::checks::{self, Handshake, Origin, Pace, Tools, handshake};
use crate::command::Command;
use crate::command::switch::Observation;
use crate::desired::interfaces::Place;
use crate::inputs::datapath::Datapath;
use crate::inputs::{CommandRequest, HubHandle};
use crate::kernel::impacted::Waited;
use crate::kernel::reader::ReadError;
use crate::kernel::wireguard;
use crate::model::SegmentId;
use crate::model::check::{Check, CheckAsked};
use crate::systems::personality::probes::{self, InForce};
use crate::view::Snapshot;
use crate::view::switch::{Judged, Question, Wanted};

/// Ended connections are looked at this often; a switch is to go on within 100 ms after the last one.
const LOOK: Duration = Duration::from_millis(20);
/// Connections are counted anew after this long, also when none of TCP has ended.
const COUNT: Duration = Duration::from_secs(1);
/// Between two walks through all connections lies so many times what one takes: a twentieth of a processor.
const WALK: u32 = 20;

/// Why packets are dropped that no rule means to drop.
const UNMEANT: [Reason; 4] = [Reason::NoFlow, Reason::FlowTableFull, Reason::NoPolicy, Reason::Internal];

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
    turn: Arc<Semaphore>,
}

/// Answers questions until the hub is gone.
pub async fn observe(handle: HubHandle, runtime_dir: PathBuf) {
    let observer = Observer {
        commands: handle.commands.clone(),
        datapath: Arc::clone(&handle.datapath),
        runtime_dir,
        snapshot: handle.snapshot.clone(),
        turn: Arc::new(Semaphore::new(1)),
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

/// The personality's own servers, which names in URLs are asked for.
fn servers(asked: &[CheckAsked]) -> Vec<IpAddr> {
    let own = asked.iter().filter(|asked| !asked.named);
    own.filter_map(|asked| {
        let Check::Dns { server, .. } = &asked.check else { return None };
        Some(*server)
    })
    .collect()
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
            Question::Flows { segment, judged, awaited: true } => {
                self.count(&interface, ticket, segment, Arc::new(judged)).await;
            }
            Question::Flows { segment, judged, awaited: false } => {
                self.note(&interface, ticket, segment, Arc::new(judged)).await;
            }
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
            servers: servers(asked),
            handshake: self.handshakes(),
            applied: self.applied(interface),
            rules: self.rules(interface),
            drops: self.drops(interface),
        };
        Observation::Checks(checks::run(asked, place, &tools).await)
    }

    /// Ages of handshakes, and calls to whoever has been silent for too long.
    fn handshakes(&self) -> Arc<Handshake> {
        let folder = self.runtime_dir.clone();
        Arc::new(move |link: &str, peers: &[String], within: Duration| {
            // Who checks is inside the namespace already, and so are threads that it makes.
            let tunnel = wireguard::Place::new(&folder, link, None);
            let peers = peers.to_vec();
            Box::pin(async move {
                let asking = spawn_blocking(move || handshake::ask(&tunnel, &peers, within));
                asking.await.map_err(|error| error.to_string())?
            })
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

    /// Has packets of the interface judged.
    fn rules(&self, interface: &str) -> Arc<checks::Rules> {
        self.of_what_is_in_force(interface, judge, || "no rules decide".to_owned())
    }

    /// Has drops of the interface counted.
    fn drops(&self, interface: &str) -> Arc<checks::Drops> {
        self.of_what_is_in_force(interface, dropped, || 0)
    }

    /// Asks the data path about what is in force on the interface, by threads in the hub's namespace, where ports are:
    /// they are made by the daemon's own, for a thread that is made by one of checks is in the same namespace as that.
    fn of_what_is_in_force<T, F>(
        &self,
        interface: &str,
        ask: fn(Arc<dyn Datapath>, InForce) -> F,
        nothing: fn() -> T,
    ) -> Arc<dyn Fn() -> BoxFuture<'static, Result<T, String>> + Send + Sync>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        let (snapshot, interface) = (self.snapshot.clone(), interface.to_owned());
        let (datapath, runtime) = (Arc::clone(&self.datapath), Handle::current());
        Arc::new(move || {
            let view = snapshot.borrow().interfaces.get(&interface).map(Arc::clone);
            let (datapath, runtime) = (Arc::clone(&datapath), runtime.clone());
            Box::pin(async move {
                let Some(force) = view.and_then(|view| view.in_force.clone()) else { return Ok(nothing()) };
                runtime.spawn(ask(datapath, force)).await.map_err(|error| error.to_string())?
            })
        })
    }

    /// Counts connections that a switch waits for, whenever one ended, and once a second. Those that were found are
    /// looked for again; what came since is found by the next walk through all.
    async fn count(&self, interface: &str, ticket: u64, segment: SegmentId, judged: Arc<Judged>) {
        let mut known: Option<Waited> = None;
        let (mut walked, mut pause) = (Instant::now(), Duration::ZERO);
        loop {
            let begun = Instant::now();
            known = known.filter(|_| begun.duration_since(walked) < pause);
            let walks = known.is_none();
            let (datapath, asked) = (Arc::clone(&self.datapath), Arc::clone(&judged));
            let counted =
                spawn_blocking(move || look(datapath.as_ref(), segment, &asked, known.as_ref())).await;
            if walks {
                walked = Instant::now();
                pause = COUNT.max(begun.elapsed() * WALK);
            }
            known = match counted {
                Ok(Ok(waited)) => {
                    self.tell(interface, ticket, Observation::Flows(waited.count)).await;
                    Some(waited)
                }
                Ok(Err(error)) => {
                    tracing::warn!(interface, %error, "connections cannot be counted");
                    None
                }
                Err(_) => return,
            };
            let (ended, begun) = (known.as_ref().map(|waited| waited.ended), Instant::now());
            while begun.elapsed() < COUNT && self.stands(segment, ended) {
                sleep(LOOK).await;
            }
        }
    }

    /// Counts connections of a switch that waits for none, once a second: one interface after the other, so that
    /// neither flips nor counts that are waited for have to share processors with all of them.
    async fn note(&self, interface: &str, ticket: u64, segment: SegmentId, judged: Arc<Judged>) {
        loop {
            let Ok(turn) = self.turn.acquire().await else { return };
            let (datapath, asked) = (Arc::clone(&self.datapath), Arc::clone(&judged));
            match spawn_blocking(move || look(datapath.as_ref(), segment, &asked, None)).await {
                Ok(Ok(waited)) => self.tell(interface, ticket, Observation::Flows(waited.count)).await,
                Ok(Err(error)) => tracing::warn!(interface, %error, "connections cannot be counted"),
                Err(_) => return,
            }
            drop(turn);
            sleep(COUNT).await;
        }
    }

    /// Whether no more connections of TCP have ended.
    fn stands(&self, segment: SegmentId, ended: Option<u64>) -> bool {
        ended.is_none() || self.datapath.ended(segment).ok() == ended
    }
}

/// Connections as the question sees them.
fn look(
    datapath: &dyn Datapath,
    segment: SegmentId,
    judged: &Judged,
    known: Option<&Waited>,
) -> Result<Waited, ReadError> {
    let all = judged.waits_for_all();
    judged.ask(segment, Timestamp::now(), |change| datapath.waited(change, all, known))
}

/// Packets that were dropped for want of what a switch must not take away.
async fn dropped(datapath: Arc<dyn Datapath>, force: InForce) -> Result<u64, String> {
    let reading = spawn_blocking(move || datapath.segment(force.segment).map_err(|error| error.to_string()));
    let counts = reading.await.map_err(|error| error.to_string())??;
    let unmeant =
        counts.drops.iter().filter(|drop| UNMEANT.iter().any(|reason| drop.reason == reason.name()));
    Ok(unmeant.map(|drop| drop.count.packets).sum())
}

/// How many packets are judged as rules say, or which one is judged otherwise.
async fn judge(datapath: Arc<dyn Datapath>, force: InForce) -> Result<String, String> {
    let judging = spawn_blocking(move || {
        let probes = probes::probes(&force, Timestamp::now());
        let asked: Vec<_> = probes.iter().map(|probe| probe.asked.clone()).collect();
        let answers = datapath.judge(&asked).map_err(|error| error.to_string())?;
        probes::compare(force.segment, &probes, &answers)
    });
    let told = judging.await.map_err(|error| error.to_string())??;
    Ok(format!("{told} packets judged as the rules say"))
}
