//! What a change of policy means for connections.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::FlowView;

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
    /// The rule of the policy to come that says so, by its position; absent for its default, its protocols, and
    /// addresses that go away.
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
    /// TCP connections of the persona that ended before these were counted.
    #[serde(skip)]
    pub ended: u64,
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
}
