//! A member whose interface has a personality, and another one to switch to: all parts of the two differ.
//!
//! Both allow [`BOTH`] and [`FREE`], and each a port of its own. Of both address families each has an address of its
//! own beside the one that both have, a route that makes it the source of packets to [`marked`], and a name server.

mod parts;
mod reboot;

use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::names::Names;
use super::traffic::Outcome::Answered;
use super::world::FAMILIES;
use super::{Answer, Server, World, wait_until};

pub use parts::Parts;

/// A port that both personalities let in.
pub const BOTH: u16 = 7_000;
/// A port that the first one lets in.
pub const OPEN_ONLY: u16 = 7_001;
/// A port that the second one lets in.
pub const SHUT_ONLY: u16 = 7_002;
/// A port that both let in and nobody serves: tests do.
pub const FREE: u16 = 7_003;
/// Another one.
pub const FREE_TOO: u16 = 7_004;
/// And another one.
pub const BULK: u16 = 7_005;
/// A switch takes no longer, unless checks fail.
pub const SWITCH: Duration = Duration::from_secs(20);

/// Lines of `hub.yaml`.
const SUBNETS: &str = "
subnets:
  front: {cidr: [10.20.0.0/24, \"fd00:20::/64\"], gateway: [10.20.0.1, \"fd00:20::1\"]}
";

/// One of the two personalities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first.
    Open,
    /// The second.
    Shut,
}

use Which::{Open, Shut};

impl Which {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Open => "open",
            Shut => "shut",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Open => Shut,
            Shut => Open,
        }
    }

    /// The port that only it lets in.
    pub const fn port(self) -> u16 {
        match self {
            Open => OPEN_ONLY,
            Shut => SHUT_ONLY,
        }
    }

    /// Another port that only it lets in, which nobody serves.
    pub const fn free(self) -> u16 {
        self.port() + 10
    }

    /// The address of a family that only it has.
    pub const fn address(self, v4: bool) -> &'static str {
        match (self, v4) {
            (Open, true) => "10.20.0.6",
            (Open, false) => "fd00:20::6",
            (Shut, true) => "10.20.0.7",
            (Shut, false) => "fd00:20::7",
        }
    }

    /// Its name server of a family.
    pub const fn server(self, v4: bool) -> &'static str {
        match (self, v4) {
            (Open, true) => "192.0.2.53",
            (Open, false) => "2001:db8:2::53",
            (Shut, true) => "192.0.2.54",
            (Shut, false) => "2001:db8:2::54",
        }
    }

    /// Its definition, with further fields put in or over.
    pub fn definition(self, more: &Value) -> Value {
        let ports = [BOTH, FREE, FREE_TOO, BULK, self.port(), self.free()];
        let own = FAMILIES.map(|v4| self.address(v4));
        let mut definition = json!({
            "name": self.name(),
            "ip_addresses": [
                "10.20.0.5/24", "fd00:20::5/64", format!("{}/24", own[0]), format!("{}/64", own[1]),
            ],
            "subnet_id": "front",
            "firewall_rules": [
                {"protocol": "tcp", "port": ports, "action": "allow"},
                {"protocol": "udp", "port": ports, "action": "allow"},
                {"protocol": "icmp", "action": "allow"},
            ],
            "default_action": "reject",
            "dns_servers": FAMILIES.map(|v4| self.server(v4)),
            "routing_table": [
                {"destination": "198.51.100.0/24", "via": "10.20.0.1", "source": own[0]},
                {"destination": "2001:db8:51::/64", "via": "fd00:20::1", "source": own[1]},
            ],
            "drain": {"timeout": "1s"},
        });
        for (key, value) in more.as_object().unwrap() {
            definition[key] = value.clone();
        }
        definition
    }
}

/// The address that both personalities have.
pub fn resource_at(v4: bool) -> IpAddr {
    if v4 { [10, 20, 0, 5].into() } else { "fd00:20::5".parse().unwrap() }
}

/// Where packets have the source that a personality's own route gives them.
pub const fn marked(v4: bool) -> &'static str {
    if v4 { "198.51.100.1" } else { "2001:db8:51::1" }
}

/// A hub and a member whose interface `web` has the personality `open`.
#[derive(Debug)]
pub struct Resource {
    server: Server,
    _names: Names,
    /// Everything around it.
    pub world: World,
}

impl Resource {
    /// A resource that has the first personality and knows the second.
    pub fn new() -> Self {
        Self::with("", &json!({}))
    }

    /// As [`Resource::new`], with further lines of `hub.yaml` and fields of the record.
    pub fn with(lines: &str, record: &Value) -> Self {
        let resource = Self::bare(lines);
        resource.keep(&Open.definition(&json!({})));
        resource.keep(&Shut.definition(&json!({})));
        resource.enlist(record);
        resource
    }

