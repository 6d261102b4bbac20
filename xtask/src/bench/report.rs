//! The tables, the goals, and all numbers as JSON.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    alone::Alone,
    bound::Priority,
    bulk::Bulk,
    forward::{Forwarding, Run},
    goals::Goal,
    hub::Hook,
    latency::{Latency, Policy},
    place::Kind,
};
use crate::{command::text, places::Places};

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) forwarding: Forwarding,
    pub(super) alone: Alone,
    pub(super) bulk: Vec<Bulk>,
    pub(super) latency: Vec<Latency>,
}

/// The machine and the moment.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) kernel: String,
    pub(super) cpu: String,
    pub(super) date: String,
    pub(super) commit: String,
}

impl Setting {
    pub(super) fn of_this_run(places: &Places) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let mut git = Command::new("git");
        git.current_dir(places.root()).args(["describe", "--always", "--dirty", "--abbrev=12"]);
        Ok(Self {
            kernel: text(Command::new("uname").arg("-r"))?.trim().to_owned(),
            cpu: model.map_or("unknown", |(_, name)| name).to_owned(),
            date: text(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?.trim().to_owned(),
            // A copy without history has none.
            commit: text(&mut git).unwrap_or_default().trim().to_owned(),
        })
    }
}

/// The redirect that a contender is compared with: that of its own hook.
fn redirect_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Hub(Hook::Xdp) | Kind::Redirect(Hook::Xdp) | Kind::Harness => "xdp",
        Kind::Hub(Hook::Tc) | Kind::Redirect(Hook::Tc) | Kind::Kernel | Kind::Nft => "tc",
    }
}

/// The nftables contender with as many personas.
fn nft_of(run: &Run) -> &'static str {
    if run.personas.count == 1 { "nft" } else { "nft-4096" }
}

impl Results {
    /// For people.
    pub(super) fn table(&self, setting: &Setting, goals: &[Goal]) -> String {
        let Setting { kernel, cpu, date, commit } = setting;
        let priority = match self.forwarding.priority {
            Priority::First => "SCHED_FIFO",
            Priority::Usual => "usual priority: numbers are less steady",
        };
        let mut lines = vec![
            format!("Linux {kernel}, {cpu}, {date}, commit {commit}, {priority}"),
            String::new(),
            "CPU time per delivered packet, end to end. `× redirect`: cost as a multiple of the bare redirect of"
                .to_owned(),
            "the same hook. `nft ÷`: how many times as much nftables costs; `share`: without the harness."
                .to_owned(),
            format!(
                "{:<34} {:>6} {:>9} {:>11} {:>7} {:>7} {:>6}",
                "", "flows", "ns/packet", "× redirect", "nft ÷", "share", "lost"
            ),
        ];
        lines.extend(self.forwarding.runs.iter().map(|run| self.forwarding_row(run)));
        lines.extend(self.small_tables());
        lines.extend([String::new(), "Goals".to_owned()]);
        lines.extend(goals.iter().map(Goal::row));
        lines.join("\n")
    }

    fn forwarding_row(&self, run: &Run) -> String {
        let times = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let nft = nft_of(run);
        let harness = run.kind == Kind::Harness;
        let redirect = self.forwarding.against(run, redirect_of(run.kind)).filter(|_| !harness);
        let faster = self.forwarding.against(run, nft).map(f64::recip).filter(|_| !harness);
        let share = self.forwarding.share(run, nft).map(f64::recip).filter(|_| !harness);
        format!(
            "{:<34} {:>6} {:>9.1} {:>11} {:>7} {:>7} {:>6}",
            run.title(),
            run.flows,
            run.ns(),
            times(redirect),
            times(faster),
            times(share),
            run.lost
        )
    }

