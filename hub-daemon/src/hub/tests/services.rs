//! Services: one side exposes, the other uses.

use super::*;

fn shop() -> Value {
    let services = json!([{"name": "web", "port": 443}, {"name": "dns", "protocol": "udp", "port": 53}]);
    with(persona("shop", "10.1.0.0/24"), json!({"expose": services}))
}

fn user(uses: &[&str]) -> Value {
    with(persona("user", "10.2.0.0/24"), json!({"use": uses}))
}

#[test]
fn both_sides_are_needed_for_a_pair() {
    let mut script = Script::new();
    let user_id = script.create(user(&["shop/web"])).unwrap().segment;
    assert!(script.reasons("user").contains(&"ServiceMissing".to_owned()));
    assert!(script.desired().peers.is_empty());
    let shop_id = script.create(persona("shop", "10.1.0.0/24")).unwrap().segment;
    assert!(script.desired().peers.is_empty(), "nothing is exposed");
    script.replace("shop", shop()).unwrap();
    let desired = script.desired();
    assert_eq!(desired.peers.iter().collect::<Vec<_>>(), [&(user_id, shop_id)]);
    // tcp but 443, udp and icmp, from the range of the user.
    assert_eq!(desired.segments[&shop_id].policy.ingress.len(), 4);
    let back = &desired.segments[&user_id].policy.ingress;
    assert_eq!(back.len(), 1, "the host opens nothing to its user");
    script.replace("user", user(&["shop/none"])).unwrap();
    assert!(script.desired().peers.is_empty());
    assert!(script.reasons("user").contains(&"ServiceMissing".to_owned()));
    script.replace("user", user(&["shop/web"])).unwrap();
    script.delete("shop").unwrap();
    let desired = script.desired();
    assert!(desired.peers.is_empty() && desired.segments[&user_id].policy.ingress.is_empty());
}

#[test]
fn peers_need_no_services() {
    let mut script = Script::new();
    let shop_id = script.create(with(shop(), json!({"peers": ["user"]}))).unwrap().segment;
    script.create(with(user(&["shop/web"]), json!({"peers": ["shop"]}))).unwrap();
    let desired = script.desired();
    assert_eq!(desired.peers.len(), 1);
    assert!(desired.segments[&shop_id].policy.ingress.is_empty());
}

#[test]
fn too_many_users_are_refused() {
    let mut script = Script::new();
    let ports: Vec<Value> = (0..60).map(|n| json!(1_000 + 2 * n)).collect();
    let services = json!([{"name": "many", "port": ports}]);
    script.create(with(persona("shop", "10.1.0.0/24"), json!({"expose": services}))).unwrap();
    let refused = (0..40).find_map(|n| {
        let name = format!("u{n}");
        let document = with(persona(&name, &format!("10.2.{n}.0/24")), json!({"use": ["shop/many"]}));
        script.create(document).err()
    });
    let text = format!("{:?}", refused.expect("63 rules for each of 40 users do not fit"));
    assert!(text.contains("persona `shop` has too many users"), "{text}");
}

#[test]
fn users_are_refused_by_the_range_that_their_host_knows() {
    let host_of = |range: &str, is_overridden: bool| {
        let mut script = Script::new();
        let shop_id = script.create(shop()).unwrap().segment;
        let port = |name: &str| json!({"ip_range": range, "interfaces": [name]});
        script.create(with(user(&["shop/web"]), port("eth1"))).unwrap();
        if is_overridden {
            script
                .create(with(with(persona("new", range), port("eth2")), json!({"overlap": "override"})))
                .unwrap();
            assert_eq!(
                script.view("user").virtual_ranges[&range.parse().unwrap()].to_string(),
                "100.64.0.0/24"
            );
        }
        script.desired().segments[&shop_id].policy.ingress.clone()
    };
    assert_eq!(host_of("10.2.0.0/24", true), host_of("100.64.0.0/24", false));
    assert_ne!(host_of("10.2.0.0/24", true), host_of("10.2.0.0/24", false));
}
