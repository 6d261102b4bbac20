//! Experiments over REST and by hubctl: two sides of some interfaces, what is counted, and how they end.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use hub_daemon::command::Command;
use hub_daemon::systems::experiment::totals::Reading;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::listeners::Served;
use crate::metrics::{scrape, series};
use crate::support::Got;
use crate::switching::{Switching, personality};

/// By this salt `web-1` is among 12 of a hundred and `web-2` among 41.
const SALT: &str = "half";

async fn start() -> Switching {
    let hub = Switching::start().await;
    for number in 1..=2 {
        let address = json!({"ip_addresses": [format!("10.20.0.{}/24", 4 + number)]});
        hub.post("/v1/personalities", &personality(&format!("shut-web-{number}"), &address)).await;
    }
    hub
}

fn experiment() -> Value {
    json!({"name": "shut", "labels": {"tier": "web"}, "percent": 20, "salt": SALT,
        "switch": {"personality": "shut-{interface}", "why": "is it faster"}})
}

fn with(document: &Value, more: &Value) -> Value {
    let mut document = document.clone();
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    document
}

async fn post(hub: &Switching, document: &Value) -> Got {
    hub.fake.send(Method::POST, "/v1/experiments", document).await
}

async fn stage(hub: &Switching, stage: &str) -> Value {
    for _ in 0..200 {
        let view = hub.fake.get("/v1/experiments/shut").await.body;
        if view["stage"] == stage {
            return view;
        }
        hub.tick().await;
    }
    panic!("it is not {stage}");
}

async fn measure(hub: &Switching, packets: u64) {
    let reading = Reading { packets, bytes: packets * 100, dropped: packets / 10, ..Reading::default() };
    let readings = ["web-1", "web-2"].map(|name| (name.to_owned(), reading.clone()));
    let (answer, answered) = oneshot::channel();
    hub.fake.hub.commands.send((Command::Measured(BTreeMap::from(readings)), answer)).await.unwrap();
    answered.await.unwrap().unwrap();
}

fn interfaces(side: &Value) -> Vec<&str> {
    side["interfaces"].as_array().unwrap().iter().map(|it| it["interface"].as_str().unwrap()).collect()
}

async fn has(hub: &Switching, interface: &str) -> Value {
    hub.fake.get(&format!("/v1/interfaces/{interface}")).await.body["current"].clone()
}

