//! The same policy in nftables: connection tracking first, then a verdict map from member to persona.
//!
//! In the order that is fast there: one lookup for established connections, sets for ports, maps for
//! personas; a linear chain would be tens of times slower.

use std::fmt::Write as _;

use super::lab::Personas;

/// The ruleset.
pub(super) fn ruleset(personas: Personas) -> String {
    let mut text = String::from("table inet hub {\n");
    let ports: Vec<String> = (1..personas.rules).map(|number| (2_000 + number).to_string()).collect();
    for index in 0..personas.count {
        _ = writeln!(
            text,
            " chain p{index} {{\n  tcp dport {{ {} }} counter accept\n  \
             udp dport 443 counter accept\n  counter drop\n }}",
            ports.join(", ")
        );
    }
    let element = |index| format!("{} : goto p{index}", personas.range(index));
    let elements: Vec<String> = (0..personas.count).map(element).collect();
    _ = writeln!(
        text,
        " map ingress {{\n  type ipv4_addr : verdict\n  flags interval\n  elements = {{ {} }}\n }}",
        elements.join(",\n")
    );
    text.push_str(
        " chain forward {\n  type filter hook forward priority filter; policy drop;\n  \
         ct state established,related counter accept\n  ct state invalid counter drop\n  \
         ip daddr vmap @ingress\n  counter\n }\n}\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::lab::{Families, Tracking},
        *,
    };

    #[test]
    fn every_persona_has_a_chain_and_an_element() {
        let text = ruleset(Personas { count: 2, rules: 3, families: Families::V4, tracking: Tracking::All });
        assert_eq!(text.matches("goto p").count(), 2);
        assert!(text.contains("tcp dport { 2001, 2002 }"), "{text}");
    }
}
