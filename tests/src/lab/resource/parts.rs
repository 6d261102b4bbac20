//! Which personality an interface has, part by part.

use std::fmt;

use super::Which::{self, Open, Shut};
use super::{BOTH, Resource, SWITCH, marked, resource_at};
use crate::lab::Outcome::{Answered, Refused};
use crate::lab::world::FAMILIES;

impl Resource {
    /// Which personality each part of the interface is of.
    pub fn parts(&self) -> Parts {
        self.parts_on("eth0")
    }

    /// As [`Resource::parts`], where the interface has this name.
    pub fn parts_on(&self, interface: &str) -> Parts {
        let member = &self.world.members[0];
        let of = |says: &dyn Fn(Which) -> bool| match [Open, Shut].map(says) {
            [true, false] => Some(Open),
            [false, true] => Some(Shut),
            _ => None,
        };
        let view = self.view();
        let addresses = member.sh(&format!("ip -oneline address show dev {interface}"));
        let has = |which: Which, v4: bool| {
            let own = format!(" {}/{} ", which.address(v4), if v4 { 24 } else { 64 });
            addresses.lines().any(|line| line.contains(&own) && !line.contains(" deprecated "))
        };
        let routes =
            FAMILIES.map(|v4| member.try_sh(&format!("ip route get {}", marked(v4)), SWITCH).stdout).concat();
        let leads = |which: Which, v4: bool| routes.contains(&format!("src {} ", which.address(v4)));
        let file = format!("/etc/netns/{}/resolv.conf", member.name());
        let resolver = std::fs::read_to_string(file).unwrap_or_default();
        let asks = |which: Which, v4: bool| resolver.contains(&format!("nameserver {}\n", which.server(v4)));
        let lets_in = |v4: bool| {
            let [open, shut] = [Open, Shut].map(|which| self.tcp(v4, which.port()));
            of(&|which| (open, shut) == if which == Open { (Answered, Refused) } else { (Refused, Answered) })
        };
        Parts(vec![
            ("record", of(&|which| view["current"] == format!("{}@1", which.name()))),
            ("IPv4 addresses", of(&|which| has(which, true))),
            ("IPv6 addresses", of(&|which| has(which, false))),
            ("IPv4 routes", of(&|which| leads(which, true))),
            ("IPv6 routes", of(&|which| leads(which, false))),
            ("resolver by IPv4", of(&|which| asks(which, true))),
            ("resolver by IPv6", of(&|which| asks(which, false))),
            ("policy for IPv4", lets_in(true)),
            ("policy for IPv6", lets_in(false)),
        ])
    }

    /// Fails the test unless the interface is of one personality whole, and what both let in passes.
    #[track_caller]
    pub fn expect_whole(&self, which: Which, name: &str) {
        assert_eq!(self.parts().whole(), Some(which), "{name}: {}", self.parts());
        for v4 in FAMILIES {
            self.world.outside.expect_tcp(resource_at(v4), BOTH, Answered);
        }
    }
}

/// Of which personality each part of an interface is; `None` is of neither, or of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts(Vec<(&'static str, Option<Which>)>);

impl Parts {
    /// The personality that all parts are of.
    pub fn whole(&self) -> Option<Which> {
        let (_, first) = self.0.first()?;
        first.filter(|first| self.decides() == Some(*first))
    }

    /// The personality that packets and programs meet, whatever the record says of it yet.
    pub fn decides(&self) -> Option<Which> {
        let (_, first) = self.0.get(1)?;
        first.filter(|_| self.0.iter().skip(1).all(|(_, which)| which == first))
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.0.iter().map(|(part, which)| match which {
            Some(which) => format!("{part}: {}", which.name()),
            None => format!("{part}: neither or both"),
        });
        formatter.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}
