//! `hubctl doctor`, `top` and `support-dump` beside a real daemon, and without one.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use hub_tests::lab::World;
use hub_tests::lab::world::member_at;
use hub_tests::root;
use serde_json::{Value, json};

/// What must not leave the machine; one in each place where it could hide.
const SECRETS: [&str; 8] = [
    "canary-in-a-label",
    "canary-in-a-comment",
    "canary-as-password",
    "canary-in-a-path",
    "canary-query",
    "canaryQ7x9Zk3Lm2Vb8Nc4Rt6Yp1Ws5Ed0",
    "canary-in-a-token-file",
    "canary-in-the-configuration",
];

/// Findings of `hubctl doctor`, and its exit code.
fn doctor(world: &World) -> (Vec<Value>, i32) {
    let config = world.lab.folder().join("hub.yaml").display().to_string();
    let output = world.hub.hubctl(&["doctor", "--json", "--config", &config]);
    let said: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (said["findings"].as_array().unwrap().clone(), output.status.unwrap().code().unwrap())
}

fn finding<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("{check} was not looked at: {findings:#?}"))
}

#[test]
fn the_doctor_tells_a_running_hub_from_a_dead_one() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    world.create(0, &json!({}));
    let (findings, _) = doctor(&world);
    for check in
        ["kernel", "BTF", "capabilities", "BPF file system", "hubd", "version", "programs", "disk", "clock"]
    {
        let severity = &finding(&findings, check)["severity"];
        assert!(severity == "ok" || severity == "note", "{:#}", finding(&findings, check));
    }
    assert_eq!(finding(&findings, "established connections")["severity"], "ok");
    assert_eq!(finding(&findings, "interface up0")["severity"], "ok");
    assert!(findings.iter().all(|finding| finding["severity"] != "error"), "{findings:#?}");

    // A file that anybody may write, and a document that is wrong.
    let state = world.lab.folder().join("state/state.json");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::write(world.hub.documents().join("wrong.yaml"), "kind: persona\nname: a\n").unwrap();
    let (findings, code) = doctor(&world);
    let found = finding(&findings, "state");
    assert_eq!(found["severity"], "warning");
    assert!(found["advice"].as_str().unwrap().contains("chmod 0660"), "{found}");
    let found = finding(&findings, "documents");
    assert!(found["found"].as_str().unwrap().contains("wrong.yaml"), "{found}");
    assert_eq!((found["severity"].as_str(), code), (Some("error"), 7));

    std::fs::remove_file(world.hub.documents().join("wrong.yaml")).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o600)).unwrap();
    world.router.ip("link set up0 down");
    world.hub.process().kill();
    let (findings, code) = doctor(&world);
    assert_eq!(finding(&findings, "hubd")["severity"], "warning");
    let pins = finding(&findings, "pins");
    assert!(pins["found"].as_str().unwrap().contains("no hubd runs"), "{pins}");
    let up0 = findings.iter().filter(|finding| finding["check"] == "interface up0");
    assert!(up0.clone().any(|finding| finding["severity"] == "warning"), "{findings:#?}");
    assert_eq!(code, 1);

    // Without its tables the routes are orphans.
    std::fs::remove_dir_all(world.lab.folder().join("bpf/hub")).unwrap();
    let (findings, _) = doctor(&world);
    let left = finding(&findings, "left over");
    assert!(
        left["severity"] == "warning" && left["found"].as_str().unwrap().contains("10.100.0.0/24"),
        "{left}"
    );
}

/// Filters of clsact have no pins: kernels before Linux 6.6 know nothing else.
#[test]
fn programs_are_counted_whatever_holds_them() {
    if !root() {
        return;
    }
    for hook in ["", "attach: {tc: clsact}"] {
        let mut world = World::with(1, hook);
        world.create(0, &json!({}));
        let status = world.hub.get("/v1/status").expect(200);
        let attached = status["attachments"].as_array().unwrap().len();
        assert!(attached >= 4, "{status:#}");
        let found = finding(&doctor(&world).0, "programs").clone();
        let expected = (&json!("ok"), format!("{attached} attached"));
        assert_eq!((&found["severity"], found["found"].as_str().unwrap().to_owned()), expected, "{hook}");
        world.hub.process().kill();
        let pins = finding(&doctor(&world).0, "pins").clone();
        assert!(pins["found"].as_str().unwrap().starts_with(&format!("{attached} programs judge")), "{pins}");
    }
}

