//! Programs of others on our ports run before and after us, and stay when we go.

use aya::programs::links::LinkOrder;
use aya::programs::tc::{NlOptions, SchedClassifier, TcAttachOptions, TcAttachType};
use hub_tests::datapath::object;
use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::World;
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::root;
use serde_json::{Value, json};

#[test]
fn programs_of_others_stay_through_create_delete_and_down() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let _inside = world.members[0].serve(&[80, 81]);
    // A classifier that lets everything go on, on the old hook, and one before ours where ours are.
    let has_tcx = !world.router.hangs_on_filters("up0");
    world.router.sh("tc qdisc show dev seg0 | grep -q clsact || tc qdisc add dev seg0 clsact
         tc filter add dev seg0 ingress bpf direct-action bytecode '1,6 0 0 4294967295'");
    let mut foreign = aya::Ebpf::load_file(object()).unwrap();
    let classifier: &mut SchedClassifier = foreign.program_mut("hub_clock").unwrap().try_into().unwrap();
    classifier.load().unwrap();
    world.router.within(|| {
        let first = if has_tcx {
            TcAttachOptions::TcxOrder(LinkOrder::first())
        } else {
            TcAttachOptions::Netlink(NlOptions { priority: 1, ..NlOptions::default() })
        };
        classifier.attach_with_options("up0", TcAttachType::Ingress, first).unwrap();
    });
    let foreign_id = classifier.info().unwrap().id();
    let state = |world: &World| {
        let present = if has_tcx {
            let on = world.router.within(|| SchedClassifier::query_tcx("up0", TcAttachType::Ingress));
            on.unwrap().1.iter().any(|program| program.id() == foreign_id)
        } else {
            world.router.sh("tc filter show dev up0 ingress").contains(&format!(" id {foreign_id} "))
        };
        // Of filters that are all others', everything; beside the hub's, which go and come, theirs.
        let theirs = if has_tcx { "" } else { "| grep bytecode" };
        let show = format!("tc qdisc show dev seg0; tc filter show dev seg0 ingress {theirs}");
        (present, world.router.sh(&show))
    };
    let before = state(&world);
    assert!(before.0 && before.1.contains("bytecode"), "{before:?}");

    world.create(0, &json!({"security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}]}));
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
        world.outside.expect_tcp(member_at(0, v4), 81, Silent);
    }
    assert_eq!(state(&world), before);
    world.hub.process().kill();
    world.hub.restart();
    assert_eq!(state(&world), before);
    world.hub.send("DELETE", "/v1/personas/p0", &Value::Null);
    assert_eq!(state(&world), before);
    world.hub.process().stop();
    let folder = world.lab.folder().display().to_string();
    let down = ["down", "--bpffs", &format!("{folder}/bpf"), "--runtime-dir", &format!("{folder}/run")];
    world.hub.hubctl(&down).expect_success();
    assert_eq!(state(&world), before);
}
