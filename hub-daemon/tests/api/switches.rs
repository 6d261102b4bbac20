//! Switches over REST: ordered, followed, refused, confirmed, taken back; groups, levels, the journal, metrics.

use std::sync::atomic::Ordering;

use axum::http::{Method, StatusCode};
use hub_daemon::inputs::server::Peer;
use hub_daemon::view::switch::Question;
use serde_json::{Value, json};

use crate::events::Reader;
use crate::metrics::{scrape, series};
use crate::support::request;
use crate::switching::{Switching, personality};

#[tokio::test]
async fn a_switch_is_an_operation_that_can_be_followed_to_its_end() {
    let hub = Switching::start().await;
    hub.active.store(2, Ordering::Relaxed);
    let order = json!({"personality": "lockdown@1", "why": "a test", "drain": {"timeout": "30s"}});
    let began = hub.switch(&order).await;
    assert_eq!(began.status, StatusCode::ACCEPTED, "{}", began.body);
    let path = began.header("location").to_owned();
    assert_eq!(path, format!("/v1/operations/{}", began.body["id"].as_str().unwrap()));
    hub.until("web-1", "draining").await;
    let mut reader = Reader::open(&hub.fake, &format!("{path}/events")).await;
    let (name, draining) = reader.next().await;
    assert_eq!((name.as_str(), &draining["phase"]), ("operation", &json!("drain")), "{draining}");

    // Its gate is in the kernel after the next pass. The data path stands still: one connection of it would end.
    hub.tick().await;
    let held = hub.fake.get(&format!("{path}/connections")).await.body;
    assert_eq!(
        (&held["phase"], &held["flows"]),
        (&json!("drain"), &json!({"active": 1, "idle": 0, "kept": 2}))
    );
    let listed = held["connections"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{held}");
    assert_eq!(
        (&listed[0]["by"], &listed[0]["rule"], &listed[0]["active"]),
        (&json!("rule"), &json!(1), &json!(true))
    );
    assert!(
        listed[0]["source"].is_string() && listed[0]["target_port"] == 80 && listed[0]["idle_seconds"] == 0.5
    );
    hub.fake.get(&format!("{path}/connections?limit=0")).await.assert_problem(400);
    hub.fake.get("/v1/operations/none/connections").await.assert_problem(404);

    let again = hub.switch(&order).await;
    again.assert_problem(409);
    assert!(again.body["detail"].as_str().unwrap().contains("under way (drain)"), "{}", again.body);
    hub.fake.send(Method::DELETE, "/v1/interfaces/web-1", &Value::Null).await.assert_problem(409);

    hub.active.store(0, Ordering::Relaxed);
    hub.tick().await;
    let last = loop {
        let (_, view) = reader.next().await;
        if !view["outcome"].is_null() {
            break view;
        }
    };
    assert_eq!((&last["outcome"], &last["from"]), (&json!("committed"), &json!("web@1")), "{last}");
    assert_eq!(hub.fake.get(&path).await.body, last);
    let over = hub.fake.get(&format!("{path}/connections")).await.body;
    assert_eq!((&over["phase"], &over["connections"]), (&Value::Null, &json!([])), "{over}");
    let phases: Vec<&str> =
        last["phases"].as_array().unwrap().iter().map(|done| done["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["prepare", "preflight", "drain", "flip", "verify"]);
    let held = hub.fake.get("/v1/interfaces/web-1").await.body;
    assert_eq!((&held["current"], &held["previous"]), (&json!("lockdown@1"), &json!("web@1")));
    let listed = hub.fake.get("/v1/operations?interface=web-1").await.body;
    assert_eq!(listed["operations"], json!([last]));
    assert_eq!(hub.fake.get("/v1/operations?interface=web-2").await.body["operations"], json!([]));
    hub.fake.get("/v1/operations/none").await.assert_problem(404);
    hub.fake.get("/v1/operations/none/events").await.assert_problem(404);
}

#[tokio::test]
async fn a_switch_whose_check_fails_goes_back_and_says_why() {
    let hub = Switching::start().await;
    let ended = hub.finish(&json!({"personality": "broken", "drain": {"timeout": "0s"}})).await;
    assert_eq!(ended["outcome"], "rolled_back", "{ended}");
    assert!(ended["failure"].as_str().unwrap().contains("connection refused"), "{ended}");
    let held = hub.fake.get("/v1/interfaces/web-1").await.body;
    assert_eq!((&held["current"], &held["state"]), (&json!("web@1"), &json!("active")));
}

#[tokio::test]
async fn a_switch_that_is_not_confirmed_waits_and_can_be_kept_or_taken_back() {
    let hub = Switching::start().await;
    let order = json!({"personality": "lockdown", "confirm_within": "120s"});
    assert_eq!(hub.switch(&order).await.status, StatusCode::ACCEPTED);
    hub.until("web-1", "awaiting_confirm").await;
    hub.say("/v1/interfaces/web-1/cancel").await.assert_problem(409);
    let kept = hub.say("/v1/interfaces/web-1/confirm").await;
    assert_eq!((kept.status, &kept.body["outcome"]), (StatusCode::OK, &json!("committed")));
    hub.say("/v1/interfaces/web-1/confirm").await.assert_problem(409);

    let back = json!({"personality": "web", "confirm_within": "120s"});
    assert_eq!(hub.switch(&back).await.status, StatusCode::ACCEPTED);
    hub.until("web-1", "awaiting_confirm").await;
    let why = json!({"why": "it is slow"});
    let reverted = hub.fake.send(Method::POST, "/v1/interfaces/web-1/revert", &why).await;
    assert_eq!(reverted.status, StatusCode::ACCEPTED, "{}", reverted.body);
    hub.until("web-1", "active").await;
    let ended = hub.fake.get(reverted.header("location")).await.body;
    assert_eq!(ended["outcome"], "rolled_back");
    assert_eq!(ended["failure"], "reverted by api: it is slow");

    // Without a switch it goes back to what was before.
    let reverted = hub.say("/v1/interfaces/web-1/revert").await;
    assert_eq!((reverted.status, &reverted.body["to"]), (StatusCode::ACCEPTED, &json!("web@1")));
}

#[tokio::test]
async fn a_drain_can_be_canceled() {
    let hub = Switching::start().await;
    hub.active.store(1, Ordering::Relaxed);
    hub.say("/v1/interfaces/web-1/cancel").await.assert_problem(409);
    hub.switch(&json!({"personality": "lockdown", "drain": {"timeout": "10s"}})).await;
    hub.until("web-1", "draining").await;
    let canceled = hub.say("/v1/interfaces/web-1/cancel").await;
    assert_eq!((canceled.status, &canceled.body["outcome"]), (StatusCode::OK, &json!("aborted")));
    assert_eq!(hub.fake.get("/v1/interfaces/web-1").await.body["current"], "web@1");
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let hub = Switching::start().await;
    let planned = hub.switch(&json!({"personality": "broken", "dry_run": true})).await;
    assert_eq!(planned.status, StatusCode::OK, "{}", planned.body);
    assert_eq!((&planned.body["from"], &planned.body["to"]), (&json!("web@1"), &json!("broken@1")));
    let differences = planned.body["differences"].as_array().unwrap();
    assert!(differences.iter().any(|pointer| pointer == "/health"), "{differences:?}");
    let checks = planned.body["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check == "tcp 10.20.0.9:9"), "{checks:?}");
    let connections = &planned.body["connections"];
    assert_eq!((&connections["breaks_active"], &connections["survives_active"]), (&json!(1), &json!(2)));
    let flow = &connections["flows"][0];
    assert_eq!(
        (&flow["survives"], &flow["rule"], &flow["protocol"]),
        (&json!(false), &json!(1), &json!("tcp"))
    );
    assert_eq!(hub.fake.get("/v1/operations").await.body["operations"], json!([]));
    let all = json!({"labels": {"tier": "web"}, "switch": {"personality": "broken", "dry_run": true}});
    let refused = hub.fake.send(Method::POST, "/v1/switches", &all).await;
    assert_ne!(refused.status, StatusCode::ACCEPTED, "{}", refused.body);
    assert_eq!(hub.fake.get("/v1/interfaces/web-1").await.body["state"], "active");
}

#[tokio::test]
async fn wrong_orders_have_pointers() {
    let hub = Switching::start().await;
    let refused = hub.switch(&json!({"personality": "none"})).await;
    refused.assert_problem(422);
    assert_eq!(refused.pointers(), ["/personality"]);
    let refused = hub.switch(&json!({"personality": "web@0"})).await;
    assert_eq!(refused.pointers(), ["/personality"], "{}", refused.body);
    let order = json!({"personality": "lockdown", "confirm_within": "soon", "for": "-1", "urgent": true,
        "drain": {"timeout": "0s"}});
    let refused = hub.switch(&order).await;
    refused.assert_problem(422);
    assert_eq!(refused.pointers(), ["/confirm_within", "/for", "/drain"], "{}", refused.body);
    let refused = hub.switch(&json!({"personality": "lockdown", "drain": {"timeout": "2h"}})).await;
    assert_eq!(refused.pointers(), ["/drain/timeout"], "{}", refused.body);
    let refused = hub.switch(&json!({"personality": "lockdown", "colour": "red"})).await;
    assert_eq!(refused.pointers(), ["/colour"], "{}", refused.body);
    hub.switch(&json!({"personality": "web"})).await.assert_problem(409);
    let nobody =
        hub.fake.send(Method::POST, "/v1/interfaces/none/switch", &json!({"personality": "web"})).await;
    nobody.assert_problem(404);
    let wrong = request(Method::POST, "/v1/interfaces/web-1/revert", &json!({"colour": "red"}));
    assert_eq!(hub.fake.ask(wrong).await.pointers(), ["/colour"]);
    hub.fake.get("/v1/events?type=smell").await.assert_problem(400);
}

#[tokio::test]
async fn groups_are_all_or_none() {
    let hub = Switching::start().await;
    let send = async |body: &Value| hub.fake.send(Method::POST, "/v1/switches", body).await;
    for (body, pointers) in [
        (json!({"switch": {"personality": "web"}}), vec![""]),
        (json!({"labels": {"tier": "web"}, "switch": {}}), vec![""]),
        (json!({"interfaces": {"none": "web"}, "switch": {}}), vec!["/interfaces/none"]),
        (json!({"interfaces": [], "switch": {"personality": "web"}}), vec!["/interfaces"]),
        (
            json!({"interfaces": ["none", "web-1", "web-1"], "switch": {"personality": "web"}}),
            vec!["/interfaces/0", "/interfaces/2"],
        ),
        (json!({"labels": {"tier": "db"}, "switch": {"personality": "web"}}), vec!["/labels"]),
        (
            json!({"labels": {"tier": "web"}, "switch": {"personality": "none"}}),
            vec!["/switch/personality"; 2],
        ),
        (
            json!({"labels": {"tier": "web"}, "switch": {"personality": "web", "for": "x"}}),
            vec!["/switch/for"],
        ),
    ] {
        let refused = send(&body).await;
        refused.assert_problem(422);
        assert_eq!(refused.pointers(), pointers, "{}", refused.body);
    }
    // One has it already: the other one stays as it is.
    let half = json!({"labels": {"tier": "web"}, "switch": {"personality": "web2"}});
    let refused = send(&half).await;
    assert!(refused.status == StatusCode::CONFLICT, "{}", refused.body);
    assert!(refused.body["errors"].to_string().contains("`web-2`"), "{}", refused.body);
    assert_eq!(hub.fake.get("/v1/interfaces/web-1").await.body["operation"], Value::Null);

    for number in 1..=2 {
        let address = json!({"ip_addresses": [format!("10.20.0.{}/24", 4 + number)]});
        hub.post("/v1/personalities", &personality(&format!("shut-web-{number}"), &address)).await;
    }
    let each = json!({"interfaces": {"web-1": "lockdown", "web-2": "lockdown2"}, "switch": {"why": "each"}});
    let named = json!({"labels": {"tier": "web"}, "switch": {"personality": "shut-{interface}"}});
    for (body, to) in [(each, ["lockdown@1", "lockdown2@1"]), (named, ["shut-web-1@1", "shut-web-2@1"])] {
        let began = send(&body).await;
        assert_eq!(began.status, StatusCode::ACCEPTED, "{}", began.body);
        let operations = began.body["operations"].as_array().unwrap();
        assert!(operations[0]["group"].is_string() && operations[0]["group"] == operations[1]["group"]);
        for (interface, to) in ["web-1", "web-2"].into_iter().zip(to) {
            hub.until(interface, "active").await;
            assert_eq!(hub.fake.get(&format!("/v1/interfaces/{interface}")).await.body["current"], to);
        }
    }
}

#[tokio::test]
async fn a_threat_level_switches_the_interfaces_that_know_it() {
    let hub = Switching::start().await;
    let levels = hub.fake.get("/v1/threat-level").await.body;
    assert_eq!(levels["interfaces"][0]["levels"], json!(["normal", "severe"]));
    let put = async |body: &Value| hub.fake.send(Method::PUT, "/v1/threat-level", body).await;
    let unknown = put(&json!({"level": "mild"})).await;
    unknown.assert_problem(422);
    assert_eq!(unknown.pointers(), ["/level"]);
    let nobody = put(&json!({"level": "severe", "interfaces": ["none"]})).await;
    assert_eq!(nobody.pointers(), ["/interfaces/0"]);
    let told = put(&json!({"level": "severe", "interfaces": ["web-1"]})).await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.body);
    assert_eq!(told.body["interfaces"][0]["level"], "severe");
    hub.tick().await;
    hub.until("web-1", "active").await;
    let held = hub.fake.get("/v1/interfaces/web-1").await.body;
    assert_eq!((&held["current"], &held["level"]), (&json!("lockdown@1"), &json!("severe")));
    assert_eq!(hub.fake.get("/v1/interfaces/web-2").await.body["level"], Value::Null);
}

#[tokio::test]
async fn alerts_tell_a_threat_level() {
    let hub = Switching::start().await;
    let notify = async |status: &str, labels: Value| {
        let alert = json!({"status": status, "labels": labels, "annotations": {}, "fingerprint": "0f"});
        let body = json!({"version": "4", "receiver": "hub", "status": status, "alerts": [alert]});
        hub.fake.send(Method::POST, "/v1/threat-level/alerts", &body).await
    };
    let other = notify("firing", json!({"alertname": "DiskFull"})).await;
    other.assert_problem(422);
    assert_eq!(other.pointers(), ["/alerts"]);
    let told = notify("firing", json!({"threat_level": "severe", "interface": "web-1"})).await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.body);
    assert_eq!(told.body["interfaces"][0]["level"], "severe");
    hub.tick().await;
    hub.until("web-1", "active").await;
    assert_eq!(hub.fake.get("/v1/interfaces/web-1").await.body["current"], "lockdown@1");
    let over = notify("resolved", json!({"threat_level": "severe", "interface": "web-1"})).await;
    assert_eq!(over.body["interfaces"][0]["level"], "severe", "it falls when it has been lower for a while");
}

#[tokio::test]
async fn the_journal_and_the_metrics_tell_of_every_switch() {
    let hub = Switching::start().await;
    assert_eq!(hub.fake.get("/v1/interfaces/web-1/journal").await.body["entries"], json!([]));
    hub.fake.get("/v1/interfaces/none/journal").await.assert_problem(404);
    hub.fake.get("/v1/interfaces/web-1/journal?since=once&limit=0").await.assert_problem(400);
    hub.finish(&json!({"personality": "lockdown", "why": "the first"})).await;
    hub.finish(&json!({"personality": "web", "why": "the second"})).await;
    hub.finish(&json!({"personality": "broken", "why": "the third"})).await;
    let all = hub.fake.get("/v1/interfaces/web-1/journal").await.body;
    let whys: Vec<&str> =
        all["entries"].as_array().unwrap().iter().map(|entry| entry["why"].as_str().unwrap()).collect();
    assert_eq!(whys, ["the first", "the second", "the third"]);
    assert_eq!(all["entries"][2]["outcome"], "rolled_back");
    let last = hub.fake.get("/v1/interfaces/web-1/journal?limit=1").await.body;
    assert_eq!(last["entries"], json!([all["entries"][2]]));
    let since = hub.fake.get("/v1/interfaces/web-1/journal?since=2999-01-01T00:00:00Z").await.body;
    assert_eq!(since["entries"], json!([]));

    let series = series(&scrape(&hub.fake).await);
    for (name, value) in [
        ("hub_interface_state{interface=\"web-1\",state=\"active\"}", 1.0),
        ("hub_interface_state{interface=\"web-1\",state=\"degraded\"}", 0.0),
        ("hub_interface_personality{interface=\"web-1\",personality=\"web@1\"}", 1.0),
        ("hub_interface_healthy{interface=\"web-1\"}", 1.0),
        ("hub_switch_total{interface=\"web-1\",result=\"committed\"}", 2.0),
        ("hub_switch_total{interface=\"web-1\",result=\"rolled_back\"}", 1.0),
        ("hub_switch_phase_seconds_count{phase=\"flip\"}", 3.0),
        // No kernel is here that would take time for it.
        ("hub_switch_flip_seconds_count", 0.0),
        ("hub_switch_block_seconds_count", 2.0),
        ("hub_switch_phase_seconds_count{phase=\"rollback_verify\"}", 1.0),
    ] {
        assert_eq!(series.get(name), Some(&value), "{name} in {:?}", series.keys().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn the_same_key_is_one_switch() {
    let hub = Switching::start().await;
    hub.active.store(1, Ordering::Relaxed);
    let order = json!({"personality": "lockdown", "drain": {"timeout": "30s"}});
    let post = || {
        let mut post = request(Method::POST, "/v1/interfaces/web-1/switch", &order);
        post.headers_mut().insert("idempotency-key", "k".parse().unwrap());
        post
    };
    let (first, second) = (hub.fake.ask(post()).await, hub.fake.ask(post()).await);
    assert_eq!((first.status, second.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_eq!(first.body["id"], second.body["id"]);
}

#[tokio::test]
async fn one_personality_for_several_interfaces_is_checked_when_it_is_made_and_when_it_is_given() {
    let hub = Switching::start().await;
    let shared = |address: &str| personality("shared", &json!({"ip_addresses": [address]}));
    let post = async |document: &Value| hub.fake.send(Method::POST, "/v1/personalities", document).await;
    let refused = post(&shared("10.20.0.{label:}/24")).await;
    refused.assert_problem(422);
    assert_eq!(refused.pointers(), ["/ip_addresses/0"]);
    hub.post("/v1/personalities", &shared("10.20.0.{label:host}/24")).await;
    let group = json!({"labels": {"tier": "web"}, "switch": {"personality": "shared"}});
    let refused = hub.fake.send(Method::POST, "/v1/switches", &group).await;
    refused.assert_problem(422);
    assert_eq!(refused.pointers(), ["/switch/personality"; 2], "{}", refused.body);
    assert!(
        refused.body["errors"].to_string().contains("`web-2`: label `host` is missing"),
        "{}",
        refused.body
    );
    for (number, personality) in [(1, "web"), (2, "web2")] {
        let mut record = crate::switching::record(number, personality);
        record["labels"]["host"] = json!((4 + number).to_string());
        let path = format!("/v1/interfaces/web-{number}");
        let replaced = hub.fake.send(Method::PUT, &path, &record).await;
        assert_eq!(replaced.status, StatusCode::OK, "{}", replaced.body);
    }
    let began = hub.fake.send(Method::POST, "/v1/switches", &group).await;
    assert_eq!(began.status, StatusCode::ACCEPTED, "{}", began.body);
    for interface in ["web-1", "web-2"] {
        hub.until(interface, "active").await;
        assert_eq!(hub.fake.get(&format!("/v1/interfaces/{interface}")).await.body["current"], "shared@1");
    }
}

#[tokio::test]
async fn the_session_that_orders_is_told_to_the_hub() {
    let hub = Switching::start().await;
    hub.active.store(1, Ordering::Relaxed);
    let order = json!({"personality": "lockdown", "drain": {"timeout": "30s"}});
    let mut post = request(Method::POST, "/v1/interfaces/web-1/switch", &order);
    post.headers_mut().insert("hub-session", "192.0.2.7 50000 10.20.0.5 22".parse().unwrap());
    post.extensions_mut().insert(Peer::Unix { uid: 0, gid: 0, pid: None });
    let began = hub.fake.ask(post).await;
    assert_eq!(began.status, StatusCode::ACCEPTED, "{}", began.body);
    hub.until("web-1", "draining").await;
    for _ in 0..2 {
        hub.tick().await;
    }
    let snapshot = hub.fake.hub.snapshot.borrow().clone();
    let exempt = snapshot.interfaces["web-1"].wants.iter().find_map(|wanted| match &wanted.question {
        Question::Flows { judged, .. } => judged.exempt,
        Question::Checks { .. } => None,
    });
    let ends = [("192.0.2.7".parse().unwrap(), 50_000), ("10.20.0.5".parse().unwrap(), 22)];
    assert_eq!(exempt, Some(ends));
}
