//! Documents of the scripts of switches.

use super::*;

/// What tells personality `number` from others in every table: rule, address, server, route, tunnel.
pub(super) fn personality(number: u8, more: Value) -> Value {
    let wanted = json!({
        "name": format!("p{number}"),
        "subnet_id": "lan",
        "ip_addresses": [format!("10.20.0.{}/24", 10 + number)],
        "firewall_rules": [{"protocol": "tcp", "port": 8000 + u32::from(number), "action": "allow"}],
        "dns_servers": [format!("10.20.0.{}", 100 + number)],
        "routing_table": [{"destination": "default", "via": format!("10.20.0.{}", 200 + number)}],
        "vpn_tunnel_config": {"interface": format!("wg{number}"), "private_key_file": "/etc/hub/wg.key",
            "peers": [{"public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "allowed_ips": ["10.9.0.0/16"]}]},
    });
    with(wanted, more)
}

/// Personality `personality` for interface `interface`: `p1-2` is the second of the first interface.
pub(super) fn of_interface(interface: u8, number: u8, more: Value) -> Value {
    let own = json!({
        "name": format!("p{interface}-{number}"),
        "subnet_id": format!("lan{interface}"),
        "ip_addresses": [format!("10.2{interface}.1.{}/24", 10 + number)],
        "vpn_tunnel_config": {"interface": format!("wg{interface}{number}"),
            "private_key_file": "/etc/hub/wg.key",
            "peers": [{"public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "allowed_ips": ["10.9.0.0/16"]}]},
    });
    with(with(personality(number, json!({})), own), more)
}

pub(super) fn config() -> Config {
    let mut config = Config::default();
    let subnet = |prefix: &str, gateway: &str| crate::model::subnet::Subnet {
        prefixes: vec![prefix.parse().unwrap()],
        gateways: vec![gateway.parse().unwrap()],
        vlan: None,
        persona: None,
    };
    config.subnets.insert("lan".into(), subnet("10.20.0.0/24", "10.20.0.1"));
    for number in 0..4 {
        let (prefix, gateway) = (format!("10.2{number}.1.0/24"), format!("10.2{number}.1.1"));
        config.subnets.insert(format!("lan{number}"), subnet(&prefix, &gateway));
    }
    config
}

/// Has the hub refuse every personality of the first interface, because its subnet is elsewhere; or no longer.
pub(super) fn forbid(hub: &mut switch::Switching, is_forbidden: bool) {
    let subnet = hub.script.hub.config.subnets.get_mut("lan0").expect("it is in the configuration");
    subnet.vlan = is_forbidden.then_some(7);
}
