//! The goals, each with what was measured.

use serde_json::{Value, json};

use super::{
    bulk::Bulk,
    hub::Hook,
    latency::{Latency, Policy},
    place::Kind,
    report::Results,
};

/// The side of the target on which a goal is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    AtLeast,
    AtMost,
}

/// One goal.
#[derive(Debug)]
pub(super) struct Goal {
    name: String,
    side: Side,
    target: f64,
    measured: f64,
}

impl Goal {
    /// Whether it is met; what could not be measured is not.
    fn is_met(&self) -> bool {
        match self.side {
            Side::AtLeast => self.measured >= self.target,
            Side::AtMost => self.measured <= self.target,
        }
    }

    fn sign(&self) -> &'static str {
        match self.side {
            Side::AtLeast => "≥",
            Side::AtMost => "≤",
        }
    }

    /// For people.
    pub(super) fn row(&self) -> String {
        let met = if self.is_met() { "yes" } else { "NO" };
        let (name, sign, target, measured) = (&self.name, self.sign(), self.target, self.measured);
        format!("{name:<62} {sign} {target:>5} {measured:>8.3} {met:>4}")
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name, "relation": self.sign(), "target": self.target,
            "measured": self.measured, "met": self.is_met(),
        })
    }
}

/// All goals that the bench measures.
pub(super) fn goals(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for flows in [1, 1_000, 65_536] {
        let run = results.forwarding.run("hubxdp", flows);
        let measured =
            run.and_then(|run| results.forwarding.against(run, "nft")).map_or(f64::NAN, f64::recip);
        let name = format!("nftables ct costs, times hub XDP, end to end, {flows} flows");
        goals.push(Goal { name, side: Side::AtLeast, target: 5.0, measured });
    }
    // The first that the parser can find; the others are listed with their prices.
    let early = results.alone.drops.first().map_or(f64::NAN, |cost| cost.ns);
    goals.push(Goal {
        name: "G6 early drop above XDP_DROP, ns".to_owned(),
        side: Side::AtMost,
        target: 5.0,
        measured: early,
    });
    goals.push(Goal {
        name: "G10 bulk TCP through hub TC, times kernel forwarding".to_owned(),
        side: Side::AtLeast,
        target: 0.95,
        measured: bulk(&results.bulk),
    });
    for (place, policy, target) in
        [("steady", Policy::Steady, 1.05), ("under policy changes", Policy::Churning, 1.2)]
    {
        let [p50, p99] = latency(&results.latency, policy);
        if policy == Policy::Steady {
            let name = format!("G11 p50 through hub TC, times kernel forwarding, {place}");
            goals.push(Goal { name, side: Side::AtMost, target, measured: p50 });
        }
        let name = format!("G11 p99 through hub TC, times kernel forwarding, {place}");
        goals.push(Goal { name, side: Side::AtMost, target, measured: p99 });
    }
    goals
}

fn bulk(runs: &[Bulk]) -> f64 {
    let of = |kind| runs.iter().find(|run| run.kind == kind);
    let both = of(Kind::Hub(Hook::Tc)).zip(of(Kind::Kernel));
    both.map_or(f64::NAN, |(hub, kernel)| hub.against(kernel))
}

fn latency(runs: &[Latency], policy: Policy) -> [f64; 2] {
    let of = |kind, policy| runs.iter().find(|run| run.kind == kind && run.policy == policy);
    let both = of(Kind::Hub(Hook::Tc), policy).zip(of(Kind::Kernel, Policy::Steady));
    both.map_or([f64::NAN; 2], |(hub, kernel)| hub.against(kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_on_its_side_of_the_target_only() {
        let goal = |side, measured| Goal { name: String::new(), side, target: 5.0, measured };
        assert!(goal(Side::AtLeast, 5.0).is_met() && goal(Side::AtMost, 5.0).is_met());
        assert!(!goal(Side::AtLeast, 4.9).is_met() && !goal(Side::AtMost, 5.1).is_met());
        assert!(!goal(Side::AtLeast, f64::NAN).is_met() && !goal(Side::AtMost, f64::NAN).is_met());
    }
}
