//! `/threat-level/alerts`: threat levels by notifications of a Prometheus Alertmanager (its webhook, version 4).
//!
//! A notification holds all alerts of its group, those that fire and those that have just ended, so it says by
//! itself how great the threat is: nothing has to be remembered between two of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;

use super::caller::Caller;
use super::problem::ProblemDetails;
use super::threat::{ThreatView, ZoneView, zone};
use super::{Api, body};
use crate::command::{Problem, Rejection, RejectionKind};

/// Label of an alert that names a level.
const LEVEL: &str = "threat_level";
/// Label of an alert that names the record it is about; without it, it is about all that have the level.
const INTERFACE: &str = "interface";

/// What Alertmanager sends. What else it says is not looked at.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct NotificationDocument {
    /// The alerts of the group.
    alerts: Vec<AlertDocument>,
}

/// One alert.
#[derive(Clone, Debug, Deserialize, ToSchema)]
struct AlertDocument {
    /// Whether it fires.
    status: AlertStatus,
    /// Its labels; `threat_level` names a level, `interface` a record.
    labels: BTreeMap<String, String>,
}

/// Whether an alert fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AlertStatus {
    /// It does.
    Firing,
    /// It did.
    Resolved,
}

/// Tells the threat level by a notification of Alertmanager
///
/// Each interface gets the greatest level among the alerts that fire and are about it, and its least level when all
/// of those have ended.
#[utoipa::path(post, path = "/threat-level/alerts", tag = "personalities", operation_id = "notify_threat_level",
    request_body = NotificationDocument,
    responses(
        (status = 200, body = ThreatView, description = "the interfaces that were told"),
        (status = 400, description = "not JSON"),
        (status = 409, description = "these could not be told; all others were"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "no alert is about an interface that knows its level"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn notify(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ThreatView>, ProblemDetails> {
    let bytes = body::read(&headers, body, body::JSON).await?;
    let said: NotificationDocument = body::other(&bytes)?;
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let zones = snapshot.interfaces.values().filter_map(|view| zone(view));
    let levels: Vec<(String, String)> =
        zones.filter_map(|zone| Some((zone.interface.clone(), level(&said, &zone)?))).collect();
    if levels.is_empty() {
        let detail = format!(
            "no alert has a label `{LEVEL}` with a level of an interface, which `{INTERFACE}` may name"
        );
        return Err(Rejection {
            kind: RejectionKind::Invalid,
            problems: vec![Problem::new("/alerts", detail)],
        }
        .into());
    }
    api.tell_levels(levels, &caller).await
}

/// The level of an interface by the alerts that are about it; none if none is.
fn level(said: &NotificationDocument, zone: &ZoneView) -> Option<String> {
    let rank = |alert: &AlertDocument| {
        let about = alert.labels.get(INTERFACE).is_none_or(|name| *name == zone.interface);
        let named = alert.labels.get(LEVEL).filter(|_| about)?;
        zone.levels.iter().position(|level| level == named)
    };
    let known = said.alerts.iter().filter_map(|alert| Some((alert.status, rank(alert)?)));
    let ranks: Vec<(AlertStatus, usize)> = known.collect();
    let firing = ranks.iter().filter(|(status, _)| *status == AlertStatus::Firing).map(|(_, rank)| *rank);
    let least = (!ranks.is_empty()).then_some(0);
    zone.levels.get(firing.max().or(least)?).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn level_of(alerts: &[(&str, &str, Option<&str>)]) -> Option<String> {
        let alerts = alerts.iter().map(|(status, level, interface)| {
            let mut labels = json!({"alertname": "Scan", "threat_level": level});
            if let (Some(name), Some(labels)) = (interface, labels.as_object_mut()) {
                labels.insert("interface".to_owned(), json!(name));
            }
            json!({"status": status, "labels": labels, "startsAt": "2030-01-01T00:00:00Z"})
        });
        let said = json!({"version": "4", "status": "firing", "alerts": alerts.collect::<Vec<_>>()});
        let zone = ZoneView {
            interface: "web-1".into(),
            level: None,
            levels: ["calm", "guarded", "severe"].map(Into::into).to_vec(),
        };
        level(&serde_json::from_value(said).expect("it is a notification"), &zone)
    }

    #[test]
    fn the_greatest_that_fires_holds() {
        let all = [("firing", "guarded", None), ("firing", "severe", None), ("resolved", "severe", None)];
        assert_eq!(level_of(&all).as_deref(), Some("severe"));
        assert_eq!(level_of(&[all[0], all[2]]).as_deref(), Some("guarded"));
        assert_eq!(level_of(&all[2..]).as_deref(), Some("calm"), "the last has ended");
    }

    #[test]
    fn alerts_are_about_whom_they_name() {
        assert_eq!(level_of(&[("firing", "severe", Some("web-1"))]).as_deref(), Some("severe"));
        assert_eq!(level_of(&[("firing", "severe", Some("web-2"))]), None);
        assert_eq!(level_of(&[("firing", "unheard of", None)]), None);
        assert_eq!(level_of(&[]), None);
    }
}
