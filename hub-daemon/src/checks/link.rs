//! What the kernel tells of an interface: carrier, addresses, neighbours, routes.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressFlags, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use nix::errno::Errno;
use tokio::time::{Instant, sleep};

use super::Origin;
use super::origin::is_of_link;
use crate::desired::interfaces::{Selector, mac_text};
use crate::kernel::links::{FoundLink, select};
use crate::kernel::netlink::Netlink;
use crate::tables::{addresses, family};

/// How often the kernel is asked whether a neighbour answered.
const LOOK: Duration = Duration::from_millis(20);

#[expect(clippy::needless_pass_by_value, reason = "so that it is a function from one error to another")]
fn text(error: impl ToString) -> String {
    error.to_string()
}

fn find(netlink: &mut Netlink, selector: &Selector) -> Result<FoundLink, String> {
    let links = netlink.links().map_err(text)?;
    select(&links, selector).cloned().map_err(text)
}

/// The number that the kernel knows an interface by.
pub(super) fn index(selector: &Selector) -> Result<u32, String> {
    Ok(find(&mut Netlink::open().map_err(text)?, selector)?.index)
}

pub(super) fn carrier(selector: &Selector) -> Result<String, String> {
    let link = find(&mut Netlink::open().map_err(text)?, selector)?;
    match (link.up, link.running) {
        (true, true) => Ok(format!("{} is up and has a carrier, seen", link.name)),
        (true, false) => Err(format!("{} has no carrier", link.name)),
        (false, _) => Err(format!("{} is down", link.name)),
    }
}

pub(super) fn addresses(selector: &Selector, wanted: &[IpNet]) -> Result<String, String> {
    let mut netlink = Netlink::open().map_err(text)?;
    let link = find(&mut netlink, selector)?;
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let mut found = Vec::new();
    for message in netlink.dump(&question, "list addresses").map_err(text)? {
        if let RouteNetlinkMessage::NewAddress(message) = message
            && message.header.index == link.index
        {
            found.extend(addresses::Found::read(&message));
        }
    }
    for net in wanted {
        let Some(address) = found.iter().find(|found| found.net == *net) else {
            return Err(format!("{} does not have {net}", link.name));
        };
        if address.flags.contains(AddressFlags::Dadfailed) {
            return Err(format!("another host on the link of {} has {}", link.name, net.addr()));
        }
        if address.flags.contains(AddressFlags::Tentative) {
            return Err(format!("{net} on {} is still checked for duplicates", link.name));
        }
    }
    Ok(format!("all {} are on {}, seen", wanted.len(), link.name))
}

/// Makes the kernel ask a neighbour anew for its MAC, and waits for the answer.
pub(super) async fn neighbour(
    selector: &Selector,
    address: IpAddr,
    limit: Duration,
) -> Result<String, String> {
    let mut netlink = Netlink::open().map_err(text)?;
    let link = find(&mut netlink, selector)?;
    let how = if address.is_ipv4() { "ARP" } else { "neighbour solicitations" };
    let silent = || format!("{address} does not answer {how} on {}", link.name);
    let deadline = Instant::now() + limit.saturating_sub(2 * LOOK);
    let (state, mac) = state(&mut netlink, link.index, address)?;
    if matches!(state, NeighbourState::Permanent | NeighbourState::Noarp) {
        return Ok(format!("{address} is at {} for good, seen", mac_of(&mac)));
    }
    ask_anew(&mut netlink, link.index, address, &mac)?;
    loop {
        let (state, mac) = self::state(&mut netlink, link.index, address)?;
        if state == NeighbourState::Reachable {
            return Ok(format!("{address} is at {}, answered", mac_of(&mac)));
        }
        if state == NeighbourState::Failed || Instant::now() >= deadline {
            return Err(silent());
        }
        sleep(LOOK).await;
    }
}

fn mac_of(mac: &[u8]) -> String {
    mac.try_into().map_or_else(|_| "no MAC".to_owned(), mac_text)
}

fn entry(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family::of(address);
    message.header.ifindex = index;
    let target = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes.push(NeighbourAttribute::Destination(target));
    message
}

