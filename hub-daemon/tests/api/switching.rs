//! The API in front of the real core with personalities: its kernel takes everything at once, and an observer
//! answers what the core asks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use hub_daemon::command::Command;
use hub_daemon::command::switch::{FlowCount, Observation};
use hub_daemon::hub::Hub;
use hub_daemon::inputs::CommandRequest;
use hub_daemon::model::check::CheckResult;
use hub_daemon::model::config::Config;
use hub_daemon::model::id::IdSource;
use hub_daemon::model::subnet::Subnet;
use hub_daemon::outputs::switches::SwitchLog;
use hub_daemon::view::Snapshot;
use hub_daemon::view::switch::Question;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::listeners::Folder;
use crate::support::{Fake, Got};

/// A port that checks never reach.
pub(crate) const DEAD: u16 = 9;

/// A hub with personalities `web@1`, `lockdown@1` and `broken@1`, which fails its check, and interfaces `web-1`
/// and `web-2`, which have `web`.
pub(crate) struct Switching {
    pub(crate) fake: Fake,
    /// Connections that switches wait for.
    pub(crate) active: Arc<AtomicU64>,
    _folder: Folder,
}

impl Switching {
    pub(crate) async fn start() -> Self {
        let mut fake = Fake::start();
        let folder = Folder::new();
        let log = Arc::new(SwitchLog::new(&folder.join(".")));
        let (commands, requests) = mpsc::channel(16);
        let (snapshot, snapshots) = watch::channel(Arc::new(Snapshot::default()));
        let active = Arc::new(AtomicU64::new(0));
        let kernel = Kernel {
            hub: Hub::new(config(), IdSource::new(1)),
            snapshot,
            log: Arc::clone(&log),
            active: Arc::clone(&active),
        };
        tokio::spawn(kernel.run(requests));
        (fake.hub.commands, fake.hub.snapshot, fake.hub.switches) = (commands, snapshots, log);
        fake.router = hub_daemon::inputs::rest::router(fake.hub.clone());
        let switching = Self { fake, active, _folder: folder };
        for (name, more) in [
            ("web", json!({})),
            ("lockdown", json!({"drain": {"timeout": "0s"}})),
            ("broken", json!({"health": {"targets": [{"tcp": format!("10.20.0.9:{DEAD}")}]}})),
            ("web2", json!({"ip_addresses": ["10.20.0.6/24"]})),
            ("lockdown2", json!({"ip_addresses": ["10.20.0.6/24"]})),
        ] {
            switching.post("/v1/personalities", &personality(name, &more)).await;
        }
        for number in 1..=2 {
            let web = ["web", "web2"][number - 1];
            switching.post("/v1/interfaces", &record(number, web)).await;
        }
        switching
    }

    /// A request that must succeed by making something.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let got = self.fake.send(Method::POST, path, body).await;
        assert_eq!(got.status, StatusCode::CREATED, "{}", got.body);
        got.body
    }

    /// Orders a switch of `web-1`.
    pub(crate) async fn switch(&self, order: &Value) -> Got {
        self.fake.send(Method::POST, "/v1/interfaces/web-1/switch", order).await
    }

    /// Orders a switch of `web-1`, and waits for its end.
    pub(crate) async fn finish(&self, order: &Value) -> Value {
        let mut request = crate::support::request(Method::POST, "/v1/interfaces/web-1/switch", order);
        request.headers_mut().insert("prefer", "wait=30".parse().unwrap());
        let got = self.fake.ask(request).await;
        assert_eq!(got.status, StatusCode::OK, "{}", got.body);
        got.body
    }

    /// A request without a body.
    pub(crate) async fn say(&self, path: &str) -> Got {
        self.fake.ask(Request::post(path).body(Body::empty()).unwrap()).await
    }

    /// Waits until an interface is in a state.
    pub(crate) async fn until(&self, interface: &str, state: &str) {
        let mut snapshots = self.fake.hub.snapshot.clone();
        let is = |snapshot: &Arc<Snapshot>| {
            serde_json::to_value(snapshot.interfaces[interface].state).unwrap() == state
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), snapshots.wait_for(is)).await;
        assert!(waited.is_ok(), "{interface} is not {state}");
    }

    /// Has the observer look again.
    pub(crate) async fn tick(&self) {
        let (answer, answered) = oneshot::channel();
        self.fake.hub.commands.send((Command::Tick, answer)).await.unwrap();
        answered.await.unwrap().unwrap();
    }
}

