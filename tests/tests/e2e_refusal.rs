//! Bad documents, bodies and configurations: each is refused whole, with every error at its place, and not
//! a byte of the tables that the programs read is changed.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use hub_daemon::document::hub::parse;
use hub_tests::effort::{Effort, figure};
use hub_tests::generate::Random;
use hub_tests::lab::{Dump, Stopwatch, World, command, program};
use hub_tests::mistake::{self, Kind, Mistake};
use hub_tests::root;
use serde_json::{Value, json};

/// Bad inputs in everyday runs and in long ones.
const INPUTS: [u64; 2] = [500, 10_000];
/// The tables are read byte for byte after so many.
const BETWEEN_DUMPS: u64 = 100;

#[test]
fn what_is_wrong_changes_no_byte() {
    if !root() {
        return;
    }
    let world = World::new(2);
    let rules = json!([{"protocol": "tcp", "port": [22, 80], "action": "allow"}, {"protocol": "udp", "action": "deny"}]);
    world.create(0, &json!({"security_policies": rules}));
    let folder = world.lab.folder().to_owned();
    let mut own = World::definition(1, &json!({"security_policies": rules}));
    own["kind"] = json!("persona");
    fs::write(world.hub.documents().join("good.yaml"), own.to_string()).unwrap();
    world.hub.send("POST", "/v1/reload", &Value::Null).expect(200);
    world.active("p1");

    let before = Dump::of(&folder.join("bpf"));
    assert!(before.len() > 10, "{before:?}");
    let watch = Stopwatch::start();
    let (mut kinds, mut bytes) = (BTreeMap::new(), 0);
    let mut inputs = 0;
    for seed in Effort::new(INPUTS[0], INPUTS[1]).rounds() {
        let mut random = Random::new(seed);
        let way = random.pick(&["document", "body", "configuration"]).unwrap();
        let kind = match way {
            "document" => document(&world, &mut random),
            "body" => body(&world, &mut random),
            _ => configuration(&folder, &mut random),
        };
        *kinds.entry((way, kind)).or_insert(0) += 1;
        inputs = seed + 1;
        if inputs.is_multiple_of(BETWEEN_DUMPS) {
            let after = Dump::of(&folder.join("bpf"));
            assert!(after == before, "before seed {inputs}: {:?}", before.differences(&after));
            bytes += 1;
        }
    }
    let changed = before.differences(&Dump::of(&folder.join("bpf"))).len();
    figure(
        "R5",
        &format!(
            "{inputs} bad inputs refused, {changed} of {} entries changed, tables read {bytes} times, {:.0} s; {kinds:?}",
            before.len(),
            watch.elapsed().as_secs_f64()
        ),
    );
    assert_eq!(changed, 0);
    assert_eq!(kinds.len(), 6, "{kinds:?}");
    let personas = world.hub.get("/v1/personas").expect(200);
    assert_eq!(personas["personas"].as_array().map_or(0, Vec::len), 2, "{personas:#}");
}

fn document(world: &World, random: &mut Random) -> Kind {
    let Mistake { kind, text } = mistake::persona(random, "wrong", true);
    let file = world.hub.documents().join("wrong.yaml");
    fs::write(&file, &text).unwrap();
    let shown = String::from_utf8_lossy(&text);
    let answer = world.hub.send("POST", "/v1/reload", &Value::Null);
    assert_eq!(answer.status, 422, "{shown}\n{:#}", answer.body);
    for error in errors(&answer.body) {
        let place = &error["place"];
        let is_placed = place["file"].as_str().is_some_and(|file| file.ends_with("wrong.yaml"))
            && place["line"].as_u64() > Some(0)
            && place["column"].as_u64() > Some(0);
        assert!(is_placed, "{shown}\n{error:#}");
        assert!(kind == Kind::Text || is_named(error), "{shown}\n{error:#}");
    }
    fs::remove_file(&file).unwrap();
    kind
}

fn body(world: &World, random: &mut Random) -> Kind {
    let Mistake { kind, text } = mistake::persona(random, "wrong", false);
    let shown = String::from_utf8_lossy(&text).into_owned();
    let answer = world.hub.request("POST", "/v1/personas", &[], &shown);
    assert!(matches!(answer.status, 400 | 422), "{} {shown}\n{:#}", answer.status, answer.body);
    if answer.status == 400 {
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(
            kind == Kind::Text && detail.contains("line") && detail.contains("column"),
            "{shown}\n{detail}"
        );
        return kind;
    }
    for error in errors(&answer.body) {
        assert!(is_named(error), "{shown}\n{error:#}");
    }
    kind
}

/// The library says what is wrong; now and then a daemon is started with it, which must end.
fn configuration(folder: &Path, random: &mut Random) -> Kind {
    let Mistake { kind, text } = mistake::hub(random);
    let file = folder.join("wrong-hub.yaml");
    let shown = String::from_utf8_lossy(&text).into_owned();
    let problems = parse(&file, &shown).expect_err(&shown);
    assert!(!problems.is_empty());
    for problem in &problems {
        assert!(problem.line > 0 && problem.column > 0, "{shown}\n{problem}");
        assert!(kind == Kind::Text || !problem.field.is_empty(), "{shown}\n{problem}");
    }
    if random.chance(5) {
        fs::write(&file, &text).unwrap();
        let mut hubd = std::process::Command::new(program("hubd"));
        let said = command(hubd.args(["run", "--config"]).arg(&file), "", Duration::from_secs(20));
        assert!(said.status.is_some_and(|status| !status.success()), "{said:?}");
        assert!((said.stdout + &said.stderr).contains("wrong-hub.yaml:"), "{shown}");
    }
    kind
}

#[track_caller]
fn errors(body: &Value) -> &Vec<Value> {
    let errors = body["errors"].as_array().filter(|errors| !errors.is_empty());
    errors.unwrap_or_else(|| panic!("no error is listed: {body:#}"))
}

/// Whether an error says which field it is about, and what is wrong with it.
fn is_named(error: &Value) -> bool {
    error["pointer"].as_str().is_some_and(|pointer| !pointer.is_empty())
        && error["detail"].as_str().is_some_and(|detail| detail.len() > 5)
}
