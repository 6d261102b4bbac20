//! Whether the other ends of a tunnel have shaken hands lately enough. Nobody speaks in a tunnel that is not used, so
//! those who have been silent for too long are called.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kernel::wireguard::keys::{self, Key};
use crate::kernel::wireguard::{Peer, Place, WireguardError, named};

/// How long a handshake may take: a first packet that is lost is repeated after 5.3 s at most (`WireGuard`'s
/// `Rekey-Timeout` and its jitter), never before.
const SHAKE: Duration = Duration::from_secs(6);
/// How long it takes to find that somebody does not answer, and a little more.
pub(super) const LONGEST: Duration = Duration::from_millis(6_500);

/// The age of the oldest handshake that counts: those of these peers, or the last one of any where none is named. Who
/// must be called is called. Blocks for 6 s at most.
///
/// # Errors
///
/// Who did not answer, and what is known of why.
pub fn ask(tunnel: &Place, wanted: &[String], within: Duration) -> Result<Duration, String> {
    let told = |error: WireguardError| error.to_string();
    let found = || tunnel.status().map(|device| device.peers).map_err(told);
    let wanted = wanted.iter().map(|key| keys::parse(key)).collect::<Result<Vec<_>, _>>();
    let wanted = wanted.map_err(|error| error.to_string())?;
    if let Ok(age) = oldest(&tunnel.link, &found()?, &wanted, within) {
        return Ok(age);
    }
    let called = tunnel.shake_hands_with(&wanted, SHAKE);
    oldest(&tunnel.link, &found()?, &wanted, within).map_err(|why| called.err().map_or(why, told))
}

fn oldest(
    link: &str,
    peers: &BTreeMap<Key, Peer>,
    wanted: &[Key],
    within: Duration,
) -> Result<Duration, String> {
    let judge = |who: &str, age: Option<Duration>| match age {
        Some(age) if age <= within => Ok(age),
        Some(age) => {
            let (age, within) = (age.as_secs(), within.as_secs());
            Err(format!("the last handshake of {link}{who} was {age} s ago, more than {within} s"))
        }
        None => Err(format!("{link} had no handshake yet{who}")),
    };
    if wanted.is_empty() {
        return judge("", peers.values().filter_map(|peer| peer.handshake_age).min());
    }
    let mut oldest = Duration::ZERO;
    for key in wanted {
        let peer = peers.get(key).ok_or_else(|| format!("{link} has no peer {}", keys::base64(key)))?;
        oldest = oldest.max(judge(&format!(" with {}", named(key, peer)), peer.handshake_age)?);
    }
    Ok(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_mins(3);

    fn peers(ages: &[(u8, Option<u64>)]) -> BTreeMap<Key, Peer> {
        let peer = |age: Option<u64>| Peer {
            endpoint: "192.0.2.7:51820".parse().ok(),
            handshake_age: age.map(Duration::from_secs),
            ..Peer::default()
        };
        ages.iter().map(|(key, age)| ([*key; 32], peer(*age))).collect()
    }

    #[test]
    fn every_peer_that_can_be_called_must_have_answered() {
        let both = [1, 2].map(|key| [key; 32]);
        let [one, two] = both.map(|key| keys::base64(&key));
        let fresh = peers(&[(1, Some(5)), (2, Some(170)), (3, None)]);
        assert_eq!(
            oldest("wg0", &fresh, &both, WITHIN),
            Ok(Duration::from_secs(170)),
            "the third calls itself"
        );
        let silent = peers(&[(1, Some(5)), (2, None)]);
        let why = oldest("wg0", &silent, &both, WITHIN).unwrap_err();
        assert_eq!(why, format!("wg0 had no handshake yet with {two} at 192.0.2.7:51820"));
        let old = peers(&[(1, Some(181)), (2, Some(5))]);
        let why = oldest("wg0", &old, &both, WITHIN).unwrap_err();
        assert!(
            why.contains(&format!("with {one} at 192.0.2.7:51820 was 181 s ago, more than 180 s")),
            "{why}"
        );
        assert!(oldest("wg0", &peers(&[(1, Some(5))]), &both, WITHIN).unwrap_err().contains("has no peer"));
    }

    #[test]
    fn where_nobody_can_be_called_the_last_who_called_counts() {
        let one = peers(&[(1, None), (2, Some(9)), (3, Some(400))]);
        assert_eq!(oldest("wg0", &one, &[], WITHIN), Ok(Duration::from_secs(9)));
        let none = peers(&[(1, None)]);
        assert_eq!(oldest("wg0", &none, &[], WITHIN), Err("wg0 had no handshake yet".into()));
    }
}