    fn small_tables(&self) -> Vec<String> {
        let mut lines =
            vec![String::new(), "Programs by themselves, ns per packet above an empty one".to_owned()];
        lines.extend(self.alone.passes.iter().map(|cost| format!("{:<44} {:>8.1}", cost.name, cost.ns)));
        lines.extend([String::new(), "hub_xdp_in's drops, ns per packet above a bare XDP_DROP".to_owned()]);
        lines.extend(self.alone.drops.iter().map(|cost| format!("{:<44} {:>8.1}", cost.name, cost.ns)));
        lines.extend([String::new(), "Bulk TCP between real stacks, all on one CPU".to_owned()]);
        lines.push(format!("{:<34} {:>8} {:>16} {:>9}", "", "Gbit/s", "per CPU second", "× kernel"));
        let kernel = self.bulk.iter().find(|bulk| bulk.kind == Kind::Kernel);
        lines.extend(self.bulk.iter().map(|bulk| {
            let times = kernel.map_or(f64::NAN, |kernel| bulk.against(kernel));
            format!("{:<34} {:>8.2} {:>16.2} {times:>9.3}", bulk.title, bulk.median(), bulk.median_per_cpu())
        }));
        lines.extend([String::new(), "Round trips of small UDP packets, µs".to_owned()]);
        lines.push(format!("{:<34} {:>8} {:>8} {:>18}", "", "p50", "p99", "× kernel p50, p99"));
        let kernel = self.latency.iter().find(|run| run.kind == Kind::Kernel);
        lines.extend(self.latency.iter().map(|run| {
            let [p50, p99] = run.medians();
            let [by_p50, by_p99] = kernel.map_or([f64::NAN; 2], |kernel| run.against(kernel));
            format!("{:<34} {p50:>8.2} {p99:>8.2} {by_p50:>10.3}, {by_p99:>6.3}", title(run))
        }));
        lines
    }

    /// For programs.
    pub(super) fn json(&self, setting: &Setting, goals: &[Goal]) -> Value {
        let forwarding = |run: &Run| {
            json!({
                "contender": run.title(), "place": run.place, "flows": run.flows,
                "personas": run.personas.count, "rules": run.personas.rules,
                "ns_per_packet": run.ns(), "rounds_ns": run.rounds, "sent": run.sent, "lost": run.lost,
                "times_redirect": self.forwarding.against(run, redirect_of(run.kind)),
                "nft_divided_by": self.forwarding.against(run, nft_of(run)).map(f64::recip),
                "nft_share_divided_by": self.forwarding.share(run, nft_of(run)).map(f64::recip),
            })
        };
        let cost = |cost: &super::alone::Cost| json!({"name": cost.name, "ns": cost.ns});
        json!({
            "kernel": setting.kernel, "cpu": setting.cpu, "date": setting.date, "commit": setting.commit,
            "realtime": self.forwarding.priority == Priority::First,
            "forwarding": self.forwarding.runs.iter().map(forwarding).collect::<Vec<_>>(),
            "program_alone": self.alone.passes.iter().map(cost).collect::<Vec<_>>(),
            "drops": self.alone.drops.iter().map(cost).collect::<Vec<_>>(),
            "bulk_tcp": self.bulk.iter().map(|bulk| json!({
                "contender": bulk.title, "gbit_per_s": bulk.rate, "gbit_per_cpu_s": bulk.per_cpu,
            })).collect::<Vec<_>>(),
            "latency": self.latency.iter().map(|run| json!({
                "contender": title(run), "p50_us": run.p50, "p99_us": run.p99, "policy_changes": run.changes,
            })).collect::<Vec<_>>(),
            "goals": goals.iter().map(Goal::json).collect::<Vec<_>>(),
        })
    }

    /// Writes the numbers to a file.
    pub(super) fn write(&self, path: &Path, setting: &Setting, goals: &[Goal]) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json(setting, goals))?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}

fn title(run: &Latency) -> String {
    match run.policy {
        Policy::Steady => run.title.to_owned(),
        Policy::Churning => format!("{}, {} policy changes", run.title, run.changes),
    }
}
