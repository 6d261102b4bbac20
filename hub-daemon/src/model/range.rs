//! What a persona asks for with `ip_range`: prefixes of its own, or ranges that the hub gives it.
//!
//! `auto`, `auto/26`, `auto6`, `auto6/64`, each with `@POOL` behind it to name a pool of `hub.yaml`.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::prefix::{self, PrefixError};

/// Length of an IPv4 range that does not say.
const V4_LENGTH: u8 = 24;
/// Length of an IPv6 range that does not say.
const V6_LENGTH: u8 = 64;

/// One entry of `ip_range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// This prefix.
    Given(IpNet),
    /// One that the hub chooses.
    Auto(Auto),
}

/// A range to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auto {
    /// Family.
    pub v4: bool,
    /// Length of the prefix.
    pub length: u8,
    /// The pool it comes from; any pool with room if absent.
    pub pool: Option<String>,
}

/// Why an entry cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskedError {
    /// A prefix that cannot be.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// Begins with `auto` and goes on wrong.
    #[error("range `{0}`: use auto, auto/26, auto6, auto6/64, and @POOL behind it to name a pool")]
    Form(String),
    /// A length that no persona may have.
    #[error("range `{0}`: use a length between /{1} and /{2}")]
    Length(String, u8, u8),
}

impl Asked {
    /// Reads an entry.
    pub fn parse(text: &str) -> Result<Self, AskedError> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix("auto") else { return Ok(Self::Given(prefix::owned(text)?)) };
        let form = || AskedError::Form(text.to_owned());
        let (rest, pool) = match rest.split_once('@') {
            Some((_, "")) => return Err(form()),
            Some((rest, pool)) => (rest, Some(pool.to_owned())),
            None => (rest, None),
        };
        let (v4, rest) = rest.strip_prefix('6').map_or((true, rest), |rest| (false, rest));
        let length = match rest.strip_prefix('/') {
            Some(digits) => digits.parse().map_err(|_number| form())?,
            None if rest.is_empty() => {
                if v4 {
                    V4_LENGTH
                } else {
                    V6_LENGTH
                }
            }
            None => return Err(form()),
        };
        let (min, max) = prefix::lengths(v4);
        if !(min..=max).contains(&length) {
            return Err(AskedError::Length(text.to_owned(), min, max));
        }
        Ok(Self::Auto(Auto { v4, length, pool }))
    }
}

impl Auto {
    /// Stands for the range until there is one, at position `index` of its list: nobody can own it.
    pub fn placeholder(&self, index: usize) -> IpNet {
        let index = (index & 15) as u8;
        if self.v4 {
            let start = Ipv4Addr::new(0xf0 | index, 0, 0, 0);
            Ipv4Net::new(start, self.length).map_or_else(|_length| IpNet::V4(Ipv4Net::default()), IpNet::V4)
        } else {
            let start = Ipv6Addr::new(0x100, u16::from(index), 0, 0, 0, 0, 0, 0);
            Ipv6Net::new(start, self.length).map_or_else(|_length| IpNet::V6(Ipv6Net::default()), IpNet::V6)
        }
    }
}

/// The first prefix of `length` in `pool` of which `busy` knows no overlap. `busy` names any one that does.
pub fn first_free(pool: &IpNet, length: u8, busy: impl Fn(&IpNet) -> Option<IpNet>) -> Option<IpNet> {
    if length < pool.prefix_len() {
        return None;
    }
    match pool {
        IpNet::V4(pool) => {
            let (mut at, last) =
                (u64::from(u32::from(pool.network())), u64::from(u32::from(pool.broadcast())));
            let step = 1_u64 << (32 - u32::from(length));
            while at <= last {
                let start = Ipv4Addr::from(u32::try_from(at).ok()?);
                let candidate = IpNet::V4(Ipv4Net::new(start, length).ok()?);
                let Some(IpNet::V4(other)) = busy(&candidate) else { return Some(candidate) };
                let beyond = u64::from(u32::from(other.broadcast())) + 1;
                at = beyond.max(at + step).next_multiple_of(step);
            }
            None
        }
        IpNet::V6(pool) => {
            let (mut at, last) = (u128::from(pool.network()), u128::from(pool.broadcast()));
            let step = 1_u128 << (128 - u32::from(length));
            while at <= last {
                let candidate = IpNet::V6(Ipv6Net::new(Ipv6Addr::from(at), length).ok()?);
                let Some(IpNet::V6(other)) = busy(&candidate) else { return Some(candidate) };
                let beyond = u128::from(other.broadcast()).checked_add(1)?;
                at = beyond.max(at.checked_add(step)?).checked_next_multiple_of(step)?;
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(text: &str) -> Auto {
        match Asked::parse(text) {
            Ok(Asked::Auto(auto)) => auto,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn automatic_ranges_are_read() {
        assert_eq!(auto("auto"), Auto { v4: true, length: 24, pool: None });
        assert_eq!(auto("auto/26"), Auto { v4: true, length: 26, pool: None });
        assert_eq!(auto("auto6"), Auto { v4: false, length: 64, pool: None });
        assert_eq!(auto("auto6/72@lab"), Auto { v4: false, length: 72, pool: Some("lab".into()) });
        assert_eq!(Asked::parse("10.0.0.0/24").unwrap(), Asked::Given("10.0.0.0/24".parse().unwrap()));
        for (text, wanted) in [
            ("auto4", "use auto, auto/26"),
            ("auto/", "use auto, auto/26"),
            ("auto@", "use auto, auto/26"),
            ("auto/31", "between /8 and /30"),
            ("auto6/24", "between /32 and /126"),
        ] {
            let error = Asked::parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_gap_that_is_large_enough_is_taken() {
        let taken: Vec<IpNet> =
            ["10.0.0.0/26", "10.0.0.128/25", "fd00::/64"].map(|text| text.parse().unwrap()).into();
        let busy = |candidate: &IpNet| taken.iter().find(|other| prefix::overlaps(other, candidate)).copied();
        let first = |pool: &str, length| {
            first_free(&pool.parse().unwrap(), length, busy).map(|found| found.to_string())
        };
        assert_eq!(first("10.0.0.0/23", 26).as_deref(), Some("10.0.0.64/26"));
        assert_eq!(first("10.0.0.0/23", 25).as_deref(), Some("10.0.1.0/25"));
        assert_eq!(first("10.0.0.0/24", 25), None);
        assert_eq!(first("10.0.0.0/24", 8), None);
        assert_eq!(first("fd00::/48", 64).as_deref(), Some("fd00:0:0:1::/64"));
        assert_eq!(first("255.255.255.0/24", 24).as_deref(), Some("255.255.255.0/24"));
    }

    #[test]
    fn placeholders_of_one_list_do_not_overlap() {
        for (v4, length) in [(true, 8), (true, 30), (false, 32), (false, 126)] {
            let auto = Auto { v4, length, pool: None };
            let made: Vec<IpNet> = (0..16).map(|index| auto.placeholder(index)).collect();
            for (index, one) in made.iter().enumerate() {
                assert!(made.iter().skip(index + 1).all(|other| !prefix::overlaps(one, other)), "{one}");
            }
        }
    }
}
