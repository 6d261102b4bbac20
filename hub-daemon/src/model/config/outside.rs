//! What translated packets carry: virtual ranges and ports.

use ipnet::IpNet;

use crate::document::parts::OneOrMany;
use crate::model::prefix;
use crate::model::problems::Problems;

pub(super) fn overlap_pool(problems: &mut Problems, written: &OneOrMany<String>) -> Vec<IpNet> {
    let mut pool: Vec<IpNet> = Vec::new();
    for (pointer, text) in written.pointed("/overlap_pool") {
        let Some(prefix) = problems.take(&pointer, prefix::owned(text)) else { continue };
        match pool.iter().find(|other| prefix::overlaps(other, &prefix)) {
            Some(other) => problems.add(pointer, format!("prefix {prefix} overlaps {other} of this list")),
            None => pool.push(prefix),
        }
    }
    pool
}

pub(super) fn ports(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first > 0 && first <= last).then_some((first, last))
    });
    parsed.ok_or_else(|| format!("ports `{text}`: use FIRST-LAST, for example 61000-65535"))
}
