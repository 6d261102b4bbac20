//! How far addresses of an interface with a personality are known.

use hub_daemon::desired::interfaces::AddressScope;

use crate::interfaces::{desired, inside, interface, resource, source_of, well};
use crate::lab::{Folder, lab, open};

#[test]
fn an_address_is_known_as_far_as_it_is_said() {
    lab(|| {
        let (folder, red) = (Folder::new(), resource());
        // The kernel has one scope for all addresses of a network.
        let mut wanted = interface(&red, &["10.1.0.5/24", "10.1.0.6/24", "fd01::5/64"]);
        let mut tables = open(&folder);
        let scopes = || {
            let list = inside(&red, "ip -oneline address show dev eth0");
            ["10.1.0.5/24", "10.1.0.6/24", "fd01::5/64"].map(|address| {
                let line = list.lines().find(|line| line.contains(address)).unwrap_or_default();
                line.split("scope ").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned)
            })
        };
        for (scope, word) in
            [(AddressScope::Global, "global"), (AddressScope::Link, "link"), (AddressScope::Host, "host")]
        {
            for address in wanted.addresses.values_mut() {
                address.scope = scope;
            }
            well(&tables.apply(&desired(wanted.clone())));
            assert_eq!(scopes(), [word, word, "global"].map(|word| Some(word.to_owned())));
            assert!(source_of(&red, "203.0.113.7").contains("src 10.1.0.5"), "the route of its source stays");
            assert_eq!(well(&tables.apply(&desired(wanted.clone()))), (0, 0, 0), "it is as it is to be");
        }
    });
}
