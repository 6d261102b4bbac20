//! Subnets on VLANs: the hub's link to an interface must be a device of the subnet's VLAN.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a helper that cannot go on fails the test that called it, and what is left out is said"
)]

use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::resource::Which::Open;
use hub_tests::lab::resource::{BOTH, Resource, SWITCH};
use hub_tests::lab::world::FAMILIES;
use hub_tests::lab::{Answer, has_vlans, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// Two subnets beside the resource's, with its prefixes.
const SUBNETS: &str = "  \
tagged: {cidr: [10.20.0.0/24, \"fd00:20::/64\"], gateway: [10.20.0.1, \"fd00:20::1\"], vlan: 7}
  apart: {cidr: [10.20.0.0/24, \"fd00:20::/64\"], gateway: [10.20.0.1, \"fd00:20::1\"], vlan: 8}
";

/// A resource with a personality in each subnet, of the name of that.
fn resource() -> Resource {
    let resource = Resource::bare(SUBNETS);
    resource.keep(&Open.definition(&json!({})));
    for name in ["tagged", "apart"] {
        let mut definition = Open.definition(&json!({"subnet_id": name}));
        definition["name"] = name.into();
        resource.keep(&definition);
    }
    resource
}

/// Tries to give the member's interface its record.
fn enlist(resource: &Resource, personality: &str, port: &str) -> Answer {
    let namespace = resource.world.members[0].name();
    let record = json!({
        "name": "web", "interface": "eth0", "namespace": namespace, "port": port, "personality": personality,
    });
    resource.world.hub.send("POST", "/v1/interfaces", &record)
}

#[track_caller]
fn expect_refused(answer: Answer, pointer: &str, words: &str) {
    let said: Value = answer.expect(422);
    let problem = &said["errors"][0];
    assert_eq!(problem["pointer"], pointer, "{said:#}");
    assert!(problem["detail"].as_str().unwrap().contains(words), "{said:#}");
}

#[test]
fn a_link_without_a_vlan_is_refused_for_a_subnet_that_has_one() {
    if !root() {
        return;
    }
    let resource = resource();
    let told = "subnet `tagged` is on VLAN 7, and seg0 is no device of a VLAN: use one, like that of `ip link add \
                link seg0 name seg0.7 type vlan id 7`";
    expect_refused(enlist(&resource, "tagged", "seg0"), "/personality", told);
    resource.enlist(&json!({}));
    expect_refused(resource.order("tagged", &json!({})), "/personality", told);
    expect_refused(resource.order("tagged", &json!({"urgent": true})), "/personality", told);
    assert!(resource.is_settled() && resource.view()["current"] == "open@1");
    for v4 in FAMILIES {
        assert_eq!(resource.tcp(v4, BOTH), Answered);
    }
}

#[test]
fn a_device_of_the_vlan_leads_to_its_subnet_and_to_no_other() {
    if !root() {
        return;
    }
    if !has_vlans() {
        eprintln!("left out: this kernel has no VLAN devices (`cargo xtask vm e2e_vlan` has)");
        return;
    }
    let resource = resource();
    let (router, member) = (&resource.world.router, &resource.world.members[0]);
    // A wire for tags alone: a port towards members, like seg0, drops what is tagged. The member's end is tagged as
    // well, and is what the resource calls its interface.
    router.wire(("trunk0", &[]), (member, "wire0", &[]));
    router.ip("link add link trunk0 name seg7 type vlan id 7");
    router.ip("link set seg7 up");
    member.ip("link set eth0 down");
    member.ip("link set eth0 name spare0");
    member.ip("link add link wire0 name eth0 type vlan id 7");
    member.ip("link set eth0 up");
    wait_until("the hub knows the device", SWITCH, || {
        let answer = enlist(&resource, "apart", "seg7");
        answer.status == 422
            && answer.body["errors"][0]["detail"].as_str().is_some_and(|why| {
                why == "subnet `apart` is on VLAN 8, and seg7 is a device of VLAN 7: use one of VLAN 8"
            })
    });
    enlist(&resource, "tagged", "seg7").expect(201);
    wait_until("the interface is served", SWITCH, || {
        FAMILIES.iter().all(|v4| resource.tcp(*v4, BOTH) == Answered)
    });
    resource.settle();
    expect_refused(resource.order("apart", &json!({})), "/personality", "seg7 is a device of VLAN 7");
    let end = resource.switch("open", &json!({}));
    assert_eq!(end["outcome"], "committed", "a subnet of no VLAN is wherever the link is: {end:#}");
    let end = resource.switch("tagged", &json!({}));
    assert_eq!(end["outcome"], "committed", "{end:#}");
    for v4 in FAMILIES {
        assert_eq!(resource.tcp(v4, BOTH), Answered);
    }
}
