//! A stand-in for the hub: a task that answers commands by simple rules, and a data path with fixed numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use hub_daemon::command::{Command, Problem, Rejection, RejectionKind, Reply};
use hub_daemon::datapath_view::{ChangeEvent, EventView};
use hub_daemon::document::persona::PersonaDocument;
use hub_daemon::inputs::reload::{
    Change, ChangeAction, FileProblem, ReloadFailure, ReloadMode, ReloadReport, ReloadRequest,
};
use hub_daemon::inputs::{CommandRequest, HubHandle};
use hub_daemon::model::qos::Engine;
use hub_daemon::model::{PersonaId, SegmentId};
use hub_daemon::outputs::alerts::{AlertView, Alerts};
use hub_daemon::outputs::stats::ReconcileStats;
use hub_daemon::outputs::status::Attachment;
use hub_daemon::outputs::switches::SwitchLog;
use hub_daemon::view::{Condition, Origin, PersonaState, PersonaView, PoolRange, PoolView, Snapshot};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};
use tower::ServiceExt as _;

use crate::datapath::FixedDatapath;

/// Name of a persona that a file owns.
pub(crate) const FILED: &str = "filed";
/// Name that the hub has no room for.
pub(crate) const FULL: &str = "full";
/// Name of a persona that the kernel takes a moment to take.
pub(crate) const SLOW: &str = "slow";
/// Names that the hub finds invalid, with two problems.
pub(crate) const INVALID: &str = "invalid";

/// The definition of a persona with this name: the source's example with an end to come.
pub(crate) fn document(name: &str) -> Value {
    json!({
        "name": name,
        "ip_range": "10.100.0.0/24",
        "protocols": ["tcp", "udp"],
        "qos": {"bandwidth": "100Mbps", "latency": "50ms"},
        "security_policies": [
            {"protocol": "tcp", "port": 80, "action": "allow"},
            {"protocol": "tcp", "port": 22, "action": "deny"}
        ],
        "expiration": "2999-12-31T23:59:59Z"
    })
}

/// A running stand-in.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) hub: HubHandle,
    pub(crate) router: Router,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
}

impl Fake {
    /// A hub with one persona, which a file owns.
    pub(crate) fn start() -> Self {
        let (commands, requests) = mpsc::channel(16);
        let (snapshot, snapshots) = watch::channel(Arc::new(Snapshot { ready: true, ..Snapshot::default() }));
        let (reload, reloads) = mpsc::channel(4);
        let (attachments, attached) = watch::channel(vec![attachment()]);
        drop(attachments);
        let (events, _) = broadcast::channel(8);
        let alerts = watch::channel(Arc::new(vec![alert()])).1;
        let reconcile = Arc::new(ReconcileStats::default());
        reconcile.table("routes").puts.add(3);
        reconcile.passes.add(7);
        let hub = HubHandle {
            commands,
            snapshot: snapshots,
            events,
            datapath: Arc::new(FixedDatapath),
            reload,
            attachments: attached,
            reconcile,
            switches: Arc::new(SwitchLog::new(Path::new("/nonexistent"))),
            alerts: Alerts { views: alerts, deliveries: Arc::default() },
            tracer: Arc::new(hub_daemon::inputs::trace::Tracer::detached()),
            started: "2030-01-01T00:00:00Z".parse().unwrap(),
        };
        let mut task = Task { personas: BTreeMap::new(), snapshot: snapshot.clone(), next: 1 };
        task.admit(view(1, FILED, Origin::File { path: PathBuf::from("/etc/hub/filed.yaml"), line: 3 }));
        task.next = 2;
        tokio::spawn(task.run(requests));
        tokio::spawn(answer_reloads(reloads));
        let router = hub_daemon::inputs::rest::router(hub.clone());
        Self { hub, router, snapshot }
    }