    /// A world with the servers of the resource, and no personality yet.
    pub fn bare(lines: &str) -> Self {
        let world = World::with(1, &format!("{SUBNETS}{lines}"));
        let servers = [Open, Shut].map(|which| FAMILIES.map(|v4| which.server(v4))).concat();
        for server in &servers {
            // Nobody who does not ask for it sends from there.
            let length = if server.contains(':') { "64 nodad" } else { "24" };
            world.outside.ip(&format!("address add dev eth0 {server}/{length} preferred_lft 0"));
        }
        let servers: Vec<IpAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
        let names = world.outside.names(&servers);
        let server = world.members[0].serve(&[BOTH, OPEN_ONLY, SHUT_ONLY]);
        Self { server, _names: names, world }
    }

    /// Keeps a personality.
    #[track_caller]
    pub fn keep(&self, definition: &Value) -> Value {
        self.world.hub.send("POST", "/v1/personalities", definition).expect(201)
    }

    /// Gives the member's interface its record, with further fields put in or over, and waits until it has its
    /// personality.
    #[track_caller]
    pub fn enlist(&self, more: &Value) {
        let mut record = json!({
            "name": "web", "interface": "eth0", "namespace": self.world.members[0].name(), "port": "seg0",
            "personality": "open", "default": "open",
        });
        for (key, value) in more.as_object().unwrap() {
            record[key] = value.clone();
        }
        self.world.hub.send("POST", "/v1/interfaces", &record).expect(201);
        self.settle();
        wait_until("the interface is served", SWITCH, || {
            FAMILIES.iter().all(|v4| self.tcp(*v4, BOTH) == Answered)
        });
    }

    /// What the hub says of the interface.
    pub fn view(&self) -> Value {
        self.world.hub.get("/v1/interfaces/web").body
    }

    /// The state of the interface.
    pub fn state(&self) -> String {
        self.view()["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Orders a switch, with further fields of the order.
    pub fn order(&self, to: &str, more: &Value) -> Answer {
        let mut order = more.clone();
        order["personality"] = to.into();
        self.world.hub.send("POST", "/v1/interfaces/web/switch", &order)
    }

    /// Switches, waits for the end, and says what the hub tells of it.
    #[track_caller]
    pub fn switch(&self, to: &str, more: &Value) -> Value {
        let began = self.order(to, more).expect(202);
        self.finish(began["id"].as_str().unwrap())
    }

    /// Waits until a switch is over; what became of it.
    #[track_caller]
    pub fn finish(&self, id: &str) -> Value {
        let mut last = Value::Null;
        wait_until("the switch is over", SWITCH * 3, || {
            last = self.world.hub.get(&format!("/v1/operations/{id}")).body;
            !last["outcome"].is_null()
        });
        last
    }

    /// Waits until no switch is under way.
    #[track_caller]
    pub fn settle(&self) {
        wait_until("no switch is under way", SWITCH * 3, || self.is_settled());
    }

    /// Whether the interface has a personality and is not given another one.
    pub fn is_settled(&self) -> bool {
        let view = self.view();
        ["active", "fallback"].iter().any(|state| view["state"] == *state) && view["operation"].is_null()
    }

    /// What became of switches, the last one first.
    pub fn journal(&self) -> Vec<Value> {
        let said = self.world.hub.hubctl(&["personality", "journal", "web", "--json"]).expect_success();
        let mut journal: Value = serde_json::from_str(&said).unwrap();
        let mut entries = std::mem::take(journal["entries"].as_array_mut().unwrap());
        entries.sort_by_key(|entry| std::cmp::Reverse(entry["id"].as_str().unwrap_or_default().to_owned()));
        entries
    }

    /// A connection from outside to one of its addresses, and its other end there.
    #[track_caller]
    pub fn pair(&self, there: IpAddr, port: u16) -> (TcpStream, TcpStream) {
        let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let listener = self.world.members[0].within(|| TcpListener::bind((any, port)).unwrap());
        let near = self.world.outside.connect(there, port);
        let (far, _) = listener.accept().unwrap();
        near.set_read_timeout(Some(SWITCH)).unwrap();
        far.set_read_timeout(Some(SWITCH)).unwrap();
        (near, far)
    }

    /// What a new connection to the resource feels like.
    pub fn tcp(&self, v4: bool, port: u16) -> super::Outcome {
        self.world.outside.tcp(resource_at(v4), port, Duration::from_secs(1))
    }
}

impl Default for Resource {
    fn default() -> Self {
        Self::new()
    }
}
