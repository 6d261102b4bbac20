//! What is shipped for Prometheus and Grafana fits what `hubd` exports, and does what it says.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hub_tests::lab::{Background, World, command, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name).canonicalize().unwrap()
}

/// Every query of the dashboard, with its variables filled in.
fn queries() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(config("grafana/hub.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let filled = targets.map(|target| {
        let query = target["expr"].as_str().unwrap();
        query.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$persona", ".*")
    });
    filled.collect()
}

/// Names of metrics in queries and rules: words that begin like ours.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("hub_")).map(str::to_owned).collect()
}

#[test]
fn alert_rules_do_what_they_say() {
    if !root() {
        return;
    }
    for arguments in [["check", "rules", "hub.rules.yaml"], ["test", "rules", "hub.test.yaml"]] {
        let mut promtool = std::process::Command::new("promtool");
        promtool.args(arguments).current_dir(config("prometheus"));
        let said = command(&mut promtool, "", PATIENCE).expect_success();
        assert!(said.contains("SUCCESS"), "{said}");
    }
    let rules = fs::read_to_string(config("prometheus/hub.rules.yaml")).unwrap();
    let tests = fs::read_to_string(config("prometheus/hub.test.yaml")).unwrap();
    for line in rules.lines() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            assert!(
                tests.contains(&format!("alertname: {alert}\n")),
                "no test of {alert} expects it to fire"
            );
        }
    }
}

#[test]
fn rules_and_dashboard_ask_for_what_is_exported() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(
        0,
        &json!({"detectors": "default", "ttl": "1h", "alerts": [{"metric": "ingress_bps", "value": 1}]}),
    );
    let text = world.router.sh("curl --silent --fail http://127.0.0.1:9178/metrics");
    let exported: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .flat_map(|(name, kind)| {
            let series: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_count", "_sum"],
                _ => &[""],
            };
            series.iter().map(move |series| format!("{name}{series}"))
        })
        .collect();
    let rules = fs::read_to_string(config("prometheus/hub.rules.yaml")).unwrap();
    let expressions: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(expressions.len() >= 12 && queries().len() >= 20);
    for query in queries().iter().map(String::as_str).chain(expressions) {
        let unknown: Vec<_> = names(query).into_iter().filter(|name| !exported.contains(name)).collect();
        assert!(unknown.is_empty(), "`{query}` asks for {unknown:?}, which hubd does not export");
    }
}

#[test]
fn a_real_prometheus_answers_every_query_and_loads_the_rules() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({"alerts": [{"metric": "ingress_pps", "op": "<", "value": 1}]}));
    let folder = world.lab.folder().display().to_string();
    let file = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [config("prometheus/hub.rules.yaml")],
        "scrape_configs": [{"job_name": "hub", "static_configs": [{"targets": ["127.0.0.1:9178"]}]}],
    });
    fs::write(world.lab.folder().join("prometheus.yml"), file.to_string()).unwrap();
    let _prometheus: Background = world.router.background(&format!(
        "prometheus --config.file={folder}/prometheus.yml --storage.tsdb.path={folder}/tsdb \
         --web.listen-address=127.0.0.1:9090 --log.level=error"
    ));
    let ask = |path: &str, query: &str| -> Value {
        let ask =
            format!("curl --silent --get --data-urlencode '{query}' http://127.0.0.1:9090/api/v1/{path}");
        serde_json::from_str(&world.router.try_sh(&ask, PATIENCE).stdout).unwrap_or_default()
    };
    wait_until("Prometheus has scraped", PATIENCE, || {
        ask("query", "query=hub_ready")["data"]["result"].as_array().is_some_and(|found| !found.is_empty())
    });
    for query in queries() {
        let answer = ask("query", &format!("query={query}"));
        assert_eq!(answer["status"], "success", "{query}: {answer:#}");
    }
    wait_until("the threshold fires in Prometheus", PATIENCE, || {
        let alerts = ask("alerts", "x=1");
        let alerts = alerts["data"]["alerts"].as_array().cloned().unwrap_or_default();
        alerts.iter().any(|alert| {
            alert["labels"]["alertname"] == "PersonaThreshold" && alert["labels"]["persona"] == "p0"
        })
    });
}
