//! What the hub wants to know of interfaces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hub_common::set::set_number;

use super::super::Hub;
use crate::command::switch::Connection;
use crate::desired::interfaces::slot_table;
use crate::document::interface::RoutesDocument;
use crate::document::persona::PersonaDocument;
use crate::model::SegmentId;
use crate::model::check::{Check, CheckAsked};
use crate::model::interface::Failover;
use crate::model::persona::Persona;
use crate::model::personality::{Drain, Version};
use crate::model::policy::Policy;
use crate::model::set::Elements;
use crate::systems::persona;
use crate::systems::personality::contribute::tunnel_name;
use crate::systems::personality::health::EVERY;
use crate::systems::personality::lookups::placed;
use crate::systems::personality::seat::Seat;
use crate::systems::personality::switch::Phase;
use crate::systems::personality::{Record, checks};
use crate::view::switch::{Judged, Question, Wanted};

impl Hub {
    /// What the hub wants to know of an interface.
    pub(in super::super) fn wants(&self, name: &str) -> Vec<Wanted> {
        let Some(record) = self.interfaces.records.get(name) else { return Vec::new() };
        let question = match &record.switch {
            None => Some(self.checks(name, Some(EVERY))),
            Some(switch) if switch.phase.asks_checks() => Some(self.checks(name, None)),
            Some(switch) if switch.phase == Phase::Drain && switch.applied => {
                let judged = self.waiting(name, switch.drain, switch.ordered_by);
                judged.map(|judged| Question::Flows { segment: self.segment_of(name), judged, awaited: true })
            }
            Some(_) => None,
        };
        let wanted = question.into_iter().map(|question| Wanted { ticket: record.ticket, question });
        wanted.chain(self.wants_count(name, record)).collect()
    }

    /// What a switch cuts that waits for no connections: asked from its beginning on, and answered when there is time.
    fn wants_count(&self, name: &str, record: &Record) -> Option<Wanted> {
        let switch = record.switch.as_ref().filter(|switch| !switch.drains() && switch.phase.goes_on())?;
        let judged = if switch.phase.is_before_flip() {
            self.waiting(name, switch.drain, switch.ordered_by)
        } else {
            self.deciding(name, switch.drain, switch.ordered_by).filter(|_| switch.flows.is_none())
        };
        let question = Question::Flows { segment: self.segment_of(name), judged: judged?, awaited: false };
        Some(Wanted { ticket: switch.counts, question })
    }

    /// The question for the checks of an interface. Where its routes are for its addresses alone, one of these asks.
    fn checks(&self, name: &str, every: Option<Duration>) -> Question {
        let record = self.interfaces.records.get(name);
        let alone = record.filter(|record| record.settings.routes == RoutesDocument::Addresses);
        let worn = alone.and_then(|record| self.worn(record, &record.layout.live));
        let from = worn.iter().flat_map(|personality| personality.addresses().keys());
        Question::Checks { asked: self.asked(name), every, from: from.map(ipnet::IpNet::addr).collect() }
    }

    /// Checks of an interface as it is, and what else is asked in the phase that it is in.
    pub(super) fn asked(&self, name: &str) -> Vec<CheckAsked> {
        let Some(record) = self.interfaces.records.get(name) else { return Vec::new() };
        let mut asked = self.baseline_of(name);
        let segment = self.segment_of(name);
        match &record.switch {
            Some(switch) if switch.phase == Phase::Preflight => {
                let worn = |version: &Version| self.worn(record, version);
                let (from, to) = (worn(&switch.from), worn(&switch.to));
                let link = |tunnel| tunnel_name(tunnel, segment);
                let there = from.as_ref().and_then(|from| from.tunnel()).map(link);
                let fresh = to.as_ref().and_then(|to| to.tunnel());
                let fresh = fresh.filter(|tunnel| there.as_ref() != Some(&link(tunnel)));
                asked.extend(fresh.map(|tunnel| CheckAsked::new(checks::handshake(tunnel, segment), true)));
                asked.push(CheckAsked::new(Check::Drops { before: None }, false));
            }
            Some(switch) => {
                // Going back is never worse than staying, whoever floods meanwhile.
                let before = switch.baseline.as_ref().filter(|_| switch.phase.goes_on());
                let drops = before.and_then(checks::drops_after);
                asked.extend(drops.map(|check| CheckAsked::new(check, false)));
                // Whoever must pass in the end is waited for.
                for asked in &mut asked {
                    asked.waits = checks::is_required(asked, switch.baseline.as_ref(), switch.phase.goes());
                }
            }
            None => {
                let failover = record.settings.failover.as_ref();
                asked.extend(failover.map(|failover| CheckAsked {
                    mark: self.primary_mark(record, failover),
                    devices: {
                        let primary = self.primary_beside(record, failover).unwrap_or(&record.layout.live);
                        self.devices(record, primary)
                    },
                    ..CheckAsked::new(failover.check.clone(), false)
                }));
            }
        }
        asked
    }

