//! A definition on its way in: checked, compiled, not yet anybody's.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::admit::{Author, invalid};
use crate::command::Rejection;
use crate::compile;
use crate::document::persona::PersonaDocument;
use crate::model::expiry::Expiry;
use crate::model::persona::Persona;
use crate::model::rule::Rule;
use crate::model::translation::Virtual;
use crate::model::{PersonaId, SegmentId};
use crate::systems::persona::lists::Lists;
use crate::systems::persona::seats::Seat;
use crate::systems::persona::{Life, Record, lint};

/// A definition on its way in.
pub(super) struct Draft {
    pub(super) document: PersonaDocument,
    pub(super) persona: Persona,
    pub(super) policy: crate::model::policy::Policy,
    pub(super) expires_at: Option<Timestamp>,
    /// Where the clock was set back and the same end stays: the deadline that held before.
    pub(super) cap: Option<Timestamp>,
    pub(super) rule_ends: BTreeMap<u64, Timestamp>,
}

impl Draft {
    /// Checks a definition whose end is known.
    pub(super) fn checked(
        document: PersonaDocument,
        allotted: &BTreeMap<usize, IpNet>,
        expires_at: Option<Timestamp>,
        rule_ends: BTreeMap<u64, Timestamp>,
        baseline: &[Rule],
    ) -> Result<Self, Rejection> {
        let persona = Persona::with_ranges(&document, allotted).map_err(invalid)?;
        let mut policy = compile::compile(&persona, &[]);
        compile::complete(&mut policy, &persona, baseline, &rule_ends);
        Ok(Self { document, persona, policy, expires_at, cap: None, rule_ends })
    }

    /// Ends its rules.
    pub(super) fn end_rules(&mut self, ends: BTreeMap<u64, Timestamp>) {
        compile::end(&mut self.policy, &self.persona, &ends);
        self.rule_ends = ends;
    }

    pub(super) fn record(
        self,
        id: PersonaId,
        segment: SegmentId,
        author: Author,
        (seats, virtuals): (BTreeMap<String, Seat>, Virtual),
        created_at: Timestamp,
        since: u64,
    ) -> Record {
        let written = self.document.security_policies.as_deref().unwrap_or_default();
        let warnings = lint::warnings(&self.persona, written);
        Record {
            id,
            segment,
            generation: 1,
            created_at,
            expires_at: self.expires_at,
            cap: self.cap,
            leaving: None,
            moments_seen: 0,
            is_taken_up: false,
            origin: author.origin,
            rule_lines: author.rule_lines,
            document: Arc::new(self.document),
            persona: Arc::new(self.persona),
            policy: Arc::new(self.policy),
            rule_ends: self.rule_ends,
            lists: Lists::default(),
            warnings: Arc::new(warnings),
            seats,
            virtuals,
            overridden: BTreeMap::new(),
            aliases: Virtual::default(),
            life: Life::Provisioning,
            faults: Vec::new(),
            late: None,
            attempts: 0,
            since,
            candidate: None,
            view: None,
        }
    }
}

/// When rules end. A `ttl` counts from now, unless the rule had the same one before. Nor does a rule end later that
/// names the same moment as before, where the clock was set back meanwhile.
pub(super) fn rule_ends(persona: &Persona, old: Option<&Record>, now: Timestamp) -> BTreeMap<u64, Timestamp> {
    let before = |rule: &Rule| {
        let old = old?;
        let rules = old.persona.rules().iter();
        let same = rules.filter(|other| other.identity() == rule.identity());
        same.into_iter().find(|other| other.expiry() == rule.expiry())?;
        old.rule_ends.get(&rule.identity()).copied()
    };
    let end = |rule: &Rule| match rule.expiry() {
        Expiry::Never => None,
        Expiry::At(end) => Some(before(rule).map_or(end, |held| held.min(end))),
        Expiry::After(life) => before(rule).or_else(|| now.checked_add(life).ok()),
    };
    persona.rules().iter().filter_map(|rule| Some((rule.identity(), end(rule)?))).collect()
}
