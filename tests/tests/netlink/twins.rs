//! Interfaces that two records mean: one has it, and the other touches nothing.

use hub_daemon::desired::Desired;
use hub_daemon::desired::interfaces::{RuleScope, Selector};
use hub_daemon::model::PersonaId;
use hub_daemon::tables::network::Network;
use jiff::Timestamp;

use crate::interfaces::{desired, inside, interface, report, resource, routes, well};
use crate::lab::{Folder, lab, open};

#[test]
fn an_interface_that_two_records_mean_is_of_one_and_the_other_touches_nothing_until_it_means_another() {
    lab(|| {
        let (folder, red) = (Folder::new(), resource());
        inside(&red, "ip link set dev eth0 address 02:00:00:00:00:10");
        inside(&red, "ip link property add dev eth0 altname uplink");
        let mut first = interface(&red, &["10.1.0.5/24", "fd01::5/64"]);
        first.place.selector = Selector::AltName("uplink".into());
        let mut second = interface(&red, &["10.1.0.6/24", "fd01::6/64"]);
        second.place.selector = Selector::Mac([2, 0, 0, 0, 0, 0x10]);
        second.persona = PersonaId("twin".into());
        second.made_at = Timestamp::from_second(1).unwrap();
        second.mtu = Some(1_400);
        second.tables = second.tables.map(|table| table + 2);
        second.routes[0] = routes(&["10.1.0.6/24", "fd01::6/64"], &[]);
        for each in [&mut first, &mut second] {
            each.scope = RuleScope::FromAddresses;
        }
        let mut wanted = desired(first);
        // By its name it comes before the other.
        wanted.interfaces.insert("a-twin".into(), second);
        let holds = || {
            ["address show dev eth0", "link show dev eth0", "rule", "-6 rule"]
                .map(|of| inside(&red, &format!("ip {of}")))
                .join("\n")
        };
        let untouched = |what: &str| {
            let held = holds();
            for word in ["10.1.0.6", "fd01::6", "mtu 1400"] {
                assert!(!held.contains(word), "{what}: {held}");
            }
            assert!(held.contains("10.1.0.5/24") && held.contains("fd01::5/64"), "{what}: {held}");
        };
        let mut tables = open(&folder);
        let refused = |tables: &mut Network, wanted: &Desired| {
            let found = report(&tables.apply(wanted));
            let [failure] = found.failures.as_slice() else { panic!("{found:?}") };
            let said = "`eth0` is the interface of record `red-eth0` already: have one of the two records mean another \
                        one, or delete it";
            assert_eq!(
                (failure.error.as_str(), failure.persona.as_ref().unwrap().0.to_string()),
                (said, "twin".to_owned())
            );
        };
        refused(&mut tables, &wanted);
        untouched("made at once");
        // Who has addresses there keeps it over a restart, whoever was made first.
        drop(tables);
        wanted.interfaces.get_mut("a-twin").unwrap().made_at = Timestamp::from_second(-1).unwrap();
        let mut tables = open(&folder);
        refused(&mut tables, &wanted);
        untouched("after a restart");

        // The other name goes to another link: what it meant is free for the other record.
        inside(&red, "ip link property del dev eth0 altname uplink");
        inside(&red, "ip link add uplink type veth peer name far");
        inside(&red, "ip link set uplink up");
        wanted.interfaces.get_mut("red-eth0").unwrap().place.selector = Selector::Name("uplink".into());
        wanted.interfaces.get_mut("red-eth0").unwrap().routes = Default::default();
        well(&tables.apply(&wanted));
        well(&tables.apply(&wanted));
        let held = holds();
        assert!(
            held.contains("10.1.0.6/24") && held.contains("fd01::6/64") && held.contains("mtu 1400"),
            "{held}"
        );
        assert!(!inside(&red, "ip address show dev eth0").contains("10.1.0.5"), "{held}");
    });
}
