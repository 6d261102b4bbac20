//! The task that reads counters of interfaces that experiments are made with, and tells the hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::command::Command;
use crate::desired::Namespace;
use crate::inputs::HubHandle;
use crate::inputs::datapath::Datapath;
use crate::kernel::reader::ReadError;
use crate::kernel::sent_again;
use crate::model::SegmentId;
use crate::systems::experiment::totals::Reading;
use crate::view::Snapshot;
use crate::view::switch::InterfaceView;

/// Counters are read this often.
const EVERY: Duration = Duration::from_secs(10);

/// Reads counters until the hub is gone.
pub async fn measure(handle: HubHandle) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let members = members(&handle.snapshot.borrow());
        if members.is_empty() {
            if handle.snapshot.has_changed().is_err() {
                return;
            }
            continue;
        }
        let datapath = Arc::clone(&handle.datapath);
        let readings = match spawn_blocking(move || readings(datapath.as_ref(), &members)).await {
            Ok(Ok(readings)) => readings,
            Ok(Err(error)) => {
                tracing::warn!(%error, "experiments cannot be measured");
                continue;
            }
            Err(_) => return,
        };
        let (answer, answered) = oneshot::channel();
        if handle.commands.send((Command::Measured(readings), answer)).await.is_err() {
            return;
        }
        // A hub that is gone needs no answer.
        drop(answered.await);
    }
}

/// An interface of an experiment.
struct Member {
    segment: SegmentId,
    /// The namespace that no other record is in: what is counted there is the interface's.
    alone: Option<Namespace>,
}

/// Interfaces of experiments that are under way.
fn members(snapshot: &Snapshot) -> BTreeMap<String, Member> {
    let experiments = snapshot.experiments.values().filter(|experiment| !experiment.stage().is_over());
    let names: Vec<&String> = experiments.flat_map(|experiment| experiment.members.keys()).collect();
    if names.is_empty() {
        return BTreeMap::new();
    }
    let of = |view: &InterfaceView| view.place.as_ref()?.namespace.clone();
    let mut records: BTreeMap<Namespace, usize> = BTreeMap::new();
    for namespace in snapshot.interfaces.values().filter_map(|view| of(view)) {
        *records.entry(namespace).or_default() += 1;
    }
    let member = |name: &String| {
        let view = snapshot.interfaces.get(name)?;
        let alone = of(view).filter(|namespace| records.get(namespace) == Some(&1));
        Some((name.clone(), Member { segment: view.segment, alone }))
    };
    names.into_iter().filter_map(member).collect()
}

fn readings(
    datapath: &dyn Datapath,
    members: &BTreeMap<String, Member>,
) -> Result<BTreeMap<String, Reading>, ReadError> {
    let all: Vec<SegmentId> = members.values().map(|member| member.segment).collect();
    let sweep = datapath.segments(&all)?;
    let each = members.iter().filter_map(|(name, member)| {
        let counts = sweep.get(member.segment)?;
        // A namespace that is gone says nothing; the next reading may.
        let segments = member.alone.as_ref().and_then(|namespace| sent_again::segments(namespace).ok());
        Some((name.clone(), Reading { segments, ..Reading::from(&counts) }))
    });
    Ok(each.collect())
}
