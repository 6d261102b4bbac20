//! Endpoints: veth pairs with one end on the hub and the other in a member's namespace.
//!
//! Ours are veth links whose name begins with `hub` and whose group is ours, which the kernel sets in the
//! same step that makes the link. The alias says which member it is for and is written last: a link whose
//! alias does not match is one that was not finished, or is wanted otherwise. Once set up, only the hub's
//! end is looked at. Both ends go together, with the link or with the member's namespace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::AsRawFd as _;

use jiff::Timestamp;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};

use crate::desired::{Endpoint, LINK_PREFIX, Namespace, PROTOCOL};
use crate::kernel::links::FoundLink;
use crate::kernel::member::{self, MemberError};
use crate::kernel::namespace::{NamespaceError, OpenNamespace};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::reconcile::Table;

/// Group of the links that the hub makes: the route protocol number, so that there is one to remember.
pub const GROUP: u32 = PROTOCOL as u32;
/// Group of links that are about to go. The kernel waits for all processors whenever it removes links,
/// 19 ms for one and hardly more for many, and a group is how to name many at once.
const DOOMED: u32 = 177_177;
/// Links to remove at once; the kernel's routing lock is held meanwhile.
const DELETE_AT_ONCE: usize = 256;
/// The kernel keeps 255 bytes of an alias; the fingerprint needs 17.
const PLACE_BYTES: usize = 230;

/// Why an endpoint could not be made; nothing of it is left then.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The hub's end.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The member's namespace.
    #[error("put endpoint {name}: {source}")]
    Namespace {
        /// Name of the hub's end.
        name: String,
        /// What is wrong with the namespace.
        source: NamespaceError,
    },
    /// The member's end.
    #[error("put endpoint {name}: {source}")]
    Member {
        /// Name of the hub's end.
        name: String,
        /// What went wrong there.
        source: MemberError,
    },
    /// The name, or the group, belongs to somebody else.
    #[error("endpoint {0}: there is an interface of this name that the hub did not make")]
    Foreign(String),
    /// Taking back what had been made failed too.
    #[error("{failure}; then {undo}")]
    Left {
        /// The first failure.
        failure: Box<Self>,
        /// The failure to undo.
        undo: NetlinkError,
    },
}

/// The hub's end of a pair, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubEnd {
    alias: String,
    up: bool,
    mtu: u32,
    group: u32,
}

/// The veth pairs.
pub struct Endpoints {
    netlink: Netlink,
}

impl Endpoints {
    /// Pairs whose hub's ends are in the namespace that the socket belongs to.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }

    /// Makes the pair and all that belongs to it, or nothing.
    fn create(&mut self, name: &str, endpoint: &Endpoint) -> Result<(), EndpointError> {
        let namespace = open(name, endpoint)?;
        let message = RouteNetlinkMessage::NewLink(pair(name, endpoint, &namespace));
        let intent = format_args!("put endpoint {name}");
        self.netlink.change(message, NLM_F_CREATE | NLM_F_EXCL, intent)?;
        let Err(failure) = self.finish(name, endpoint, &namespace) else { return Ok(()) };
        // The member's end, its addresses and its routes go with the hub's end.
        match self.netlink.delete_link(name) {
            Ok(()) => Err(failure),
            Err(undo) => Err(EndpointError::Left { failure: Box::new(failure), undo }),
        }
    }

    /// Sets up both ends of a pair that exists; the alias last, for it says that all the rest is done.
    fn finish(
        &mut self,
        name: &str,
        endpoint: &Endpoint,
        namespace: &OpenNamespace,
    ) -> Result<(), EndpointError> {
        let intent = format_args!("set up endpoint {name}");
        let index = self.netlink.index(name, intent)?;
        member::skip_duplicate_detection(name);
        let attributes = vec![LinkAttribute::Mtu(endpoint.mtu), LinkAttribute::Group(GROUP)];
        self.netlink.set_up(index, attributes, intent)?;
        namespace
            .run(|| member::configure(endpoint))
            .map_err(|source| EndpointError::Namespace { name: name.to_owned(), source })?
            .map_err(|source| EndpointError::Member { name: name.to_owned(), source })?;
        Ok(self.netlink.set_up(index, vec![LinkAttribute::IfAlias(alias(endpoint))], intent)?)
    }

    /// Deletes pairs in one step.
    fn delete_together(&mut self, names: &[String]) -> Result<(), EndpointError> {
        let foreign = |link: &FoundLink| link.group == DOOMED && !is_ours(link);
        if let Some(link) = self.netlink.links()?.into_iter().find(foreign) {
            return Err(EndpointError::Foreign(link.name));
        }
        for name in names {
            self.netlink.set_group(name, DOOMED)?;
        }
        Ok(self.netlink.delete_group(DOOMED)?)
    }

    /// Changes a pair that leads to the right place already.
    fn update(&mut self, name: &str, endpoint: &Endpoint) -> Result<(), EndpointError> {
        let namespace = open(name, endpoint)?;
        self.finish(name, endpoint, &namespace)
    }
}

