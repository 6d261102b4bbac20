//! Rules that ask for first bytes of connections.

use hub_common::application::Signature;
use hub_common::rule::Rule as Compiled;

use super::each;
use crate::model::rule::Rule;

/// Every signature that rules ask for, once.
pub(super) fn signatures(rules: &[Rule]) -> Vec<Signature> {
    let mut all: Vec<Signature> = Vec::new();
    for signature in rules.iter().flat_map(Rule::signatures) {
        if !all.contains(signature) {
            all.push(*signature);
        }
    }
    all
}

/// A rule for each signature that it asks for.
pub(super) fn signed(rules: &[Compiled], rule: &Rule, signatures: &[Signature]) -> Vec<Compiled> {
    each(rules, rule.signatures(), |base, wanted| {
        let place = signatures.iter().position(|signature| signature == wanted)?;
        Some(Compiled { signature: u8::try_from(place + 1).ok()?, ..base })
    })
}
