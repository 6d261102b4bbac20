//! Several hubs over real sockets: who takes a persona that names no hub.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use hub_daemon::command::Command;
use hub_daemon::document::hub::HubDocument;
use hub_daemon::hub::Hub;
use hub_daemon::inputs::CommandRequest;
use hub_daemon::inputs::server::{self, TcpOptions};
use hub_daemon::model::config::Config;
use hub_daemon::model::id::IdSource;
use hub_daemon::view::{NodeRoom, NodeView, Snapshot};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::cli::hubctl;
use crate::listeners::Folder;
use crate::support::{Fake, Got, request};

/// The real core behind the API, as one of several hubs.
struct Site {
    fake: Fake,
    socket: PathBuf,
    _closing: watch::Sender<bool>,
}

impl Site {
    /// A hub on the socket `NAME.sock`, that has read its documents.
    async fn start(folder: &Folder, name: &str, node: Value, nodes: Value) -> Self {
        let document: HubDocument = serde_json::from_value(json!({"node": node, "nodes": nodes})).unwrap();
        let config = Config::new(&document, &folder.0).unwrap();
        let mut fake = Fake::start();
        let (commands, requests) = mpsc::channel(16);
        let (snapshot, snapshots) = watch::channel(Arc::new(Snapshot::default()));
        tokio::spawn(run(Hub::new(config, IdSource::new(name.len() as u64)), requests, snapshot));
        fake.hub.commands = commands;
        fake.hub.snapshot = snapshots.clone();
        fake.router = hub_daemon::inputs::rest::router(fake.hub.clone());
        let socket = folder.join(&format!("{name}.sock"));
        let (closing, closed) = watch::channel(false);
        tokio::spawn(server::serve(server::bind_unix(&socket).unwrap(), fake.router.clone(), closed));
        let site = Self { fake, socket, _closing: closing };
        let (answer, answered) = tokio::sync::oneshot::channel();
        site.fake.hub.commands.send((Command::Documents(Vec::new()), answer)).await.unwrap();
        answered.await.unwrap().unwrap();
        snapshots.clone().wait_for(|snapshot| snapshot.ready).await.unwrap();
        site
    }

    async fn create(&self, name: &str, gateway: Value) -> Got {
        self.fake.send(Method::POST, "/v1/personas", &document(name, &gateway)).await
    }

    async fn state(&self, name: &str) -> Value {
        self.fake.get(&format!("/personas/{name}")).await.body["state"].clone()
    }
}

async fn run(
    mut hub: Hub,
    mut requests: mpsc::Receiver<CommandRequest>,
    snapshot: watch::Sender<Arc<Snapshot>>,
) {
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

fn document(name: &str, gateway: &Value) -> Value {
    let third = name.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(7).wrapping_add(byte));
    json!({"name": name, "ip_range": format!("10.1.{third}.0/24"), "gateway": gateway})
}

fn gateway(name: &str, personas: u32) -> Value {
    json!({"name": name, "role": "gateway", "labels": {"site": "east"}, "capacity": {"personas": personas}})
}

fn at(folder: &Folder, names: &[&str]) -> Value {
    let nodes = names.iter().map(|name| {
        let socket = folder.join(&format!("{name}.sock"));
        json!({"name": name, "url": format!("unix:{}", socket.display())})
    });
    nodes.collect()
}

fn any() -> Value {
    json!({"choose": "free"})
}

