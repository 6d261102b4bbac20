//! Pools: prefixes that ranges are taken from.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;

use super::problems::Problems;
use super::{names, prefix, span};
use crate::document::hub::HubDocument;

/// How long ranges of a pool rest that does not say.
const QUARANTINE: Duration = Duration::from_mins(1);

/// Prefixes that ranges are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The prefixes; no two of any pools overlap.
    pub prefixes: Vec<IpNet>,
    /// How long a range rests before another persona gets it.
    pub quarantine: Duration,
}

impl From<Vec<IpNet>> for Pool {
    fn from(prefixes: Vec<IpNet>) -> Self {
        Self { prefixes, quarantine: QUARANTINE }
    }
}

/// Reads `pools`.
pub fn read(problems: &mut Problems, document: &HubDocument) -> BTreeMap<String, Pool> {
    let mut taken: Vec<IpNet> = Vec::new();
    let mut pools = BTreeMap::new();
    for (name, written) in &document.pools {
        let base = format!("/pools/{name}");
        problems.take(&base, names::persona(name));
        let mut prefixes = Vec::new();
        for (pointer, text) in written.pointed(&base) {
            let Some(prefix) = problems.take(&pointer, prefix::owned(text)) else { continue };
            if let Some(other) = taken.iter().find(|other| prefix::overlaps(other, &prefix)) {
                problems.add(pointer, format!("prefix {prefix} overlaps {other} of a pool"));
                continue;
            }
            taken.push(prefix);
            prefixes.push(prefix);
        }
        let quarantine = match written.quarantine() {
            Some("0" | "0s") => Duration::ZERO,
            Some(text) => {
                problems.take(&format!("{base}/quarantine"), span::parse(text)).unwrap_or(QUARANTINE)
            }
            None => QUARANTINE,
        };
        pools.insert(name.clone(), Pool { prefixes, quarantine });
    }
    pools
}
