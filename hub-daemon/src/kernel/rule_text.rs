//! A compiled rule in words, from what the data path compares.

use std::fmt::Write as _;

use hub_common::address::{Address, V4_OFFSET_BITS};
use hub_common::packet::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use hub_common::rule::{
    ACTION_ALLOW, ACTION_DENY, ACTION_LOG, ACTION_PASS_ON, ACTION_QUARANTINE, ACTION_RATE_LIMIT,
    ACTION_REJECT, RULE_BASELINE, RULE_CONNECTIONS, RULE_ICMP_CODE, RULE_ICMP_TYPE, RULE_LOG, RULE_PROTOCOL,
    RULE_SOURCE_PORT, RULE_SOURCE_SET, RULE_TARGET_PORT, RULE_TARGET_SET, RULE_V4, RULE_V6, Rule,
};
use hub_common::segment::{POLICY_DEFAULT_REJECT, Policy};

use super::names::ip;
use crate::model::protocol;

/// In front of the text of the hub's own rules.
pub(crate) const BASELINE: &str = "baseline: ";

/// TCP flags by name.
const TCP_FLAGS: [(&str, u8); 6] = [
    ("fin", TCP_FIN),
    ("syn", TCP_SYN),
    ("rst", TCP_RST),
    ("psh", 1 << 3),
    ("ack", TCP_ACK),
    ("urg", 1 << 5),
];

/// The rule in words, for example `deny tcp from 10.0.0.0/8 to any port 22`.
pub(crate) fn words(rule: &Rule) -> String {
    let has = |flag: u16| rule.flags & flag != 0;
    let action = match rule.action {
        ACTION_ALLOW => "allow",
        ACTION_DENY => "deny",
        ACTION_REJECT => "reject",
        ACTION_LOG => "log",
        ACTION_RATE_LIMIT if has(RULE_CONNECTIONS) => "allow so many connections of",
        ACTION_RATE_LIMIT => "limit the rate of",
        ACTION_QUARANTINE => "quarantine the source of",
        ACTION_PASS_ON => "pass on",
        _ => "unknown action for",
    };
    let family = if has(RULE_V4) {
        "IPv4 "
    } else if has(RULE_V6) {
        "IPv6 "
    } else {
        ""
    };
    let protocol = if has(RULE_PROTOCOL) { protocol::name(rule.protocol) } else { "any protocol".to_owned() };
    let tier = if has(RULE_BASELINE) { BASELINE } else { "" };
    let from = if has(RULE_SOURCE_SET) { "a set".into() } else { prefix(&rule.source, rule.source_bits) };
    let mut text = format!("{tier}{action} {family}{protocol} from {from}");
    if has(RULE_SOURCE_PORT) {
        ports(&mut text, rule.source_port);
    }
    text += " to ";
    text += &if has(RULE_TARGET_SET) { "a set".into() } else { prefix(&rule.target, rule.target_bits) };
    if has(RULE_TARGET_PORT) {
        ports(&mut text, rule.target_port);
    }
    if has(RULE_ICMP_TYPE) {
        note(&mut text, format_args!(", type {}", rule.icmp_type));
    }
    if has(RULE_ICMP_CODE) {
        note(&mut text, format_args!(", code {}", rule.icmp_code));
    }
    for (name, bit) in TCP_FLAGS.into_iter().filter(|(_, bit)| rule.tcp_mask & bit != 0) {
        let not = if rule.tcp_value & bit == 0 { "not " } else { "" };
        note(&mut text, format_args!(", {not}{name}"));
    }
    if rule.signature != 0 {
        text += ", if its first bytes fit";
    }
    if has(RULE_LOG) && rule.action != ACTION_LOG {
        text += ", logged";
    }
    text
}

/// What a policy's default does with a packet that no rule matched.
pub(crate) const fn default_words(policy: &Policy, passes: bool) -> &'static str {
    if passes {
        "no rule matches: the default allows"
    } else if policy.flags & POLICY_DEFAULT_REJECT != 0 {
        "no rule matches: the default rejects"
    } else {
        "no rule matches: the default denies"
    }
}

fn prefix(address: &Address, bits: u8) -> String {
    match (bits, ip(address)) {
        (0, _) => "any".to_owned(),
        (128, address) => address.to_string(),
        (bits, address) if address.is_ipv4() => match bits.saturating_sub(V4_OFFSET_BITS) {
            0 => "any".to_owned(),
            bits => format!("{address}/{bits}"),
        },
        (bits, address) => format!("{address}/{bits}"),
    }
}

fn ports(text: &mut String, [first, last]: [u16; 2]) {
    if first == last {
        note(text, format_args!(" port {first}"));
    } else {
        note(text, format_args!(" ports {first}-{last}"));
    }
}

fn note(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.write_fmt(words).expect("a String takes all text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_common::address::mapped;

    #[test]
    fn rules_read_as_they_are_compared() {
        let rule = Rule {
            source: mapped([10, 0, 0, 0]),
            source_bits: 104,
            target: mapped([10, 1, 0, 80]),
            target_bits: 128,
            protocol: 6,
            action: ACTION_DENY,
            source_port: [1_024, 65_535],
            target_port: [22, 22],
            signature: 3,
            tcp_mask: TCP_SYN | TCP_ACK,
            tcp_value: TCP_SYN,
            flags: RULE_PROTOCOL | RULE_SOURCE_PORT | RULE_TARGET_PORT | RULE_LOG,
            ..Rule::ZERO
        };
        let expected = "deny tcp from 10.0.0.0/8 ports 1024-65535 to 10.1.0.80 port 22, syn, not ack, \
                        if its first bytes fit, logged";
        assert_eq!(words(&rule), expected);
    }

    #[test]
    fn whole_families_are_any() {
        let rule = Rule { source: mapped([0; 4]), source_bits: 96, flags: RULE_V4, ..Rule::ZERO };
        assert_eq!(words(&rule), "allow IPv4 any protocol from any to any");
        let rule = Rule { protocol: 58, icmp_type: 128, flags: RULE_PROTOCOL | RULE_ICMP_TYPE, ..Rule::ZERO };
        assert_eq!(words(&rule), "allow icmpv6 from any to any, type 128");
    }
}
