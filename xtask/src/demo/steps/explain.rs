//! Which rule dropped what: the loaded program is asked on the live tables.

use anyhow::Result;

use crate::demo::{shell::Place::Hub, tour::Tour};

pub(super) fn run(tour: &mut Tour) -> Result<()> {
    let denied = tour.run(Hub, "hubctl why tcp 192.0.2.10 10.100.0.10:22")?;
    let by_rule = denied.code == Some(1) && denied.has("rule_deny") && denied.has("rule 1");
    tour.check("tcp/22: rule 1 of the persona, which came over the API", by_rule);
    let allowed = tour.run(Hub, "hubctl why tcp 192.0.2.10 10.100.0.10:80")?;
    tour.check("tcp/80 passes by rule 0", allowed.succeeded() && allowed.has("rule 0"));
    let rejected = tour.run(Hub, "hubctl why tcp 2001:db8:2::10 '[fd00:50::10]:23'")?;
    let place = rejected.has("rule_reject") && rejected.has("staging.yaml:");
    tour.check("tcp/23: a rule with its file and line", place);
    let between = tour.run(Hub, "hubctl why tcp 10.100.0.10 10.50.0.10:8080 --in lan0")?;
    tour.check("from one persona to the other: they are not peers", between.has("inter_persona"));

    let counters = tour.run_lines(Hub, "hubctl counters TempDevNetwork", 24)?;
    let counted = ["rule_deny", "default_deny", "protocol"].iter().all(|reason| counters.has(reason));
    tour.check("each drop is counted by reason, and each decision by rule", counted);
    let totals = tour.run(
        Hub,
        "hubctl counters --json | jq -c '.hooks[] | [.hook, .received, .redirected + .passed + .skipped + .replied + .dropped]'",
    )?;
    let balanced = totals.text.lines().all(|line| {
        let numbers: Vec<&str> = line.trim_matches(['[', ']']).split(',').skip(1).collect();
        matches!(numbers.as_slice(), [received, sum] if received == sum)
    });
    tour.check("at every hook: packets in = packets out + drops", balanced && totals.has("tc_in"));
    Ok(())
}
