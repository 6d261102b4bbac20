//! The goals, each with what was measured.

use serde_json::{Value, json};

use super::{
    bulk::Bulk,
    forward::FLOWS,
    hub::Hook,
    latency::{Latency, Policy},
    place::Kind,
    report::Results,
    sample::ratio,
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
        format!("{name:<66} {sign} {target:>5} {measured:>8.3} {met:>4}")
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
    goals.extend(pipeline(results));
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

/// Goals of the path of every packet.
fn pipeline(results: &Results) -> Vec<Goal> {
    let forwarding = &results.forwarding;
    let cost = |(place, flows): (&str, u32), (other, others): (&str, u32)| {
        let both = forwarding.run(place, flows).zip(forwarding.run(other, others));
        both.map_or(f64::NAN, |(run, other)| ratio(&run.rounds, &other.rounds))
    };
    let at_most =
        |name: &str, target, measured| Goal { name: name.to_owned(), side: Side::AtMost, target, measured };
    let mut goals = vec![at_most(
        "G1 hub XDP, open, 4,096 personas, 64k members, times bare redirect",
        1.15,
        cost(("openxdp-4096", 65_536), ("xdp", 65_536)),
    )];
    for (flows, target) in [(1_000, 12.0), (65_536, 22.0), (500_000, 60.0)] {
        for family in ["IPv4", "IPv6"] {
            let case = format!("open {family}, {flows} flows");
            let name = format!("G2 program alone, {case}, above bare redirect, ns");
            goals.push(at_most(&name, target, results.alone.above_redirect(Hook::Xdp, &case)));
        }
    }
    for (place, nft, flows) in [("openxdp", "nft", 1_000), ("openxdp-4096", "nft-4096", 65_536)] {
        let name = format!("G3 nftables ct costs, times hub XDP, open, {flows} flows");
        let measured = cost((nft, flows), (place, flows));
        goals.push(Goal { name: name.clone(), side: Side::AtLeast, target: 8.0, measured });
        // Without what makes the packets and takes them in.
        let share = forwarding.run(place, flows).and_then(|run| forwarding.share(run, nft));
        let measured = share.map_or(f64::NAN, f64::recip);
        goals.push(Goal { name: name + ", the hub's share", side: Side::AtLeast, target: 20.0, measured });
    }
    goals.push(at_most(
        "G4 hub XDP, open, 64k members and 4,096 personas, times 1 and 1",
        1.1,
        cost(("openxdp-4096", 65_536), ("openxdp", 1)),
    ));
    goals.push(at_most(
        "G4 hub XDP, open, 1,024 rules, times 10 rules",
        1.02,
        cost(("openxdp-1024", 65_536), ("openxdp", 65_536)),
    ));
    goals.push(at_most(
        "G5 hub XDP, tracked, 64k flows, times bare redirect",
        1.5,
        cost(("hubxdp", 65_536), ("xdp", 65_536)),
    ));
    for flows in FLOWS {
        let name = format!("G5 nftables ct costs, times hub XDP, tracked, {flows} flows");
        let measured = cost(("nft", flows), ("hubxdp", flows));
        goals.push(Goal { name, side: Side::AtLeast, target: 5.0, measured });
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