    /// One request without a network.
    pub(crate) async fn ask(&self, request: Request<Body>) -> Got {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Got { status, headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> Got {
        self.ask(request(method, path, body)).await
    }

    /// Creates a persona.
    pub(crate) async fn create(&self, name: &str) -> Value {
        let got = self.send(Method::POST, "/personas", &document(name)).await;
        assert_eq!(got.status, StatusCode::CREATED, "{}", got.body);
        got.body
    }
}

fn alert() -> AlertView {
    AlertView {
        persona: Some(FILED.into()),
        alert: "busy".into(),
        state: "firing".into(),
        since: Some("2030-01-01T00:00:00Z".parse().unwrap()),
        metric: "ingress_bps".into(),
        of: None,
        op: ">".into(),
        threshold: 8e7,
        value: Some(9e7),
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that this is a problem document with this status.
    pub(crate) fn assert_problem(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(self.body[field].is_string(), "{field} in {}", self.body);
        }
    }

    /// Pointers of the errors of a problem document.
    pub(crate) fn pointers(&self) -> Vec<String> {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }
}

/// A request with a JSON body.
pub(crate) fn request(method: Method, path: &str, body: &Value) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn attachment() -> Attachment {
    Attachment {
        interface: "eth0".into(),
        ifindex: 2,
        role: "uplink".into(),
        hook: "tc_in".into(),
        mode: "tcx".into(),
        program_id: 42,
    }
}

fn view(number: u32, name: &str, origin: Origin) -> PersonaView {
    PersonaView {
        id: PersonaId(format!("01ARZ3NDEKTSV4RRFFQ69G{number:04}").into()),
        state: if name == SLOW { PersonaState::Provisioning } else { PersonaState::Active },
        generation: 1,
        ranges: vec!["10.100.0.0/24".into()],
        segment: SegmentId(number),
        created_at: "2030-01-01T00:00:00Z".parse().unwrap(),
        expires_at: Some("2030-12-31T23:59:59Z".parse().unwrap()),
        origin,
        virtual_ranges: BTreeMap::new(),
        overridden: Vec::new(),
        aliases: BTreeMap::new(),
        members: BTreeMap::from([("server".to_owned(), vec!["10.100.0.10".parse().unwrap()])]),
        definition: serde_json::from_value(document(name)).unwrap(),
        conditions: vec![condition("PeerMissing", "there is no persona `other`")],
        warnings: Vec::new(),
        candidate: None,
        rule_sources: vec!["api".into(), "api".into()],
        lists: hub_daemon::systems::persona::lists::Lists::default(),
    }
}

struct Task {
    personas: BTreeMap<PersonaId, Arc<PersonaView>>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    next: u32,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<CommandRequest>) {
        while let Some((command, answer)) = requests.recv().await {
            let reply = self.handle(command);
            drop(answer.send(reply));
        }
    }

    fn handle(&mut self, command: Command) -> Result<Reply, Rejection> {
        match command {
            Command::Create { document }
            | Command::Begin { document }
            | Command::CreateOnce { document, .. } => self.create(&document),
            Command::Replace { persona, document, if_generation } => {
                let mut held = (*self.changeable(&persona, if_generation)?).clone();
                held.generation += 1;
                held.definition = *document;
                Ok(Reply::Updated(Box::new(self.admit(held))))
            }
            Command::Delete { persona, if_generation, .. } => {
                let held = self.changeable(&persona, if_generation)?;
                self.personas.remove(&held.id);
                self.publish();
                Ok(Reply::Deleted)
            }
            Command::Elements { persona, .. } | Command::Quarantine { persona, .. } => {
                self.changeable(&persona, None).map(|_held| Reply::Done)
            }
            Command::Orphans => Ok(Reply::Orphans(Vec::new())),
            Command::Recall { .. }
            | Command::Try { .. }
            | Command::EndTrial { .. }
            | Command::Apply { .. }
            | Command::Confirm
            | Command::Revert { .. }
            | Command::Documents(_)
            | Command::Inventory(_)
            | Command::Templates(_)
            | Command::Faults { .. }
            | Command::ClockSet(_)
            | Command::Configure(_)
            | Command::Latency(_)
            | Command::Personality(_)
            | Command::Interface(_)
            | Command::Switch(_)
            | Command::Experiment(_)
            | Command::Measured(_)
            | Command::Observed { .. }
            | Command::Tick => Ok(Reply::Done),
        }
    }

    fn create(&mut self, document: &PersonaDocument) -> Result<Reply, Rejection> {
        let name = document.name.as_str();
        if name == INVALID {
            let problems = vec![Problem::new("/name", "name is wrong"), Problem::new("", "all is wrong")];
            return Err(Rejection { kind: RejectionKind::Invalid, problems });
        }
        if name == FULL {
            return Err(refusal(RejectionKind::Full, "no room"));
        }
        if self.personas.values().any(|held| held.definition.name == name) {
            return Err(refusal(RejectionKind::Conflict, "the name is taken"));
        }
        let mut created = view(self.next, name, Origin::Api);
        created.definition = document.clone();
        self.next += 1;
        let created = self.admit(created);
        if name == SLOW {
            let mut active = created.clone();
            active.state = PersonaState::Active;
            let (snapshot, personas) = (self.snapshot.clone(), self.personas.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let mut personas = personas;
                personas.insert(active.id.clone(), Arc::new(active));
                snapshot.send_replace(Arc::new(Snapshot {
                    personas: personas.into(),
                    ready: true,
                    ..Snapshot::default()
                }));
            });
        }
        Ok(Reply::Created(Box::new(created)))
    }

