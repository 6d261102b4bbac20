//! `hubctl personality` and `hubctl interface` as processes.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::cli::text;
use crate::listeners::{Folder, Served};
use crate::switching::{Switching, personality};

/// A hub with personalities on a socket.
async fn start() -> (Served, Switching) {
    let switching = Switching::start().await;
    (Served::of(switching.fake.clone()), switching)
}

#[tokio::test]
async fn personalities_are_kept_listed_shown_and_deleted() {
    let ((served, _hub), folder) = (start().await, Folder::new());
    let new = serde_saphyr::to_string(&personality("new", &json!({"kind": "personality"}))).unwrap();
    let file = folder.write("new.yaml", &format!("{new}---\nkind: interface\nname: other\n"), 0o600);
    let said = served.says(&["personality", "create", "-f", text(&file)]).await;
    assert!(
        said.contains("new@1 kept: ") && said.contains("1 document of another kind was left out"),
        "{said}"
    );
    let said = served.says(&["personality", "list"]).await;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("VERSION") && lines.len() == 7, "{said}");
    assert!(said.lines().any(|line| line.starts_with("web@1") && line.ends_with("web-1")), "{said}");
    assert_eq!(served.json(&["personality", "list", "new"]).await[0]["version"], "new@1");
    let said = served.says(&["personality", "show", "web"]).await;
    assert!(said.contains("used by") && said.contains("subnet_id: front"), "{said}");
    let yaml = served.says(&["personality", "show", "web@1", "-o", "yaml"]).await;
    assert!(yaml.starts_with("kind: personality\nname: web\n"), "{yaml}");
    let again = folder.write("web.yaml", &yaml, 0o600);
    assert_eq!(served.json(&["personality", "create", "-f", text(&again)]).await["version"], "web@1");

    assert_eq!(served.says(&["personality", "delete", "new@1"]).await, "new@1 deleted\n");
    served.fails(4, &["personality", "show", "new"]).await;
    served.fails(1, &["personality", "delete", "web"]).await;
    let none = folder.write("none.yaml", "kind: persona\nname: x\n", 0o600);
    let said = served.fails(2, &["personality", "create", "-f", text(&none)]).await;
    assert!(said.contains("no document of kind personality"), "{said}");
    let wrong = folder.write("wrong.yaml", "name: x\nip_addresses: [10.20.0.300/24]\n", 0o600);
    let said = served.fails(5, &["personality", "create", "-f", text(&wrong)]).await;
    assert!(said.contains("/ip_addresses/0: "), "{said}");
}

#[tokio::test]
async fn interfaces_are_listed_shown_made_and_deleted() {
    let ((served, _hub), folder) = (start().await, Folder::new());
    let said = served.says(&["interface", "list"]).await;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("NAME") && lines.len() == 3, "{said}");
    assert!(lines[1].contains("active") && lines[1].contains("eth0 in n1"), "{said}");
    let said = served.says(&["interface", "show", "web-1"]).await;
    assert!(said.contains("personality  web@1") && said.contains("veth1"), "{said}");
    let yaml = served.says(&["interface", "show", "web-2", "-o", "yaml"]).await;
    assert!(yaml.starts_with("kind: interface\nname: web-2\n"), "{yaml}");
    assert_eq!(served.says(&["interface", "delete", "web-2"]).await, "web-2 deleted\n");
    served.fails(4, &["interface", "show", "web-2"]).await;
    let file = folder.write("web-2.yaml", &yaml, 0o600);
    let said = served.says(&["interface", "create", "-f", text(&file)]).await;
    assert!(said.starts_with("web-2 created: it has web2@1"), "{said}");
    assert!(served.says(&["status"]).await.contains("2 active"));
    let said = served.says(&["interface", "list", "--state", "active", "-l", "tier=web", "--json"]).await;
    assert!(said.contains("\"name\": \"web-1\""), "{said}");
}

