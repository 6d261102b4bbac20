//! The API in front of the real core, whose kernel takes everything at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::http::Method;
use hub_daemon::command::Command;
use hub_daemon::hub::Hub;
use hub_daemon::inputs::CommandRequest;
use hub_daemon::model::config::Config;
use hub_daemon::model::id::IdSource;
use hub_daemon::view::Snapshot;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::support::{Fake, document};

fn start() -> Fake {
    let mut fake = Fake::start();
    let (commands, requests) = mpsc::channel(16);
    let (snapshot, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    tokio::spawn(run(requests, snapshot));
    fake.hub.commands = commands;
    fake.hub.snapshot = snapshots;
    fake.router = hub_daemon::inputs::rest::router(fake.hub.clone());
    fake
}

async fn run(mut requests: mpsc::Receiver<CommandRequest>, snapshot: watch::Sender<Arc<Snapshot>>) {
    let mut hub = Hub::new(Config::default(), IdSource::new(1));
    while let Some((command, answer)) = requests.recv().await {
        let now = Timestamp::now();
        let reply = hub.handle(command, now);
        snapshot.send_replace(Arc::new(hub.snapshot(now)));
        drop(answer.send(reply));
        let pass =
            Command::Faults { revision: hub.revision(), faults: BTreeMap::new(), postponed: BTreeSet::new() };
        hub.handle(pass, now).unwrap();
        snapshot.send_replace(Arc::new(hub.snapshot(now)));
    }
}

#[tokio::test]
async fn the_source_as_it_stands_has_ended_already() {
    let mut source = document("TempDevNetwork");
    source["expiration"] = json!("2024-12-31T23:59:59Z");
    let refused = start().send(Method::POST, "/personas", &source).await;
    refused.assert_problem(422);
    assert_eq!(refused.pointers(), ["/expiration"]);
}

#[tokio::test]
async fn a_wrong_end_is_listed_with_every_other_error() {
    let fake = start();
    let mut kept = document("dev");
    kept.as_object_mut().unwrap().shift_remove("expiration");
    (kept["ttl"], kept["max_ttl"]) = (json!("1h"), json!("2h"));
    assert_eq!(fake.send(Method::POST, "/personas", &kept).await.status, 201);
    let past = json!({"name": "dev", "ip_range": "10.0.0.1/24", "colour": "red", "expiration": "2024-12-31T23:59:59Z"});
    let late =
        json!({"name": "dev", "ip_range": "10.0.0.1/24", "colour": "red", "ttl": "3h", "max_ttl": "2h"});
    let raised = json!({"name": "dev", "ip_range": "10.0.0.1/24", "colour": "red", "ttl": "3h"});
    for (method, path) in [(Method::POST, "/personas"), (Method::PUT, "/personas/dev")] {
        for (wanted, end) in [(&past, "/expiration"), (&late, "/ttl")] {
            let refused = fake.send(method.clone(), path, wanted).await;
            refused.assert_problem(422);
            let mut pointers = refused.pointers();
            pointers.retain(|pointer| pointer != "/max_ttl");
            assert_eq!(pointers, ["/colour", "/ip_range", end], "{method} {}", refused.body);
        }
    }
    let refused = fake.send(Method::PUT, "/personas/dev", &raised).await;
    assert_eq!(refused.pointers(), ["/colour", "/ip_range", "/max_ttl"]);
    let patch = json!({"colour": "red", "ttl": null, "expiration": "2024-12-31T23:59:59Z"});
    let refused = fake.send(Method::PATCH, "/personas/dev", &patch).await;
    assert_eq!(refused.pointers(), ["/colour", "/expiration"]);
    let mut ended = document("other");
    ended["expiration"] = json!("2024-12-31T23:59:59Z");
    let all = json!({"personas": [ended, {"name": "third", "ip_range": "10.0.0.1/24"}]});
    let refused = fake.send(Method::POST, "/apply", &all).await;
    assert_eq!(refused.pointers(), ["/personas/1/ip_range", "/personas/0/expiration"]);
    assert_eq!(fake.get("/personas").await.body["personas"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_persona_lives_through_the_api() {
    let fake = start();
    let created = fake.create("TempDevNetwork").await;
    assert_eq!(created["state"], "active");
    assert_eq!(created["definition"], document("TempDevNetwork"));
    fake.send(Method::POST, "/personas", &document("TempDevNetwork")).await.assert_problem(409);

    let patched = fake.send(Method::PATCH, "/personas/TempDevNetwork", &json!({"labels": {"a": "b"}})).await;
    let tag = patched.header("etag").to_owned();
    assert!(patched.status.as_u16() == 200 && tag.contains(".2."), "{tag} {}", patched.body);
    assert_eq!(fake.get("/personas?label=a%3Db").await.body["personas"].as_array().unwrap().len(), 1);
    let refused = fake.send(Method::PATCH, "/personas/TempDevNetwork", &json!({"ip_range": null})).await;
    refused.assert_problem(422);

    assert_eq!(fake.send(Method::DELETE, "/personas/TempDevNetwork", &Value::Null).await.status, 204);
    fake.send(Method::DELETE, "/personas/TempDevNetwork", &Value::Null).await.assert_problem(404);
}

#[tokio::test]
async fn a_life_given_as_ttl_can_be_extended() {
    let fake = start();
    let mut wanted = document("dev");
    wanted.as_object_mut().unwrap().shift_remove("expiration");
    wanted["ttl"] = json!("1h");
    assert_eq!(fake.send(Method::POST, "/personas", &wanted).await.status, 201);
    let until = (Timestamp::now() + SignedDuration::from_hours(5)).to_string();
    let patch = json!({"expiration": until, "ttl": null});
    let extended = fake.send(Method::PATCH, "/personas/dev", &patch).await;
    assert_eq!(extended.body["expires_at"], until, "{}", extended.body);
}