#[test]
fn top_shows_rates_and_reasons() {
    if !root() {
        return;
    }
    let world = World::new(2);
    world.create(0, &json!({"security_policies": [{"protocol": "udp", "port": 7001, "action": "deny"}]}));
    world.create(1, &json!({}));
    let said = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let words = ["top", "--once", "--interval", "3s", "--sort", "drops", "--json"];
            world.hub.hubctl(&words).expect_success()
        });
        let sender = world.outside.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        while !client.is_finished() {
            sender.send_to(b"x", (member_at(0, true), 7001)).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        client.join().unwrap()
    });
    let rates: Value = serde_json::from_str(&said).unwrap();
    let rows = rates["personas"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["p0", "p1"]);
    let drops = rows[0]["drops_per_second"].as_f64().unwrap();
    assert!(drops > 1.0 && drops < 60.0, "{said}");
    assert_eq!((&rows[0]["reasons"][0][0], &rows[1]["reasons"]), (&json!("rule_deny"), &json!([])));
    assert!(rates["hub"]["drops_per_second"].as_f64().unwrap() > 1.0);
    let table = world.hub.hubctl(&["top", "--once", "--interval", "100ms"]).expect_success();
    assert!(table.contains("PERSONA") && table.contains("p1"), "{table}");
}

#[test]
fn a_support_dump_holds_no_secret() {
    if !root() {
        return;
    }
    let [label, comment, password, path, query, long, token, configured] = SECRETS;
    let world = World::new(1);
    let labels = json!({
        "deploy_token": label, "note": long, "team": "web-team",
        "link": format!("https://user:{password}@hooks.example.org/services/{path}?key={query}"),
    });
    world.create(0, &json!({"labels": labels}));
    std::fs::write(
        world.hub.documents().join("filed.yaml"),
        format!("# token: {comment}\nkind: persona\nname: filed\nip_range: 10.77.0.0/24\nlabels: {{api-key: {label}}}\n"),
    )
    .unwrap();
    world.hub.hubctl(&["apply"]).expect_success();
    let token_file = world.lab.folder().join("token");
    std::fs::write(&token_file, token).unwrap();
    let config = world.lab.folder().join("hub.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}# password={configured}\n")).unwrap();

    let archive = world.lab.folder().join("dump.tar.gz").display().to_string();
    let words = ["support-dump", &archive, "--config", &config.display().to_string()];
    let said = world.hub.hubctl(&words).expect_success();
    assert!(said.contains("secrets were taken out"), "{said}");
    assert_eq!(std::fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let folder = world.lab.folder().join("dump");
    std::fs::create_dir(&folder).unwrap();
    world.router.sh(&format!("tar --extract --gzip --file {archive} --directory {}", folder.display()));
    for secret in SECRETS {
        let found = world
            .router
            .try_sh(&format!("grep -rl '{secret}' {}", folder.display()), Duration::from_secs(10));
        assert!(found.stdout.is_empty(), "{secret} is in {}", found.stdout);
    }
    // And yet it says what is there.
    let read = |name: &str| std::fs::read_to_string(folder.join("hub-support").join(name)).unwrap();
    assert!(
        read("hub/personas.json").contains("web-team") && read("hub/status.json").contains("\"ready\": true")
    );
    assert!(read("config/documents/filed.yaml").contains("name: filed"));
    assert!(read("state/state.json").contains("10.100.0.0/24"));
    assert!(read("kernel/route.txt").contains("10.100.0.0/24"));
    assert!(read("kernel/pins.txt").contains("SEGMENTS") && read("doctor.json").contains("findings"));
    let again = world.hub.hubctl(&words);
    assert!(!again.success() && again.stderr.contains("exists"), "{}", again.stderr);
}
