//! What the outside may see of experiments.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::personality::Version;
use crate::systems::experiment::compare::{Compared, compare};
use crate::systems::experiment::totals::Totals;
use crate::systems::experiment::{Arm, Experiment, Stage};
use crate::systems::personality::switch::OperationId;

/// An experiment: two sides, what was counted on each, and how they compare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExperimentView {
    /// Unique name.
    pub name: String,
    /// How far it is.
    pub stage: Stage,
    /// How many of a hundred interfaces are to be on side B.
    pub percent: u8,
    /// What the choice is made by, beside the names of interfaces.
    pub salt: String,
    /// Who began it.
    pub by: String,
    /// Why.
    pub why: String,
    /// When it was ordered.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When side B had its personality.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub began_at: Option<Timestamp>,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// The side whose personality all have in the end.
    pub kept: Option<Arm>,
    /// What went wrong last.
    pub failure: Option<String>,
    /// Switches of its own that are not over.
    pub operations: Vec<OperationId>,
    /// Those that keep what they have.
    pub a: ArmView,
    /// Those that got the other personality.
    pub b: ArmView,
    /// B compared with A, by each number.
    pub comparison: Vec<Compared>,
}

/// One side of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ArmView {
    /// Its interfaces.
    pub interfaces: Vec<MemberView>,
    /// What was counted of all of them.
    pub totals: Totals,
    /// Half of the handshakes took less than this, in microseconds: a power of two.
    pub handshake_p50_below_us: Option<u64>,
    /// 95 of a hundred took less.
    pub handshake_p95_below_us: Option<u64>,
}

/// One interface of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    /// Name of its record.
    pub interface: String,
    /// The personality of its side.
    #[schema(value_type = String)]
    pub personality: Version,
    /// Whether it has another one by now: nothing is counted meanwhile.
    pub left: bool,
    /// How long it was observed, in milliseconds.
    pub observed_ms: u64,
}

impl ExperimentView {
    /// An experiment as it is.
    pub fn new(experiment: &Experiment) -> Self {
        let waits = experiment.pending.iter().flat_map(|pending| &pending.waits);
        Self {
            name: experiment.name.clone(),
            stage: experiment.stage(),
            percent: experiment.percent,
            salt: experiment.salt.clone(),
            by: experiment.by.clone(),
            why: experiment.why.clone(),
            created_at: experiment.created_at,
            began_at: experiment.began_at,
            ended_at: experiment.ended_at,
            kept: experiment.kept,
            failure: experiment.failure.clone(),
            operations: waits.cloned().collect(),
            a: ArmView::new(experiment, Arm::A),
            b: ArmView::new(experiment, Arm::B),
            comparison: compare(experiment),
        }
    }
}

impl ArmView {
    fn new(experiment: &Experiment, arm: Arm) -> Self {
        let interfaces = experiment.of(arm).map(|(name, member)| MemberView {
            interface: name.clone(),
            personality: member.version().clone(),
            left: member.left,
            observed_ms: member.totals.observed_ms,
        });
        let totals = experiment.sum(arm);
        Self {
            interfaces: interfaces.collect(),
            handshake_p50_below_us: totals.handshakes_below_us(500),
            handshake_p95_below_us: totals.handshakes_below_us(950),
            totals,
        }
    }
}
