//! Queues on interfaces: our HTB, known by its number `177:` and its default class, or our `fq`, known by its
//! number and its room.
//!
//! The HTB of somebody else, or any other queue that somebody made, is never listed and never replaced: a
//! put over it fails, and the hub, which sees it in its inventory, does not want queues there.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::Desired;
use crate::desired::queues::{Class, Queue, QueueKey, QueuePlace};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::kernel::queues::MAJOR;
use crate::model::{PersonaId, SegmentId};
use crate::reconcile::Table;

/// The queues of all interfaces.
pub struct Queues {
    netlink: Netlink,
    /// Indices of interfaces, as of the last listing.
    indices: BTreeMap<String, u32>,
    /// Interfaces with a root of ours, as of then.
    roots: BTreeSet<u32>,
}

impl Queues {
    /// The queues of the namespace that the socket belongs to.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink, indices: BTreeMap::new(), roots: BTreeSet::new() }
    }

    fn index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        match self.indices.get(name) {
            Some(index) => Ok(*index),
            None => self.netlink.index(name, format_args!("put queues on `{name}`")),
        }
    }
}

impl Table for Queues {
    type Key = QueueKey;
    type Value = Queue;
    type Found = Queue;
    type Error = NetlinkError;
    const NAME: &'static str = "queues";

    fn list(&mut self) -> Result<BTreeMap<QueueKey, Queue>, NetlinkError> {
        let all = self.netlink.queues()?;
        let names: BTreeMap<u32, String> =
            self.netlink.links()?.into_iter().map(|link| (link.index, link.name)).collect();
        self.roots =
            all.iter().filter(|queue| queue.is_root() && queue.is_ours()).map(|root| root.index).collect();
        self.indices = names.iter().map(|(index, name)| (name.clone(), *index)).collect();
        let mut found = BTreeMap::new();
        for root in all.iter().filter(|queue| queue.is_root() && queue.is_ours()) {
            let Some(name) = names.get(&root.index) else { continue };
            let key = |place| QueueKey { interface: name.clone(), place };
            if root.is_pacer() {
                found.insert(key(QueuePlace::Root), Queue::Pacer);
                continue;
            }
            found.insert(key(QueuePlace::Root), Queue::Root);
            for class in self.netlink.queue_classes(root.index)? {
                // What is no class of ours in our HTB is one all the same, and not wanted.
                let value =
                    class.class().unwrap_or(Class { parent: 0, rate_bps: 0, ceil_bps: 0, priority: 0 });
                found.insert(key(QueuePlace::Class(class.handle.minor)), Queue::Class(value));
            }
            let below = |queue: &&_| is_below(queue, root.index);
            for queue in all.iter().filter(below) {
                let fifo = queue.fifo().map_or(Queue::Root, Queue::Fifo);
                found.insert(key(QueuePlace::Fifo(queue.parent.minor)), fifo);
            }
        }
        Ok(found)
    }

    fn put(&mut self, key: &QueueKey, value: &Queue) -> Result<(), NetlinkError> {
        let index = self.index(&key.interface)?;
        let intent = format_args!("put {}", Self::describe(key));
        match (key.place, value) {
            (QueuePlace::Class(minor), Queue::Class(class)) => {
                self.netlink.put_class(index, minor, class, intent)
            }
            (QueuePlace::Fifo(minor), Queue::Fifo(fifo)) => self.netlink.put_fifo(index, minor, fifo, intent),
            (_, root) => {
                if self.roots.remove(&index) {
                    // Of the other kind: an earlier run had another engine.
                    self.netlink.delete_root(index, intent)?;
                }
                if *root == Queue::Pacer {
                    self.netlink.add_pacer(index, intent)
                } else {
                    self.netlink.add_root(index, intent)
                }
            }
        }
    }

    fn delete(&mut self, key: &QueueKey) -> Result<(), NetlinkError> {
        let Ok(index) = self.index(&key.interface) else {
            // The interface took its queues along.
            return Ok(());
        };
        let intent = format_args!("delete {}", Self::describe(key));
        match key.place {
            QueuePlace::Root => self.netlink.delete_root(index, intent),
            QueuePlace::Class(minor) => self.netlink.delete_class(index, minor, intent),
            // Goes with its class.
            QueuePlace::Fifo(_) => Ok(()),
        }
    }

    fn delete_all(&mut self, keys: &[QueueKey]) -> Vec<(QueueKey, NetlinkError)> {
        let roots: BTreeSet<&String> =
            keys.iter().filter(|key| key.place == QueuePlace::Root).map(|key| &key.interface).collect();
        // A root takes along what is below; classes go before those that they are below.
        let left =
            keys.iter().rev().filter(|key| key.place == QueuePlace::Root || !roots.contains(&key.interface));
        left.filter_map(|key| Some((key.clone(), self.delete(key).err()?))).collect()
    }

    fn holds(wanted: &Queue, found: &Queue) -> bool {
        match (wanted, found) {
            (Queue::Class(wanted), Queue::Class(found)) => {
                // The kernel counts in bytes, and only leaves have a priority.
                let rates = |class: &Class| (class.parent, class.rate_bps / 8, class.ceil_bps / 8);
                rates(wanted) == rates(found) && (wanted.priority == found.priority || wanted.parent <= 1)
            }
            _ => wanted == found,
        }
    }

    fn describe(key: &QueueKey) -> String {
        match key.place {
            QueuePlace::Root => format!("queue {MAJOR:x}: on `{}`", key.interface),
            QueuePlace::Class(minor) => format!("class {MAJOR:x}:{minor:x} on `{}`", key.interface),
            QueuePlace::Fifo(minor) => format!("fifo of class {MAJOR:x}:{minor:x} on `{}`", key.interface),
        }
    }
}

fn is_below(queue: &crate::kernel::queues::FoundQueue, index: u32) -> bool {
    queue.index == index && queue.parent.major == MAJOR && queue.parent.minor != 0
}

/// Whose a queue is.
pub fn owner(desired: &Desired, key: &QueueKey) -> Option<PersonaId> {
    let segment = SegmentId(key.place.segment()?);
    Some(desired.segments.get(&segment)?.persona.clone())
}
