//! The only code that writes packet bytes on the forwarding path: MAC addresses, TTL, header checksum.

use core::ptr::read_volatile;

use hub_common::checksum::replace;
use hub_common::flow::Hop;
use hub_common::packet::Packet;
use hub_common::parse::Bytes as _;
use hub_common::segment::Settings;

use crate::packet::Frame;

/// A [`Hop`] in words, as they lie there: the compiler takes byte by byte what it takes for bytes.
#[derive(Clone, Copy)]
pub(crate) struct Exit {
    /// As in the hop.
    pub(crate) generation: u32,
    /// As in the hop.
    pub(crate) ifindex: u32,
    /// As in the hop.
    pub(crate) checked_tick: u32,
    /// As in the hop.
    pub(crate) mtu_bytes: u32,
    /// MAC of the next hop and that of the port, as a frame begins.
    macs: [u32; 3],
    /// As in the hop.
    pub(crate) ingress_ifindex: u32,
}

impl Exit {
    /// Reads a hop, each word once and the generation first.
    ///
    /// # Safety
    /// The pointer is one to a hop that lives, in a map or on the stack.
    #[inline(always)]
    pub(crate) unsafe fn read(hop: *const Hop) -> Self {
        const { assert!(size_of::<Hop>() == size_of::<[u32; 8]>()) };
        // SAFETY: the caller's promise; a hop is aligned to words and is all integers.
        let [generation, ifindex, checked_tick, mtu_bytes, a, b, c, ingress_ifindex] =
            unsafe { read_volatile(hop.cast::<[u32; 8]>()) };
        Self { generation, ifindex, checked_tick, mtu_bytes, macs: [a, b, c], ingress_ifindex }
    }

    /// As [`Hop::is_old`].
    #[inline(always)]
    pub(crate) const fn is_old(&self, tick: u64, settings: &Settings) -> bool {
        (tick as u32).wrapping_sub(self.checked_tick) > settings.hop_ticks
    }
}

impl From<&Hop> for Exit {
    #[inline(always)]
    fn from(hop: &Hop) -> Self {
        // SAFETY: a reference is a pointer to what lives.
        unsafe { Self::read(hop) }
    }
}

/// Makes the frame one that leaves by `exit`. False where bytes could not be reached; then the packet must
/// not leave.
///
/// IPv6 hop limits are left to [`hop_limit`] or to TC's own helper.
#[inline(always)]
pub(crate) fn forward(frame: &Frame, l3: usize, v4: bool, exit: &Exit) -> bool {
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
    frame.put_words(0, exit.macs)
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
