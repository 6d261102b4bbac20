//! Labs with real network stacks at both ends, for bulk TCP and for latency. Without the hub in XDP: local
//! stacks leave checksums to the device, and the hub keeps XDP off such ports by itself.

use std::path::Path;

use anyhow::Result;

use super::{
    hub::{Hook, Hub},
    lab::{Families, Lab, Personas, Tracking},
    place::{Files, Kind, rules},
};
use crate::say::say;

/// The policy between the stacks.
pub(super) const PERSONAS: Personas =
    Personas { count: 1, rules: 10, families: Families::V4, tracking: Tracking::All };

/// A contender between two real stacks. Fields go in this order: the daemon before its interfaces.
#[derive(Debug)]
pub(super) struct Stacks {
    pub(super) title: &'static str,
    pub(super) kind: Kind,
    pub(super) hub: Option<Hub>,
    lab: Lab,
}

impl Stacks {
    /// Everything that is compared.
    pub(super) fn all(files: &Files) -> Result<Vec<Self>> {
        [
            ("kernel forwarding", "s-kernel", Kind::Kernel),
            ("nftables ct", "s-nft", Kind::Nft),
            ("hub TC", "s-hubtc", Kind::Hub(Hook::Tc)),
        ]
        .into_iter()
        .map(|(title, name, kind)| {
            say("bench", &format!("setting up real stacks: {title}"));
            Self::new(files, title, name, kind)
        })
        .collect()
    }

    fn new(files: &Files, title: &'static str, name: &str, kind: Kind) -> Result<Self> {
        let lab = Lab::new(name, PERSONAS.families)?;
        let mut hub = None;
        match kind {
            Kind::Nft => rules(&lab, PERSONAS)?,
            Kind::Hub(hook) => {
                hub = Some(Hub::start(&files.hubd, files.folder.join(name), &lab, hook, PERSONAS)?);
            }
            Kind::Kernel | Kind::Harness | Kind::Redirect(_) => {}
        }
        lab.route(PERSONAS)?;
        Ok(Self { title, kind, hub, lab })
    }

    /// Namespace of the clients.
    pub(super) fn peer(&self) -> &Path {
        self.lab.peer.path()
    }

    /// Namespace of the servers.
    pub(super) fn members(&self) -> &Path {
        self.lab.members.path()
    }
}
