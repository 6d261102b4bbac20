//! What a pass over interfaces did, and what went wrong.

use std::io;

use ipnet::IpNet;

use super::memory::MemoryError;
use crate::kernel::links::SelectError;
use crate::kernel::namespace::NamespaceError;
use crate::kernel::netlink::NetlinkError;

/// Why something of an interface could not be put or removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InterfaceError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// There is no such interface, or more than one.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// What was there before cannot be remembered.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Another record is about the same interface.
    #[error(
        "`{interface}` is the interface of record `{owner}` already: have one of the two records mean another one, or \
         delete it"
    )]
    Twin {
        /// The interface.
        interface: String,
        /// The record that has it.
        owner: String,
    },
    /// Somebody else has an address.
    #[error("put address {address} on `{interface}`: {mac} on the same link has it")]
    Conflict {
        /// The address.
        address: IpNet,
        /// The interface.
        interface: String,
        /// Who answered.
        mac: String,
    },
    /// Nobody could be asked for an address.
    #[error("ask on `{interface}` who has its addresses: {source}")]
    Probe {
        /// The interface.
        interface: String,
        /// Why not.
        source: io::Error,
    },
}

/// What went on in a pass: how much was put and deleted, and what could not be, by record.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) put: usize,
    pub(super) deleted: usize,
    pub(super) failures: Vec<(Option<String>, InterfaceError)>,
    /// What was deleted, in words.
    pub(super) removed: Vec<String>,
}

impl Outcome {
    pub(super) fn fail(&mut self, record: &str, error: impl Into<InterfaceError>) {
        self.failures.push((Some(record.to_owned()), error.into()));
    }

    pub(super) fn count(&mut self, record: &str, result: Result<(), NetlinkError>) {
        match result {
            Ok(()) => self.put += 1,
            Err(error) => self.fail(record, error),
        }
    }

    pub(super) fn delete(&mut self, object: String, result: Result<(), NetlinkError>) {
        match result {
            Ok(()) => {
                self.deleted += 1;
                self.removed.push(object);
            }
            Err(error) => self.failures.push((None, error.into())),
        }
    }
}
