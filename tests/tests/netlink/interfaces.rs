//! Interfaces with a personality, in namespaces of resources: what is put, what is left alone, and how routes are
//! switched.

use std::collections::BTreeMap;
use std::time::Instant;

use hub_daemon::desired::Desired;
use hub_daemon::desired::interfaces::{
    INTERFACE_TABLE_BASE, Interface, InterfaceAddress, InterfaceRoute, InterfaceRouteKey, InterfaceVia,
    Place, RuleScope, Selector, Slot, through_gateway,
};
use hub_daemon::model::PersonaId;
use hub_daemon::reconcile::{Against, Report};
use hub_daemon::tables::interfaces::Interfaces;
use jiff::Timestamp;

use crate::lab::{Folder, Member, ip, lab, open, wait_until};

/// A resource with an interface towards the hub.
pub(crate) fn resource() -> Member {
    let red = Member::new();
    let path = red.namespace();
    let hub_daemon::desired::Namespace::Name(path) = path else { panic!("a name") };
    ip(&format!("link add hubred type veth peer name eth0 netns {path}"));
    ip("link set hubred up");
    ip("address add 10.1.0.1/24 dev hubred");
    ip("address add fd01::1/64 dev hubred nodad");
    inside(&red, "sysctl -qw net.ipv6.conf.eth0.accept_dad=0");
    inside(&red, "ip link set lo up");
    inside(&red, "ip link set eth0 up");
    wait_until("a carrier", || {
        let seen = inside(&red, "ip address show dev eth0");
        seen.contains("state UP") && seen.contains("fe80::") && !seen.contains("tentative")
    });
    red
}

#[track_caller]
pub(crate) fn inside(member: &Member, command: &str) -> String {
    let (done, output) = member.run(command);
    assert!(done, "{command}: {output}");
    output
}

pub(crate) fn interface(member: &Member, addresses: &[&str]) -> Interface {
    Interface {
        place: Place { namespace: Some(member.namespace()), selector: Selector::Name("eth0".into()) },
        made_at: Timestamp::UNIX_EPOCH,
        persona: PersonaId("red".into()),
        addresses: addresses.iter().map(|net| (net.parse().unwrap(), InterfaceAddress::default())).collect(),
        mtu: None,
        tables: [INTERFACE_TABLE_BASE + 2, INTERFACE_TABLE_BASE + 3],
        routes: [routes(addresses, &[]), BTreeMap::new()],
        live: Slot::A,
        scope: RuleScope::Everything,
        probed: false,
    }
}

/// Everything through the hub, from the first address of each family, and more routes.
pub(crate) fn routes(
    addresses: &[&str],
    more: &[(&str, InterfaceVia)],
) -> BTreeMap<InterfaceRouteKey, InterfaceRoute> {
    let gateways = ["10.1.0.1", "fd01::1"].map(|text| text.parse::<std::net::IpAddr>().unwrap());
    let mut routes = BTreeMap::new();
    for gateway in gateways {
        let nets = addresses.iter().map(|net| net.parse::<ipnet::IpNet>().unwrap().addr());
        let source = nets.into_iter().find(|address| address.is_ipv4() == gateway.is_ipv4());
        if source.is_some() {
            routes.extend(through_gateway(gateway, source));
        }
    }
    routes.extend(more.iter().map(|(target, via)| {
        let key = InterfaceRouteKey { target: target.parse().unwrap(), metric: 0 };
        (key, InterfaceRoute { via: via.clone(), source: None })
    }));
    routes
}

pub(crate) fn desired(interface: Interface) -> Desired {
    let interfaces = BTreeMap::from([("red-eth0".to_owned(), interface)]);
    Desired { interfaces, ..Desired::default() }
}

#[track_caller]
pub(crate) fn report(reports: &[Report]) -> Report {
    reports.iter().find(|report| report.table == "interfaces").unwrap().clone()
}

#[track_caller]
pub(crate) fn well(reports: &[Report]) -> (usize, usize, usize) {
    assert!(reports.iter().all(|report| report.failures.is_empty()), "{reports:?}");
    let report = report(reports);
    (report.put, report.deleted, report.drift)
}

/// Everything that the namespace knows of addresses and routes.
fn state(member: &Member) -> String {
    let ask = [
        "ip -details address",
        "ip route show table all",
        "ip -6 route show table all",
        "ip rule",
        "ip -6 rule",
    ];
    ask.map(|command| inside(member, command)).join("\n")
}