    fn changeable(&self, persona: &str, generation: Option<u64>) -> Result<Arc<PersonaView>, Rejection> {
        let held =
            self.personas.values().find(|held| *held.id.0 == *persona || held.definition.name == persona);
        let held = held.ok_or_else(|| refusal(RejectionKind::NotFound, "no such persona"))?;
        if held.origin != Origin::Api {
            return Err(refusal(RejectionKind::Conflict, "managed by /etc/hub/filed.yaml"));
        }
        if generation.is_some_and(|generation| generation != held.generation) {
            return Err(refusal(RejectionKind::Changed, "it changed"));
        }
        Ok(Arc::clone(held))
    }

    fn admit(&mut self, persona: PersonaView) -> PersonaView {
        self.personas.insert(persona.id.clone(), Arc::new(persona.clone()));
        self.publish();
        persona
    }

    fn publish(&self) {
        self.snapshot.send_replace(Arc::new(Snapshot {
            personas: self.personas.clone().into(),
            conditions: vec![condition("XdpBusy", "eth0 has another program")],
            documents_read: Some("2030-01-01T00:00:01Z".parse().unwrap()),
            documents_error: None,
            ready: true,
            qos: Engine::Auto,
            pools: vec![PoolView {
                name: "lab".into(),
                prefixes: vec!["10.200.0.0/16".into()],
                quarantine_seconds: 60,
                allotted: vec![PoolRange { range: "10.200.0.0/26".into(), persona: "dev".into() }],
                resting: vec!["10.200.0.64/26".into()],
                used_ipv4: 0.5,
                used_ipv6: 0.0,
            }],
            templates: [(
                "dev".to_owned(),
                PersonaDocument { name: "dev".into(), ..PersonaDocument::default() },
            )]
            .into(),
            one_sided: [(SegmentId(1), 4)].into(),
            ..Snapshot::default()
        }));
    }
}

fn condition(reason: &str, message: &str) -> Condition {
    Condition { reason: reason.into(), message: message.into() }
}

fn refusal(kind: RejectionKind, detail: &str) -> Rejection {
    Rejection { kind, problems: vec![Problem::new("/name", detail)] }
}

/// Plans fine; applying finds a broken file.
async fn answer_reloads(mut reloads: mpsc::Receiver<ReloadRequest>) {
    while let Some(request) = reloads.recv().await {
        let answer = match request.mode {
            ReloadMode::Plan => Ok(ReloadReport {
                configured: Vec::new(),
                needs_restart: vec!["limits".into()],
                documents: 1,
                applied: false,
                changes: vec![Change {
                    persona: "dev".into(),
                    action: ChangeAction::Create,
                    written: Some("dev.yaml:1".into()),
                    fields: Vec::new(),
                }],
            }),
            ReloadMode::Apply => Err(ReloadFailure {
                problems: vec![FileProblem {
                    file: PathBuf::from("dev.yaml"),
                    line: 2,
                    column: 5,
                    pointer: "/qos/bandwidth".into(),
                    detail: "bandwidth `100mb`: use a unit like 100Mbps".into(),
                    snippet:
                        "error: bandwidth `100mb`: use a unit like 100Mbps\n --> dev.yaml:2:5\n  ^ bandwidth"
                            .into(),
                }],
            }),
        };
        drop(request.answer.send(answer));
    }
}

/// A change as the hub announces it.
pub(crate) fn change(number: u32) -> EventView {
    EventView::Change(ChangeEvent {
        time: Timestamp::UNIX_EPOCH,
        what: "created".into(),
        persona: Some(format!("p{number}")),
        message: "created by api".into(),
    })
}