/// A personality of the address of `web-1`, unless said otherwise.
pub(crate) fn personality(name: &str, more: &Value) -> Value {
    let port = 8_000 + name.len();
    let mut document = json!({
        "name": name,
        "subnet_id": "front",
        "ip_addresses": ["10.20.0.5/24"],
        "firewall_rules": [{"protocol": "tcp", "port": port, "action": "allow"}],
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    document
}

/// The record of interface `web-NUMBER`.
pub(crate) fn record(number: usize, personality: &str) -> Value {
    json!({
        "name": format!("web-{number}"),
        "interface": "eth0",
        "namespace": format!("n{number}"),
        "port": format!("veth{number}"),
        "personality": personality,
        "labels": {"tier": "web"},
        "zones": {"levels": [{"level": "normal", "personality": personality},
            {"level": "severe", "personality": personality.replace("web", "lockdown")}]},
    })
}

fn config() -> Config {
    let mut config = Config::default();
    let subnet = Subnet {
        prefixes: vec!["10.20.0.0/24".parse().unwrap()],
        gateways: vec!["10.20.0.1".parse().unwrap()],
        vlan: None,
        persona: None,
    };
    config.subnets.insert("front".into(), subnet);
    config
}

struct Kernel {
    hub: Hub,
    snapshot: watch::Sender<Arc<Snapshot>>,
    log: Arc<SwitchLog>,
    active: Arc<AtomicU64>,
}

impl Kernel {
    async fn run(mut self, mut requests: mpsc::Receiver<CommandRequest>) {
        while let Some((command, answer)) = requests.recv().await {
            let reply = self.hub.handle(command, Timestamp::now());
            self.publish();
            drop(answer.send(reply));
            while self.step() {
                // Who follows sees every state.
                tokio::task::yield_now().await;
            }
        }
    }

    fn publish(&mut self) {
        let entries: Vec<_> = self.hub.unwritten().to_vec();
        if !entries.is_empty() {
            let mut file = std::fs::File::options().create(true).append(true).open(self.log.path()).unwrap();
            for entry in &entries {
                writeln!(file, "{}", serde_json::to_string(entry.as_ref()).unwrap()).unwrap();
            }
            self.log.count(&entries);
            self.hub.written(entries.len());
        }
        self.hub.take_notices();
        self.snapshot.send_replace(Arc::new(self.hub.snapshot(Timestamp::now())));
    }

    /// A pass and the answers to what is asked; whether a switch went on.
    fn step(&mut self) -> bool {
        let now = Timestamp::now();
        let before = self.phases();
        let pass = Command::Faults {
            revision: self.hub.revision(),
            faults: BTreeMap::new(),
            postponed: BTreeSet::new(),
        };
        self.hub.handle(pass, now).unwrap();
        self.publish();
        let snapshot = self.snapshot.borrow().clone();
        for view in snapshot.interfaces.values().filter(|view| view.operation.is_some()) {
            for wanted in &view.wants {
                let command = Command::Observed {
                    interface: view.name.clone(),
                    ticket: wanted.ticket,
                    observation: self.answer(&wanted.question),
                };
                self.hub.handle(command, now).unwrap();
            }
        }
        self.publish();
        self.phases() != before
    }

    fn phases(&self) -> Vec<Option<String>> {
        let snapshot = self.snapshot.borrow();
        let phase = |operation: &hub_daemon::view::switch::OperationView| format!("{:?}", operation.phase);
        snapshot.interfaces.values().map(|view| view.operation.as_ref().map(phase)).collect()
    }

    fn answer(&self, question: &Question) -> Observation {
        match question {
            Question::Checks { asked, .. } => Observation::Checks(
                asked
                    .iter()
                    .map(|asked| {
                        let check = asked.check.to_string();
                        let passed = !check.ends_with(&format!(":{DEAD}"));
                        let detail = if passed { "1 ms" } else { "connection refused" };
                        CheckResult { check, passed, detail: detail.to_owned(), tries: 1, counted: None }
                    })
                    .collect(),
            ),
            Question::Flows { .. } => {
                let active = self.active.load(Ordering::Relaxed);
                Observation::Flows(FlowCount { active, idle: 1, kept: 7 })
            }
        }
    }
}
