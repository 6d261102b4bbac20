//! A question about a packet made into the packet: the first of its connection, as a stack would send it.

use std::net::IpAddr;

use hub_common::checksum;
use hub_common::packet::{TCP_SYN, protocol};
use hub_common::parse::ETHERNET_BYTES;
use hub_common::rule::has_ports;

use crate::datapath_view::Question;

/// Ports where the question names none.
const SOURCE_PORT: u16 = 40_000;
const TARGET_PORT: u16 = 80;
/// ICMP identifier of the packet.
const IDENTIFIER: u16 = 1;
/// Echo requests.
const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;
const TTL: u8 = 64;
/// More than any protocol's fixed header that the data path looks at.
const OTHER_BYTES: usize = 32;

/// Why a question cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuestionError {
    /// One end speaks IPv4, the other IPv6.
    #[error("`{source_ip}` and `{target}` are of different families: use two IPv4 or two IPv6 addresses")]
    Families {
        /// Sender.
        source_ip: IpAddr,
        /// Receiver.
        target: IpAddr,
    },
    /// Neither a known name nor a number.
    #[error("protocol `{0}`: use tcp, udp, icmp, icmpv6, another name, or a number from 0 to 255")]
    Protocol(String),
    /// ICMP of the other family.
    #[error("protocol `{protocol}` does not go with `{source_ip}`: use `icmp`, which fits both families")]
    IcmpFamily {
        /// As asked.
        protocol: String,
        /// Sender.
        source_ip: IpAddr,
    },
    /// Not a number of an ICMP type.
    #[error("ICMP type {0}: use a number from 0 to 255")]
    IcmpType(u16),
    /// An ICMP error passes with the connection it speaks of, whatever the rules say.
    #[error("ICMP type {0} is an error, which passes only with its connection: ask about that connection")]
    IcmpError(u8),
    /// Ports for a protocol without them.
    #[error("protocol `{0}` has no ports: leave them out")]
    NoPorts(String),
}

/// An Ethernet frame that asks the question. The addresses of the frame mean nothing.
pub(crate) fn frame(question: &Question) -> Result<Vec<u8>, QuestionError> {
    let (source, target) = (question.source.to_canonical(), question.target.to_canonical());
    let number = protocol(question, source)?;
    let payload = payload(question, number)?;
    let mut frame = vec![0; ETHERNET_BYTES - 2];
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            frame.extend(0x0800_u16.to_be_bytes());
            let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, number, 0, 0].to_vec();
            header.extend(source.octets());
            header.extend(target.octets());
            put(&mut header, 2, length(20 + payload.len()));
            let sum = checksum::finish(checksum::add_bytes(0, &header));
            put(&mut header, 10, sum.to_be_bytes());
            frame.extend(header);
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            frame.extend(0x86dd_u16.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length(payload.len()));
            frame.extend([number, TTL]);
            frame.extend(source.octets());
            frame.extend(target.octets());
        }
        (source_ip, target) => return Err(QuestionError::Families { source_ip, target }),
    }
    frame.extend(payload);
    Ok(frame)
}

fn protocol(question: &Question, source: IpAddr) -> Result<u8, QuestionError> {
    let text = &question.protocol;
    let number = crate::model::protocol::number(text).ok_or_else(|| QuestionError::Protocol(text.clone()))?;
    let wrong = || QuestionError::IcmpFamily { protocol: text.clone(), source_ip: source };
    match (number, source) {
        // The name means whichever ICMP the family has; the number means itself.
        (protocol::ICMP, IpAddr::V6(_)) if text.trim().eq_ignore_ascii_case("icmp") => Ok(protocol::ICMPV6),
        (protocol::ICMP, IpAddr::V6(_)) | (protocol::ICMPV6, IpAddr::V4(_)) => Err(wrong()),
        (number, _) => Ok(number),
    }
}

