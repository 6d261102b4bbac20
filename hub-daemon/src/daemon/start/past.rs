//! The hub as the last daemon stored it, with what happened to the clock and to unconfirmed changes meanwhile.

use jiff::Timestamp;

use super::{StartError, engine};
use crate::command::Command;
use crate::hub::Hub;
use crate::kernel::boot;
use crate::model::config::Config;
use crate::model::id::IdSource;
use crate::store::{Loaded, Store};

/// Reads the state and puts it right. What the configuration leaves to the hub is chosen by it.
pub(super) fn restored(config: &mut Config, store: &mut Store, stored: Loaded) -> Result<Hub, StartError> {
    config.qos = engine::choose(config, &stored.state);
    let clocks = boot::clocks();
    let before = stored.state.clocks.clone();
    let is_of_now = before.as_ref().is_some_and(|before| before.boot_id == clocks.boot_id);
    let step = before.and_then(|before| before.step_until(&clocks));
    if let Some(by) = step {
        tracing::warn!(seconds = by.as_secs_f64(), "the wall clock was set while no daemon ran");
    }
    // Whoever has no persona has no times.
    let is_noted = is_of_now && step.is_none() || stored.state.personas.is_empty();
    let now = Timestamp::now();
    let seed = u64::from(now.subsec_nanosecond().unsigned_abs()) << 32 | u64::from(std::process::id());
    let mut hub = Hub::restore_by(config.clone(), IdSource::new(seed), stored.state, Some(clocks), now);
    if !is_noted && let Err(error) = store.keep(&mut hub) {
        tracing::error!(%error, "state cannot be stored");
        hub.set_condition("StateNotStored", Some(error.to_string()));
    }
    revert_first(&mut hub, store, now)?;
    hub.set_condition("StateRecovered", stored.trouble);
    Ok(hub)
}

/// Takes back a change that nobody confirmed while no daemon ran, or before the machine started anew.
fn revert_first(hub: &mut Hub, store: &mut Store, now: Timestamp) -> Result<(), StartError> {
    if !hub.pending().is_some_and(boot::is_over) {
        return Ok(());
    }
    tracing::warn!("a change was not confirmed in time: it is taken back");
    let why = "it was not confirmed in time, or the machine started anew".to_owned();
    if let Err(rejection) = hub.handle(Command::Revert { why }, now) {
        tracing::error!(?rejection, "the hub refused its own command");
    }
    Ok(store.keep(hub)?)
}
