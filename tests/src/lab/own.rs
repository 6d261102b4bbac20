//! A hub with two members, of which the second is behind an interface of the hub that has a personality.
//!
//! The member has two further addresses, at 20 and 21: routers, as far as personalities are concerned. Both
//! personalities let in [`BOTH`], and each a port of its own.

use std::time::Duration;

use serde_json::{Value, json};

use super::traffic::Outcome::Answered;
use super::world::{FAMILIES, World, member_at};
use super::{Outcome, Server, wait_until};

/// A port that both personalities let in.
pub const BOTH: u16 = 7_000;
/// A port that the first one lets in.
pub const OPEN_ONLY: u16 = 7_001;
/// A port that the second one lets in.
pub const SHUT_ONLY: u16 = 7_002;
/// Where packets from the interface's addresses go by the personality's routes, in both families.
pub const BEYOND: [&str; 2] = ["198.51.100.1", "2001:db8:51::1"];
/// What the hub does at once takes no longer.
pub const SOON: Duration = Duration::from_secs(20);

/// A personality of the interface with a port of its own, whose routes lead by this host of the subnet, with further
/// fields put in or over.
pub fn definition(name: &str, own: u16, router: u8, more: &Value) -> Value {
    let mut definition = json!({
        "name": name,
        "ip_addresses": ["10.100.1.1/24", "fd00:100:1::1/64"],
        "firewall_rules": [
            {"protocol": "tcp", "port": [BOTH, own], "action": "allow"},
            {"protocol": "icmp", "action": "allow"},
        ],
        "default_action": "reject",
        "routing_table": [
            {"destination": "198.51.100.0/24", "via": format!("10.100.1.{router}")},
            {"destination": "2001:db8:51::/64", "via": format!("fd00:100:1::{router}")},
        ],
        "drain": {"timeout": "1s"},
    });
    for (key, value) in more.as_object().unwrap() {
        definition[key] = value.clone();
    }
    definition
}

/// The hub, its interface `own`, and the servers of the member behind it.
#[derive(Debug)]
pub struct Own {
    _server: Server,
    /// Everything around it.
    pub world: World,
}

impl Own {
    /// An interface that is known by what `known` says of it, has the first personality and knows the second.
    pub fn new(known: impl Fn(&World) -> Value) -> Self {
        let own = Self::bare();
        own.keep(&definition("open", OPEN_ONLY, 20, &json!({})));
        own.keep(&definition("shut", SHUT_ONLY, 21, &json!({})));
        let known = known(&own.world);
        own.enlist(&known, &json!({}));
        own
    }

    /// A world with the member and its servers, and no personality yet.
    pub fn bare() -> Self {
        let world = World::new(2);
        for host in [20, 21] {
            world.members[1].ip(&format!("address add 10.100.1.{host}/24 dev eth0"));
            world.members[1].ip(&format!("address add fd00:100:1::{host}/64 dev eth0"));
        }
        let server = world.members[1].serve(&[BOTH, OPEN_ONLY, SHUT_ONLY]);
        Self { _server: server, world }
    }

    /// Keeps a personality.
    #[track_caller]
    pub fn keep(&self, definition: &Value) {
        self.world.hub.send("POST", "/v1/personalities", definition).expect(201);
    }

    /// Gives the interface that is known by this its record, with further fields, and waits until it serves.
    #[track_caller]
    pub fn enlist(&self, known: &Value, more: &Value) {
        let mut record = json!({"name": "own", "interface": known, "personality": "open", "default": "open"});
        for (key, value) in more.as_object().unwrap() {
            record[key] = value.clone();
        }
        self.world.hub.send("POST", "/v1/interfaces", &record).expect(201);
        self.settles();
    }

    /// What the hub says of the interface.
    pub fn view(&self) -> Value {
        self.world.hub.get("/v1/interfaces/own").body
    }

    /// Packets dropped so far of the interface for a reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        let carrier = self.view()["persona"].as_str().unwrap().to_owned();
        self.world.dropped(&carrier, reason)
    }

    /// Waits until the interface has its personality and serves.
    #[track_caller]
    pub fn settles(&self) {
        wait_until("the interface is active", SOON, || {
            let view = self.view();
            view["state"] == "active" && view["operation"].is_null()
        });
        wait_until("the subnet behind it is reached", SOON, || {
            FAMILIES.iter().all(|v4| self.tcp(*v4, BOTH) == Answered)
        });
    }

    /// What a new connection from outside to the member feels like.
    pub fn tcp(&self, v4: bool, port: u16) -> Outcome {
        self.world.outside.tcp(member_at(1, v4), port, Duration::from_secs(1))
    }

    /// Switches and waits for the end.
    #[track_caller]
    pub fn switch(&self, to: &str) {
        self.world.hub.hubctl(&["personality", "switch", "own", to]).expect_success();
        self.settles();
    }
}
