//! The task that looks at the counters, once a second while anything is watched.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hub_common::shape::RTT_BUCKETS;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::engine::{Engine, Kept, Owner, Watched};
use super::late::Lateness;
use super::readings::Look;
use super::total::{Everybody, Total};
use super::webhook::Webhooks;
use super::{AlertEvent, AlertView, Alerts, Deliveries, file};
use crate::command::Command;
use crate::datapath_view::{EventView, SegmentCounts};
use crate::document::alert::MetricDocument;
use crate::inputs::CommandRequest;
use crate::inputs::datapath::Datapath;
use crate::kernel::reader::ReadError;
use crate::model::SegmentId;
use crate::model::alert::{self, Alert};
use crate::model::config::Config;
use crate::qos_view;
use crate::view::Snapshot;

const PERIOD: Duration = Duration::from_secs(1);
/// File of what must outlive the process, in the state folder.
const FILE: &str = "alerts.json";

/// The task's state.
#[derive(Debug)]
pub struct Watcher {
    engine: Engine,
    file: PathBuf,
    hub: Vec<Alert>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    datapath: Arc<dyn Datapath>,
    events: broadcast::Sender<EventView>,
    webhooks: Webhooks,
    views: watch::Sender<Arc<Vec<AlertView>>>,
    stored: Vec<Kept>,
    lateness: Lateness,
    total: Total,
    commands: mpsc::Sender<CommandRequest>,
}

impl Watcher {
    /// A watcher that goes on where an earlier run ended, and what readers see of it.
    pub fn new(
        config: &Config,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        datapath: Arc<dyn Datapath>,
        events: broadcast::Sender<EventView>,
        commands: mpsc::Sender<CommandRequest>,
    ) -> (Self, Alerts) {
        let file = config.state_dir.join(FILE);
        let stored: Vec<Kept> = file::load(&file);
        let (views, seen) = watch::channel(Arc::default());
        let deliveries = Arc::new(Deliveries::default());
        let webhooks = Webhooks::start(&config.webhooks, &config.state_dir, &deliveries);
        let engine = Engine::restore(stored.clone());
        let hub = config.alerts.clone();
        let lateness = Lateness::default();
        let watcher = Self {
            engine,
            file,
            hub,
            snapshot,
            datapath,
            events,
            webhooks,
            views,
            stored,
            lateness,
            total: Total::default(),
            commands,
        };
        (watcher, Alerts { views: seen, deliveries })
    }

    /// Looks until dropped.
    pub async fn run(mut self) {
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut known, mut watched) = (Arc::default(), Vec::new());
        loop {
            period.tick().await;
            let snapshot = Arc::clone(&self.snapshot.borrow());
            if !snapshot.ready {
                // Personas are not known yet: their alerts have not gone away.
                continue;
            }
            if !Arc::ptr_eq(&snapshot, &known) {
                watched = all(&self.hub, &snapshot);
                known = snapshot;
            }
            self.look(&watched, &known).await;
            self.look_at_latency(&known).await;
        }
    }

    /// Tells the hub whose handshakes take longer than they should.
    async fn look_at_latency(&mut self, snapshot: &Snapshot) {
        let watched = Lateness::watched(snapshot);
        let mut times = BTreeMap::new();
        if !watched.is_empty() {
            let datapath = Arc::clone(&self.datapath);
            match tokio::task::spawn_blocking(move || datapath.handshakes()).await {
                Ok(Ok(read)) => times = read,
                Ok(Err(error)) => return tracing::warn!(%error, "latency cannot be judged"),
                Err(error) => return tracing::error!(%error, "latency cannot be judged"),
            }
        }
        let Some(late) = self.lateness.look(&watched, &times, Timestamp::now()) else { return };
        let (answer, _) = oneshot::channel();
        // Without its owner the hub ends.
        drop(self.commands.send((Command::Latency(late), answer)).await);
    }

    async fn look(&mut self, watched: &[Watched], snapshot: &Arc<Snapshot>) {
        let (mut looks, everybody) = if watched.is_empty() {
            Default::default()
        } else {
            let (datapath, watched) = (Arc::clone(&self.datapath), watched.to_vec());
            let snapshot = Arc::clone(snapshot);
            match tokio::task::spawn_blocking(move || read(&*datapath, &watched, &snapshot)).await {
                Ok(Ok(looks)) => looks,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "alerts cannot be judged");
                    Default::default()
                }
                Err(error) => {
                    tracing::error!(%error, "alerts cannot be judged");
                    Default::default()
                }
            }
        };
        if let (Some(look), Some(everybody)) = (looks.get_mut(&None), everybody) {
            (look.counts, look.handshakes) = self.total.add(everybody);
        }
        let events = self.engine.look(watched, looks, Timestamp::now());
        let stored = self.engine.stored();
        if stored != self.stored && stands(&stored) != stands(&self.stored) {
            if let Err(error) = file::save(&self.file, &stored) {
                tracing::error!(%error, file = %self.file.display(), "alerts cannot be stored");
            }
            self.stored = stored;
        }
        for event in events {
            self.tell(event);
        }
        self.views.send_replace(Arc::new(self.engine.views()));
    }

    fn tell(&self, event: AlertEvent) {
        let (alert, persona) = (&event.alert, event.persona.as_deref());
        if event.state == "firing" {
            tracing::warn!(alert, persona, "{}", event.message);
        } else {
            tracing::info!(alert, persona, "{}", event.message);
        }
        self.webhooks.send(&Arc::new(event.clone()));
        // Nobody may be listening.
        drop(self.events.send(EventView::Alert(event)));
    }
}

