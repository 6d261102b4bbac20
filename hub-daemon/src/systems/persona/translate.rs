//! What a persona contributes to translation: pairs of ranges, and whether it is masqueraded.

use hub_common::segment::{
    SEGMENT_CLAMPED, SEGMENT_MASQUERADE_V4, SEGMENT_MASQUERADE_V6, SEGMENT_TRANSLATED,
};

use super::Record;
use crate::desired::{Desired, Translation, View};
use crate::model::translation::Nat;

/// `SEGMENT_*` bits for what the data path has to look up.
pub fn flags(record: &Record) -> u32 {
    let persona = &record.persona;
    let nat = match persona.nat() {
        Nat::None if record.virtuals.is_empty() => 0,
        Nat::None | Nat::Static(_) => SEGMENT_TRANSLATED,
        Nat::Masquerade { v6: false } => SEGMENT_TRANSLATED | SEGMENT_MASQUERADE_V4,
        Nat::Masquerade { v6: true } => SEGMENT_TRANSLATED | SEGMENT_MASQUERADE_V4 | SEGMENT_MASQUERADE_V6,
    };
    nat | if persona.mtu().is_some() { SEGMENT_CLAMPED } else { 0 }
}

/// Adds its pairs of ranges and its MTU. `others` have ranges that it has too.
pub fn contribute(desired: &mut Desired, record: &Record, others: &[&Record]) {
    let segment = record.segment;
    for other in others {
        for (main, seen) in other.main_ranges().into_iter().zip(record.sees(other)) {
            if main != seen {
                let key = Translation { segment, view: View::Member, other: seen };
                desired.translations.insert(key, main);
            }
        }
    }
    for (native, instead) in record.virtuals.iter() {
        desired.translations.insert(Translation { segment, view: View::Member, other: *native }, *instead);
    }
    if let Nat::Static(pairs) = record.persona.nat() {
        for (range, external) in pairs {
            let main = record.virtuals.main(range);
            desired.translations.insert(Translation { segment, view: View::Outside, other: *external }, main);
        }
    }
    if matches!(record.persona.nat(), Nat::Masquerade { .. }) {
        desired.masquerade = true;
    }
    if let Some(mtu) = record.persona.mtu() {
        desired.mtus.insert(segment, mtu);
    }
}