#[tokio::test]
async fn a_switch_is_followed_and_its_end_is_the_exit_code() {
    let (served, hub) = start().await;
    let said = served.says(&["personality", "switch", "web-1", "lockdown", "--dry-run"]).await;
    assert!(said.contains("differences") && said.contains("/firewall_rules"), "{said}");
    assert!(said.contains("1 in use and 0 idle would end, 2 go on") && said.contains("rule 1"), "{said}");
    let said = served.says(&["personality", "switch", "web-1", "lockdown", "--why", "a test"]).await;
    for line in ["prepare ", "preflight ", "flip ", "verify ", "web-1 has lockdown@1"] {
        assert!(said.lines().any(|found| found.starts_with(line)), "{line} in {said}");
    }
    served.fails(1, &["personality", "switch", "web-1", "lockdown"]).await;
    served.fails(4, &["personality", "switch", "none", "lockdown"]).await;
    served.fails(5, &["personality", "switch", "web-1", "none"]).await;
    served.fails(2, &["personality", "switch", "web-1", "web", "--urgent", "--drain", "5s"]).await;

    let said = served.fails(1, &["personality", "switch", "web-1", "broken"]).await;
    let sentence = "the switch to broken@1 was rolled back: tcp 10.20.0.9:9: connection refused; web-1 has \
                    lockdown@1 as before";
    assert!(said.contains(sentence), "{said}");

    let said = served.says(&["personality", "switch", "web-1", "web", "--confirm", "60s"]).await;
    assert!(said.contains("waits for `hubctl personality confirm web-1`"), "{said}");
    assert!(served.says(&["personality", "confirm", "web-1"]).await.contains("web-1 has web@1"));
    served.fails(1, &["personality", "confirm", "web-1"]).await;

    hub.active.store(1, Ordering::Relaxed);
    let said =
        served.says(&["personality", "switch", "web-1", "lockdown", "--drain", "30s", "--detach"]).await;
    assert!(said.contains("is under way"), "{said}");
    hub.until("web-1", "draining").await;
    assert!(served.says(&["interface", "show", "web-1"]).await.contains("to lockdown@1, drain"));
    hub.tick().await;
    let said = served.says(&["personality", "drain", "web-1"]).await;
    assert!(
        said.contains("web-1 goes to lockdown@1: drain until ") && said.contains("1 connection active"),
        "{said}"
    );
    let row = said.lines().last().unwrap();
    assert!(row.starts_with("yes") && row.contains("10.0.0.1:40000") && row.ends_with("rule 1"), "{said}");
    let listed = served.json(&["personality", "drain", "web-1"]).await;
    assert_eq!(listed["connections"][0]["target_port"], 80, "{listed}");
    let said = served.says(&["personality", "cancel", "web-1"]).await;
    assert!(said.contains("it has web@1"), "{said}");

    let said = served.fails(1, &["personality", "drain", "web-1"]).await;
    assert!(said.contains("no switch of interface `web-1` is under way"), "{said}");

    let said = served.says(&["personality", "revert", "web-1", "--why", "enough"]).await;
    assert!(said.contains("web-1 has lockdown@1"), "{said}");
    let said = served.says(&["personality", "journal", "web-1", "--limit", "4"]).await;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("ENDED") && lines.len() == 5, "{said}");
    assert!(lines[1].contains("rolled back") && lines[1].contains("connection refused"), "{said}");
    assert!(lines[4].ends_with("enough"), "{said}");
}

#[tokio::test]
async fn a_switch_for_a_while_says_when_it_goes_back() {
    let (served, _hub) = start().await;
    let ended = served.json(&["personality", "switch", "web-1", "lockdown", "--for", "30m"]).await;
    assert_eq!(ended["outcome"], "committed", "{ended}");
    assert!(served.says(&["interface", "show", "web-1"]).await.contains("goes back"));
    assert!(served.says(&["personality", "revert", "web-1"]).await.contains("web-1 has web@1"));
}

#[tokio::test]
async fn several_interfaces_are_switched_as_one() {
    let (served, hub) = start().await;
    for number in 1..=2 {
        let address = json!({"ip_addresses": [format!("10.20.0.{}/24", 4 + number)]});
        hub.post("/v1/personalities", &personality(&format!("shut-web-{number}"), &address)).await;
    }
    let group = ["personality", "switch", "--labels", "tier=web", "shut-{interface}"];
    let said = served.says(&[&group[..], &["--dry-run"]].concat()).await;
    assert!(said.contains("shut-web-1@1") && said.contains("shut-web-2@1"), "{said}");
    let said = served.says(&group).await;
    for line in ["web-1:", "web-2:", "web-1 has shut-web-1@1", "web-2 has shut-web-2@1"] {
        assert!(said.lines().any(|found| found == line), "{line} in {said}");
    }
    served.fails(1, &group).await;
    let named = ["personality", "switch", "web-1", "web-2", "lockdown"];
    let said = served.fails(1, &named).await;
    assert!(said.contains("`web-2`"), "the address of web-1 is on no other interface: {said}");
    served.fails(2, &["personality", "switch", "lockdown"]).await;
    served.fails(2, &["personality", "switch", "web-1", "lockdown", "--label", "tier=web"]).await;
    served.fails(2, &["personality", "switch", "lockdown", "--label", "tier"]).await;
    served.fails(5, &["personality", "switch", "web-1", "none", "lockdown"]).await;
    let part = ["personality", "switch", "web-1", "web-2", "lockdown", "--percent", "20", "--salt", "half"];
    let ended = served.json(&part).await;
    assert_eq!((ended.as_array().unwrap().len(), &ended[0]["outcome"]), (1, &json!("committed")), "{ended}");
    assert!(served.says(&["interface", "show", "web-1"]).await.contains("lockdown@1"));
}

#[tokio::test]
async fn the_threat_level_is_told_and_shown() {
    let (served, hub) = start().await;
    let said = served.says(&["threat-level"]).await;
    assert!(said.lines().nth(1).unwrap().ends_with("normal, severe"), "{said}");
    let said = served.says(&["threat-level", "severe", "--interface", "web-1"]).await;
    assert!(said.lines().nth(1).unwrap().starts_with("web-1") && said.contains("severe"), "{said}");
    hub.tick().await;
    hub.until("web-1", "active").await;
    assert!(served.says(&["interface", "show", "web-1"]).await.contains("lockdown@1"));
    assert_eq!(served.json(&["threat-level"]).await["interfaces"][1]["level"], serde_json::Value::Null);
    served.fails(5, &["threat-level", "mild"]).await;
    served.fails(2, &["threat-level", "--interface", "web-1"]).await;
}