pub(crate) fn source_of(member: &Member, target: &str) -> String {
    inside(member, &format!("ip route get {target}"))
}

#[test]
fn an_interface_gets_addresses_and_routes_and_loses_them_again() {
    lab(|| {
        let (folder, red) = (Folder::new(), resource());
        inside(&red, "ip address add 192.0.2.9/24 dev eth0");
        inside(&red, "ip route add default via 192.0.2.1 dev eth0");
        inside(&red, "ip rule add from 192.0.2.9 lookup main priority 17712");
        let before = state(&red);
        let mut wanted = interface(&red, &["10.1.0.5/24", "fd01::5/64"]);
        wanted.mtu = Some(1400);
        let mut tables = open(&folder);
        let (put, deleted, _) = well(&tables.apply(&desired(wanted.clone())));
        // Two addresses, a size, four routes, four rules of each family.
        assert_eq!((put, deleted), (2 + 1 + 4 + 8, 0));
        let addresses = inside(&red, "ip -details address show dev eth0");
        assert!(addresses.contains("mtu 1400") && addresses.contains("10.1.0.5/24"), "{addresses}");
        assert!(source_of(&red, "203.0.113.7").contains("via 10.1.0.1 dev eth0"));
        assert!(source_of(&red, "10.1.0.77").contains("via 10.1.0.1"), "neighbours are behind the hub");
        assert!(source_of(&red, "fd02::7").contains("via fd01::1 dev eth0"));
        inside(&red, "ping -c 1 -W 2 10.1.0.1");
        inside(&red, "ping -c 1 -W 2 fd01::1");

        assert_eq!(well(&tables.apply(&desired(wanted.clone()))), (0, 0, 0), "nothing to do");
        assert_eq!(well(&open(&folder).apply(&desired(wanted))), (0, 0, 0), "found again after a restart");
        let reports = open(&folder).apply(&Desired::default());
        assert_eq!(well(&reports).1, 2 + 1 + 4 + 8);
        assert_eq!(state(&red), before, "what others put stays, sizes come back");
    });
}

#[test]
fn what_somebody_takes_away_comes_back() {
    lab(|| {
        let (folder, red) = (Folder::new(), resource());
        let wanted = desired(interface(&red, &["10.1.0.5/24", "fd01::5/64"]));
        let mut tables = open(&folder);
        well(&tables.apply(&wanted));
        // The kernel makes the route to an IPv6 address a moment after the address.
        wait_until("the address", || state(&red).contains("local fd01::5"));
        let before = state(&red);
        inside(&red, "ip address del 10.1.0.5/24 dev eth0");
        inside(&red, &format!("ip -6 route del default table {}", INTERFACE_TABLE_BASE + 2));
        inside(&red, "ip rule del priority 17714");
        // The routes from the address went with it.
        let (put, deleted, drift) = well(&tables.apply(&wanted));
        assert_eq!((put, deleted, drift), (5, 0, 5));
        assert_eq!(state(&red), before);
    });
}

