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

/// Personas with so many rules each, no two of them with the same ones.
pub(super) fn rules(count: u32, rules: u32) -> String {
    let mut text = String::new();
    for index in 0..count {
        let range = member_address(index * STRIDE);
        _ = write!(text, "---\nkind: persona\nname: p{index}\nip_range: {range}/26\nsecurity_policies:\n");
        for port in ports(index, rules) {
            _ = writeln!(text, "  - {{protocol: tcp, port: {port}, action: allow}}");
        }
    }
    text
}

/// The same for nftables: a chain for each range, with a counter for each rule, as the hub has.
pub(super) fn chains(count: u32, rules: u32) -> String {
    let mut text = String::from("table inet hub {\n");
    for index in 0..count {
        _ = writeln!(text, " chain p{index} {{");
        for port in ports(index, rules) {
            _ = writeln!(text, "  tcp dport {port} counter accept");
        }
        text.push_str("  counter drop\n }\n");
    }
    let element = |index: u32| format!("{}/26 : goto p{index}", member_address(index * STRIDE));
    let elements: Vec<String> = (0..count).map(element).collect();
    _ = writeln!(
        text,
        " map ingress {{\n  type ipv4_addr : verdict\n  flags interval\n  elements = {{ {} }}\n }}\n}}",
        elements.join(", ")
    );
    text
}

/// Ports of the rules of one persona.
fn ports(index: u32, rules: u32) -> impl Iterator<Item = u32> {
    (0..rules).map(move |number| 1_000 + index * 7 + number * 3)
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
        let (text, chains) = (rules(2, 5), chains(2, 5));
        assert_eq!(
            (text.matches("action: allow").count(), chains.matches("counter accept").count()),
            (10, 10)
        );
        let text = sets(20_000);
        assert_eq!((text.matches("172.").count(), text.matches("entries:").count()), (20_000, 2));
        assert_eq!(member(1), Ipv4Addr::new(10, 64, 0, 80));
    }
}
