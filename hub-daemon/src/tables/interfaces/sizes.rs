//! Largest packets of interfaces, and what they were before.

use super::memory::Memory;
use super::outcome::Outcome;
use super::space::Space;

impl Space {
    pub(super) fn put_mtus(&mut self, memory: &mut Memory, outcome: &mut Outcome) {
        for (index, mtu) in &self.wanted.mtus {
            let Some(link) = self.held.links.iter().find(|link| link.index == *index) else { continue };
            if link.mtu == *mtu {
                continue;
            }
            let record = self.wanted.owners.get(index).map_or("", String::as_str);
            if let Err(error) = memory.keep_mtu(self.name.as_ref(), &link.name, Some(link.mtu)) {
                outcome.fail(record, error);
                continue;
            }
            let intent = format_args!("set the largest packet of `{}` to {mtu} bytes", link.name);
            let result = self.netlink.set_mtu(*index, *mtu, intent);
            outcome.count(record, result);
        }
    }

    pub(super) fn restore_mtus(&mut self, memory: &mut Memory, outcome: &mut Outcome) {
        let kept = match memory.mtus(self.name.as_ref()) {
            Ok(kept) => kept,
            Err(error) => return outcome.failures.push((None, error.into())),
        };
        for (name, mtu) in kept {
            let link = self.held.links.iter().find(|link| link.name == name);
            if link.is_some_and(|link| self.wanted.mtus.contains_key(&link.index)) {
                continue;
            }
            if let Some(link) = link {
                let intent = format_args!("set the largest packet of `{name}` back to {mtu} bytes");
                let result = self.netlink.set_mtu(link.index, mtu, intent);
                outcome.delete(self.placed(format!("size of packets of {name}")), result);
            }
            if let Err(error) = memory.keep_mtu(self.name.as_ref(), &name, None) {
                outcome.failures.push((None, error.into()));
            }
        }
    }
}