fn payload(question: &Question, number: u8) -> Result<Vec<u8>, QuestionError> {
    let (source_port, target_port) = (question.source_port, question.target_port);
    let mut bytes = vec![0; OTHER_BYTES];
    if has_ports(number) {
        put(&mut bytes, 0, source_port.unwrap_or(SOURCE_PORT).to_be_bytes());
        put(&mut bytes, 2, target_port.unwrap_or(TARGET_PORT).to_be_bytes());
        if number == protocol::TCP {
            put(&mut bytes, 12, [0x50, TCP_SYN]);
            bytes.truncate(20);
        } else if number != protocol::SCTP {
            put(&mut bytes, 4, length(OTHER_BYTES));
        }
        return Ok(bytes);
    }
    let echo = match number {
        protocol::ICMP => ECHO_V4,
        protocol::ICMPV6 => ECHO_V6,
        _ if source_port.is_some() || target_port.is_some() => {
            return Err(QuestionError::NoPorts(question.protocol.clone()));
        }
        _ => return Ok(bytes),
    };
    let asked = target_port.unwrap_or(u16::from(echo));
    let kind = u8::try_from(asked).map_err(|_range| QuestionError::IcmpType(asked))?;
    // RFC 792 and RFC 4443 section 2.1; redirects are treated like errors.
    let is_error = if number == protocol::ICMP { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { kind < 128 };
    if is_error {
        return Err(QuestionError::IcmpError(kind));
    }
    put(&mut bytes, 0, [kind, 0]);
    put(&mut bytes, 4, source_port.unwrap_or(IDENTIFIER).to_be_bytes());
    Ok(bytes)
}

/// Stores two bytes; every offset is within the header at hand.
fn put(bytes: &mut [u8], offset: usize, value: [u8; 2]) {
    for (to, from) in bytes.iter_mut().skip(offset).zip(value) {
        *to = from;
    }
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_common::address::mapped;
    use hub_common::packet::{PACKET_ICMP_REQUEST, PACKET_V6, Packet};
    use hub_common::parse::whole;

    fn question(protocol: &str, source: &str, target: &str) -> Question {
        Question {
            protocol: protocol.into(),
            source: source.parse().unwrap(),
            source_port: None,
            target: target.parse().unwrap(),
            target_port: None,
            port: None,
        }
    }

    fn parsed(question: &Question) -> Packet {
        let bytes = frame(question).unwrap();
        let mut packet = Packet::ZERO;
        whole(&bytes.as_slice(), None, &mut packet).unwrap();
        packet
    }

    #[test]
    fn tcp_is_the_first_packet_of_a_connection() {
        let packet = parsed(&question("tcp", "192.0.2.1", "10.0.0.80"));
        assert_eq!((packet.source, packet.target), (mapped([192, 0, 2, 1]), mapped([10, 0, 0, 80])));
        assert_eq!((packet.source_port, packet.target_port), (40_000, 80));
        assert_eq!((packet.tcp_flags, packet.ttl, packet.length_bytes), (TCP_SYN, 64, 40));
    }

    #[test]
    fn v4_header_has_its_checksum() {
        let bytes = frame(&question("udp", "192.0.2.1", "10.0.0.80")).unwrap();
        assert_eq!(checksum::fold(checksum::add_bytes(0, &bytes[14..34])), 0xffff);
    }

    #[test]
    fn icmp_is_an_echo_request_of_the_family() {
        for (protocol, source, target) in
            [("icmp", "192.0.2.1", "10.0.0.1"), ("icmp", "2001:db8::1", "2001:db8::2")]
        {
            let packet = parsed(&question(protocol, source, target));
            assert!(packet.has(PACKET_ICMP_REQUEST), "{source}");
            assert_eq!(packet.source_port, 1);
        }
        assert!(parsed(&question("58", "2001:db8::1", "2001:db8::2")).has(PACKET_V6));
    }

    #[test]
    fn every_protocol_makes_a_packet() {
        for number in 2..=255u8 {
            for (source, target) in [("192.0.2.1", "10.0.0.1"), ("2001:db8::1", "2001:db8::2")] {
                let asked = question(&number.to_string(), source, target);
                // Extension headers of IPv6 have no packet of their own.
                let extension =
                    source.contains(':') && matches!(number, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140);
                if number != protocol::ICMPV6 && !extension {
                    assert_eq!(parsed(&asked).protocol, number, "{source}");
                }
            }
        }
    }

    #[test]
    fn questions_that_make_no_packet_say_why() {
        let error = |question: &Question| frame(question).unwrap_err().to_string();
        assert!(error(&question("tcp", "192.0.2.1", "2001:db8::1")).contains("different families"));
        assert!(error(&question("carrier-pigeon", "192.0.2.1", "10.0.0.1")).contains("carrier-pigeon"));
        assert!(error(&question("icmpv6", "192.0.2.1", "10.0.0.1")).contains("use `icmp`"));
        let typed = |kind| Question { target_port: Some(kind), ..question("icmp", "192.0.2.1", "10.0.0.1") };
        assert!(error(&typed(300)).contains("300") && error(&typed(3)).contains("is an error"));
        let port = Question { source_port: Some(1), ..question("gre", "192.0.2.1", "10.0.0.1") };
        assert!(error(&port).contains("no ports"));
    }
}