    /// By which mark the check of a failover asks where a backup decides that is left when the check succeeds: by the
    /// routes of the personality that the interface would go back to.
    fn primary_mark(&self, record: &Record, failover: &Failover) -> Option<u32> {
        self.primary_beside(record, failover)?;
        Some(slot_table(self.segment_of(&record.settings.name), record.layout.slot.other()))
    }

    /// The personality that an interface goes back to from its backup by itself. It stays beside for that long.
    pub(super) fn primary_beside<'a>(&self, record: &'a Record, failover: &Failover) -> Option<&'a Version> {
        let primary = record.layout.other.as_ref().filter(|other| record.previous.as_ref() == Some(other))?;
        self.comes_back_from(failover, &record.layout.live).then_some(primary)
    }

    /// Whether a personality is the backup, from which an interface goes back by itself.
    pub(super) fn comes_back_from(&self, failover: &Failover, version: &Version) -> bool {
        failover.comes_back && self.version(&failover.to, "").is_ok_and(|backup| backup == *version)
    }

    /// Checks of the personality that decides.
    pub(super) fn baseline_of(&self, name: &str) -> Vec<CheckAsked> {
        let Some(record) = self.interfaces.records.get(name) else { return Vec::new() };
        let Some(personality) = self.worn(record, &record.layout.live) else { return Vec::new() };
        let seat = Seat::new(&personality, &record.settings, &self.config).unwrap_or_default();
        let other = record.layout.other.as_ref().and_then(|other| self.worn(record, other));
        let beside: Vec<_> = other.iter().flat_map(|other| placed(other)).collect();
        let mut asked = checks::asked(&personality, &seat, self.segment_of(name), &beside);
        for asked in asked.iter_mut().filter(|asked| asked.named) {
            asked.devices = self.devices(record, &record.layout.live);
        }
        asked
    }

    /// Devices that what a document has asked may leave by beside the interface itself. In a namespace all ways are the
    /// interface's; the hub has ways of its own, which say nothing of the interface.
    fn devices(&self, record: &Record, version: &Version) -> Option<Vec<String>> {
        let personality = self.worn(record, version).filter(|_| record.settings.is_own())?;
        Some(checks::devices(&personality, self.segment_of(&record.settings.name)))
    }

    /// What connections will be judged by: the policy that waits beside the one that decides, and what its sets hold.
    pub(super) fn waiting(&self, name: &str, drain: Drain, exempt: Option<Connection>) -> Option<Judged> {
        let record = self.interfaces.records.get(name)?;
        let carrier = self.records.get(&record.carrier)?;
        let candidate = carrier.candidate.as_ref()?;
        let sets = sets(&candidate.persona, carrier);
        Some(self.judged(&candidate.document, &candidate.policy, sets, drain, exempt))
    }

    /// What connections are judged by: the policy that decides, and what its sets hold.
    fn deciding(&self, name: &str, drain: Drain, exempt: Option<Connection>) -> Option<Judged> {
        let carrier = self.records.get(&self.interfaces.records.get(name)?.carrier)?;
        let sets = sets(&carrier.persona, carrier);
        Some(self.judged(&carrier.document, &carrier.policy, sets, drain, exempt))
    }

    /// What connections are judged by that the policy of a carrier's definition meets.
    pub(super) fn judged(
        &self,
        document: &PersonaDocument,
        policy: &Arc<Policy>,
        sets: BTreeMap<u32, Arc<Elements>>,
        drain: Drain,
        exempt: Option<Connection>,
    ) -> Judged {
        let failsafe = self.config.failsafe.clone();
        let inserted = document.carried.as_ref().map_or(0, |carried| carried.inserted);
        Judged { policy: Arc::clone(policy), inserted, sets, drain, failsafe, exempt }
    }

    /// Index of the carrier in the data path.
    pub(in super::super) fn segment_of(&self, name: &str) -> SegmentId {
        let record = self.interfaces.records.get(name);
        let carrier = record.and_then(|record| self.records.get(&record.carrier));
        carrier.map_or(SegmentId(0), |carrier| carrier.segment)
    }
}

/// What the sets of a definition hold on a carrier: what was put into them at run time stays there.
fn sets(persona: &Persona, carrier: &persona::Record) -> BTreeMap<u32, Arc<Elements>> {
    let sets = persona.sets().iter().map(|(name, set)| {
        let mut elements = Arc::clone(&set.entries);
        if let Some(added) = carrier.lists.sets.get(name) {
            let all = Arc::make_mut(&mut elements);
            for (prefix, end) in added {
                all.entry(*prefix).or_insert(*end);
            }
        }
        (set_number(name), elements)
    });
    sets.collect()
}
