//! The task that reads counters of interfaces that experiments are made with, and tells the hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::command::Command;
use crate::inputs::HubHandle;
use crate::inputs::datapath::Datapath;
use crate::kernel::reader::ReadError;
use crate::model::SegmentId;
use crate::systems::experiment::totals::Reading;
use crate::view::Snapshot;

/// Counters are read this often.
const EVERY: Duration = Duration::from_secs(10);

/// Reads counters until the hub is gone.
pub async fn measure(handle: HubHandle) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let segments = segments(&handle.snapshot.borrow());
        if segments.is_empty() {
            if handle.snapshot.has_changed().is_err() {
                return;
            }
            continue;
        }
        let datapath = Arc::clone(&handle.datapath);
        let readings = match spawn_blocking(move || readings(datapath.as_ref(), &segments)).await {
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

/// Interfaces of experiments that are under way, with their segments.
fn segments(snapshot: &Snapshot) -> BTreeMap<String, SegmentId> {
    let experiments = snapshot.experiments.values().filter(|experiment| !experiment.stage().is_over());
    let members = experiments.flat_map(|experiment| experiment.members.keys());
    members.filter_map(|name| Some((name.clone(), snapshot.interfaces.get(name)?.segment))).collect()
}

fn readings(
    datapath: &dyn Datapath,
    segments: &BTreeMap<String, SegmentId>,
) -> Result<BTreeMap<String, Reading>, ReadError> {
    let all: Vec<SegmentId> = segments.values().copied().collect();
    let sweep = datapath.segments(&all)?;
    let each = segments.iter().filter_map(|(name, segment)| {
        let counts = sweep.get(*segment)?;
        Some((name.clone(), Reading::from(&counts)))
    });
    Ok(each.collect())
}