#[tokio::test]
async fn an_experiment_is_begun_measured_changed_and_ended() {
    let hub = start().await;
    let dry = with(&experiment(), &json!({"switch": {"personality": "shut-{interface}", "dry_run": true}}));
    let planned = post(&hub, &dry).await;
    assert_eq!((planned.status, interfaces(&planned.body["b"])), (StatusCode::OK, vec!["web-1"]));
    assert_eq!(hub.fake.get("/v1/experiments").await.body["experiments"], json!([]));

    let began = post(&hub, &experiment()).await;
    assert_eq!(began.status, StatusCode::ACCEPTED, "{}", began.body);
    assert_eq!(
        (began.header("location"), &began.body["stage"]),
        ("/v1/experiments/shut", &json!("starting"))
    );
    let view = stage(&hub, "running").await;
    assert_eq!((interfaces(&view["a"]), interfaces(&view["b"])), (vec!["web-2"], vec!["web-1"]));
    assert_eq!(
        (has(&hub, "web-1").await, has(&hub, "web-2").await),
        (json!("shut-web-1@1"), json!("web2@1"))
    );
    let listed = hub.fake.get("/v1/operations?interface=web-1").await.body;
    assert_eq!(listed["operations"][0]["why"], "experiment shut: is it faster");
    hub.fake.send(Method::DELETE, "/v1/personalities/shut-web-2", &Value::Null).await.assert_problem(409);

    measure(&hub, 100).await;
    measure(&hub, 150).await;
    let view = hub.fake.get("/v1/experiments/shut").await.body;
    assert_eq!((&view["a"]["totals"]["packets"], &view["b"]["totals"]["dropped"]), (&json!(50), &json!(5)));
    let compared = view["comparison"].as_array().unwrap();
    assert!(compared.iter().all(|compared| compared["verdict"] == "too_few"), "{compared:?}");
    let series = series(&scrape(&hub.fake).await);
    for (name, value) in [
        ("hub_experiment_interfaces{experiment=\"shut\",arm=\"a\"}", 1.0),
        ("hub_experiment_interfaces_left{experiment=\"shut\",arm=\"b\"}", 0.0),
        ("hub_experiment_packets_total{experiment=\"shut\",arm=\"b\",verdict=\"passed\"}", 50.0),
        ("hub_experiment_packets_total{experiment=\"shut\",arm=\"a\",verdict=\"dropped\"}", 5.0),
        ("hub_experiment_bytes_total{experiment=\"shut\",arm=\"a\"}", 5_000.0),
        ("hub_experiment_check_rounds_total{experiment=\"shut\",arm=\"a\",result=\"passed\"}", 1.0),
        ("hub_experiment_flows_refused_total{experiment=\"shut\",arm=\"b\"}", 0.0),
        ("hub_experiment_handshake_seconds_count{experiment=\"shut\",arm=\"b\"}", 0.0),
    ] {
        assert_eq!(series.get(name), Some(&value), "{name} in {:?}", series.keys().collect::<Vec<_>>());
    }

    let patch = async |body: &Value| hub.fake.send(Method::PATCH, "/v1/experiments/shut", body).await;
    let same = patch(&json!({"percent": 30})).await;
    assert_eq!((same.status, &same.body["percent"]), (StatusCode::OK, &json!(30)), "nobody changes sides");
    for (percent, pointer) in [(100, "/percent"), (5, "/percent")] {
        let refused = patch(&json!({"percent": percent})).await;
        refused.assert_problem(422);
        assert_eq!(refused.pointers(), [pointer]);
    }
    assert_eq!(patch(&json!({"percent": 300})).await.pointers(), ["/percent"]);

    let end = async |body: &Value| hub.fake.send(Method::POST, "/v1/experiments/shut/end", body).await;
    end(&json!({"keep": "c"})).await.assert_problem(422);
    let ending = end(&json!({"keep": "b", "why": "it is"})).await;
    assert_eq!((ending.status, &ending.body["stage"]), (StatusCode::ACCEPTED, &json!("ending")));
    let ended = stage(&hub, "ended").await;
    assert_eq!((&ended["kept"], has(&hub, "web-2").await), (&json!("b"), json!("shut-web-2@1")));
    end(&json!({"keep": "a"})).await.assert_problem(409);
    let forget = async || hub.fake.send(Method::DELETE, "/v1/experiments/shut", &Value::Null).await;
    assert_eq!(forget().await.status, StatusCode::NO_CONTENT);
    forget().await.assert_problem(404);
    hub.fake.get("/v1/experiments/shut").await.assert_problem(404);
}

#[tokio::test]
async fn wrong_experiments_have_pointers_and_change_nothing() {
    let hub = start().await;
    for (more, pointers) in [
        (json!({"name": "-"}), vec!["/name"]),
        (json!({"percent": 5}), vec!["/percent"]),
        (json!({"percent": 100}), vec!["/percent"]),
        (json!({"percent": -1}), vec!["/percent"]),
        (json!({"labels": {"tier": "db"}}), vec!["/labels"]),
        (json!({"interfaces": ["web-1", "none"]}), vec![""]),
        (json!({"switch": {"personality": "none"}}), vec!["/switch/personality"; 2]),
        (json!({"switch": {"personality": "shut-{interface}", "for": "30m"}}), vec!["/switch/for"]),
        (
            json!({"switch": {"personality": "shut-{interface}", "confirm_within": "x"}}),
            vec!["/switch/confirm_within"],
        ),
        (json!({"switch": {}}), vec![""]),
        (json!({"colour": "red"}), vec!["/colour"]),
    ] {
        let refused = post(&hub, &with(&experiment(), &more)).await;
        refused.assert_problem(422);
        assert_eq!(refused.pointers(), pointers, "{more}: {}", refused.body);
    }
    let taken = post(&hub, &with(&experiment(), &json!({"switch": {"personality": "web2"}}))).await;
    taken.assert_problem(409);
    assert!(taken.body["errors"].to_string().contains("`web-2`: it has web2@1 already"), "{}", taken.body);
    assert_eq!(hub.fake.get("/v1/experiments").await.body["experiments"], json!([]));
    assert_eq!(hub.fake.get("/v1/operations").await.body["operations"], json!([]));
}

