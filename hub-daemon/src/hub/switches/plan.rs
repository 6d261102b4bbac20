//! What a switch would do, without doing it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::Hub;
use super::begin::is_another;
use crate::command::switch::Order;
use crate::command::{Rejection, Reply};
use crate::inputs::plan::field_changes;
use crate::model::personality::Version;
use crate::systems::personality::checks;
use crate::systems::personality::lookups::placed;
use crate::systems::personality::seat::Seat;
use crate::view::switch::PlanView;

impl Hub {
    /// Prepares a switch in a copy of the hub, and says what that found.
    pub(super) fn plan(&mut self, order: &Order, now: Timestamp) -> Result<Reply, Rejection> {
        let (name, to, drain) = self.validated(order, now)?;
        is_another(self.record(&name)?, &to)?;
        let mut copy = self.clone();
        let layout = copy.record(&name)?.layout.with(Some(to.clone()));
        copy.spare(&name, &to, order.ordered_by);
        copy.lay(&name, layout, now)?;
        let record = copy.record(&name)?;
        let from = record.layout.live.clone();
        let worn = |version| copy.worn(record, version).ok_or_else(|| super::super::admit::not_found(&name));
        let (before, after) = (&*worn(&from)?, &*worn(&to)?);
        let seat = Seat::new(after, &record.settings, &copy.config).unwrap_or_default();
        let segment = copy.segment_of(&name);
        let beside: Vec<_> = placed(before).collect();
        let asked = checks::asked(after, &seat, segment, &beside);
        let live = || {
            let carrier = copy.records.get(&record.carrier)?;
            let (document, policy) = (&carrier.document, &carrier.policy);
            Some(copy.judged(document, policy, BTreeMap::new(), drain, order.ordered_by))
        };
        let Some(judged) = copy.waiting(&name, drain, order.ordered_by).or_else(live) else {
            return Err(super::super::admit::not_found(&name));
        };
        let lacks = |addresses: &BTreeMap<ipnet::IpNet, _>, address: &&ipnet::IpNet| {
            !addresses.contains_key(*address)
        };
        Ok(Reply::Plan(Box::new(PlanView {
            interface: name,
            differences: copy.differences(&from, &to),
            addresses_added: after
                .addresses()
                .keys()
                .filter(|address| lacks(before.addresses(), address))
                .copied()
                .collect(),
            addresses_removed: before
                .addresses()
                .keys()
                .filter(|address| lacks(after.addresses(), address))
                .copied()
                .collect(),
            checks: asked.iter().map(|asked| asked.check.to_string()).collect(),
            from,
            to,
            segment,
            connections: None,
            judged,
        })))
    }

    /// What differs between two definitions, by JSON pointer.
    pub(super) fn differences(&self, from: &Version, to: &Version) -> Vec<String> {
        let value = |version: &Version| {
            let kept = self.interfaces.versions.get(version);
            kept.and_then(|kept| serde_json::to_value(kept.personality.document()).ok()).unwrap_or_default()
        };
        field_changes(&value(from), &value(to)).into_iter().map(|change| change.pointer).collect()
    }
}