/// A neighbour with a MAC is asked at it; one without is looked for.
fn ask_anew(netlink: &mut Netlink, index: u32, address: IpAddr, mac: &[u8]) -> Result<(), String> {
    let mut message = entry(index, address);
    if mac.is_empty() {
        message.header.flags = NeighbourFlags::Use;
    } else {
        message.header.state = NeighbourState::Probe;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    }
    let intent = format_args!("ask for neighbour {address}");
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.change(RouteNetlinkMessage::NewNeighbour(message), flags, intent).map_err(text)
}

/// What the kernel knows of a neighbour: its state, and a MAC where one is valid.
fn state(netlink: &mut Netlink, index: u32, address: IpAddr) -> Result<(NeighbourState, Vec<u8>), String> {
    let mut question = NeighbourMessage::default();
    question.header.family = family::of(address);
    let wanted = entry(index, address).attributes;
    for message in
        netlink.dump(&RouteNetlinkMessage::GetNeighbour(question), "list neighbours").map_err(text)?
    {
        let RouteNetlinkMessage::NewNeighbour(message) = message else { continue };
        if message.header.ifindex != index || !message.attributes.iter().any(|found| wanted.contains(found)) {
            continue;
        }
        let mac = message.attributes.into_iter().find_map(|attribute| {
            if let NeighbourAttribute::LinkLayerAddress(mac) = attribute { Some(mac) } else { None }
        });
        let state = message.header.state;
        let is_valid =
            !matches!(state, NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None);
        return Ok((state, mac.filter(|_| is_valid).unwrap_or_default()));
    }
    Ok((NeighbourState::None, Vec::new()))
}

/// Asks the kernel which way packets to a target take.
pub(super) fn route(
    selector: &Selector,
    target: IpAddr,
    device: Option<&str>,
    origin: &Origin,
) -> Result<String, String> {
    let mut netlink = Netlink::open().map_err(text)?;
    let expected = match device {
        Some(device) => device.to_owned(),
        None => find(&mut netlink, selector)?.name,
    };
    let name = leaves_by(&mut netlink, target, origin)?;
    if name == expected {
        Ok(format!("leaves by {name}, looked up"))
    } else {
        Err(format!("packets to {target} leave by {name}, not by {expected}"))
    }
}

/// The device by which packets to a target leave, if it is the interface or one of these.
pub(super) fn device(
    selector: &Selector,
    others: &[String],
    target: IpAddr,
    origin: &Origin,
) -> Result<String, String> {
    let mut netlink = Netlink::open().map_err(text)?;
    let own = find(&mut netlink, selector)?.name;
    if is_of_link(target) {
        return Ok(own);
    }
    let name = leaves_by(&mut netlink, target, origin)?;
    if name == own || others.contains(&name) {
        Ok(name)
    } else {
        Err(format!("packets to {target} leave by {name}, not by {own}: `routing_table` leads nowhere there"))
    }
}

/// The device by which the kernel sends packets to a target.
fn leaves_by(netlink: &mut Netlink, target: IpAddr, origin: &Origin) -> Result<String, String> {
    let mut question = RouteMessage::default();
    question.header.address_family = family::of(target);
    question.header.destination_prefix_length = if target.is_ipv4() { 32 } else { 128 };
    question.attributes.push(RouteAttribute::Destination(RouteAddress::from(target)));
    question.attributes.extend(origin.mark.map(RouteAttribute::Mark));
    if let Some(source) = origin.towards(target) {
        question.header.source_prefix_length = question.header.destination_prefix_length;
        question.attributes.push(RouteAttribute::Source(RouteAddress::from(source)));
    }
    let found = match netlink.get(RouteNetlinkMessage::GetRoute(question), "look up a route") {
        Ok(found) => found,
        Err(error)
            if [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EINVAL]
                .iter()
                .any(|errno| error.is(*errno)) =>
        {
            return Err(format!("there is no route to {target}"));
        }
        Err(error) if error.is(Errno::EACCES) => return Err(format!("the route to {target} prohibits it")),
        Err(error) => return Err(error.to_string()),
    };
    let index = found.iter().find_map(|message| {
        let RouteNetlinkMessage::NewRoute(message) = message else { return None };
        message.attributes.iter().find_map(|attribute| {
            if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }
        })
    });
    let names = netlink.link_names().map_err(text)?;
    let name = index.and_then(|index| names.name(index));
    name.map(str::to_owned).ok_or_else(|| format!("there is no route to {target}"))
}
