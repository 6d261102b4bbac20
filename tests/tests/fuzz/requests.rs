//! Bodies of requests: the API in front of the core, whose kernel takes everything at once. What is refused changes
//! nothing, nothing is answered with a failure of the hub, and what was taken can be restored.
//!
//! A case is the number of a request and its body. Each begins with the same hub: a persona with a set, personalities,
//! interfaces that have them, an experiment.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hub_daemon::command::Command;
use hub_daemon::document::hub as configuration;
use hub_daemon::hub::Hub;
use hub_daemon::hub::state::State;
use hub_daemon::inputs::trace::Tracer;
use hub_daemon::inputs::{CommandRequest, HubHandle, rest, server};
use hub_daemon::kernel::reader::Reader;
use hub_daemon::model::config::Config;
use hub_daemon::model::id::IdSource;
use hub_daemon::outputs::alerts::Alerts;
use hub_daemon::outputs::stats::ReconcileStats;
use hub_daemon::outputs::switches::SwitchLog;
use hub_daemon::view::Snapshot;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Method, path, content type and bodies that are taken.
type Request = (&'static str, &'static str, &'static str, Vec<Value>);

/// With it, half of two interfaces is one of them here.
const SALT: &str = "11";

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const YAML: &str = "application/yaml";

/// Every request with a body; a test asks the API's description whether one is missing.
fn requests() -> Vec<Request> {
    let drain =
        json!({"timeout": "5s", "threshold": 1, "scope": "all", "block": "drop", "on_timeout": "abort"});
    let order = json!({"personality": "lockdown", "why": "a case", "drain": drain, "confirm_within": "60s"});
    let said = vec![json!({"why": "a case"})];
    let group = json!({"interfaces": {"i1": "lockdown", "i5": "lockdown5"}, "switch": {"urgent": true}});
    let some = json!({"labels": {"tier": "web"}, "percent": 50, "switch": {"personality": "web@1", "dry_run": true}});
    let both = json!({"name": "x", "interfaces": {"i1": "lockdown", "i5": "lockdown5"}, "percent": 50, "salt": SALT,
        "switch": {"urgent": true}});
    let fired =
        json!({"alerts": [{"status": "firing", "labels": {"threat_level": "severe", "interface": "i1"}}]});
    vec![
        ("POST", "/v1/personas", JSON, vec![persona("new", 7)]),
        ("PUT", "/v1/personas/web", JSON, vec![persona("web", 1), persona("other", 9)]),
        ("PATCH", "/v1/personas/web", MERGE, vec![json!({"labels": {"a": "b"}, "ttl": "3h", "qos": null})]),
        ("POST", "/v1/apply", JSON, vec![json!({"personas": [persona("web", 1), persona("new", 7)]})]),
        ("PUT", "/v1/personas/web/candidate?for=10m", JSON, vec![persona("web", 1)]),
        (
            "POST",
            "/v1/personas/web/sets/staff/entries",
            JSON,
            vec![json!({"entries": ["198.51.100.7"], "ttl": "10m"})],
        ),
        ("DELETE", "/v1/personas/web/sets/staff/entries", JSON, vec![json!({"entries": ["198.51.100.9"]})]),
        ("POST", "/v1/personas/web/quarantine", JSON, vec![json!({"address": "192.0.2.9", "ttl": "10m"})]),
        ("POST", "/v1/personalities", JSON, vec![personality("fresh", 5), personality("web", 9)]),
        ("POST", "/v1/personalities", YAML, vec![personality("fresh", 5)]),
        ("POST", "/v1/interfaces", JSON, vec![record(3, "web3")]),
        ("POST", "/v1/interfaces", YAML, vec![record(3, "web3")]),
        ("PUT", "/v1/interfaces/i1", JSON, vec![record(1, "web")]),
        ("PUT", "/v1/interfaces/i1", YAML, vec![record(1, "web")]),
        (
            "POST",
            "/v1/interfaces/i1/switch",
            JSON,
            vec![order, json!({"personality": "lockdown", "urgent": true, "for": "30m"})],
        ),
        ("POST", "/v1/interfaces/i2/revert", JSON, said.clone()),
        ("POST", "/v1/interfaces/i1/confirm", JSON, said.clone()),
        ("POST", "/v1/interfaces/i2/cancel", JSON, said),
        ("POST", "/v1/switches", JSON, vec![group, some]),
        ("POST", "/v1/experiments", JSON, vec![both]),
        (
            "PATCH",
            "/v1/experiments/running",
            JSON,
            vec![json!({"percent": 60, "why": "more", "urgent": true})],
        ),
        (
            "POST",
            "/v1/experiments/running/end",
            JSON,
            vec![json!({"keep": "a", "why": "enough", "urgent": true})],
        ),
        ("PUT", "/v1/threat-level", JSON, vec![json!({"level": "severe", "interfaces": ["i1"]})]),
        ("POST", "/v1/threat-level/alerts", JSON, vec![fired]),
        (
            "POST",
            "/v1/why",
            JSON,
            vec![json!({"protocol": "tcp", "source": "192.0.2.1", "target": "10.1.0.5"})],
        ),
        ("POST", "/v1/trace", JSON, vec![json!({"persona": "web", "protocol": "tcp", "count": 1})]),
    ]
}

fn persona(name: &str, net: u8) -> Value {
    json!({
        "name": name,
        "ip_range": [format!("10.{net}.0.0/24"), format!("fd00:{net}::/64")],
        "protocols": ["tcp", "udp", "icmp"],
        "qos": {"bandwidth": "20Mbps", "latency": "30ms"},
        "sets": {"staff": {"entries": ["192.0.2.0/24"], "ttl": "1h"}},
        "security_policies": [
            {"name": "scan", "protocol": "tcp", "port": 23, "action": "alert"},
            {"protocol": "tcp", "port": [22, "8000-8080"], "source": "@staff", "action": "allow", "log": true},
            {"protocol": "udp", "port": 53, "action": "rate_limit", "rate": "100/s", "per": "source"},
            {"protocol": "tcp", "port": 1, "action": "quarantine", "ttl": "10m"},
        ],
        "detectors": {"port_scan": {"threshold": 20, "window": "10s", "action": "drop"}},
        "alerts": [{"metric": "drops", "of": "spoof", "value": 10, "for": "5s"}],
        "ttl": "4h",
        "max_ttl": "8h",
        "on_expiry": "drain:30s",
    })
}

fn personality(name: &str, host: u8) -> Value {
    json!({
        "name": name,
        "subnet_id": "front",
        "ip_addresses": [format!("10.20.0.{host}/24")],
        "firewall_rules": [{"protocol": "tcp", "port": 80, "action": "allow"}],
        "routing_table": [{"destination": "default", "via": "10.20.0.1"}],
        "dns_servers": ["10.20.0.53"],
        "health": {"targets": [{"tcp": "10.20.0.9:80"}], "on_unhealthy": "revert"},
        "drain": {"timeout": "5s"},
    })
}

fn record(number: u8, personality: &str) -> Value {
    let locked = personality.replace("web", "lockdown");
    json!({
        "name": format!("i{number}"),
        "interface": "eth0",
        "namespace": format!("n{number}"),
        "port": format!("veth{number}"),
        "personality": personality,
        "default": locked,
        "labels": {"tier": "web"},
        "zones": {"levels": [{"level": "calm", "personality": personality}, {"level": "severe", "personality": locked}]},
    })
}

/// Who owns the hub keeps it as every case's beginning, goes back to that, and says in any case what would be stored.
enum Ask {
    Keep,
    Reset,
    State,
}

type Asking = (Ask, oneshot::Sender<String>);

/// A hub behind its API, on a socket of its own.
struct Bench {
    socket: PathBuf,
    asks: mpsc::Sender<Asking>,
    stream: Option<BufReader<UnixStream>>,
    before: String,
    requests: Vec<Request>,
    _closing: watch::Sender<bool>,
    _runtime: tokio::runtime::Runtime,
    _folder: TempDir,
}

/// Time stands still, at the start of the run: a case depends on its bytes alone.
fn now() -> Timestamp {
    static START: OnceLock<Timestamp> = OnceLock::new();
    *START.get_or_init(Timestamp::now)
}

fn config() -> Config {
    let text = "subnets:\n  front: {cidr: [10.20.0.0/24], gateway: [10.20.0.1]}\n";
    configuration::parse("hub.yaml".as_ref(), text).unwrap()
}

async fn own(
    mut requests: mpsc::Receiver<CommandRequest>,
    mut asks: mpsc::Receiver<Asking>,
    snapshot: watch::Sender<Arc<Snapshot>>,
) {
    let mut hub = Hub::new(config(), IdSource::new(1));
    let mut kept = hub.clone();
    loop {
        tokio::select! {
            Some((command, answer)) = requests.recv() => {
                let reply = hub.handle(command, now());
                let is_refused = reply.is_err();
                snapshot.send_replace(Arc::new(hub.snapshot(now())));
                drop(answer.send(reply));
                if is_refused {
                    continue;
                }
                let (faults, postponed) = (BTreeMap::new(), BTreeSet::new());
                let pass = Command::Faults { revision: hub.revision(), faults, postponed };
                hub.handle(pass, now()).unwrap();
            }
            Some((ask, answer)) = asks.recv() => {
                match ask {
                    Ask::Keep => kept = hub.clone(),
                    Ask::Reset => hub = kept.clone(),
                    Ask::State => {}
                }
                drop(answer.send(serde_json::to_string(&hub.state()).unwrap()));
            }
            else => return,
        }
        snapshot.send_replace(Arc::new(hub.snapshot(now())));
    }
}

impl Bench {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("api.sock");
        let (commands, requested) = mpsc::channel(16);
        let (asks, asked) = mpsc::channel(1);
        let (snapshot, snapshots) = watch::channel(Arc::default());
        let (reload, _) = mpsc::channel(1);
        let handle = HubHandle {
            commands,
            snapshot: snapshots,
            events: broadcast::channel(8).0,
            datapath: Arc::new(Reader::detached()),
            reload,
            attachments: watch::channel(Vec::new()).1,
            reconcile: Arc::new(ReconcileStats::default()),
            switches: Arc::new(SwitchLog::new(folder.path())),
            alerts: Alerts { views: watch::channel(Arc::default()).1, deliveries: Arc::default() },
            tracer: Arc::new(Tracer::detached()),
            started: now(),
        };
        runtime.spawn(own(requested, asked, snapshot));
        let (closing, closed) = watch::channel(false);
        let listener = runtime.block_on(async { server::bind_unix(&socket).unwrap() });
        runtime.spawn(server::serve(listener, rest::router(handle), closed));
        let mut bench = Self {
            socket,
            asks,
            stream: None,
            before: String::new(),
            requests: requests(),
            _closing: closing,
            _runtime: runtime,
            _folder: folder,
        };
        bench.furnish();
        bench
    }

    /// What every case begins with.
    fn furnish(&mut self) {
        let mut made = vec![("POST", "/v1/personas", persona("web", 1))];
        for (number, host) in [("", 5), ("2", 6), ("3", 7), ("4", 8), ("5", 9), ("6", 10)] {
            for name in ["web", "lockdown"] {
                made.push(("POST", "/v1/personalities", personality(&format!("{name}{number}"), host)));
            }
        }
        for (number, name) in [(1, "web"), (2, "web2"), (4, "web4"), (5, "web5"), (6, "web6")] {
            made.push(("POST", "/v1/interfaces", record(number, name)));
        }
        let under_way = json!({"personality": "lockdown2", "urgent": true});
        let experiment = json!({"name": "running", "interfaces": {"i4": "lockdown4", "i6": "lockdown6"}, "percent": 50,
            "salt": SALT, "switch": {"urgent": true}});
        let element = json!({"entries": ["198.51.100.9"], "ttl": "1h"});
        made.push(("POST", "/v1/personas/web/sets/staff/entries", element));
        made.push(("POST", "/v1/interfaces/i2/switch", under_way));
        made.push(("POST", "/v1/experiments", experiment));
        for (method, path, body) in made {
            let (status, answer) = self.send((method, path, JSON), body.to_string().as_bytes());
            assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        }
        self.before = self.ask(Ask::Keep);
    }

    fn ask(&self, ask: Ask) -> String {
        let (answer, answered) = oneshot::channel();
        self.asks.blocking_send((ask, answer)).unwrap();
        answered.blocking_recv().unwrap()
    }

    /// One request; the connection stays for the next one.
    fn send(&mut self, (method, path, media): (&str, &str, &str), body: &[u8]) -> (u16, String) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: hub\r\ncontent-type: {media}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(UnixStream::connect(&self.socket).unwrap()),
        };
        stream.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
        let (mut status, mut length, mut closes) = (0, 0, false);
        for number in 0.. {
            let mut line = String::new();
            assert!(stream.read_line(&mut line).unwrap() > 0, "{method} {path}: no answer");
            let line = line.trim_end().to_lowercase();
            if number == 0 {
                status = line.split(' ').nth(1).unwrap().parse().unwrap();
            }
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("connection", value)) => closes |= value == "close",
                None if line.is_empty() => break,
                Some(_) | None => {}
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).unwrap();
        self.stream = Some(stream).filter(|_| !closes);
        (status, String::from_utf8(answer).unwrap())
    }

    fn case(&mut self, bytes: &[u8]) -> bool {
        let Some((number, body)) = bytes.split_first() else { return false };
        let (method, path, media, _) = &self.requests[usize::from(*number) % self.requests.len()];
        let (method, path, media) = (*method, *path, *media);
        self.ask(Ask::Reset);
        let (status, answer) = self.send((method, path, media), body);
        let after = self.ask(Ask::State);
        // No data path is loaded here; and a hub may be full.
        let asks_programs = ["/v1/why", "/v1/trace"].contains(&path);
        let is_allowed = status < 500 || status == 507 || (asks_programs && status == 503);
        assert!(is_allowed, "{method} {path}: {status} {answer}");
        if status < 400 {
            let state: State = serde_json::from_str(&after).unwrap();
            let restored = Hub::restore(config(), IdSource::new(2), state, now());
            drop(restored.desired(now()));
            return true;
        }
        let problem: Value = serde_json::from_str(&answer).expect("a problem document");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{answer}");
        assert_eq!(
            after, self.before,
            "{method} {path} was refused ({status} {answer}) and changed something"
        );
        // It was understood, and is for another moment.
        status == 409 || (asks_programs && answer.contains("not loaded")) || status == 503
    }
}

