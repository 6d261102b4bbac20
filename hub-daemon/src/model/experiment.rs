//! Which part of several interfaces an experiment, or a switch with `percent`, chooses.
//!
//! Each interface is chosen or not by its name alone: the choice is the same after a restart and whoever else is
//! asked about, and a greater percentage only adds to it.

use ring::digest::{SHA256, digest};

/// Most that can be chosen.
pub const ALL: u8 = 100;

/// Whether an interface is among `percent` of a hundred. Another `salt` makes another choice.
pub fn is_chosen(salt: &str, interface: &str, percent: u8) -> bool {
    let hash = digest(&SHA256, format!("{salt}\0{interface}").as_bytes());
    let first = hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let place = (u128::from(first) * u128::from(ALL)) >> 64;
    place < u128::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_as_many_are_chosen_as_were_asked_for() {
        for percent in [0, 1, 10, 50, 99, 100] {
            let chosen =
                (0..10_000).filter(|number| is_chosen("salt", &format!("i{number}"), percent)).count();
            let wanted = usize::from(percent) * 100;
            assert!(chosen.abs_diff(wanted) <= 200, "{percent} %: {chosen} of 10000");
            assert!(!matches!(percent, 0 | 100) || chosen == wanted);
        }
    }

    #[test]
    fn more_adds_and_takes_nothing_away() {
        for number in 0..200 {
            let name = format!("i{number}");
            let by_percent: Vec<bool> = (0..=ALL).map(|percent| is_chosen("a", &name, percent)).collect();
            assert!(by_percent.is_sorted(), "{name}");
        }
    }

    #[test]
    fn the_choice_is_the_same_everywhere_and_another_one_with_another_salt() {
        let chosen = |salt| {
            let names = (0..20).map(|number| format!("web-{number}"));
            names.filter(|name| is_chosen(salt, name, 20)).collect::<Vec<_>>()
        };
        assert_ne!(chosen("qos"), chosen("dns"));
        assert_eq!(chosen("qos"), CHOSEN, "hubs of other versions choose the same");
    }

    const CHOSEN: [&str; 6] = ["web-6", "web-9", "web-12", "web-13", "web-14", "web-19"];
}
