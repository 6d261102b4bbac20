//! Counters of reconciling, bumped by the one task that reconciles and read by metrics and status.
//!
//! Atomics in an append-only array: a table takes a slot the first time its name is used, and keeps it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Kernel tables that can be counted apart; the others share one slot named `other`.
const TABLES: usize = 32;

/// Counters of reconciling.
#[derive(Debug, Default)]
pub struct ReconcileStats {
    /// Passes over all tables.
    pub passes: Count,
    /// Moves while the owner of the hub works and no pass takes too long; the watchdog looks at it.
    pub heartbeat: Count,
    /// Passes forced by lost netlink messages.
    pub resyncs: Count,
    /// When the last pass without a failure ended, seconds since 1970; 0 for never.
    last_success_seconds: AtomicU64,
    tables: [OnceLock<(&'static str, TableStats)>; TABLES],
    other: TableStats,
}

/// Counters of one kernel table.
#[derive(Debug, Default)]
pub struct TableStats {
    /// Entries put.
    pub puts: Count,
    /// Entries deleted.
    pub deletes: Count,
    /// Puts and deletes that the kernel refused.
    pub failures: Count,
    /// Entries that somebody else had changed or removed, found while nothing was wanted to change.
    pub drift: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl ReconcileStats {
    /// The counters of the table with this name (`Table::name`).
    pub fn table(&self, name: &'static str) -> &TableStats {
        for slot in &self.tables {
            let (owner, stats) = slot.get_or_init(|| (name, TableStats::default()));
            if *owner == name {
                return stats;
            }
        }
        &self.other
    }

    /// Notes the end of a pass without a failure.
    pub fn succeeded(&self, now: jiff::Timestamp) {
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        self.last_success_seconds.store(seconds, Ordering::Relaxed);
    }

    /// When the last pass without a failure ended.
    pub fn last_success(&self) -> Option<jiff::Timestamp> {
        match self.last_success_seconds.load(Ordering::Relaxed) {
            0 => None,
            seconds => jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok(),
        }
    }

    /// Every table in use, by name.
    pub fn tables(&self) -> Vec<TableView> {
        let mut views: Vec<_> =
            self.tables.iter().filter_map(OnceLock::get).map(|(name, stats)| stats.view(name)).collect();
        let other = self.other.view("other");
        if other.puts + other.deletes + other.failures + other.drift > 0 {
            views.push(other);
        }
        views.sort_by(|a, b| a.table.cmp(&b.table));
        views
    }
}

impl TableStats {
    fn view(&self, table: &str) -> TableView {
        TableView {
            table: table.to_owned(),
            puts: self.puts.get(),
            deletes: self.deletes.get(),
            failures: self.failures.get(),
            drift: self.drift.get(),
        }
    }
}

/// Counters of one kernel table at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableView {
    /// Name of the table.
    pub table: String,
    /// Entries put.
    pub puts: u64,
    /// Entries deleted.
    pub deletes: u64,
    /// Puts and deletes that the kernel refused.
    pub failures: u64,
    /// Entries that somebody else had changed.
    pub drift: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_its_slot_and_the_surplus_shares_one() {
        let names: Vec<&'static str> = (0..=TABLES).map(|n| &*format!("t{n:02}").leak()).collect();
        let stats = ReconcileStats::default();
        for name in names.iter().chain(&names) {
            stats.table(name).puts.add(1);
        }
        let views = stats.tables();
        assert_eq!(views.len(), TABLES + 1);
        assert!(views.iter().all(|view| view.puts == 2), "{views:?}");
        assert_eq!(views[0].table, "other");
    }
}