/// Does something on the bench of this thread.
fn with_bench<T>(work: impl FnOnce(&mut Bench) -> T) -> T {
    thread_local! {
        static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
    }
    BENCH.with_borrow_mut(|bench| work(bench.get_or_insert_with(Bench::start)))
}

/// The number of a request in [`requests`], and its body.
pub(crate) fn body(bytes: &[u8]) -> bool {
    with_bench(|bench| bench.case(bytes))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let bodies = |(number, (_, _, _, bodies)): (u8, Request)| {
        bodies.into_iter().map(move |body| [vec![number], body.to_string().into_bytes()].concat())
    };
    (0..).zip(requests()).flat_map(bodies).collect()
}

/// Every seed is understood, and no request with a body is missing.
pub(crate) fn check() {
    for seed in seeds() {
        assert!(body(&seed), "{}: {}", seed[0], String::from_utf8_lossy(&seed[1..]));
    }
    let (status, description) = with_bench(|bench| bench.send(("GET", "/openapi.json", JSON), b""));
    assert_eq!(status, 200);
    let description: Value = serde_json::from_str(&description).unwrap();
    let covered: BTreeSet<String> = requests()
        .iter()
        .map(|(method, path, _, _)| format!("{} {}", method.to_lowercase(), path.split('?').next().unwrap()))
        .collect();
    for (path, item) in description["paths"].as_object().unwrap() {
        let with_body = |(_, operation): &(&String, &Value)| operation.get("requestBody").is_some();
        for (method, _) in item.as_object().unwrap().iter().filter(with_body) {
            let fits = |request: &String| {
                let (by, to) = request.split_once(" /v1").unwrap();
                let (to, path): (Vec<&str>, Vec<&str>) = (to.split('/').collect(), path.split('/').collect());
                let same = |(a, b): (&&str, &&str)| a == b || b.starts_with('{');
                by == method && to.len() == path.len() && to.iter().zip(&path).all(same)
            };
            assert!(covered.iter().any(fits), "{method} {path} has a body, and no case");
        }
    }
}