#[test]
fn a_flip_changes_one_rule_and_never_mixes_slots() {
    lab(|| {
        for (family, gateway, own, blackhole, others) in [
            (
                "-4",
                "10.1.0.1",
                ["10.1.0.5/24", "10.1.0.6/24"],
                "198.51.100.0/24",
                ["203.0.113.7", "198.51.100.7"],
            ),
            (
                "-6",
                "fd01::1",
                ["fd01::5/64", "fd01::6/64"],
                "2001:db8:51::/64",
                ["2001:db8:9::7", "2001:db8:51::7"],
            ),
        ] {
            let (folder, red) = (Folder::new(), resource());
            let host = own.map(|address| address.split_once('/').unwrap().0);
            let mut wanted = interface(&red, &own);
            wanted.routes[0] = routes(&own[..1], &[(blackhole, InterfaceVia::Blackhole)]);
            // The second slot has no route to most of the world: packets must not fall to the first slot's.
            let to_hub = through_gateway(gateway.parse().unwrap(), Some(host[1].parse().unwrap()));
            wanted.routes[1] = to_hub.into_iter().take(1).collect();
            let mut tables = Interfaces::new(folder.path());
            let mut pass = |desired: &Desired, against| {
                tables.prepare(desired, against);
                tables.flip_all(desired);
                tables.retire(desired);
                let report = tables.report();
                assert_eq!(report.failures, []);
                (report.put, report.deleted)
            };
            let list = || inside(&red, &format!("ip {family} rule"));
            let leaves_from = |host: &str| source_of(&red, gateway).contains(&format!("src {host} "));
            pass(&desired(wanted.clone()), Against::Kernel);
            assert!(leaves_from(host[0]));
            let rules = list();

            wanted.live = Slot::B;
            assert_eq!(pass(&desired(wanted.clone()), Against::Memory), (1, 0), "one rule comes");
            let with_switch = list();
            assert_eq!(with_switch.lines().count(), rules.lines().count() + 1, "{with_switch}");
            assert!(leaves_from(host[1]));
            for target in others {
                let (found, said) = red.run(&format!("ip route get {target}"));
                assert!(
                    !found && said.contains("unreachable"),
                    "{target} would leave by the other slot: {said}"
                );
            }
            wanted.live = Slot::A;
            assert_eq!(pass(&desired(wanted.clone()), Against::Memory).0, 1, "one rule goes");
            assert_eq!(list(), rules);

            // A restart finds the slot that is in use.
            wanted.live = Slot::B;
            pass(&desired(wanted.clone()), Against::Memory);
            let mut again = Interfaces::new(folder.path());
            again.prepare(&desired(wanted.clone()), Against::Kernel);
            again.flip_all(&desired(wanted.clone()));
            again.retire(&desired(wanted));
            let report = again.report();
            assert_eq!((report.put, report.deleted, report.failures), (0, 0, vec![]));
            let begun = Instant::now();
            for _ in 0..100 {
                again.flip("red-eth0", Slot::A).unwrap();
                again.flip("red-eth0", Slot::B).unwrap();
            }
            eprintln!("flip {family}: {:?}", begun.elapsed() / 200);
            assert_eq!(list(), with_switch);
            ip("link delete hubred");
        }
    });
}

#[test]
fn an_address_makes_room_for_another_while_both_are_there() {
    lab(|| {
        let (folder, red) = (Folder::new(), resource());
        let old = interface(&red, &["10.1.0.5/24", "fd01::5/64"]);
        let mut tables = open(&folder);
        well(&tables.apply(&desired(old.clone())));
        // Somebody else's address is in the same range, behind ours.
        inside(&red, "ip address add 10.1.0.200/24 dev eth0");
        let mut both = interface(&red, &["10.1.0.5/24", "10.1.0.6/24", "fd01::5/64", "fd01::6/64"]);
        both.routes[0] = old.routes[0].clone();
        both.routes[1] = routes(&["10.1.0.6/24", "fd01::6/64"], &[]);
        for (net, address) in &mut both.addresses {
            let is_new = net.addr().to_string().ends_with('6');
            *address = InterfaceAddress { deprecated: is_new, ..InterfaceAddress::default() };
        }
        well(&tables.apply(&desired(both.clone())));
        let deprecated = |address: &str| {
            let list = inside(&red, "ip -details -oneline address show dev eth0");
            let line = list.lines().find(|line| line.contains(address)).unwrap_or_default().to_owned();
            (!line.is_empty()).then(|| line.contains("deprecated"))
        };
        let states = || ["10.1.0.5/24", "10.1.0.6/24", "fd01::5/64", "fd01::6/64"].map(deprecated);
        assert_eq!(states(), [Some(false), Some(true), Some(false), Some(true)]);
        assert!(source_of(&red, "fd02::7").contains("src fd01::5"));

        both.live = Slot::B;
        for (net, address) in &mut both.addresses {
            address.deprecated = net.addr().to_string().ends_with('5');
        }
        well(&tables.apply(&desired(both.clone())));
        assert_eq!(states(), [Some(true), Some(false), Some(true), Some(false)]);
        assert!(source_of(&red, "fd02::7").contains("src fd01::6"));
        assert!(source_of(&red, "203.0.113.7").contains("src 10.1.0.6"));

        both.addresses.retain(|net, _| net.addr().to_string().ends_with('6'));
        both.routes[0].clear();
        well(&tables.apply(&desired(both)));
        assert_eq!(states(), [None, Some(false), None, Some(false)]);
        let foreign = inside(&red, "ip -oneline address show dev eth0");
        assert!(foreign.contains("10.1.0.200/24"), "an address of others in the same range stays: {foreign}");
        inside(&red, "ping -c 1 -W 2 10.1.0.1");
    });
}

