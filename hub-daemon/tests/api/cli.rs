//! hubctl as a process, against the stand-in on a real socket.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::listeners::{Folder, Served};
use crate::support::{FILED, FULL, INVALID, change, document};

/// Runs hubctl with a clean environment.
pub(crate) async fn hubctl(arguments: &[&str]) -> Output {
    command(arguments).output().await.unwrap()
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubctl"));
    command.args(arguments).kill_on_drop(true);
    for name in ["HUB_SOCKET", "HUB_URL", "HUB_TOKEN_FILE", "HUB_CA", "HUB_CERT", "HUB_KEY", "VISUAL"] {
        command.env_remove(name);
    }
    command
}

impl Served {
    pub(crate) async fn hubctl(&self, arguments: &[&str]) -> Output {
        command(arguments).env("HUB_SOCKET", &self.socket).output().await.unwrap()
    }

    /// Runs hubctl, which must succeed; returns what it printed.
    pub(crate) async fn says(&self, arguments: &[&str]) -> String {
        let output = self.hubctl(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs hubctl, which must fail with this code; returns what it complained.
    pub(crate) async fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.hubctl(arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let text = self.says(&[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&text).unwrap()
    }

    async fn create(&self, name: &str) {
        self.fake.create(name).await;
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn status_shows_conditions_programs_and_tables() {
    let served = Served::start();
    let said = served.says(&["status"]).await;
    for wanted in ["ready", "1 active", "XdpBusy", "eth0 has another program", "tcx", "42", "routes"] {
        assert!(said.contains(wanted), "{wanted} in\n{said}");
    }
    assert_eq!(served.json(&["status"]).await["personas"]["active"], 1);
}

#[tokio::test]
async fn personas_are_listed_and_shown_in_every_form() {
    let served = Served::start();
    served.create("dev").await;
    let said = served.says(&["persona", "list"]).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].starts_with("NAME"), "{said}");
    assert!(lines[1].contains("/etc/hub/filed.yaml:3"), "{said}");
    assert_eq!(served.json(&["persona", "list", "--origin", "api"]).await[0]["definition"]["name"], "dev");

    let shown = served.says(&["persona", "show", "dev"]).await;
    assert!(shown.contains("PeerMissing") && shown.contains("2030-12-31T23:59:59Z"), "{shown}");
    assert_eq!(served.json(&["persona", "show", "dev"]).await["generation"], 1);
    let yaml = served.says(&["persona", "list", "-o", "yaml"]).await;
    assert_eq!(yaml.matches("kind: persona\n").count(), 2, "{yaml}");
}

#[tokio::test]
async fn an_export_can_be_created_again() {
    let (served, other, folder) = (Served::start(), Served::start(), Folder::new());
    served.create("a").await;
    served.create("b").await;
    let exported = served.says(&["persona", "list", "--origin", "api", "-o", "yaml"]).await;
    let file = folder.write("export.yaml", &exported, 0o600);
    let said = other.says(&["persona", "create", "-f", text(&file)]).await;
    assert!(said.contains("a created") && said.contains("b created"), "{said}");
    assert_eq!(exported, other.says(&["persona", "list", "--origin", "api", "-o", "yaml"]).await);
}

#[tokio::test]
async fn a_persona_is_created_from_a_file_and_deleted() {
    let (served, folder) = (Served::start(), Folder::new());
    let file = folder.write("dev.json", &document("dev").to_string(), 0o600);
    let created = served.json(&["persona", "create", "-f", text(&file)]).await;
    assert_eq!(created["state"], "active");
    served.says(&["persona", "delete", "dev"]).await;
    assert!(served.fails(4, &["persona", "show", "dev"]).await.contains("no persona `dev`"));
}

#[tokio::test]
async fn exit_codes_say_what_went_wrong() {
    let (served, folder) = (Served::start(), Folder::new());
    let file = |name: &str, text: &str| folder.write(name, text, 0o600).display().to_string();
    let of = |name: &str| file(&format!("{name}.json"), &document(name).to_string());
    served.create("dev").await;

    served.fails(2, &["persona"]).await;
    served.fails(2, &["persona", "create", "dev"]).await;
    served.fails(2, &["why", "tcp", "here", "there"]).await;
    served.fails(4, &["persona", "show", "none"]).await;
    served.fails(4, &["flows", "none"]).await;
    served.fails(1, &["persona", "create", "-f", &of("dev")]).await;
    served.fails(1, &["persona", "create", "-f", &of(FULL)]).await;
    served.fails(1, &["persona", "delete", FILED]).await;
    let said = served.fails(5, &["persona", "create", "-f", &of(INVALID)]).await;
    assert!(said.contains("/name: name is wrong") && said.contains("all is wrong"), "{said}");
    let said = served.fails(5, &["persona", "create", "-f", &file("broken.yaml", "name: [x\n")]).await;
    assert!(said.contains("broken.yaml:"), "{said}");
    served.fails(7, &["persona", "create", "-f", "/no/such/file"]).await;
    served.fails(5, &["why", "nonsense", "10.0.0.1", "10.0.0.2"]).await;

    let said = served.fails(3, &["--socket", "/no/such/socket", "status"]).await;
    assert!(said.contains("is hubd running?"), "{said}");
    served.fails(2, &["--url", "ftp://x", "status"]).await;
    served.fails(2, &["--url", "https://127.0.0.1:1", "status"]).await;
    let problem = served.fails(4, &["--json", "persona", "show", "none"]).await;
    assert_eq!(serde_json::from_str::<Value>(&problem).unwrap()["status"], 404);

    let help = served.says(&["--help"]).await;
    for code in 0..=7 {
        assert!(help.contains(&format!("\n  {code}  ")), "{code} in\n{help}");
    }
}

#[tokio::test]
async fn why_names_the_rule_and_its_line() {
    let served = Served::start();
    let output = served.hubctl(&["why", "tcp", "10.0.0.1", "10.0.0.2:22", "--in", "eth1"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for wanted in [
        "drop (rule_deny): a rule denies it",
        "in on eth1",
        "rule 1, /etc/hub/filed.yaml:9",
        "hint: change that rule",
    ] {
        assert!(said.contains(wanted), "{wanted} in\n{said}");
    }
    let said = served.says(&["why", "tcp", "[fd00::1]:40000", "[fd00::2]:80"]).await;
    assert!(said.starts_with("pass: it passes"), "{said}");
}

#[tokio::test]
async fn counters_and_flows_are_tables() {
    let served = Served::start();
    let said = served.says(&["counters", FILED]).await;
    assert!(said.contains("rule_deny") && said.contains("egress"), "{said}");
    let said = served.says(&["counters"]).await;
    assert!(said.contains("tc_in") && said.contains("RECEIVED"), "{said}");
    let said = served.says(&["flows", "--limit", "2"]).await;
    assert!(said.contains("[fd00::2]:80") && said.contains("2 shown; established 3 of 100"), "{said}");
}

#[tokio::test]
async fn plan_shows_changes_and_apply_shows_the_line() {
    let served = Served::start();
    let said = served.says(&["plan"]).await;
    assert!(said.contains("+ dev  (dev.yaml:1)") && said.contains("1 persona would change"), "{said}");
    let said = served.fails(5, &["apply"]).await;
    assert!(said.contains("dev.yaml:2:5"), "{said}");
    assert!(said.contains('^'), "{said}");
}

#[tokio::test]
async fn a_persona_is_created_from_flags() {
    let served = Served::start();
    let flags = [
        "persona",
        "create",
        "dev",
        "--ip-range",
        "10.1.0.0/24",
        "--ip-range",
        "fd01::/64",
        "--protocol",
        "tcp",
        "--protocol",
        "icmp",
        "--rule",
        "allow:tcp/80",
        "--rule",
        "deny:tcp/22-23",
        "--bandwidth",
        "1Gbps",
        "--peer",
        "other",
        "--label",
        "team=net",
        "--until",
        "2999-01-01T00:00:00Z",
    ];
    let created = served.json(&flags).await;
    let definition = json!({
        "name": "dev",
        "ip_range": ["10.1.0.0/24", "fd01::/64"],
        "protocols": ["tcp", "icmp"],
        "qos": {"bandwidth": "1Gbps"},
        "security_policies": [
            {"protocol": "tcp", "port": 80, "action": "allow"},
            {"protocol": "tcp", "port": "22-23", "action": "deny"}
        ],
        "expiration": "2999-01-01T00:00:00Z",
        "peers": ["other"],
        "labels": {"team": "net"}
    });
    assert_eq!(created["definition"], definition);
    let shown = served.says(&["persona", "show", "dev"]).await;
    assert!(shown.contains("22-23") && shown.contains("team=net"), "{shown}");
    assert_eq!(served.json(&["persona", "list", "-l", "team=net"]).await.as_array().unwrap().len(), 1);
    assert_eq!(served.json(&["persona", "list", "-l", "team=dev"]).await, json!([]));
    served.fails(5, &["persona", "create", "x", "--ip-range", "10.1.0.1/24"]).await;
    served.fails(2, &["persona", "create", "x"]).await;
    served.fails(2, &["persona", "create", "x", "--ip-range", "10.1.0.0/24", "--rule", "tcp"]).await;
}

#[tokio::test]
async fn extending_moves_the_end() {
    let served = Served::start();
    served.create("dev").await;
    served.fails(2, &["persona", "extend", "dev"]).await;
    served.fails(2, &["persona", "extend", "dev", "--ttl", "soon"]).await;
    served.fails(4, &["persona", "extend", "none", "--ttl", "4h"]).await;
    let until = "2999-06-01T00:00:00Z";
    let extended = served.json(&["persona", "extend", "dev", "--until", until]).await;
    assert_eq!(extended["definition"]["expiration"], until);
    assert_eq!(extended["definition"]["security_policies"], document("dev")["security_policies"]);
    served.says(&["persona", "extend", "dev", "--ttl", "2d12h"]).await;
}

#[tokio::test]
async fn an_edit_replaces_what_was_read() {
    let (served, folder) = (Served::start(), Folder::new());
    served.create("dev").await;
    let editor = folder.write("editor", "#!/bin/sh\nsed -i 's/^name: .*/name: edited/' \"$1\"\n", 0o755);
    let edit = async |editor: &str, persona: &str| {
        let mut command = command(&["persona", "edit", persona]);
        command.env("HUB_SOCKET", &served.socket).env("EDITOR", editor).env("TMPDIR", &folder.0);
        command.output().await.unwrap()
    };
    let output = edit("true", "dev").await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nothing changed\n", "{output:?}");
    assert_eq!(edit("false", "dev").await.status.code(), Some(2));
    let output = edit(text(&editor), "dev").await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(served.json(&["persona", "show", "edited"]).await["generation"], 2);
    let left = || std::fs::read_dir(&folder.0).unwrap().count();
    assert_eq!(left(), 1);
    let output = edit(text(&editor), FILED).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(left(), 2, "what was written is kept");
}

#[tokio::test]
async fn events_are_lines() {
    let served = Served::start();
    let running = tokio::spawn({
        let mut command = command(&["events", "-f", "-n", "2", "--json"]);
        command.env("HUB_SOCKET", &served.socket);
        async move { command.output().await.unwrap() }
    });
    while served.fake.hub.events.receiver_count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in 0..3 {
        served.fake.hub.events.send(change(number)).unwrap();
    }
    let output = running.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["persona"], "p1");
    assert_eq!(served.says(&["events"]).await, "");
}

#[tokio::test]
async fn documents_are_checked_without_a_daemon() {
    let folder = Folder::new();
    let mut good = document("dev");
    good["kind"] = json!("persona");
    folder.write("good.yaml", &good.to_string(), 0o600);
    folder.write("notes.txt", "not a document", 0o600);
    let output = hubctl(&["check", text(&folder.0)]).await;
    assert!(output.status.success(), "{output:?}");
    folder.write("bad.yaml", "kind: persona\nname: 5\ncolour: red\n", 0o600);
    folder.write("worse.yaml", "kind: [\n", 0o600);
    let output = hubctl(&["check", text(&folder.0)]).await;
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    for wanted in ["bad.yaml:2:7", "colour", "worse.yaml", "^"] {
        assert!(said.contains(wanted), "{wanted} in\n{said}");
    }
}

#[tokio::test]
async fn documents_are_checked_against_each_other() {
    let folder = Folder::new();
    for name in ["a", "b"] {
        let mut document = document("same");
        document["kind"] = json!("persona");
        folder.write(&format!("{name}.yaml"), &document.to_string(), 0o600);
    }
    let output = hubctl(&["check", text(&folder.0)]).await;
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("b.yaml:1:"), "{said}");
}

#[tokio::test]
async fn completions_and_man_pages_are_made() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = hubctl(&["completions", shell]).await;
        assert!(output.status.success() && output.stdout.len() > 1_000, "{shell}");
    }
    let output = hubctl(&["man", text(&folder.0)]).await;
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(folder.join("hubctl.1")).unwrap();
    assert!(page.contains("Exit codes"), "{page}");
    assert!(folder.join("hubctl-persona-create.1").exists());
    let script = String::from_utf8(hubctl(&["completions", "bash"]).await.stdout).unwrap();
    for verb in ["trace", "top", "doctor", "support-dump", "confirm", "revert", "persona-try"] {
        assert!(folder.join(&format!("hubctl-{verb}.1")).exists(), "{verb}");
        let last = verb.rsplit("persona-").next().unwrap();
        assert!(script.contains(last), "{verb}");
    }
}