/// Everybody whose counters are looked at.
fn all(hub: &[Alert], snapshot: &Snapshot) -> Vec<Watched> {
    let mut watched = Vec::new();
    if !hub.is_empty() {
        watched.push(Watched { owner: None, persona: None, alerts: hub.to_vec() });
    }
    for persona in snapshot.personas.values().filter(|persona| persona.state.is_here()) {
        let alerts = alert::of_persona(&persona.definition);
        if !alerts.is_empty() {
            let (owner, name) = (Some(persona.id.to_string()), Some(persona.definition.name.clone()));
            watched.push(Watched { owner, persona: name, alerts });
        }
    }
    watched
}

/// What there is to see of everybody that is watched. The counters of all together are left to be added up.
fn read(
    datapath: &dyn Datapath,
    watched: &[Watched],
    snapshot: &Snapshot,
) -> Result<(BTreeMap<Owner, Look>, Option<Everybody>), ReadError> {
    let any = |metric| watched.iter().flat_map(|one| &one.alerts).any(|alert| alert.metric == metric);
    let flows = if any(MetricDocument::Flows) { Some(datapath.flow_counts()?.personas) } else { None };
    let handshakes = if any(MetricDocument::RttP95) { Some(datapath.handshakes()?) } else { None };
    let delays = if any(MetricDocument::QueueDelay) {
        Some(qos_view::delays(&datapath.queues()?, datapath.paced()?))
    } else {
        None
    };
    let counts = datapath.segments(&snapshot.segments())?;
    let time = Timestamp::now();
    let look = |counts, flows, segment: Option<SegmentId>| {
        let fits = |id: &SegmentId| segment.is_none_or(|segment| *id == segment);
        let handshakes = handshakes.as_ref().zip(segment).map(|(all, segment)| {
            all.get(&segment).map_or_else(|| vec![0; RTT_BUCKETS], |times| times.buckets.clone())
        });
        let delay_us = delays.as_ref().map(|all| {
            let fitting = all.iter().filter(|(id, _)| fits(id));
            fitting.fold([0, 0], |[a, b]: [u64; 2], (_, [c, d])| [a.max(*c), b.max(*d)])
        });
        Look { time, counts, flows, handshakes, delay_us }
    };
    let mut looks = BTreeMap::new();
    for one in watched {
        let found = match &one.owner {
            None => {
                // The flow between two personas counts for each.
                let flows = flows.as_ref().map(|flows| flows.values().sum());
                Some(look(SegmentCounts::default(), flows, None))
            }
            Some(owner) => segment_of(snapshot, owner).and_then(|segment| {
                let flows = flows.as_ref().map(|flows| flows.get(&segment).copied().unwrap_or_default());
                Some(look(counts.get(segment)?, flows, Some(segment)))
            }),
        };
        looks.extend(found.map(|look| (one.owner.clone(), look)));
    }
    let everybody = looks.contains_key(&None).then(|| Everybody {
        counts: counts.segments().filter_map(|segment| Some((segment, counts.get(segment)?))).collect(),
        handshakes: handshakes.map(|all| all.into_iter().map(|(id, times)| (id, times.buckets)).collect()),
    });
    Ok((looks, everybody))
}

fn segment_of(snapshot: &Snapshot, owner: &str) -> Option<SegmentId> {
    snapshot.personas.values().find(|persona| persona.id.to_string() == *owner).map(|one| one.segment)
}

/// Where alerts stand, without their values: these change all the time.
fn stands(kept: &[Kept]) -> Vec<String> {
    kept.iter().map(Kept::stand).collect()
}
