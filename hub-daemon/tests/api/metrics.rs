//! Metrics: what Prometheus would read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use hub_daemon::inputs::server;
use hub_daemon::model::{PersonaId, SegmentId};
use hub_daemon::view::Snapshot;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::listeners::Folder;
use crate::support::{FILED, Fake};

/// So many that their text is sent in many pieces.
const PERSONAS: u32 = 3_000;

pub(crate) async fn scrape(fake: &Fake) -> String {
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let response = hub_daemon::outputs::metrics::router(fake.hub.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let media_type = response.headers()["content-type"].to_str().unwrap();
    assert!(media_type.starts_with("application/openmetrics-text; version=1.0.0"), "{media_type}");
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Series by name with labels. Panics on a line that is not `OpenMetrics`.
pub(crate) fn series(text: &str) -> BTreeMap<String, f64> {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helps = BTreeSet::new();
    let mut series = BTreeMap::new();
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name, kind).is_none(), "{name} twice");
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            helps.insert(rest.split_once(' ').unwrap().0);
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let family = name.split('{').next().unwrap();
            let parts = ["_sum", "_count", "_bucket"].iter().filter_map(|part| family.strip_suffix(part));
            if parts.into_iter().any(|family| types.get(family) == Some(&"histogram")) {
                // Labels in the order in which they are written here.
                let name = match name.split_once("{le=") {
                    Some((family, rest)) => match rest.split_once(',') {
                        Some((bound, labels)) => {
                            format!("{family}{{{},le={bound}}}", labels.trim_end_matches('}'))
                        }
                        None => name.to_owned(),
                    },
                    None => name.to_owned(),
                };
                series.insert(name, value.parse().unwrap());
                continue;
            }
            let kind = match family.strip_suffix("_total") {
                Some(family) => types.get(family),
                None => types.get(family),
            };
            let wanted = if family.ends_with("_total") { "counter" } else { "gauge" };
            assert_eq!(kind, Some(&wanted), "{line}");
            assert!(series.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} twice");
        }
    }
    assert_eq!(types.keys().copied().collect::<BTreeSet<_>>(), helps);
    series
}

