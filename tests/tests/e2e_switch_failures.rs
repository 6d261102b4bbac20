//! What goes wrong in a phase of a switch: the interface has the old personality whole, by what the kernel holds and
//! by what clients see, also after a restart and a reboot.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use hub_tests::certificates::{Authority, Until};
use hub_tests::lab::resource::Which::{Open, Shut};
use hub_tests::lab::resource::{Resource, SWITCH};
use hub_tests::lab::world::FAMILIES;
use hub_tests::lab::{Background, echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// A resource that knows `bad`, which is the second personality with other fields.
fn with_bad(lines: &str, fields: &Value) -> Resource {
    let resource = Resource::with(lines, &json!({}));
    let mut bad = Shut.definition(fields);
    bad["name"] = "bad".into();
    resource.keep(&bad);
    resource
}

/// Switches to `bad`; how it ended. Afterwards the old one is there whole, and what it allows was never cut.
fn fails(resource: &Resource, phases: &[&str], outcome: &str) -> String {
    let mut kept = resource.world.outside.connect(hub_tests::lab::resource::resource_at(true), Open.port());
    let end = resource.switch("bad", &json!({}));
    assert_eq!(end["outcome"], outcome, "{end:#}");
    let gone: Vec<&str> =
        end["phases"].as_array().unwrap().iter().map(|done| done["phase"].as_str().unwrap()).collect();
    assert_eq!(gone, phases, "{end:#}");
    resource.settle();
    resource.expect_whole(Open, outcome);
    if outcome == "aborted" {
        assert!(echoes(&mut kept, SWITCH), "nothing was cut");
    }
    assert_eq!(resource.view()["current"], "open@1");
    let last = &resource.journal()[0];
    assert_eq!((&last["outcome"], &last["failure"]), (&end["outcome"], &end["failure"]), "{last:#}");
    end["failure"].as_str().unwrap().to_owned()
}

#[test]
fn what_the_kernel_or_the_hub_refuses_changes_nothing() {
    if !root() {
        return;
    }
    let route = json!([{"destination": "198.51.100.0/24", "via": "10.20.0.5"}]);
    let resource = with_bad("limits: {rules: 256}\n", &json!({"routing_table": route}));
    let why = fails(&resource, &["prepare"], "aborted");
    assert!(why.contains("198.51.100.0/24"), "{why}");
    let list = "for v in 4 6; do ip -$v route show table all proto 177; done";
    let tables = resource.world.members[0].sh(list);
    let prepared = FAMILIES.iter().any(|v4| tables.contains(Shut.address(*v4)));
    assert!(!prepared, "what was prepared is gone: {tables}");
    // More rules than there is room for, alone and beside those that decide.
    let large = |name: &str, count: u16| {
        let rules =
            (0..count).map(|port| json!({"protocol": "tcp", "port": 9_000 + 2 * port, "action": "allow"}));
        let mut large = Shut.definition(&json!({"firewall_rules": rules.collect::<Vec<Value>>()}));
        large["name"] = name.into();
        large
    };
    let refused = resource.world.hub.send("POST", "/v1/personalities", &large("larger", 300)).expect(507);
    assert!(refused["errors"][0]["detail"].as_str().unwrap().contains("room for 256"), "{refused:#}");
    resource.keep(&large("large", 250));
    let answer = resource.order("large", &json!({}));
    assert_eq!(answer.status, 507, "{:#}", answer.body);
    resource.settle();
    resource.expect_whole(Open, "no room");
    let end = resource.switch("shut", &json!({}));
    assert_eq!(end["outcome"], "committed", "what is right is done all the same: {end:#}");
    resource.expect_whole(Shut, "after the failures");
}

fn a_tunnel_without_an_answer() {
    let resource = Resource::with("", &json!({}));
    let key = resource.world.lab.folder().join("key");
    std::fs::write(&key, "WAd0UrZT3YAqRS9hXlTzq8Wv0Yx6lJpPnQh2mD1bXkU=\n").unwrap();
    std::os::unix::fs::chown(&key, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut bad = Shut.definition(&json!({"vpn_tunnel_config": {
        "private_key_file": key, "listen_port": 51_820, "addresses": ["10.9.0.5/32"],
        "peers": [{"public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "endpoint": "192.0.2.10:51820", "allowed_ips": ["10.9.0.0/16"], "keepalive": 25}],
    }}));
    bad["name"] = "bad".into();
    resource.keep(&bad);
    let why = fails(&resource, &["prepare", "preflight"], "aborted");
    assert!(why.contains("handshake"), "{why}");
    wait_until("the tunnel is gone", SWITCH, || {
        !resource.world.members[0].sh("ip -oneline link show").contains("51820")
            && resource.world.members[0].sh("ip -oneline link show").lines().count() == 2
    });
}

fn a_name_server_that_is_dead() {
    let resource = with_bad("", &json!({"dns_servers": ["192.0.2.99"]}));
    let why = fails(
        &resource,
        &["prepare", "preflight", "drain", "flip", "verify", "rollback", "rollback_verify"],
        "rolled_back",
    );
    assert!(why.contains("dns") && why.contains("192.0.2.99"), "{why}");
}

fn a_target_that_is_lost_with_the_flip() {
    let target = json!({"targets": [{"tcp": "192.0.2.10:7009"}]});
    let route = json!([{"destination": "192.0.2.10/32", "type": "blackhole"}]);
    let resource = with_bad("", &json!({"health": target, "routing_table": route}));
    let _there = resource.world.outside.serve(&[7_009]);
    let at = hub_tests::lab::world::outside_at(true);
    resource.world.members[0].expect_tcp(at, 7_009, hub_tests::lab::Outcome::Answered);
    let why = fails(
        &resource,
        &["prepare", "preflight", "drain", "flip", "verify", "rollback", "rollback_verify"],
        "rolled_back",
    );
    assert!(why.contains("192.0.2.10"), "{why}");
    resource.world.members[0].expect_tcp(at, 7_009, hub_tests::lab::Outcome::Answered);
}

/// Web servers outside, one for each family, with a certificate by an authority that is in no file of the machine.
fn web_servers(resource: &Resource, authority: &Authority) -> [Background; 2] {
    let outside = &resource.world.outside;
    let certificate = resource.world.lab.folder().join("web.pem");
    authority.issue(&certificate, &["192.0.2.10", "2001:db8:2::10"], Until::Far);
    let servers = ["-4", "-6"].map(|family| {
        let files = format!("-cert {0} -key {0}", certificate.display());
        outside.background(&format!("openssl s_server {family} -accept 8443 {files} -www"))
    });
    wait_until("the web servers listen", SWITCH, || {
        outside.sh("ss -Hltn 'sport = :8443'").lines().count() == 2
    });
    servers
}

fn a_web_server_that_does_not_show_who_it_is() {
    let urls = ["https://192.0.2.10:8443/", "https://[2001:db8:2::10]:8443/"];
    let targets = |more: &Value| {
        let target = |url: &str| {
            let mut target = more.clone();
            target["http"] = url.into();
            target
        };
        json!({"health": {"targets": urls.map(target)}})
    };
    let mut resource = with_bad("", &targets(&json!({})));
    let authority = Authority::new();
    let _there = web_servers(&resource, &authority);
    let why = fails(
        &resource,
        &["prepare", "preflight", "drain", "flip", "verify", "rollback", "rollback_verify"],
        "rolled_back",
    );
    assert!(why.contains("8443") && why.contains("who issued its certificate is unknown here"), "{why}");
    // The document names whom it trusts, or the machine does.
    let folder = resource.world.lab.folder().to_owned();
    authority.write(&folder.join("ca.pem"));
    let mut good = Shut.definition(&targets(&json!({"ca": folder.join("ca.pem")})));
    good["name"] = "good".into();
    resource.keep(&good);
    let end = resource.switch("good", &json!({}));
    assert_eq!(end["outcome"], "committed", "{end:#}");
    let variable = format!("SSL_CERT_FILE={}", folder.join("ca.pem").display());
    resource.world.hub.restart_under(&["env", &variable]);
    resource.settle();
    let end = resource.switch("bad", &json!({}));
    assert_eq!(end["outcome"], "committed", "{end:#}");
}

#[test]
fn what_does_not_answer_leads_back() {
    if !root() {
        return;
    }
    // Each waits for the whole time that checks have.
    std::thread::scope(|scope| {
        scope.spawn(a_tunnel_without_an_answer);
        scope.spawn(a_name_server_that_is_dead);
        scope.spawn(a_target_that_is_lost_with_the_flip);
        scope.spawn(a_web_server_that_does_not_show_who_it_is);
    });
}

#[test]
fn a_reboot_goes_back_from_what_was_not_confirmed_and_keeps_what_was() {
    if !root() {
        return;
    }
    let mut resource = Resource::new();
    let began = resource.order("shut", &json!({"confirm_within": "10m", "urgent": true})).expect(202);
    wait_until("it waits", SWITCH * 2, || {
        let state = resource.state();
        assert_ne!(state, "active", "{:#}", resource.journal()[0]);
        state == "awaiting_confirm"
    });
    assert_eq!(resource.parts().decides(), Some(Shut), "{}", resource.parts());
    resource.reboot();
    let end = resource.finish(began["id"].as_str().unwrap());
    assert_eq!(end["outcome"], "rolled_back", "{end:#}");
    resource.settle();
    resource.expect_whole(Open, "after the first reboot");
    let end = resource.switch("shut", &json!({"urgent": true}));
    assert_eq!(end["outcome"], "committed", "{end:#}");
    resource.reboot();
    resource.settle();
    resource.expect_whole(Shut, "after the second reboot");
}
