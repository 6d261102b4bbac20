//! The only code that writes packet bytes on the forwarding path: MAC addresses, TTL, header checksum.

use hub_common::checksum::replace;
use hub_common::flow::Hop;
use hub_common::packet::Packet;
use hub_common::parse::Bytes as _;

use crate::packet::Frame;

/// Makes the frame one that leaves for `hop`. False where bytes could not be reached; then the packet must
/// not leave.
///
/// IPv6 hop limits are left to [`hop_limit`] or to TC's own helper.
#[inline(always)]
pub(crate) fn forward(frame: &Frame, l3: usize, v4: bool, hop: &Hop) -> bool {
    if v4 {
        let Some([ttl, protocol, high, low]) = frame.read::<4>(l3 + 8) else { return false };
        let old = u16::from_be_bytes([ttl, protocol]);
        let ttl = ttl.wrapping_sub(1);
        let new = u16::from_be_bytes([ttl, protocol]);
        let sum = replace(u16::from_be_bytes([high, low]), old, new).to_be_bytes();
        if !frame.write::<4>(l3 + 8, [ttl, protocol, sum[0], sum[1]]) {
            return false;
        }
    }
    let (t, s) = (&hop.target_mac, &hop.source_mac);
    frame.write::<12>(0, [t[0], t[1], t[2], t[3], t[4], t[5], s[0], s[1], s[2], s[3], s[4], s[5]])
}

/// Lowers the hop limit of an IPv6 packet by one.
#[inline(always)]
pub(crate) fn hop_limit(frame: &Frame, l3: usize) -> bool {
    let at = l3 + HOP_LIMIT - 1;
    let Some([next, limit]) = frame.read::<2>(at) else { return false };
    frame.write::<2>(at, [next, limit.wrapping_sub(1)])
}

/// Offset of the IP header in the frame, in bounds.
#[inline(always)]
pub(crate) fn l3(packet: &Packet) -> usize {
    usize::from(packet.l3_offset) & 0xff
}

/// Offset of the hop limit in an IPv6 header.
pub(crate) const HOP_LIMIT: usize = 7;
/// First two bytes of the IP header with another code point; the ECN bits stay (RFC 3168 section 5).
#[inline(always)]
pub(crate) fn code_point([first, second]: [u8; 2], is_v4: bool, dscp: u8) -> [u8; 2] {
    let dscp = dscp & 0x3f;
    if is_v4 {
        [first, dscp << 2 | second & 3]
    } else {
        [first & 0xf0 | dscp >> 2, dscp << 6 | second & 0x3f]
    }
}