#[tokio::test]
async fn every_number_of_the_hub_is_there() {
    let fake = Fake::start();
    let text = scrape(&fake).await;
    let series = series(&text);
    let of_persona = |rest: &str| format!("{{persona=\"{FILED}\"{rest}}}");
    for (name, value) in [
        (format!("hub_build{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
        ("hub_personas{state=\"active\"}".into(), 1.0),
        ("hub_personas{state=\"failed\"}".into(), 0.0),
        (
            format!("hub_persona_packets_total{}", of_persona(",direction=\"egress\",verdict=\"passed\"")),
            20.0,
        ),
        (
            format!("hub_persona_bytes_total{}", of_persona(",direction=\"ingress\",verdict=\"dropped\"")),
            300.0,
        ),
        (
            format!("hub_persona_drops_total{}", of_persona(",direction=\"ingress\",reason=\"rule_deny\"")),
            3.0,
        ),
        (format!("hub_alert_firing{}", of_persona(",alert=\"busy\"")), 1.0),
        ("hub_webhook_deliveries_total{result=\"failed\"}".into(), 0.0),
        (format!("hub_persona_flows{}", of_persona("")), 4.0),
        (format!("hub_persona_asymmetric_flows{}", of_persona("")), 4.0),
        (format!("hub_persona_flows_begun_total{}", of_persona(",direction=\"egress\"")), 8.0),
        (format!("hub_persona_detections_total{}", of_persona(",detector=\"port_scan\"")), 2.0),
        (format!("hub_persona_rule_hits_total{}", of_persona(",direction=\"ingress\",rule=\"1\"")), 3.0),
        (format!("hub_persona_handshake_seconds_count{}", of_persona("")), 4.0),
        (format!("hub_persona_handshake_seconds_sum{}", of_persona("")), 0.0025),
        (format!("hub_persona_handshake_seconds_bucket{}", of_persona(",le=\"0.000002\"")), 3.0),
        (format!("hub_persona_handshake_seconds_bucket{}", of_persona(",le=\"+Inf\"")), 4.0),
        (
            format!(
                "hub_persona_queue_drops_total{}",
                of_persona(",direction=\"ingress\",interface=\"eth2\",priority=\"normal\"")
            ),
            2.0,
        ),
        (format!("hub_persona_expires_timestamp_seconds{}", of_persona("")), 1_924_991_999.0),
        ("hub_hook_received_packets_total{hook=\"tc_in\"}".into(), 10.0),
        ("hub_hook_packets_total{hook=\"tc_in\",outcome=\"redirected\"}".into(), 4.0),
        ("hub_hook_drops_total{hook=\"tc_in\",reason=\"rule_deny\"}".into(), 3.0),
        ("hub_flows{tier=\"established\"}".into(), 3.0),
        ("hub_flows_max{tier=\"opening\"}".into(), 50.0),
        ("hub_events_lost_total".into(), 5.0),
        ("hub_documents_last_success_timestamp_seconds".into(), 1_893_456_001.0),
        ("hub_documents_last_reload_successful".into(), 1.0),
        ("hub_reconcile_puts_total{table=\"routes\"}".into(), 3.0),
        ("hub_reconcile_passes_total".into(), 7.0),
        ("hub_condition{reason=\"XdpBusy\"}".into(), 1.0),
        ("hub_personas_with_condition{reason=\"PeerMissing\"}".into(), 1.0),
        ("hub_datapath_readable".into(), 1.0),
    ] {
        assert_eq!(series.get(&name), Some(&value), "{name} in\n{text}");
    }
    let outcomes = series.iter().filter(|(name, _)| name.starts_with("hub_hook_packets_total"));
    let sum: f64 = outcomes.map(|(_, value)| value).sum();
    assert_eq!(Some(&sum), series.get("hub_hook_received_packets_total{hook=\"tc_in\"}"));
}

#[tokio::test]
async fn series_grow_with_personas_and_with_nothing_else() {
    let fake = Fake::start();
    let one = series(&scrape(&fake).await).len();
    fake.create("p1").await;
    let two = series(&scrape(&fake).await).len();
    for _ in 0..100 {
        fake.get("/personas/none").await;
    }
    fake.create("p2").await;
    assert_eq!(series(&scrape(&fake).await).len() - two, two - one);
}

#[tokio::test]
async fn very_many_personas_are_told_whole() {
    let fake = Fake::start();
    let one = Arc::clone(fake.snapshot.borrow().personas.values().next().unwrap());
    let personas = (1..=PERSONAS).map(|number| {
        let mut persona = (*one).clone();
        persona.segment = SegmentId(number);
        persona.id = PersonaId(format!("01ARZ3NDEKTSV4RRFFQ69G{number:04}").into());
        persona.definition.name = format!("p{number}");
        (persona.id.clone(), Arc::new(persona))
    });
    fake.snapshot.send_replace(Arc::new(Snapshot { personas: personas.collect(), ..Snapshot::default() }));
    let text = scrape(&fake).await;
    let series = series(&text);
    for (family, labels, of_each) in [
        ("hub_persona_packets_total", ",direction=\"ingress\",verdict=\"passed\"", None),
        ("hub_persona_bytes_total", ",direction=\"egress\",verdict=\"passed\"", Some(2_000.0)),
        ("hub_persona_drops_total", ",direction=\"ingress\",reason=\"rule_deny\"", Some(3.0)),
        ("hub_persona_rule_hits_total", ",direction=\"ingress\",rule=\"1\"", Some(3.0)),
        ("hub_persona_detections_total", ",detector=\"port_scan\"", Some(2.0)),
        ("hub_persona_handshake_seconds_bucket", ",le=\"+Inf\"", Some(4.0)),
        ("hub_persona_latency_exceeded", "", Some(1.0)),
    ] {
        for number in 1..=PERSONAS {
            let name = format!("{family}{{persona=\"p{number}\"{labels}}}");
            assert_eq!(series.get(&name), Some(&of_each.unwrap_or(f64::from(number))), "{name}");
        }
    }
    // Each family begins once, and its series follow each other.
    let families: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE hub_persona_")).collect();
    assert_eq!(families.len(), 15, "{families:?}");
    let mut open = "";
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => open = rest.split_once(' ').unwrap().0,
            None => assert!(line.starts_with('#') || line.starts_with(open), "{line} in {open}"),
        }
    }
}

/// promtool reads the older text format, in which a counter's type line has the `_total` of its samples.
#[tokio::test]
async fn promtool_finds_nothing_wrong() {
    let text = scrape(&Fake::start()).await;
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        assert!(std::env::var_os("CI").is_none(), "promtool is missing: apt-get install prometheus");
        return;
    };
    let counters: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut older = String::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if line.starts_with("# ") && counters.contains(words[2].as_str()) {
            words[2].push_str("_total");
        }
        older.push_str(&words.join(" "));
        older.push('\n');
    }
    promtool.stdin.take().unwrap().write_all(older.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.trim(), "");
}

/// A real Prometheus scrapes the real listener.
#[tokio::test]
async fn prometheus_reads_the_metrics() {
    let fake = Fake::start();
    let listener = server::bind_plain("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = listener.address().unwrap();
    let (_closing, closed) = watch::channel(false);
    tokio::spawn(server::serve(listener, hub_daemon::outputs::metrics::router(fake.hub.clone()), closed));

    let folder = Folder::new();
    let configuration = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\n\
         scrape_configs: [{{job_name: hub, static_configs: [{{targets: ['{target}']}}]}}]\n"
    );
    let configuration = folder.write("prometheus.yml", &configuration, 0o600);
    let address = free_address();
    let spawned = tokio::process::Command::new("prometheus")
        .arg(format!("--config.file={}", configuration.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut prometheus) = spawned else {
        assert!(std::env::var_os("CI").is_none(), "prometheus is missing: apt-get install prometheus");
        return;
    };
    let found = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let answer = query(address, "hub_persona_bytes_total").await.unwrap_or_default();
            if answer.contains(FILED) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let found = found.await.expect("scraped within 30 s");
    assert!(found.contains("\"direction\":\"egress\"") && found.contains("\"2000\""), "{found}");
    let up = query(address, "up").await.unwrap();
    assert!(up.contains("\"1\""), "{up}");
    prometheus.kill().await.unwrap();
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn query(address: SocketAddr, query: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
