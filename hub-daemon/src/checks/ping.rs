//! ICMP echo.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::net::UdpSocket;

use super::Origin;

/// Longest answer that is looked at.
const PACKET_BYTES: usize = 512;
/// So that pings that run beside each other know their answers.
static SEQUENCE: AtomicU16 = AtomicU16::new(0);

/// Types of messages: question and answer of each family.
const ECHO: [u8; 2] = [8, 0];
const ECHO6: [u8; 2] = [128, 129];

pub(super) async fn ping(address: IpAddr, origin: &Origin) -> Result<String, String> {
    match exchange(address, origin).await {
        Ok(()) => Ok(format!("{address} answered")),
        Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => {
            Err(format!("there is no route to {address}"))
        }
        Err(error) => Err(format!("{address} cannot be pinged: {error}")),
    }
}

/// Returns when the answer is there.
async fn exchange(address: IpAddr, origin: &Origin) -> io::Result<()> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    // Sockets of this kind send and receive as those of UDP do.
    let raw = socket(family, SockType::Raw, flags, protocol)?;
    origin.place(&raw, address)?;
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(raw))?;
    socket.connect(origin.reached(SocketAddr::new(address, 0))?).await?;
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let identifier = std::process::id() as u16;
    socket.send(&question(address.is_ipv4(), identifier, sequence)).await?;
    let mut bytes = [0; PACKET_BYTES];
    loop {
        let length = socket.recv(&mut bytes).await?;
        let packet = bytes.get(..length).unwrap_or_default();
        if is_answer(address.is_ipv4(), packet, identifier, sequence) {
            return Ok(());
        }
    }
}

fn question(v4: bool, identifier: u16, sequence: u16) -> [u8; 8] {
    let [[i0, i1], [s0, s1]] = [identifier, sequence].map(u16::to_be_bytes);
    if !v4 {
        // The kernel sums up IPv6 itself.
        return [ECHO6[0], 0, 0, 0, i0, i1, s0, s1];
    }
    let sum = u32::from(ECHO[0]) << 8;
    let sum = sum + u32::from(identifier) + u32::from(sequence);
    let sum = (sum & 0xffff) + (sum >> 16);
    let [c0, c1] = (!((sum + (sum >> 16)) as u16)).to_be_bytes();
    [ECHO[0], 0, c0, c1, i0, i1, s0, s1]
}

/// Whether a packet answers the question; those of IPv4 begin with the IP header.
fn is_answer(v4: bool, packet: &[u8], identifier: u16, sequence: u16) -> bool {
    let header = if v4 { packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4) } else { 0 };
    let kind = if v4 { ECHO[1] } else { ECHO6[1] };
    let Some(&[found, 0, _, _, i0, i1, s0, s1]) = packet.get(header..).and_then(|rest| rest.first_chunk())
    else {
        return false;
    };
    found == kind && [i0, i1] == identifier.to_be_bytes() && [s0, s1] == sequence.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_sums_to_nothing_and_only_its_answer_is_taken() {
        for (identifier, sequence) in [(0, 0), (0x1234, 7), (0xffff, 0xffff)] {
            let question = question(true, identifier, sequence);
            let mut sum: u32 =
                question.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            assert_eq!(sum, 0xffff);
            let mut answer = vec![0x45; 20];
            answer.extend(question);
            assert!(
                !is_answer(true, &answer, identifier, sequence),
                "the question itself, over the loopback"
            );
            answer[20] = ECHO[1];
            assert!(is_answer(true, &answer, identifier, sequence));
            assert!(!is_answer(true, &answer, identifier, sequence.wrapping_add(1)));
            assert!(!is_answer(true, &answer[..27], identifier, sequence), "cut off");
        }
        let mut six = question(false, 9, 1);
        six[0] = ECHO6[1];
        assert!(is_answer(false, &six, 9, 1) && !is_answer(false, &six, 8, 1));
    }
}
