//! Personalities, interfaces and switches: what the kernel should hold of them, and what the outside may see.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Hub;
use crate::command::Rejection;
use crate::desired::{Desired, Lease, SegmentState, Transition};
use crate::document::personality::{BlockDocument, ScopeDocument};
use crate::model::personality::Personality;
use crate::model::policy::Policy;
use crate::model::prefix;
use crate::systems::personality::contribute::{Laid, Pair, contribute, tunnel_name};
use crate::systems::personality::probes::{InForce, Members, Rules};
use crate::systems::personality::seat::Seat;
use crate::systems::personality::switch::{GRACE, Phase};
use crate::systems::personality::{Record, Standing, Temporary};
use crate::view::switch::{InterfaceState, InterfaceView, OperationView, PersonalityView, TunnelView};
use crate::view::{Condition, Snapshot};

/// How long a switch waits for the others of its group to be verified.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(60);

impl Hub {
    /// Adds what interfaces have from their personalities, and what their carriers do while one is switched.
    pub(super) fn contribute_interfaces(&self, desired: &mut Desired, now: Timestamp) {
        for record in self.interfaces.records.values() {
            let Some(carrier) = self.records.get(&record.carrier) else { continue };
            if !carrier.is_live(now) {
                continue;
            }
            if let Some(segment) = desired.segments.get_mut(&carrier.segment) {
                segment.transition = transition(record);
                if let Some(trial) = &mut segment.candidate {
                    // What only waits costs packets nothing.
                    trial.held = !segment.transition.is_some_and(|transition| transition.gate);
                }
                segment.lease = lease(record, segment.candidate.as_ref().map(|trial| &trial.policy));
                if is_shut(record) && segment.state == SegmentState::Active {
                    segment.state = SegmentState::Block;
                }
            }
            let seat = |personality: &Personality| {
                Seat::new(personality, &record.settings, &self.config).unwrap_or_default()
            };
            let Some(live) = self.worn(record, &record.layout.live) else { continue };
            let other = record.layout.other.as_ref().and_then(|version| self.worn(record, version));
            let seats = (seat(&live), other.as_deref().map(seat).unwrap_or_default());
            let live = Laid { personality: &live, seat: &seats.0 };
            let other = other.as_deref().map(|personality| Laid { personality, seat: &seats.1 });
            let departed = record.departed.iter().filter(|_| other.is_none());
            let departed = departed.filter_map(|version| self.worn(record, version));
            let departed = departed.flat_map(|personality| personality.addresses().clone()).collect();
            let pair = Pair { live, other, departed: &departed };
            contribute(desired, record, carrier.segment, pair);
        }
    }

    /// Adds personalities, interfaces and switches.
    pub(super) fn show_interfaces(&mut self, snapshot: &mut Snapshot, now: Timestamp) {
        snapshot.personalities = if let Some(shown) = &self.interfaces.shown {
            shown.clone()
        } else {
            let versions = self.interfaces.versions.values();
            let views = versions.filter_map(|kept| self.personality_view(&kept.version));
            let named = |view: PersonalityView| (view.version.clone(), Arc::new(view));
            let shown: BTreeMap<_, _> = views.map(named).collect();
            Arc::make_mut(&mut self.interfaces).shown = Some(shown.clone());
            shown
        };
        let mut operations: BTreeMap<_, _> = self
            .interfaces
            .operations
            .values()
            .map(|entry| (entry.id.clone(), Arc::new(entry.view())))
            .collect();
        for name in self.interfaces.records.keys() {
            let Ok(view) = self.interface_view(name, now) else { continue };
            operations.extend(view.operation.iter().map(|view| (view.id.clone(), Arc::new(view.clone()))));
            snapshot.interfaces.insert(name.clone(), Arc::new(view));
        }
        snapshot.operations = operations;
        snapshot.experiments = self.interfaces.experiments.clone();
    }

    pub(super) fn interface_view(&self, name: &str, now: Timestamp) -> Result<InterfaceView, Rejection> {
        let record = self.record(name)?;
        let kept = self.kept(&record.current)?;
        let operation: Option<OperationView> = record.switch.as_ref().map(|switch| switch.view(name));
        let default = record.settings.default.as_ref().and_then(|wanted| self.version(wanted, "").ok());
        Ok(InterfaceView {
            name: name.to_owned(),
            state: state(record),
            current: record.current.clone(),
            digest: kept.digest.clone(),
            previous: record.previous.clone(),
            last_known_good: record.last_known_good.clone(),
            default,
            until: record.temporary.as_ref().map(|temporary| temporary.until),
            level: record.level.as_ref().and_then(|level| level.name.clone()),
            persona: record.carrier.clone(),
            segment: self.segment_of(name),
            created_at: record.created_at,
            origin: record.origin.clone(),
            definition: record.document.as_ref().clone(),
            operation,
            checks: match &record.switch {
                Some(switch) => switch.checks.clone(),
                None => record.health.results.clone(),
            },
            conditions: self.interface_conditions(record, now),
            place: Some(record.settings.place.clone()),
            tunnel: self.tunnel_view(record),
            in_force: self.in_force(record, now),
            wants: self.wants(name),
        })
    }