#[test]
fn failures_are_told_of_their_persona_and_hold_up_nobody_else() {
    lab(|| {
        let (folder, red, blue) = (Folder::new(), resource(), Member::new());
        let mut wanted = desired(interface(&red, &["10.1.0.5/24"]));
        let mut missing = interface(&blue, &["10.1.0.5/24"]);
        missing.persona = PersonaId("blue".into());
        wanted.interfaces.insert("blue-eth0".into(), missing);
        let mut gone = interface(&red, &["10.1.0.7/24"]);
        gone.place.namespace = Some(hub_daemon::desired::Namespace::Name("nowhere-at-all".into()));
        gone.persona = PersonaId("gone".into());
        wanted.interfaces.insert("gone-eth0".into(), gone);
        let report = report(&open(&folder).apply(&wanted));
        let faults = hub_daemon::reconcile::faults(&[report]);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert_eq!(faults[&PersonaId("blue".into())], ["there is no interface `eth0`"]);
        assert!(faults[&PersonaId("gone".into())][0].starts_with("open network namespace"), "{faults:?}");
        inside(&red, "ping -c 1 -W 2 10.1.0.1");
    });
}

#[test]
fn an_interface_of_the_hubs_own_lives_beside_personas() {
    lab(|| {
        let folder = Folder::new();
        ip("link add lan0 type veth peer name lan1");
        ip("link set lan0 up");
        ip("link set lan1 up");
        ip("address add 192.0.2.5/24 dev lan0");
        ip("link property add dev lan0 altname office");
        wait_until("carriers", || {
            let seen = ip("address");
            seen.matches("state UP").count() == 2
                && seen.matches("fe80::").count() == 2
                && !seen.contains("tentative")
        });
        let mut own = interface(&Member::new(), &["10.1.0.5/24"]);
        own.place = Place { namespace: None, selector: Selector::AltName("office".into()) };
        own.scope = RuleScope::FromAddresses;
        own.routes[1] = routes(&["10.1.0.5/24"], &[("203.0.113.0/24", InterfaceVia::Prohibit)]);
        let mut wanted = desired(own);
        let persona = hub_daemon::desired::Rule {
            priority: 17_700,
            source: "10.9.0.0/24".parse().unwrap(),
            table: 17_700_001,
        };
        wanted.rules.insert(persona);
        let mut tables = open(&folder);
        well(&tables.apply(&wanted));
        let all = || [ip("address"), ip("route show table all"), ip("rule")];
        let before = all();
        assert_eq!(well(&tables.apply(&wanted)), (0, 0, 0));
        assert_eq!(all(), before, "no other table takes it for an orphan");
        assert_eq!(tables.orphans(&wanted), [""; 0]);
        assert!(ip("route get 203.0.113.7 from 10.1.0.5").contains("via 10.1.0.1 dev lan0"));
        assert!(ip("route get 192.0.2.9").contains("dev lan0 src 192.0.2.5"), "nobody else's packets");
        assert_eq!(tables.orphans(&Desired::default()).len(), 1 + 4 + 5 + 1);

        let teardown = open(&folder).teardown();
        assert_eq!(teardown.failures, []);
        assert!(teardown.removed.contains(&"address 10.1.0.5/24 on lan0".to_owned()), "{teardown:?}");
        assert!(!ip("rule").contains("177"), "{}", ip("rule"));
        assert!(ip("address show dev lan0").contains("192.0.2.5/24"));
    });
}

#[test]
fn teardown_finds_namespaces_that_it_is_not_told_of() {
    lab(|| {
        let (folder, red) = (Folder::new(), resource());
        let before = state(&red);
        well(&open(&folder).apply(&desired(interface(&red, &["10.1.0.5/24", "fd01::5/64"]))));
        assert_ne!(state(&red), before);
        let teardown = open(&folder).teardown();
        assert_eq!((teardown.failures, teardown.removed.len()), (vec![], 2 + 4 + 8));
        assert_eq!(state(&red), before);
        assert_eq!(open(&folder).teardown().removed, [""; 0]);
    });
}
