//! The daemon itself: whether it answers, is ready, is of this version, and what it complains of.

use super::machine::runs;
use super::{Diagnosis, Failure};
use crate::cli::client::Client;
use crate::cli::interface;
use crate::model::config::Config;
use crate::outputs::status::StatusView;
use crate::view::switch::{InterfaceState, InterfaceView};

pub(super) async fn look(client: Result<Client, Failure>, config: &Config, diagnosis: &mut Diagnosis) {
    let answer = match &client {
        Ok(client) => client.get("/v1/status").await,
        Err(failure) => Err(Failure::Refused(failure.to_string())),
    };
    let status: StatusView = match answer.map(|answer| serde_json::from_value(answer.body)) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            let advice = "install hubd and hubctl of one version";
            diagnosis.warning("hubd", format!("its answer is not to be understood: {error}"), advice);
            return;
        }
        Err(failure) => {
            let found = failure.to_string().lines().next().unwrap_or_default().to_owned();
            if runs(config) {
                diagnosis.error("hubd", format!("runs, but {found}"), "see `journalctl -u hubd`");
            } else {
                diagnosis.warning("hubd", found, "start it: `systemctl start hubd`");
            }
            return;
        }
    };
    let own = env!("CARGO_PKG_VERSION");
    if status.version == own {
        diagnosis.ok("version", format!("hubd and hubctl {own}"));
    } else {
        let found = format!("hubd is {}, hubctl is {own}", status.version);
        diagnosis.warning("version", found, "install one version, then `systemctl restart hubd`");
    }
    if status.ready {
        diagnosis.ok("hubd", "ready");
    } else {
        let advice = "see its conditions and `journalctl -u hubd`";
        diagnosis.warning("hubd", "not ready: the kernel does not yet hold what the documents say", advice);
    }
    diagnosis.ok("qos engine", status.qos_engine.clone());
    for condition in &status.conditions {
        diagnosis.warning(&format!("condition {}", condition.reason), condition.message.clone(), "");
    }
    if let Some(error) = &status.documents_error {
        diagnosis.warning("documents", error.clone(), "mend them, then `hubctl apply`");
    }
    if let Ok(client) = &client
        && !status.interfaces.is_empty()
    {
        interfaces(client, diagnosis).await;
    }
}

/// Interfaces that do not have what somebody wanted, or are not well with it.
async fn interfaces(client: &Client, diagnosis: &mut Diagnosis) {
    let all = match interface::all(client, &[]).await {
        Ok(all) => all,
        Err(failure) => return diagnosis.warning("interfaces", failure.to_string(), ""),
    };
    let count = all.len();
    let mut found = 0;
    for value in all {
        let Ok(view) = serde_json::from_value::<InterfaceView>(value) else { continue };
        let check = format!("interface {}", view.name);
        let revert =
            format!("`hubctl personality journal {0}`, then `hubctl personality revert {0}`", view.name);
        for condition in &view.conditions {
            found += 1;
            let said = format!("{}: {}", condition.reason, condition.message);
            if view.state == InterfaceState::Degraded {
                diagnosis.error(&check, said, revert.clone());
            } else {
                diagnosis.warning(&check, said, revert.clone());
            }
        }
        if view.state == InterfaceState::AwaitingConfirm {
            found += 1;
            let advice = format!("`hubctl personality confirm {}`, or it goes back", view.name);
            diagnosis.note(&check, "a switch waits for confirmation", advice);
        }
    }
    if found == 0 {
        diagnosis.ok("interfaces", format!("{count} have what was wanted"));
    }
}
