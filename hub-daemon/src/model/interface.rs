//! An interface record whose document was checked whole; personalities are not asked whether they exist.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::Check;
use super::persona::labels;
use super::personality::{self, Wanted};
use super::problems::Problems;
use super::{names, span};
use crate::command::Problem;
use crate::desired::Namespace;
use crate::desired::interfaces::{Place, Selector};
use crate::document::interface::{
    FailBackDocument, FailoverDocument, InterfaceRecordDocument, RoutesDocument, ZonesDocument,
};
use crate::document::parts::SelectorDocument;

const HYSTERESIS: Duration = Duration::from_mins(5);
const FAILS_FOR: Duration = Duration::from_secs(10);
const HOLD_DOWN: Duration = Duration::from_mins(1);
const LEVELS: usize = 16;

/// A checked interface record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceRecord {
    /// Unique name.
    pub name: String,
    /// Which interface.
    pub place: Place,
    /// Interface of the hub that leads to it; `None` if it is one by itself that is known by no name.
    pub port: Option<String>,
    /// Personality that it has at first.
    pub personality: Wanted,
    /// Personality for the case that a switch can neither go on nor back.
    pub default: Option<Wanted>,
    /// Whether the hub may write `/etc/resolv.conf` where nothing better answers names.
    pub manage_resolv_conf: bool,
    /// Whose packets use the routes.
    pub routes: RoutesDocument,
    /// Personalities by threat level.
    pub zones: Option<Zones>,
    /// A personality for the case that something else fails.
    pub failover: Option<Failover>,
    /// What placeholders of personalities stand for.
    pub labels: BTreeMap<String, String>,
}

/// Personalities by threat level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zones {
    /// Levels from the least to the greatest threat.
    pub levels: Vec<(String, Wanted)>,
    /// How long a level must be lower before the interface follows it down.
    pub hysteresis: Duration,
}

/// A personality for the case that something fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// What is asked.
    pub check: Check,
    /// How long it must fail.
    pub fails_for: Duration,
    /// The personality.
    pub to: Wanted,
    /// Whether the interface comes back by itself.
    pub comes_back: bool,
    /// How long the check must succeed before it does.
    pub hold_down: Duration,
}

impl InterfaceRecord {
    /// Checks a document. Problems carry JSON pointers into it.
    pub fn new(document: &InterfaceRecordDocument) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        problems.take("/name", names::persona(&document.name));
        let selector = selector(&mut problems, &document.interface);
        let namespace = document.namespace.as_ref().and_then(|name| {
            problems.take("/namespace", names::namespace(name)).map(|()| Namespace::Name(name.clone()))
        });
        let port = port(&mut problems, document, selector.as_ref());
        let personality = wanted(&mut problems, "/personality", &document.personality);
        let default = document.default.as_ref().and_then(|text| wanted(&mut problems, "/default", text));
        let zones = document.zones.as_ref().map(|written| zones(&mut problems, written));
        let failover = document.failover.as_ref().and_then(|written| failover(&mut problems, written));
        labels::check(&mut problems, document.labels.as_ref());
        let inside =
            if document.namespace.is_some() { RoutesDocument::Everything } else { RoutesDocument::Addresses };
        let record = selector.zip(personality).map(|(selector, personality)| Self {
            name: document.name.clone(),
            place: Place { namespace, selector },
            port,
            personality,
            default,
            manage_resolv_conf: document.manage_resolv_conf.unwrap_or(false),
            routes: document.routes.unwrap_or(inside),
            zones,
            failover,
            labels: document.labels.clone().unwrap_or_default(),
        });
        match record {
            Some(record) => problems.settle(record),
            None => Err(problems.into_vec()),
        }
    }

    /// Whether it is one of the hub's own interfaces, with a subnet behind it.
    pub fn is_own(&self) -> bool {
        self.place.namespace.is_none()
    }
}

fn wanted(problems: &mut Problems, pointer: &str, text: &str) -> Option<Wanted> {
    problems.take(pointer, Wanted::parse(text))
}

