//! What a change of policy means for connections.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::FlowView;
use crate::command::switch::FlowCount;

/// What of a policy to come says whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecidedBy {
    /// A rule of its document.
    Rule,
    /// A rule of the hub's `baseline`.
    Baseline,
    /// Its default: no rule speaks of the connection.
    Default,
    /// Its permitted protocols, which lack that of the connection.
    Protocols,
    /// The address of the connection, which goes away.
    Address,
    /// That the switch is ordered by this connection.
    Session,
    /// That it does not judge connections again that there are.
    NotAsked,
}

/// What a change of policy means for one connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImpactedFlow {
    /// The connection.
    #[serde(flatten)]
    pub flow: FlowView,
    /// Whether it is waited for, if it ends.
    pub active: bool,
    /// Whether it goes on.
    pub survives: bool,
    /// What of the policy to come says so.
    pub by: DecidedBy,
    /// The rule of the policy to come that says so, by its position, from 0: among `firewall_rules` and, after those,
    /// the rules of applications.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<u16>,
}

/// What a change of policy means for the connections of a persona.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Impacts {
    /// Connections that end and are waited for.
    pub breaks_active: u64,
    /// Connections that end and are not waited for: idle ones, one-way ones, ICMP.
    pub breaks_idle: u64,
    /// Connections that go on and are in use.
    pub survives_active: u64,
    /// Connections that go on.
    pub survives_idle: u64,
    /// Some of them, those that end first.
    pub flows: Vec<ImpactedFlow>,
}

impl Impacts {
    /// Counts one connection.
    pub(crate) fn note(&mut self, active: bool, survives: bool) {
        let count = match (survives, active) {
            (false, true) => &mut self.breaks_active,
            (false, false) => &mut self.breaks_idle,
            (true, true) => &mut self.survives_active,
            (true, false) => &mut self.survives_idle,
        };
        *count += 1;
    }

    /// As a switch counts them: with `all` it waits for those that would go on as well.
    pub fn summed(&self, all: bool) -> FlowCount {
        let (active, idle) = (self.breaks_active, self.breaks_idle);
        if all {
            FlowCount { active: active + self.survives_active, idle: idle + self.survives_idle, kept: 0 }
        } else {
            FlowCount { active, idle, kept: self.survives_active + self.survives_idle }
        }
    }
}

impl ImpactedFlow {
    /// What says so, for people.
    pub fn why(&self) -> String {
        match (self.by, self.rule) {
            (DecidedBy::Rule, Some(rule)) => format!("rule {rule}"),
            (DecidedBy::Rule, None) => "a rule".to_owned(),
            (DecidedBy::Baseline, _) => "baseline".to_owned(),
            (DecidedBy::Default, _) => "default action".to_owned(),
            (DecidedBy::Protocols, _) => "protocol is not permitted".to_owned(),
            (DecidedBy::Address, _) => "address goes away".to_owned(),
            (DecidedBy::Session, _) => "it ordered the switch".to_owned(),
            (DecidedBy::NotAsked, _) => "not judged again".to_owned(),
        }
    }
}