#[tokio::test]
async fn a_part_of_a_group_is_switched_by_percent() {
    let hub = start().await;
    let send = async |more: &Value| {
        let body =
            json!({"labels": {"tier": "web"}, "salt": SALT, "switch": {"personality": "shut-{interface}"}});
        hub.fake.send(Method::POST, "/v1/switches", &with(&body, more)).await
    };
    for (percent, detail) in
        [(0, "0 %: use 1 to 100"), (101, "101 %: use 1 to 100"), (5, "chooses none of 2")]
    {
        let refused = send(&json!({"percent": percent})).await;
        refused.assert_problem(422);
        assert_eq!(refused.pointers(), ["/percent"]);
        assert!(refused.body["detail"].as_str().unwrap().contains(detail), "{}", refused.body);
    }
    let began = send(&json!({"percent": 40})).await;
    assert_eq!(began.status, StatusCode::ACCEPTED, "{}", began.body);
    let operations = began.body["operations"].as_array().unwrap();
    assert_eq!((operations.len(), &operations[0]["interface"]), (1, &json!("web-1")));
    hub.until("web-1", "active").await;
    assert_eq!(has(&hub, "web-2").await, "web2@1");
}

#[tokio::test]
async fn hubctl_runs_an_experiment() {
    let hub = start().await;
    let served = Served::of(hub.fake.clone());
    let start = ["experiment", "start", "shut", "shut-{interface}", "--label", "tier=web", "--percent", "20"];
    let start = [&start[..], &["--salt", SALT, "--why", "is it faster"]].concat();
    let said = served.says(&[&start[..], &["--dry-run"]].concat()).await;
    assert!(said.lines().any(|line| line.starts_with("  b") && line.contains("web-1")), "{said}");
    let said = served.says(&start).await;
    for words in
        ["web-1:", "flip ", "stage    running", "B compared with A", "dropped_packets_ratio", "too few"]
    {
        assert!(said.contains(words), "{words} in {said}");
    }
    served.fails(1, &start).await;
    let said = served.says(&["experiment", "list"]).await;
    assert!(said.lines().nth(1).unwrap().starts_with("shut  running  20"), "{said}");
    assert_eq!(served.json(&["experiment", "show", "shut"]).await["salt"], SALT);
    served.fails(5, &["experiment", "percent", "shut", "99"]).await;
    served.fails(2, &["experiment", "percent", "shut", "100"]).await;
    served.fails(1, &["experiment", "delete", "shut"]).await;
    let said = served.says(&["experiment", "end", "shut", "--keep", "a"]).await;
    assert!(said.contains("stage    ended") && said.contains("kept     a"), "{said}");
    assert_eq!(has(&hub, "web-1").await, "web@1");
    assert_eq!(served.says(&["experiment", "delete", "shut"]).await, "shut deleted\n");
    served.fails(4, &["experiment", "show", "shut"]).await;

    // One side fails its check: nobody has it.
    let broken =
        ["experiment", "start", "bad", "broken", "web-1", "web-2", "--percent", "20", "--salt", SALT];
    let said = served.fails(1, &broken).await;
    assert!(said.contains("bad failed: web-1: tcp 10.20.0.9:9: connection refused"), "{said}");
    assert_eq!(served.json(&["experiment", "show", "bad"]).await["stage"], "failed");
}
