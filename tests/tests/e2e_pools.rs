//! Ranges out of pools: nobody gets what another has, and what was used rests.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::collections::BTreeSet;
use std::time::Duration;

use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const POOLS: &str = "pools:\n  lab: {prefixes: [10.200.0.0/20, 'fd00:200::/56'], quarantine: 4s}";
/// As many as there are /26 in the pool.
const PERSONAS: usize = 64;

fn ranges(view: &Value) -> Vec<String> {
    view["ranges"].as_array().unwrap().iter().map(|range| range.as_str().unwrap().to_owned()).collect()
}

#[test]
fn sixty_four_at_once_get_different_ranges_that_last_and_rest() {
    if !root() {
        return;
    }
    let mut world = World::with(0, POOLS);
    let asked = |number: usize| json!({"name": format!("n{number}"), "ip_range": ["auto/26@lab", "auto6"]});
    let views: Vec<Value> = std::thread::scope(|scope| {
        let hub = &world.hub;
        let asking: Vec<_> = (0..PERSONAS)
            .map(|number| scope.spawn(move || hub.send("POST", "/v1/personas", &asked(number)).expect(201)))
            .collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let given: BTreeSet<String> = views.iter().flat_map(ranges).collect();
    assert_eq!(given.len(), 2 * PERSONAS, "no range twice: {given:?}");
    let full = world.hub.send("POST", "/v1/personas", &asked(PERSONAS));
    assert_eq!(full.status, 507, "{:#}", full.body);

    let pools = world.hub.get("/v1/pools").expect(200);
    assert_eq!(pools["pools"][0]["allotted"].as_array().unwrap().len(), 2 * PERSONAS);
    assert_eq!(pools["pools"][0]["used_ipv4"], 1.0);
    let shown = world.hub.hubctl(&["pools"]).expect_success();
    assert!(shown.contains("100.0 %"), "{shown}");
    let metrics = world.router.sh("curl -s http://127.0.0.1:9178/metrics");
    assert!(metrics.contains("hub_pool_ranges{pool=\"lab\",state=\"allotted\"} 128"), "{metrics}");

    let freed = ranges(&world.hub.get("/v1/personas/n7").expect(200));
    assert_eq!(world.hub.send("DELETE", "/v1/personas/n7", &Value::Null).status, 204);
    assert_eq!(world.hub.send("POST", "/v1/personas", &asked(PERSONAS)).status, 507, "it rests");
    world.hub.process().kill();
    world.hub.restart();
    for view in views.iter().filter(|view| view["definition"]["name"] != "n7") {
        let path = format!("/v1/personas/{}", view["id"].as_str().unwrap());
        assert_eq!(ranges(&world.hub.get(&path).expect(200)), ranges(view), "after a restart");
    }
    let patched = world.hub.send("PATCH", "/v1/personas/n8", &json!({"protocols": ["tcp"]})).expect(200);
    assert_eq!(ranges(&patched)[0], ranges(&world.hub.get("/v1/personas/n8").body)[0]);
    wait_until("the range has rested", Duration::from_secs(20), || {
        world.hub.send("POST", "/v1/personas", &asked(PERSONAS)).status == 201
    });
    let last = world.hub.get("/v1/personas/n64").expect(200);
    assert_eq!(ranges(&last)[0], freed[0]);
}
