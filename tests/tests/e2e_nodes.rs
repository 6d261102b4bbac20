//! Which of several hubs takes a persona that names none: three real hubs.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::time::Duration;

use hub_tests::lab::{Answer, Config, Hub, Lab, wait_until};
use hub_tests::root;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Three gateways with room for so many personas. The first one is asked.
struct Three {
    hubs: Vec<Hub>,
    _labs: Vec<Lab>,
}

impl Three {
    fn new(room: [u32; 3]) -> Self {
        let mut labs = [Lab::new(), Lab::new(), Lab::new()];
        let spaces: Vec<_> = labs.iter_mut().map(|lab| lab.space("hub")).collect();
        let node = |name: &str, room: u32| {
            let node = json!({"name": name, "role": "gateway", "labels": {"site": "east"}, "capacity": {"personas": room}});
            Config::default().with(&format!("node: {node}"))
        };
        let third = labs[2].hub(&spaces[2], &node("c", room[2]));
        let second = labs[1].hub(&spaces[1], &node("b", room[1]));
        let at = |hub: &Hub| format!("unix:{}", hub.socket().display());
        let nodes = json!([{"name": "b", "url": at(&second)}, {"name": "c", "url": at(&third)}]);
        let first = labs[0].hub(&spaces[0], &node("a", room[0]).with(&format!("nodes: {nodes}")));
        Self { hubs: vec![first, second, third], _labs: labs.into() }
    }

    fn create(&self, number: usize) -> Answer {
        let definition = json!({"name": format!("p{number}"), "ip_range": format!("10.9.{number}.0/24"),
            "gateway": {"labels": {"site": "east"}, "choose": "free"}});
        self.hubs[0].send("POST", "/v1/personas", &definition)
    }

    /// How many personas live on each.
    fn used(&self) -> [u64; 3] {
        [0, 1, 2].map(|index: usize| {
            self.hubs[index].get("/v1/node").expect(200)["used"]["personas"].as_u64().unwrap()
        })
    }
}

fn place(answer: Answer) -> Value {
    answer.expect(201)["definition"]["gateway"]["node"].clone()
}

#[test]
fn the_fullest_is_avoided_and_a_dead_one_skipped() {
    if !root() {
        return;
    }
    let mut three = Three::new([1, 4, 3]);
    let first = three.create(1);
    let place_of_first = first.header("location").unwrap().to_owned();
    let first = first.expect(201);
    assert_eq!(first["definition"]["gateway"], json!({"node": "b"}));
    wait_until("it is active there", Duration::from_secs(10), || {
        three.hubs[1].get("/v1/personas/p1").body["state"] == "active"
    });
    let there =
        format!("unix:{}:/v1/personas/{}", three.hubs[1].socket().display(), first["id"].as_str().unwrap());
    assert_eq!(place_of_first, there);
    assert_eq!(three.hubs[0].get("/v1/personas/p1").expect(200)["state"], "elsewhere");
    assert_eq!(three.hubs[1].get("/v1/personas/p1").expect(200)["id"], first["id"]);
    assert_eq!([2, 3].map(|number| place(three.create(number))), ["c", "b"], "what is left decides");
    assert_eq!(three.used(), [0, 2, 1]);

    let process = three.hubs[2].process();
    process.kill();
    wait_until("it is gone", Duration::from_secs(5), || !process.is_running());
    assert_eq!(place(three.create(4)), "b", "c would have 1/3 left, and b has 1/4");
    let table = three.hubs[0].hubctl(&["node"]).expect_success();
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(line("a").contains("here") && line("a").contains("1 of 1"), "{table}");
    assert!(line("b").contains("1 of 4") && line("b").contains("site=east"), "{table}");
    assert!(line("c").contains("unreachable: Connection refused"), "{table}");
    assert_eq!(three.hubs[0].get("/v1/personas/p2").expect(200)["state"], "elsewhere", "a note stays a note");
    three.hubs[2].restart();
    assert_eq!(place(three.create(5)), "c", "it comes back with what it had");
}

#[test]
fn one_that_fills_up_in_between_is_passed_over() {
    if !root() {
        return;
    }
    let mut three = Three::new([3, 5, 9]);
    // It is silent: everybody has seen what the others have free before anybody creates anything.
    three.hubs[2].process().signal(Signal::SIGSTOP);
    let made: Vec<Answer> = std::thread::scope(|scope| {
        let three = &three;
        let asked: Vec<_> = (1..=8).map(|number| scope.spawn(move || three.create(number))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut places: Vec<String> = made.into_iter().map(|answer| place(answer).to_string()).collect();
    places.sort();
    assert_eq!(places, [["\"a\""; 3].as_slice(), &["\"b\""; 5]].concat());
    let log = three.hubs[1].log();
    assert!(
        log.contains("status=422") || log.contains("\"status\":422"),
        "the second was asked when it was full"
    );
    let refused = three.create(9);
    assert_eq!(refused.status, 422, "{:#}", refused.body);
    let said = refused.body.to_string();
    for wanted in ["`a`: it is full: 0 of 3", "`b`: it is full: 0 of 5", "`c`: it does not answer within 1 s"]
    {
        assert!(said.contains(wanted), "{wanted} in {said}");
    }
    assert_eq!(three.hubs[0].get("/v1/personas/p9").status, 404, "nothing of it is left");
    three.hubs[2].process().signal(Signal::SIGCONT);
    wait_until("it answers", Duration::from_secs(5), || three.hubs[2].get("/readyz").status == 200);
    assert_eq!(place(three.create(9)), "c");
    assert_eq!(three.used(), [3, 5, 1]);
}
