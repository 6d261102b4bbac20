//! The usual lab: members behind segment ports, a hub, and a host in the rest of the network.
//!
//! Member N lives at `10.100.N.10` and `fd00:100:N::10` behind port `segN`; the host outside at 192.0.2.10 and
//! `2001:db8:2::10` behind port `up0`. Gateways end in 1 and belong to the hub.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde_json::{Value, json};

use super::hub::{Config, Hub};
use super::space::Space;
use super::{Lab, Output, wait_until};

/// Address families of the tests that run over both.
pub const FAMILIES: [bool; 2] = [true, false];

/// Namespaces around one running hub.
#[derive(Debug)]
pub struct World {
    /// The daemon; ends before its namespaces.
    pub hub: Hub,
    /// The hub's namespace.
    pub router: Space,
    /// Member N behind port `segN`.
    pub members: Vec<Space>,
    /// The host outside, behind port `up0`.
    pub outside: Space,
    /// Everything else of the test.
    pub lab: Lab,
}

impl World {
    /// A hub with this many members and no persona.
    pub fn new(members: usize) -> Self {
        Self::with(members, "")
    }

    /// As [`World::new`], with further lines in `hub.yaml`.
    pub fn with(members: usize, lines: &str) -> Self {
        Self::build(members, "uplink", lines)
    }

    /// As [`World::new`], with a further line about `up0` in `hub.yaml`.
    pub fn with_uplink(members: usize, line: &str) -> Self {
        Self::build(members, &format!("uplink\n    {line}"), "")
    }

    fn build(members: usize, uplink_role: &str, lines: &str) -> Self {
        let mut lab = Lab::new();
        let (router, outside) = (lab.space("router"), lab.space("outside"));
        let prefixed = |address: IpAddr| format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 });
        let uplink = FAMILIES.map(|v4| prefixed(gateway_outside(v4)));
        let there = FAMILIES.map(|v4| prefixed(outside_at(v4)));
        router.wire(
            ("up0", &uplink.each_ref().map(String::as_str)),
            (&outside, "eth0", &there.each_ref().map(String::as_str)),
        );
        outside.ip_lines(&FAMILIES.map(|v4| format!("route add default via {}", gateway_outside(v4))));
        let mut config = Config::default().interface("up0", uplink_role);
        let mut spaces = Vec::new();
        for number in 0..members {
            let member = lab.space(&format!("member{number}"));
            let port = format!("seg{number}");
            let own = FAMILIES.map(|v4| prefixed(member_at(number, v4)));
            router.wire((&port, &[]), (&member, "eth0", &own.each_ref().map(String::as_str)));
            member.ip_lines(&FAMILIES.map(|v4| format!("route add default via {}", gateway(number, v4))));
            config = config.interface(&port, "segment");
            spaces.push(member);
        }
        let hub = lab.hub(&router, &config.with(lines));
        Self { hub, router, members: spaces, outside, lab }
    }

    /// The definition of member N's persona `pN`, with further fields put in or over.
    pub fn definition(number: usize, fields: &Value) -> Value {
        let mut definition = json!({
            "name": format!("p{number}"),
            "ip_range": [format!("10.100.{number}.0/24"), format!("fd00:100:{number}::/64")],
            "interfaces": [format!("seg{number}")],
        });
        for (key, value) in fields.as_object().unwrap() {
            definition[key] = value.clone();
        }
        definition
    }

    /// Queues of the first persona's ports, without counts and without the numbers that the kernel gives to leaves.
    pub fn queues(&self) -> String {
        self.router.sh("for dev in up0 seg0; do tc qdisc show dev $dev; tc class show dev $dev; done |
             sed -E 's/direct_packets_stat [0-9]+ //; s/(tbf|leaf) [0-9a-f]+:/\\1/; /^class tbf/d' | sort")
    }

    /// Gives a member the addresses and the gateways of another one.
    pub fn make_twin(&self, twin: usize, of: usize) {
        let member = &self.members[twin];
        member.ip("addr flush dev eth0 scope global");
        for v4 in FAMILIES {
            let length = if v4 { 24 } else { 64 };
            member.ip(&format!("addr add {}/{length} dev eth0 nodad", member_at(of, v4)));
            member.ip(&format!("route replace default via {}", gateway(of, v4)));
        }
    }

    /// Creates member N's persona and waits until it is active.
    #[track_caller]
    pub fn create(&self, number: usize, fields: &Value) -> Value {
        let view = self.hub.send("POST", "/v1/personas", &Self::definition(number, fields)).expect(201);
        self.active(&format!("p{number}"));
        view
    }

    /// Replaces member N's persona; when it returns, the kernel has the change.
    #[track_caller]
    pub fn replace(&self, number: usize, fields: &Value) -> Value {
        let definition = Self::definition(number, fields);
        self.hub.send("PUT", &format!("/v1/personas/p{number}"), &definition).expect(200)
    }

    /// Waits until a persona is active.
    #[track_caller]
    pub fn active(&self, name: &str) {
        wait_until(&format!("{name} is active"), Duration::from_secs(5), || {
            self.hub.get(&format!("/v1/personas/{name}")).body["state"] == "active"
        });
    }

    /// What the loaded program says about a packet, and whether `hubctl` exits as for one that passes.
    #[track_caller]
    pub fn why(&self, words: &str) -> (Value, bool) {
        let mut arguments = vec!["why", "--json"];
        arguments.extend(words.split_whitespace());
        let Output { stdout, stderr, status, .. } = self.hub.hubctl(&arguments);
        let said = serde_json::from_str(&stdout);
        let passes = status.is_some_and(|status| status.success());
        (said.unwrap_or_else(|_| panic!("hubctl {words}: {status:?}\n{stdout}{stderr}")), passes)
    }

    /// Packets dropped so far of a persona for a reason, both directions.
    pub fn dropped(&self, name: &str, reason: &str) -> u64 {
        let counters = self.hub.get(&format!("/v1/personas/{name}/counters")).expect(200);
        let drops = counters["drops"].as_array().unwrap();
        let fitting = drops.iter().filter(|drop| drop["reason"] == reason);
        fitting.map(|drop| drop["packets"].as_u64().unwrap()).sum()
    }

    /// Sum of a field over all hooks.
    pub fn total(&self, field: &str) -> u64 {
        let counters = self.hub.get("/v1/counters").expect(200);
        counters["hooks"].as_array().unwrap().iter().map(|hook| hook[field].as_u64().unwrap()).sum()
    }
}

/// Address of member N.
pub fn member_at(number: usize, v4: bool) -> IpAddr {
    at(number, 10, v4)
}

/// Address of the hub towards member N.
pub fn gateway(number: usize, v4: bool) -> IpAddr {
    at(number, 1, v4)
}

fn at(number: usize, host: u8, v4: bool) -> IpAddr {
    if v4 {
        Ipv4Addr::new(10, 100, number as u8, host).into()
    } else {
        let host = u16::from_str_radix(&host.to_string(), 16).unwrap();
        Ipv6Addr::new(0xfd00, 0x100, number as u16, 0, 0, 0, 0, host).into()
    }
}

/// Address of the host outside.
pub fn outside_at(v4: bool) -> IpAddr {
    if v4 {
        Ipv4Addr::new(192, 0, 2, 10).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10).into()
    }
}

/// Address of the hub towards the host outside.
pub fn gateway_outside(v4: bool) -> IpAddr {
    if v4 {
        Ipv4Addr::new(192, 0, 2, 1).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1).into()
    }
}

/// An address with a port, in brackets where IPv6 needs them.
pub fn with_port(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