impl Table for Endpoints {
    type Key = String;
    type Value = Endpoint;
    type Found = HubEnd;
    type Error = EndpointError;
    const NAME: &'static str = "endpoints";
    // Namespaces are entered, and the kernel waits for its processors.
    const SLOW: bool = true;

    fn list(&mut self) -> Result<BTreeMap<String, HubEnd>, EndpointError> {
        let ours = self.netlink.links()?.into_iter().filter(is_ours);
        Ok(ours
            .map(|link| {
                (link.name, HubEnd { alias: link.alias, up: link.up, mtu: link.mtu, group: link.group })
            })
            .collect())
    }

    fn put(&mut self, name: &String, endpoint: &Endpoint) -> Result<(), EndpointError> {
        let Some(link) = self.netlink.link(name)? else { return self.create(name, endpoint) };
        if !is_ours(&link) {
            return Err(EndpointError::Foreign(name.clone()));
        }
        let same_place = link.alias.rsplit_once(' ').is_some_and(|(found, _)| found == place(endpoint));
        if same_place && self.update(name, endpoint).is_ok() {
            return Ok(());
        }
        self.netlink.delete_link(name)?;
        self.create(name, endpoint)
    }

    fn delete(&mut self, name: &String) -> Result<(), EndpointError> {
        Ok(self.netlink.delete_link(name)?)
    }

    fn delete_all(&mut self, names: &[String]) -> Vec<(String, EndpointError)> {
        let mut failures = Vec::new();
        for names in names.chunks(DELETE_AT_ONCE) {
            if names.len() > 1 && self.delete_together(names).is_ok() {
                continue;
            }
            failures.extend(names.iter().filter_map(|name| Some((name.clone(), self.delete(name).err()?))));
        }
        failures
    }

    fn holds(wanted: &Endpoint, found: &HubEnd) -> bool {
        found.up && found.mtu == wanted.mtu && found.group == GROUP && found.alias == alias(wanted)
    }

    fn describe(name: &String) -> String {
        format!("endpoint {name}")
    }
}

/// Whether the hub made this link.
pub fn is_ours(link: &FoundLink) -> bool {
    link.name.starts_with(LINK_PREFIX) && matches!(link.group, GROUP | DOOMED) && link.kind == "veth"
}

fn open(name: &str, endpoint: &Endpoint) -> Result<OpenNamespace, EndpointError> {
    OpenNamespace::open(&endpoint.namespace)
        .map_err(|source| EndpointError::Namespace { name: name.to_owned(), source })
}

/// Both ends at once, the member's under its final name in its final namespace.
fn pair(name: &str, endpoint: &Endpoint, namespace: &OpenNamespace) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(endpoint.interface.clone()),
        LinkAttribute::Mtu(endpoint.mtu),
        LinkAttribute::NetNsFd(namespace.file().as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(endpoint.mtu),
        LinkAttribute::Group(GROUP),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    message
}

/// Where an endpoint leads, for people who read `ip link`.
fn place(endpoint: &Endpoint) -> String {
    let mut place = match &endpoint.namespace {
        Namespace::Name(name) => format!("hub {name}:{}", endpoint.interface),
        Namespace::Pid(pid) => format!("hub pid {pid}:{}", endpoint.interface),
    };
    place.truncate(place.floor_char_boundary(PLACE_BYTES));
    place
}

/// Where an endpoint leads, and a fingerprint of everything else about it.
fn alias(endpoint: &Endpoint) -> String {
    let mut text = format!("{:?} {} {}", endpoint.namespace, endpoint.interface, endpoint.mtu);
    let expires = endpoint.expires.map(Timestamp::as_second);
    for part in [
        format_args!(" {:?}", endpoint.addresses),
        format_args!(" {:?}", endpoint.gateways),
        format_args!(" {expires:?}"),
    ] {
        text.write_fmt(part).expect("a string takes any text");
    }
    format!("{} {:016x}", place(endpoint), fnv(text.as_bytes()))
}

/// FNV-1a: the same in every build, which `std` promises of none of its hashers.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(namespace: &str) -> Endpoint {
        Endpoint {
            namespace: Namespace::Name(namespace.into()),
            interface: "eth0".into(),
            addresses: vec!["10.1.0.5/24".parse().unwrap()],
            gateways: vec!["10.1.0.1".parse().unwrap()],
            mtu: 1500,
            expires: None,
        }
    }

    #[test]
    fn alias_names_the_place_and_tells_changes_apart() {
        let one = endpoint("red");
        let alias_of_one = alias(&one);
        assert!(alias_of_one.starts_with("hub red:eth0 "), "{alias_of_one}");
        assert_eq!(alias_of_one, alias(&endpoint("red")));
        let extended = Endpoint { expires: Some(Timestamp::UNIX_EPOCH), ..one };
        assert_ne!(alias_of_one, alias(&extended));
    }

    #[test]
    fn alias_fits_the_kernel_and_still_tells_long_names_apart() {
        let (one, other) = (format!("/{}a", "ä".repeat(300)), format!("/{}b", "ä".repeat(300)));
        assert!(alias(&endpoint(&one)).len() <= 255);
        assert_ne!(alias(&endpoint(&one)), alias(&endpoint(&other)));
    }
}