    /// What packets of an interface are to be judged by, and a member of each family.
    fn in_force(&self, record: &Record, now: Timestamp) -> Option<InForce> {
        let carrier = self.records.get(&record.carrier).filter(|carrier| carrier.is_live(now))?;
        if is_shut(record) {
            return None;
        }
        let personality = self.worn(record, &record.layout.live)?;
        let seat = Seat::new(&personality, &record.settings, &self.config).ok()?;
        let own = |address: &IpAddr| personality.addresses().keys().any(|net| net.addr() == *address);
        let member = |v4: bool| {
            let range = seat.ranges.iter().find(|range| range.addr().is_ipv4() == v4)?;
            if range.prefix_len() == range.max_prefix_len() {
                return Some(range.addr());
            }
            // Of a network that the hub itself is in: somebody else.
            (2..10).map(|host| prefix::nth(range, host)).find(|address| !own(address))
        };
        Some(InForce {
            segment: carrier.segment,
            port: self.port_of(&record.settings),
            members: [true, false].into_iter().filter_map(member).collect(),
            tunnel: self.tunnel_view(record),
            deciding: Rules {
                policy: Arc::clone(&carrier.policy),
                sets: Members::of(&carrier.persona, &carrier.lists),
            },
            other: carrier.candidate.as_ref().map(|candidate| Rules {
                policy: Arc::clone(&candidate.policy),
                sets: Members::of(&candidate.persona, &carrier.lists),
            }),
        })
    }

    fn tunnel_view(&self, record: &Record) -> Option<TunnelView> {
        if record.settings.is_own() {
            return None;
        }
        let personality = self.worn(record, &record.layout.live)?;
        let tunnel = personality.tunnel()?;
        let link = tunnel_name(tunnel, self.segment_of(&record.settings.name));
        Some(TunnelView { link, addresses: personality.all_addresses().collect() })
    }

    fn interface_conditions(&self, record: &Record, now: Timestamp) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let mut add = |reason: &str, message: String| {
            conditions.push(Condition { reason: reason.to_owned(), message });
        };
        match record.standing {
            Standing::Active => {}
            Standing::Fallback => add("Fallback", format!("it has its default {}", record.current)),
            Standing::Degraded => {
                add("Degraded", "no personality works: its packets are refused; switch it".to_owned());
            }
        }
        let live = self.worn(record, &record.layout.live);
        if let Some(why) = live.and_then(|live| self.off_vlan(&record.settings, &live)) {
            add("WrongVlan", why);
        }
        if let Some(failure) = record.health.failure.as_ref().filter(|_| record.health.is_bad()) {
            add("Unhealthy", failure.clone());
        }
        let carrier = self.records.get(&record.carrier).filter(|carrier| carrier.is_live(now));
        let faults = carrier.map(|carrier| carrier.faults.as_slice()).unwrap_or_default();
        if !faults.is_empty() {
            add("KernelRefused", faults.join("; "));
        }
        conditions
    }
}

/// What an interface is doing about its personality.
fn state(record: &Record) -> InterfaceState {
    match record.switch.as_ref().map(|switch| switch.phase) {
        Some(Phase::Drain) => InterfaceState::Draining,
        Some(Phase::Verify | Phase::Verified) => InterfaceState::Verifying,
        Some(Phase::AwaitConfirm) => InterfaceState::AwaitingConfirm,
        Some(
            Phase::Prepare
            | Phase::Preflight
            | Phase::Ready
            | Phase::Flip
            | Phase::Rollback
            | Phase::RollbackVerify
            | Phase::Fallback
            | Phase::FallbackVerify,
        ) => InterfaceState::Applying,
        None => match record.standing {
            Standing::Active => InterfaceState::Active,
            Standing::Fallback => InterfaceState::Fallback,
            Standing::Degraded => InterfaceState::Degraded,
        },
    }
}

/// What new flows meet before a flip.
fn transition(record: &Record) -> Option<Transition> {
    let switch = record.switch.as_ref()?;
    let drained = switch.blocked_at.is_some() && switch.phase.is_before_flip();
    drained.then(|| Transition {
        gate: switch.drain.scope == ScopeDocument::Impacted,
        refuse_all: switch.drain.scope == ScopeDocument::All,
        reject: switch.drain.block == BlockDocument::Reject,
    })
}

/// From when on packets are judged by another policy, with or without a hub, and by which: that of before, but never by
/// one that was only lent.
fn lease(record: &Record, beside: Option<&Arc<Policy>>) -> Option<Lease> {
    let policy = record.held.as_ref().or(beside)?;
    Some(Lease { until: leased_until(record)?, policy: Arc::clone(policy) })
}

fn leased_until(record: &Record) -> Option<Timestamp> {
    let goes_back = |temporary: &Temporary| temporary.back == record.layout.live;
    if record.temporary.as_ref().is_some_and(goes_back) {
        // What is beside is the one whose time is over, or cut short.
        return None;
    }
    let of_time = record.temporary.as_ref().map(|temporary| temporary.until);
    let Some(switch) = &record.switch else { return of_time };
    let waits = switch.deadline.unwrap_or_else(|| super::after(switch.phase_at, LONGEST_WAIT));
    match switch.phase {
        // The temporary one decides: before another does, or again.
        Phase::Prepare
        | Phase::Preflight
        | Phase::Drain
        | Phase::Ready
        | Phase::Rollback
        | Phase::RollbackVerify => of_time,
        Phase::Flip | Phase::Verify | Phase::Verified => {
            let until = waits.saturating_add(GRACE).unwrap_or(Timestamp::MAX);
            Some(switch.lasts_until().map_or(until, |lasts| lasts.min(until)))
        }
        Phase::AwaitConfirm => Some(waits),
        Phase::Fallback | Phase::FallbackVerify => None,
    }
}

/// Whether an interface is degraded, and no personality is being tried.
fn is_shut(record: &Record) -> bool {
    let tried = record.switch.as_ref().is_some_and(|switch| !switch.phase.is_before_flip());
    record.standing == Standing::Degraded && !tried
}