fn selector(problems: &mut Problems, written: &SelectorDocument) -> Option<Selector> {
    let each = match written {
        SelectorDocument::Name(name) => {
            problems.take("/interface", names::interface(name))?;
            return Some(Selector::Name(name.clone()));
        }
        SelectorDocument::Each(each) => each,
    };
    match (&each.name, &each.mac, &each.altname) {
        (Some(name), None, None) => {
            problems.take("/interface/name", names::interface(name))?;
            Some(Selector::Name(name.clone()))
        }
        (None, Some(mac), None) => {
            let detail = || format!("mac `{mac}`: use six pairs of digits, like 02:00:00:00:00:01");
            problems.take("/interface/mac", hardware(mac).ok_or_else(detail)).map(Selector::Mac)
        }
        (None, None, Some(name)) if !name.is_empty() && name.len() < 128 && !name.contains(['/', ' ']) => {
            Some(Selector::AltName(name.clone()))
        }
        (None, None, Some(name)) => {
            // ALTIFNAMSIZ of linux/if.h.
            let detail = format!("altname `{name}`: use 1 to 127 letters without spaces and `/`");
            problems.add("/interface/altname", detail);
            None
        }
        _ => {
            problems.add("/interface", "give exactly one of `name`, `mac` and `altname`");
            None
        }
    }
}

fn hardware(text: &str) -> Option<[u8; 6]> {
    let bytes = text.split(':').map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2));
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

fn port(
    problems: &mut Problems,
    document: &InterfaceRecordDocument,
    selector: Option<&Selector>,
) -> Option<String> {
    match (&document.port, &document.namespace, selector) {
        (Some(port), Some(_), _) => {
            problems.take("/port", names::interface(port));
            Some(port.clone())
        }
        (None, Some(_), _) => {
            problems.add("/port", "a port is missing: name the hub's interface that leads to it");
            None
        }
        (Some(_), None, _) => {
            problems.add("/port", "an interface of the hub is its own port: leave it out");
            None
        }
        (None, None, Some(Selector::Name(name))) => Some(name.clone()),
        (None, None, Some(Selector::Mac(_) | Selector::AltName(_)) | None) => None,
    }
}

fn zones(problems: &mut Problems, written: &ZonesDocument) -> Zones {
    if written.levels.is_empty() || written.levels.len() > LEVELS {
        problems.add("/zones/levels", format!("use 1 to {LEVELS} levels"));
    }
    let mut levels: Vec<(String, Wanted)> = Vec::new();
    for (index, level) in written.levels.iter().enumerate() {
        let base = format!("/zones/levels/{index}");
        problems.take(&format!("{base}/level"), names::persona(&level.level));
        if levels.iter().any(|(name, _)| *name == level.level) {
            problems.add(format!("{base}/level"), format!("level `{}` is there twice", level.level));
        }
        let personality = wanted(problems, &format!("{base}/personality"), &level.personality);
        levels.extend(personality.map(|personality| (level.level.clone(), personality)));
    }
    let hysteresis = time(problems, "/zones/hysteresis", written.hysteresis.as_deref(), HYSTERESIS);
    Zones { levels, hysteresis }
}

fn failover(problems: &mut Problems, written: &FailoverDocument) -> Option<Failover> {
    let check = personality::target(problems, "/failover/check", &written.check);
    let to = wanted(problems, "/failover/to", &written.to);
    let fails_for = time(problems, "/failover/for", written.fails_for.as_deref(), FAILS_FOR);
    let hold_down = time(problems, "/failover/hold_down", written.hold_down.as_deref(), HOLD_DOWN);
    let comes_back = written.fail_back == Some(FailBackDocument::Auto);
    Some(Failover { check: check?, fails_for, to: to?, comes_back, hold_down })
}

fn time(problems: &mut Problems, pointer: &str, written: Option<&str>, default: Duration) -> Duration {
    match written {
        None => default,
        Some("0" | "0s") => Duration::ZERO,
        Some(text) => problems.take(pointer, span::parse(text)).unwrap_or(default),
    }
}
