//! Whether somebody else on a link has an address already, asked before it is put there.
//!
//! ARP probes as in RFC 5227 and neighbour solicitations as in RFC 4862, both without a source address, so that
//! nobody learns anything from the question; shorter than there, since a switch waits for it. An answer names
//! the MAC of the owner. Somebody who asks the same at the same time counts as an owner too.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send, socket,
};
use tokio::time::Instant;

/// Questions for each address.
const PROBES: u32 = 3;
/// Time for answers to each.
const WAIT: Duration = Duration::from_millis(100);
/// Longest frame that is looked at: answers are shorter.
const FRAME_BYTES: usize = 2048;

const ETHERNET_ARP: [u8; 2] = [0x08, 0x06];
const ETHERNET_IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Links that are asked on at once: each needs a socket for as long.
pub const AT_ONCE: usize = 1_024;
/// Frames that are read from one link before another one has its turn.
const TURN: usize = 64;

/// What is asked on one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The interface.
    pub interface: String,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}

/// A link that is ready to be asked on.
#[derive(Debug)]
pub struct Probe {
    socket: OwnedFd,
    index: usize,
    question: Question,
    owners: BTreeMap<IpAddr, [u8; 6]>,
    failed: Option<io::Error>,
}

/// Opens sockets for questions, on interfaces of the calling thread's namespace; they work from anywhere.
pub fn open(questions: Vec<Question>) -> Vec<io::Result<Probe>> {
    let links = getifaddrs().map(|all| {
        let links = all.filter_map(|found| Some((found.interface_name, *found.address?.as_link_addr()?)));
        links.collect::<BTreeMap<String, LinkAddr>>()
    });
    let links = links.map_err(io::Error::from);
    let opened = questions.into_iter().map(|question| {
        let links = links.as_ref().map_err(|error| io::Error::from(error.kind()))?;
        let link = links.get(&question.interface).ok_or(io::ErrorKind::NotFound)?;
        Ok(Probe {
            socket: listen(link)?,
            index: link.ifindex(),
            question,
            owners: BTreeMap::new(),
            failed: None,
        })
    });
    opened.collect()
}

/// Asks all questions at once; for each the addresses that somebody has, with the MAC. Takes 300 ms, however many
/// are asked.
pub fn owners(mut probes: Vec<Probe>) -> Vec<io::Result<BTreeMap<IpAddr, [u8; 6]>>> {
    for _ in 0..PROBES {
        probes.iter_mut().for_each(Probe::ask);
        let deadline = Instant::now() + WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut waiting: Vec<&mut Probe> = probes.iter_mut().filter(|probe| probe.waits()).collect();
            if left.is_zero() || waiting.is_empty() {
                break;
            }
            let mut polled: Vec<_> =
                waiting.iter().map(|probe| PollFd::new(probe.socket.as_fd(), PollFlags::POLLIN)).collect();
            let wait = PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::ZERO);
            let heard: Vec<bool> = match poll(&mut polled, wait) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => polled.iter().map(|polled| polled.any().unwrap_or(true)).collect(),
                Err(errno) => {
                    for probe in &mut waiting {
                        probe.failed = Some(errno.into());
                    }
                    break;
                }
            };
            for (probe, _) in waiting.iter_mut().zip(heard).filter(|(_, heard)| *heard) {
                probe.listen();
            }
        }
    }
    let answers = probes.into_iter().map(|probe| probe.failed.map_or(Ok(probe.owners), Err));
    answers.collect()
}

impl Probe {
    fn open_questions(&self) -> impl Iterator<Item = &IpAddr> {
        self.question.addresses.iter().filter(|address| !self.owners.contains_key(*address))
    }

    fn waits(&self) -> bool {
        self.failed.is_none() && self.open_questions().next().is_some()
    }

    fn ask(&mut self) {
        if self.failed.is_some() {
            return;
        }
        let sent = self.open_questions().try_for_each(|address| {
            send(self.socket.as_raw_fd(), &question(self.question.mac, *address), MsgFlags::empty()).map(drop)
        });
        self.failed = sent.err().map(io::Error::from);
    }

    /// Reads what came, at most a turn of it.
    fn listen(&mut self) {
        let mut bytes = [0; FRAME_BYTES];
        for _ in 0..TURN {
            let Ok((length, link)) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut bytes) else {
                return;
            };
            // Until it was bound, the socket heard all links.
            if link.is_some_and(|link| link.ifindex() != self.index) {
                continue;
            }
            let owner = bytes.get(..length).and_then(|frame| claim(self.question.mac, frame));
            let is_asked = |address: &IpAddr| self.question.addresses.contains(address);
            self.owners.extend(owner.filter(|(address, _)| is_asked(address)));
        }
    }
}

