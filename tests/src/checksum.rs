//! Checksums, computed the slow way: the whole sum, word by word, bit by bit.
//!
//! Shares nothing with `hub-common`, so that a mistake there cannot hide itself here.

use std::net::IpAddr;

/// The Internet checksum of `bytes` (RFC 1071).
pub fn internet(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for word in bytes.chunks(2) {
        let low = word.get(1).copied().unwrap_or(0);
        sum += u64::from(word[0]) * 256 + u64::from(low);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of a transport header and payload under the pseudo header of its family.
pub fn transport(source: IpAddr, target: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let mut whole = Vec::new();
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            whole.extend(source.octets());
            whole.extend(target.octets());
            whole.extend([0, protocol]);
            whole.extend((bytes.len() as u16).to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            whole.extend(source.octets());
            whole.extend(target.octets());
            whole.extend((bytes.len() as u32).to_be_bytes());
            whole.extend([0, 0, 0, protocol]);
        }
        _ => panic!("one packet has addresses of two families: {source} and {target}"),
    }
    whole.extend(bytes);
    internet(&whole)
}

/// The CRC32c of `bytes`, as SCTP writes it into its header (RFC 9260 appendix A).
pub fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut register = u32::MAX;
    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = register & 1;
            register >>= 1;
            if carry == 1 {
                register ^= 0x82f6_3b78;
            }
        }
    }
    (!register).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums_come_out() {
        // The example of RFC 1071 section 3.
        assert_eq!(internet(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        // The check value of CRC-32C.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283_u32.to_le_bytes());
    }
}
