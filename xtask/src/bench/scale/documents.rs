//! Documents with very many personas, and with very many elements of sets.

use std::{fmt::Write as _, net::Ipv4Addr};

use super::super::lab::{FIRST_MEMBER, MEMBER_PORT, STRIDE, member_address};

/// Elements of one set at most.
const SET: u32 = 16_000;

/// A member of one persona.
pub(super) fn member(index: u32) -> Ipv4Addr {
    member_address(index * STRIDE + FIRST_MEMBER)
}

/// A file of personas with so many rules each; the last rule lets UDP to the members' port in.
pub(super) fn personas(count: u32, rules: u32) -> String {
    let mut text = String::new();
    for index in 0..count {
        let range = member_address(index * STRIDE);
        _ = write!(
            text,
            "---\nkind: persona\nname: p{index}\nip_range: {range}/26\nprotocols: [tcp, udp, icmp]\n\
             security_policies:\n"
        );
        for number in 1..rules {
            _ = writeln!(text, "  - {{protocol: tcp, port: {}, action: allow}}", 2_000 + number);
        }
        _ = writeln!(text, "  - {{protocol: udp, port: {MEMBER_PORT}, action: allow}}");
    }
    text
}

/// An address outside of all personas.
pub(super) fn element(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(172, 16, 0, 0).to_bits() + 2 * index)
}

/// One persona whose sets hold so many addresses.
pub(super) fn sets(elements: u32) -> String {
    let mut text = String::from(
        "kind: persona\nname: p0\nip_range: 10.64.0.0/26\nsecurity_policies:\n  \
         - {protocol: tcp, source: \"@s0\", action: allow}\nsets:\n",
    );
    for (set, first) in (0..elements.max(1)).step_by(SET as usize).enumerate() {
        let last = (first + SET).min(elements);
        let entries: Vec<String> = (first..last).map(|index| element(index).to_string()).collect();
        _ = writeln!(text, "  s{set}: {{entries: [{}]}}", entries.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_what_was_asked_for() {
        let text = personas(3, 8);
        assert_eq!((text.matches("kind: persona").count(), text.matches("action: allow").count()), (3, 24));
        let text = sets(20_000);
        assert_eq!((text.matches("172.").count(), text.matches("entries:").count()), (20_000, 2));
        assert_eq!(member(1), Ipv4Addr::new(10, 64, 0, 80));
    }
}
