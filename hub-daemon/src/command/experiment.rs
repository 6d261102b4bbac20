//! What the outside may ask about experiments.

use super::switch::{Connection, Order};
use crate::systems::experiment::Arm;

/// Something about experiments.
#[derive(Clone, Debug)]
pub enum ExperimentCommand {
    /// Switch a part of some interfaces, and measure both parts.
    Begin(Begin),
    /// Have more or fewer of its interfaces on side B.
    Share {
        /// Its name.
        experiment: String,
        /// How many of a hundred.
        percent: u8,
        /// How those that change sides are switched.
        how: How,
    },
    /// End it: all have the personality of one side.
    End {
        /// Its name.
        experiment: String,
        /// The side.
        keep: Arm,
        /// How those of the other side are switched.
        how: How,
    },
    /// Forget one that is over.
    Delete {
        /// Its name.
        experiment: String,
    },
}

/// An experiment, as it is ordered.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Its name.
    pub name: String,
    /// What the choice is made by, beside the names of interfaces.
    pub salt: String,
    /// How many of a hundred interfaces are switched.
    pub percent: u8,
    /// Who orders it.
    pub by: String,
    /// Why, for people.
    pub why: String,
    /// The switch of each interface, also of those that are not chosen.
    pub orders: Vec<Order>,
    /// Whether to say only what it would do.
    pub dry_run: bool,
}

/// How interfaces are switched.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Who orders it.
    pub by: String,
    /// Why, for people.
    pub why: String,
    /// Whether to flip at once.
    pub urgent: bool,
    /// The connection that the order came by.
    pub ordered_by: Option<Connection>,
}
