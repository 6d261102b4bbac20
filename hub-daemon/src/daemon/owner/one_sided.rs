//! Whether answers to personas' connections take another way: raised at once, cleared when it was quiet for long.

use std::collections::BTreeMap;

use crate::model::SegmentId;

/// So many connections at once are no accident.
const RAISED_AT: u64 = 3;
/// Looks without any, after which it is over.
const QUIET_LOOKS: u32 = 3;

/// Segments whose connections are seen in one direction only.
#[derive(Debug, Default)]
pub(super) struct OneSided {
    /// Those that are told of.
    told: BTreeMap<SegmentId, Standing>,
    /// What the last look found.
    found: BTreeMap<SegmentId, u64>,
}

#[derive(Debug)]
struct Standing {
    flows: u64,
    quiet: u32,
}

impl OneSided {
    /// How many connections the last look found, by segment.
    pub(super) fn found(&self) -> &BTreeMap<SegmentId, u64> {
        &self.found
    }

    /// Takes note of what was found, and says what is to be said.
    pub(super) fn look(
        &mut self,
        found: &BTreeMap<SegmentId, u64>,
        name: impl Fn(SegmentId) -> Option<String>,
    ) -> Option<String> {
        self.found.clone_from(found);
        for (segment, flows) in found {
            if let Some(standing) = self.told.get_mut(segment) {
                *standing = Standing { flows: *flows, quiet: 0 };
            } else if *flows >= RAISED_AT {
                self.told.insert(*segment, Standing { flows: *flows, quiet: 0 });
            }
        }
        for (segment, standing) in &mut self.told {
            if !found.contains_key(segment) {
                standing.quiet += 1;
            }
        }
        self.told.retain(|segment, standing| standing.quiet < QUIET_LOOKS && name(*segment).is_some());
        let told = self.told.iter().filter_map(|(segment, standing)| {
            Some(format!("persona `{}`: {} TCP connections", name(*segment)?, standing.flows))
        });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| {
            format!(
                "{} whose answers do not come through the hub: they end after `timeouts.opening`. Set `egress.nat: \
                 masquerade`, or route answers back through the hub",
                told.join("; ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_raised_by_several_and_cleared_after_a_while_without_any() {
        let name = |segment: SegmentId| (segment.0 < 9).then(|| format!("p{segment}"));
        let (mut seen, none) = (OneSided::default(), BTreeMap::new());
        let found = |flows| BTreeMap::from([(SegmentId(1), flows)]);
        assert_eq!(seen.look(&found(2), name), None, "two may be an accident");
        assert_eq!(*seen.found(), found(2), "and are counted");
        let told = seen.look(&found(3), name).unwrap();
        assert!(told.contains("`p1`: 3 TCP connections") && told.contains("masquerade"), "{told}");
        assert!(seen.look(&found(1), name).unwrap().contains(": 1 TCP"), "one is enough to stay");
        assert!(seen.look(&none, name).is_some() && seen.look(&none, name).is_some());
        assert!(seen.look(&found(1), name).is_some(), "it begins anew");
        for _ in 1..QUIET_LOOKS {
            assert!(seen.look(&none, name).is_some());
        }
        assert_eq!(seen.look(&none, name), None);
        assert_eq!(seen.look(&found(2), name), None);
        let gone = BTreeMap::from([(SegmentId(9), 8)]);
        assert_eq!(seen.look(&gone, name), None, "a persona that is gone says nothing");
    }
}
