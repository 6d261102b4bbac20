//! The signals that the daemon answers, and what SIGUSR1 means: interfaces go back, whatever became of the API.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::command::Command;
use crate::command::switch::{Said, SwitchCommand};
use crate::inputs::HubHandle;
use crate::view::switch::{InterfaceState, InterfaceView};

/// The signals that the daemon answers.
pub(super) struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) hangup: Signal,
    pub(super) revert: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            revert: signal(SignalKind::user_defined1())?,
        })
    }
}

pub(super) async fn received(signal: &mut Signal) {
    signal.recv().await;
}

/// Has every interface go back that does not have what was good last; the others stay as they are.
pub(super) async fn revert(handle: &HubHandle) {
    let snapshot = handle.snapshot.borrow().clone();
    let those = snapshot.interfaces.values().filter(|interface| is_to_go_back(interface));
    for interface in those {
        let said =
            Said { interface: interface.name.clone(), by: "signal".to_owned(), why: "SIGUSR1".to_owned() };
        let (answer, answered) = oneshot::channel();
        let command = Command::Switch(SwitchCommand::Revert(said));
        if handle.commands.send((command, answer)).await.is_err() {
            return;
        }
        match answered.await {
            Ok(Ok(_)) => tracing::info!(interface = interface.name, "goes back: SIGUSR1"),
            Ok(Err(rejection)) => {
                let why = rejection.problems.first().map_or("", |problem| problem.detail.as_str());
                tracing::warn!(interface = interface.name, why, "cannot go back");
            }
            Err(_stopping) => return,
        }
    }
}

/// Whether an interface is switched, has something for a while only, or is not well.
fn is_to_go_back(interface: &InterfaceView) -> bool {
    let is_other = interface.last_known_good.as_ref().is_some_and(|good| *good != interface.current);
    interface.operation.is_some()
        || interface.until.is_some()
        || interface.state != InterfaceState::Active
        || is_other
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn those_go_back_that_do_not_have_what_was_good() {
        let goes_back = |more: Value| {
            let mut view = json!({"name": "web-1", "state": "active", "current": "web@2", "digest": "",
                "last_known_good": "web@2", "persona": "01ARZ3NDEKTSV4RRFFQ69G0001", "segment": 1,
                "created_at": "2030-01-01T00:00:00Z", "origin": {"by": "api"}, "checks": [], "conditions": [],
                "definition": {"name": "web-1", "interface": "eth0", "personality": "web"}});
            for (key, value) in more.as_object().expect("an object") {
                view[key] = value.clone();
            }
            is_to_go_back(&serde_json::from_value(view).expect("a view"))
        };
        assert!(!goes_back(json!({})));
        assert!(!goes_back(json!({"last_known_good": null})));
        assert!(goes_back(json!({"last_known_good": "web@1"})));
        assert!(goes_back(json!({"until": "2030-01-02T00:00:00Z"})));
        assert!(goes_back(json!({"state": "awaiting_confirm"})));
        assert!(goes_back(json!({"state": "fallback"})));
    }
}