/// A socket for whole frames on one interface.
fn listen(link: &LinkAddr) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    bind(socket.as_raw_fd(), link)?;
    Ok(socket)
}

fn question(own: [u8; 6], address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_probe(own, address),
        IpAddr::V6(address) => solicitation(own, address),
    }
}

fn arp_probe(own: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(own);
    frame.extend(ETHERNET_ARP);
    // Ethernet, IPv4, their lengths, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(own);
    frame.extend([0; 4 + 6]);
    frame.extend(target.octets());
    frame
}

fn solicitation(own: [u8; 6], target: Ipv6Addr) -> Vec<u8> {
    let last = target.octets();
    let [.., a, b, c] = last;
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    let sum = icmpv6_checksum(Ipv6Addr::UNSPECIFIED, group, &message);
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = vec![0x33, 0x33, 0xff, a, b, c];
    frame.extend(own);
    frame.extend(ETHERNET_IPV6);
    // Version, length, next header, and the hop limit that shows that no router passed it on.
    frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, 255]);
    frame.extend([0; 16]);
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

/// RFC 4443 section 2.3.
fn icmpv6_checksum(source: Ipv6Addr, target: Ipv6Addr, message: &[u8]) -> u16 {
    let length = (message.len() as u32).to_be_bytes();
    let pseudo = [&source.octets()[..], &target.octets()[..], &length[..], &[0, 0, 0, ICMPV6]].concat();
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks(2);
        pairs.map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))).sum()
    };
    let mut sum = words(&pseudo) + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The address that the sender of a frame has, or asks for without having one itself.
fn claim(own: [u8; 6], frame: &[u8]) -> Option<(IpAddr, [u8; 6])> {
    let sender: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
    if sender == own {
        return None;
    }
    let kind = frame.get(12..14)?;
    let rest = frame.get(14..)?;
    if kind == ETHERNET_ARP {
        let mac: [u8; 6] = rest.get(8..14)?.try_into().ok()?;
        let has: [u8; 4] = rest.get(14..18)?.try_into().ok()?;
        let asks: [u8; 4] = rest.get(24..28)?.try_into().ok()?;
        let address = if has == [0; 4] { asks } else { has };
        return (mac != own).then_some((IpAddr::from(address), mac));
    }
    if kind != ETHERNET_IPV6 || rest.get(6..8)? != [ICMPV6, 255] {
        return None;
    }
    let source: [u8; 16] = rest.get(8..24)?.try_into().ok()?;
    let message = rest.get(40..)?;
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let claims = match *message.first()? {
        ADVERTISEMENT => true,
        SOLICITATION => source == [0; 16],
        _ => false,
    };
    claims.then_some((IpAddr::from(target), sender))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn questions_have_no_source_and_are_no_claim_of_our_own() {
        let four: Ipv4Addr = "10.0.0.9".parse().unwrap();
        let frame = arp_probe(OWN, four);
        assert_eq!(frame.len(), 42);
        assert_eq!(&frame[28..32], [0; 4]);
        assert_eq!(claim(OWN, &frame), None);
        assert_eq!(claim(OTHER, &frame), Some((four.into(), OWN)), "who asks at the same time will have it");

        let six: Ipv6Addr = "fd00::12:3456".parse().unwrap();
        let frame = solicitation(OWN, six);
        assert_eq!(&frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let group: [u8; 16] = frame[38..54].try_into().unwrap();
        assert_eq!(Ipv6Addr::from(group), "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
        assert_eq!(icmpv6_checksum(Ipv6Addr::UNSPECIFIED, group.into(), &frame[54..]), 0, "sum over all");
        assert_eq!(claim(OTHER, &frame), Some((six.into(), OWN)));
    }

    #[test]
    fn answers_name_the_owner_and_other_frames_nobody() {
        let mut reply = arp_probe(OTHER, "0.0.0.0".parse().unwrap());
        reply[21] = 2;
        reply[28..32].copy_from_slice(&[10, 0, 0, 9]);
        assert_eq!(claim(OWN, &reply), Some(("10.0.0.9".parse().unwrap(), OTHER)));
        let mut advertisement = solicitation(OTHER, "fd00::9".parse().unwrap());
        advertisement[54] = ADVERTISEMENT;
        advertisement[22..38].fill(0xfe);
        assert_eq!(claim(OWN, &advertisement), Some(("fd00::9".parse().unwrap(), OTHER)));
        advertisement[54] = SOLICITATION;
        assert_eq!(claim(OWN, &advertisement), None, "a question of somebody who has another address");
        for length in 0..reply.len() {
            assert_eq!(claim(OWN, &reply[..length]), None);
        }
    }
}
