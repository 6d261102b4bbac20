//! Records that turn out to mean one interface, by its name, its MAC or another name: one of them has it.
//!
//! The hub cannot see that of records in namespaces of others before it looks there. Who has addresses on the interface
//! keeps it, else who was made first; of the others nothing is put, and what was put is taken away, until they mean
//! another one.

use std::collections::BTreeMap;

use super::outcome::InterfaceError;
use super::space::Space;
use crate::desired::INTERFACE_PROTOCOL;
use crate::desired::interfaces::Interface;
use crate::kernel::links::{FoundLink, select};

impl Space {
    /// The link of each record, or why it has none.
    pub(super) fn links<'a>(
        &self,
        records: &BTreeMap<&'a str, &Interface>,
    ) -> BTreeMap<&'a str, Result<FoundLink, InterfaceError>> {
        let mut links = BTreeMap::new();
        let mut owners: BTreeMap<u32, Vec<&'a str>> = BTreeMap::new();
        for (record, interface) in records {
            let link = select(&self.held.links, &interface.place.selector);
            if let Ok(link) = link {
                owners.entry(link.index).or_default().push(record);
            }
            links.insert(*record, link.cloned().map_err(InterfaceError::from));
        }
        for (index, mut those) in owners {
            those.sort_by_key(|record| {
                let interface = records.get(record);
                (
                    interface.is_none_or(|interface| !self.has(index, interface)),
                    interface.map(|it| it.made_at),
                    *record,
                )
            });
            let Some((owner, others)) = those.split_first() else { continue };
            for other in others {
                let Some(Ok(link)) = links.get(other) else { continue };
                let (interface, owner) = (link.name.clone(), (*owner).to_owned());
                links.insert(*other, Err(InterfaceError::Twin { interface, owner }));
            }
        }
        links
    }

    /// Whether an address of an interface is on a link already, put by the hub.
    fn has(&self, index: u32, interface: &Interface) -> bool {
        let mut there = interface.addresses.keys().filter_map(|net| self.held.addresses.get(&(index, *net)));
        there.any(|found| found.protocol == INTERFACE_PROTOCOL)
    }
}
