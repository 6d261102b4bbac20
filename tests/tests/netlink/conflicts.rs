//! Addresses that somebody else has: what is not put, and who is named.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hub_daemon::desired::Desired;
use hub_daemon::desired::interfaces::Selector;
use hub_daemon::model::PersonaId;

use crate::interfaces::{desired, inside, interface, report, resource, routes, well};
use crate::lab::{Folder, Member, ip, lab, open, wait_until};

/// Links of one namespace that are asked on.
const LINKS: u8 = 50;
/// What asking on one of them takes.
const ONE: Duration = Duration::from_millis(300);

#[test]
fn an_address_that_somebody_else_has_is_not_put_and_its_owner_is_named() {
    lab(|| {
        let (folder, red) = (Folder::new(), resource());
        ip("link set dev hubred address 02:00:00:00:00:77");
        ip("address add 10.1.0.6/24 dev hubred");
        ip("address add fd01::6/64 dev hubred nodad");
        let mut wanted = interface(&red, &["10.1.0.5/24", "10.1.0.6/24", "fd01::5/64", "fd01::6/64"]);
        wanted.routes[0] = routes(&["10.1.0.5/24", "fd01::5/64"], &[]);
        let wanted = desired(wanted);
        let mut tables = open(&folder);
        let report = report(&tables.apply(&wanted));
        let said = |n: usize| (report.failures[n].error.as_str(), report.failures[n].persona.clone());
        let red_persona = Some(PersonaId("red".into()));
        assert_eq!(
            [said(0), said(1)],
            [
                (
                    "put address 10.1.0.6/24 on `eth0`: 02:00:00:00:00:77 on the same link has it",
                    red_persona.clone()
                ),
                ("put address fd01::6/64 on `eth0`: 02:00:00:00:00:77 on the same link has it", red_persona),
            ]
        );
        assert_eq!(report.failures.len(), 2, "{report:?}");
        let addresses = inside(&red, "ip -oneline address show dev eth0");
        assert!(addresses.contains("10.1.0.5/24") && addresses.contains("fd01::5/64"), "{addresses}");
        assert!(!addresses.contains("10.1.0.6") && !addresses.contains("fd01::6"), "{addresses}");
        // The owner is gone.
        ip("address del 10.1.0.6/24 dev hubred");
        ip("address del fd01::6/64 dev hubred");
        well(&tables.apply(&wanted));
        assert!(inside(&red, "ip -oneline address show dev eth0").contains("10.1.0.6/24"));
    });
}

/// A namespace with many interfaces, each with an address of either family that is wanted.
fn many() -> (Member, Desired) {
    let red = Member::new();
    let hub_daemon::desired::Namespace::Name(path) = red.namespace() else { panic!("a name") };
    let mut interfaces = BTreeMap::new();
    for number in 0..LINKS {
        ip(&format!("link add hub{number} type veth peer name eth{number} netns {path}"));
        ip(&format!("link set hub{number} up"));
        inside(&red, &format!("ip link set eth{number} up"));
        let mut wanted = interface(&red, &[&format!("10.1.{number}.5/24"), &format!("fd01:{number}::5/64")]);
        wanted.place.selector = Selector::Name(format!("eth{number}"));
        wanted.persona = PersonaId(format!("red{number}").into());
        wanted.tables = wanted.tables.map(|table| table + 2 * u32::from(number));
        wanted.routes = Default::default();
        wanted.scope = hub_daemon::desired::interfaces::RuleScope::Nothing;
        interfaces.insert(format!("red-eth{number}"), wanted);
    }
    wait_until("carriers", || {
        inside(&red, "ip -oneline link show up").matches("state UP").count() == usize::from(LINKS)
    });
    (red, Desired { interfaces, ..Desired::default() })
}

#[test]
fn all_links_are_asked_at_once_and_none_where_addresses_are_there() {
    lab(|| {
        let (folder, (red, wanted)) = (Folder::new(), many());
        ip("link set dev hub7 address 02:00:00:00:00:77");
        ip("address add 10.1.7.5/24 dev hub7");
        ip("link set dev hub8 address 02:00:00:00:00:88");
        ip("address add fd01:8::5/64 dev hub8 nodad");
        let mut tables = open(&folder);
        let begun = Instant::now();
        let found = report(&tables.apply(&wanted));
        let took = begun.elapsed();
        let mut said: Vec<_> =
            found.failures.iter().map(|failure| (failure.error.clone(), failure.persona.clone())).collect();
        said.sort();
        let of = |number: u8| Some(PersonaId(format!("red{number}").into()));
        assert_eq!(
            said,
            [
                (
                    "put address 10.1.7.5/24 on `eth7`: 02:00:00:00:00:77 on the same link has it".into(),
                    of(7)
                ),
                (
                    "put address fd01:8::5/64 on `eth8`: 02:00:00:00:00:88 on the same link has it".into(),
                    of(8)
                ),
            ]
        );
        assert!(took >= ONE && took < ONE * u32::from(LINKS) / 3, "{took:?}");
        let addresses = || inside(&red, "ip -oneline address show");
        let put =
            addresses().lines().filter(|line| line.contains(".5/24") || line.contains("::5/64")).count();
        assert_eq!(put, 2 * usize::from(LINKS) - 2, "all others go on");
        drop(tables);

        // Another daemon finds them there: it asks about the two that are not.
        ip("address del 10.1.7.5/24 dev hub7");
        ip("address del fd01:8::5/64 dev hub8");
        let mut tables = open(&folder);
        well(&tables.apply(&wanted));
        assert!(addresses().contains("10.1.7.5/24") && addresses().contains("fd01:8::5/64"));
        drop(tables);
        // Somebody takes an address that is there: a restart asks nobody, and finds nothing wrong.
        ip("address add 10.1.9.5/24 dev hub9");
        ip("address add fd01:9::5/64 dev hub9 nodad");
        assert_eq!(well(&open(&folder).apply(&wanted)), (0, 0, 0));
    });
}