#[tokio::test]
async fn the_freest_gateway_takes_it_and_the_hub_that_was_asked_knows_of_it() {
    let folder = Folder::new();
    let front = Site::start(&folder, "front", json!({"name": "front"}), at(&folder, &["a", "b"])).await;
    let a = Site::start(&folder, "a", gateway("a", 2), json!([])).await;
    let b = Site::start(&folder, "b", gateway("b", 4), json!([])).await;
    let mut places = Vec::new();
    for name in ["p1", "p2", "p3", "p4", "p5"] {
        let made = front.create(name, any()).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
        let node = made.body["definition"]["gateway"]["node"].as_str().unwrap().to_owned();
        let site = if node == "a" { &a } else { &b };
        let id = made.body["id"].as_str().unwrap();
        let place = format!("unix:{}:/v1/personas/{id}", site.socket.display());
        assert_eq!(made.header("location"), place);
        assert_eq!(made.body["definition"]["gateway"], json!({"node": node}));
        assert_eq!((site.state(name).await, front.state(name).await), (json!("active"), json!("elsewhere")));
        assert_eq!(site.fake.get(&format!("/personas/{id}")).await.status, StatusCode::OK);
        places.push(node);
    }
    // What would be left: b 3/4, a 1/2; b 2/4, a 1/2; b 1/4 or a 1/2; and so on. Names break ties.
    assert_eq!(places, ["b", "a", "b", "b", "a"]);
    assert_eq!(front.create("p6", any()).await.status, StatusCode::CREATED);
    let full = front.create("p7", any()).await;
    full.assert_problem(422);
    let said = full.body.to_string();
    for wanted in
        ["`a`: it is full: 0 of 2 personas", "`b`: it is full: 0 of 4", "`front`: its role is `hub`"]
    {
        assert!(said.contains(wanted), "{wanted} in {said}");
    }
    assert_eq!(full.pointers(), ["/gateway"; 3]);
    assert_eq!(front.fake.get("/personas/p7").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_hub_that_is_asked_takes_it_itself_when_it_is_the_freest() {
    let folder = Folder::new();
    let a = Site::start(&folder, "a", gateway("a", 10), at(&folder, &["b"])).await;
    let b = Site::start(&folder, "b", gateway("b", 2), json!([])).await;
    let made = a.create("p", json!({"choose": "free", "labels": {"site": "east"}})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!(made.header("location"), format!("/v1/personas/{}", made.body["id"].as_str().unwrap()));
    assert_eq!((a.state("p").await, b.state("p").await), (json!("active"), Value::Null));
    let nobody = a.create("q", json!({"choose": "free", "labels": {"site": "west"}})).await;
    nobody.assert_problem(422);
    assert!(nobody.body.to_string().contains("have site=east, not site=west"), "{}", nobody.body);
    let taken = a.create("p", any()).await;
    taken.assert_problem(409);
}

#[tokio::test]
async fn a_dead_hub_is_skipped_and_named_within_the_time() {
    let folder = Folder::new();
    let silent = folder.join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    let a = Site::start(&folder, "a", json!({"name": "a"}), at(&folder, &["dead", "silent", "b"])).await;
    let b = Site::start(&folder, "b", gateway("b", 1), json!([])).await;
    let begun = tokio::time::Instant::now();
    let made = a.create("p", any()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(b.state("p").await, "active");
    let full = a.create("q", any()).await;
    full.assert_problem(422);
    let said = full.body.to_string();
    assert!(said.contains("`dead`: No such file") && said.contains("`silent`: it does not answer"), "{said}");
    let nodes = a.fake.get("/v1/nodes").await.body["nodes"].clone();
    let standing = |index: usize, field: &str| nodes[index][field].as_str().unwrap_or_default().to_owned();
    assert_eq!(standing(0, "name"), "a");
    assert!(standing(1, "unreachable").contains("No such file"), "{nodes}");
    assert_eq!(nodes[3]["node"]["free"], json!({"personas": 0}));
    let socket = a.socket.display().to_string();
    let output = hubctl(&["--socket", &socket, "node"]).await;
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("here") && table.contains("0 of 1") && table.contains("unreachable: No such"),
        "{table}"
    );
}

/// A gateway that says it has room, and answers every creation with this status.
fn liar(folder: &Folder, name: &str, status: u16) {
    let room = NodeRoom { personas: 1_000, ..NodeRoom::default() };
    let view = NodeView {
        name: Some(name.into()),
        role: hub_daemon::document::node::NodeRole::Gateway,
        ready: true,
        capacity: room,
        free: room,
        ..NodeView::default()
    };
    let refused = json!({"type": "about:blank", "title": "no", "status": status, "detail": "it lied"});
    let status = StatusCode::from_u16(status).unwrap();
    let router = Router::new()
        .route("/v1/node", get(move || async move { Json(view) }))
        .route("/v1/personas", axum::routing::post(move || async move { (status, Json(refused)) }));
    let listener = tokio::net::UnixListener::bind(folder.join(&format!("{name}.sock"))).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
}

#[tokio::test]
async fn a_hub_that_filled_up_in_between_is_passed_over_and_other_refusals_pass_through() {
    let folder = Folder::new();
    for (name, status) in [("full", 507), ("over", 422), ("taken", 409), ("busy", 503)] {
        liar(&folder, name, status);
    }
    let nodes = |names: &[&str]| at(&folder, names);
    let a = Site::start(&folder, "a", gateway("a", 100), nodes(&["full", "over"])).await;
    let made = a.create("p", any()).await;
    assert_eq!(made.body["definition"]["gateway"]["node"], "a", "{}", made.body);
    let b = Site::start(&folder, "b", gateway("b", 100), nodes(&["taken"])).await;
    let refused = b.create("p", any()).await;
    refused.assert_problem(409);
    assert_eq!(refused.body["detail"], "node `taken`: it lied");
    assert_eq!(b.fake.get("/personas/p").await.status, StatusCode::NOT_FOUND, "the note is taken back");
    let c = Site::start(&folder, "c", gateway("c", 100), nodes(&["busy"])).await;
    let refused = c.create("p", any()).await;
    refused.assert_problem(503);
    assert!(refused.body["detail"].as_str().unwrap().contains("may have created it"), "{}", refused.body);
    assert_eq!(c.fake.get("/personas/p").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_same_key_finds_the_hub_that_has_it_although_the_first_answer_was_lost() {
    let folder = Folder::new();
    let front = Site::start(&folder, "front", json!({}), at(&folder, &["a", "b"])).await;
    let a = Site::start(&folder, "a", gateway("a", 2), json!([])).await;
    let b = Site::start(&folder, "b", gateway("b", 9), json!([])).await;
    let keyed = |path: &str, body: &Value| {
        let mut keyed = request(Method::POST, path, body);
        keyed.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
        keyed
    };
    // Somebody asked `a` in our name, and the answer never came back.
    let placed = document("p", &json!({"node": "a"}));
    let first = a.fake.ask(keyed("/v1/personas", &placed)).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.body);
    for _ in 0..2 {
        let again = front.fake.ask(keyed("/v1/personas", &document("p", &any()))).await;
        assert_eq!(
            (again.status, &again.body["id"]),
            (StatusCode::CREATED, &first.body["id"]),
            "{}",
            again.body
        );
    }
    assert_eq!((b.state("p").await, front.state("p").await), (Value::Null, json!("elsewhere")));
}

#[tokio::test]
async fn only_creation_chooses() {
    let folder = Folder::new();
    let a = Site::start(&folder, "a", gateway("a", 9), json!([])).await;
    assert_eq!(a.create("p", any()).await.status, StatusCode::CREATED);
    let free = document("p", &any());
    for (method, path, body) in [
        (Method::PUT, "/personas/p", free.clone()),
        (Method::PATCH, "/personas/p", json!({"gateway": {"node": null, "choose": "free"}})),
        (Method::POST, "/apply", json!({"personas": [document("q", &any())]})),
    ] {
        let refused = a.fake.send(method.clone(), path, &body).await;
        refused.assert_problem(422);
        assert!(refused.body.to_string().contains("write `node: NAME`"), "{method}: {}", refused.body);
    }
    let both = a.create("q", json!({"choose": "free", "node": "a"})).await;
    both.assert_problem(422);
    assert_eq!(both.pointers(), ["/gateway/choose"]);
    a.create("q", json!({"choose": "best"})).await.assert_problem(422);
    let mut wrong = document("-", &any());
    wrong["mtu"] = json!(9);
    let wrong = a.fake.send(Method::POST, "/personas", &wrong).await;
    wrong.assert_problem(422);
    assert_eq!(wrong.pointers(), ["/name", "/mtu"]);
}

#[tokio::test]
async fn a_hub_on_tcp_wants_its_token() {
    let folder = Folder::new();
    let b = Site::start(&folder, "b", gateway("b", 9), json!([])).await;
    let token = folder.write("b.token", "0123456789abcdef0123456789abcdef", 0o600);
    let listen = "127.0.0.1:0".parse().unwrap();
    let options = TcpOptions { address: listen, token_file: Some(token.clone()), tls: None };
    let listener = server::bind_tcp(&options).unwrap();
    let url = format!("http://{}", listener.address().unwrap());
    let (_closing, closed) = watch::channel(false);
    tokio::spawn(server::serve(listener, b.fake.router.clone(), closed));
    let nodes = |file: &Path| json!([{"name": "b", "url": url, "token_file": file}]);
    let a = Site::start(&folder, "a", json!({"name": "a"}), nodes(&token)).await;
    let made = a.create("p", any()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert!(made.header("location").starts_with(&format!("{url}/v1/personas/")), "{:?}", made.headers);
    let other = folder.write("other.token", "ffffffffffffffffffffffffffffffff", 0o600);
    for (name, file, why) in [("c", other, "401"), ("d", folder.join("none"), "No such file")] {
        let site = Site::start(&folder, name, json!({"name": name}), nodes(&file)).await;
        let refused = site.create("q", any()).await;
        refused.assert_problem(422);
        assert!(refused.body.to_string().contains(why), "{why}: {}", refused.body);
    }
}
