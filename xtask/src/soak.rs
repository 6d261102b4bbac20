//! `cargo xtask soak`: the long forms of the tests that say how far the hub can be trusted.
//!
//! Everyday runs do a little of each goal; here they go on for their whole amount, or until their minutes
//! are over, and say what they did. Amounts and short forms are with the tests.

mod mutants;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    build,
    command::{cargo, status},
    part::Part,
    places::Places,
    say::{complain, say},
    setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Goals, like `R1 R7`; all when none is named
    goals: Vec<String>,
    /// Each goal ends after this long, also when it has not done its whole amount
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Of the faults of R4 and S26 a part alone, like 2/6: the parts add up to all
    #[arg(long)]
    part: Option<Part>,
    /// Of the faults of R4 and S26 those whose description has one of each of these words, like 'Resize error=E2BIG'
    /// or '"bpf" 381|382'
    #[arg(long)]
    only: Option<String>,
}

/// A goal with the test that shows it.
struct Goal {
    name: &'static str,
    says: &'static str,
    binary: &'static str,
    test: &'static str,
}

const fn goal(name: &'static str, says: &'static str, binary: &'static str, test: &'static str) -> Goal {
    Goal { name, says, binary, test }
}

/// What a run without names does, in this order; `mutants` comes last.
const GOALS: &[Goal] = &[
    goal("P2", "lives leave nothing behind", "e2e_cycles", "lives_leave_nothing_behind"),
    goal("P2", "queues leave nothing behind", "e2e_limits", "lives_with_queues_leave_none_behind"),
    goal("P9", "TCP has its bandwidth over 10 s", "e2e_bandwidth", "tcp_gets_high_bandwidths_too"),
    goal(
        "P9",
        "TCP of translated addresses has",
        "e2e_qos",
        "personas_whose_addresses_are_translated_keep_their_bandwidth",
    ),
    goal(
        "P9",
        "speech goes before bulk over several interfaces",
        "e2e_bandwidth",
        "speech_goes_before_bulk_where_interfaces_share_a_bandwidth",
    ),
    goal("R1", "programs and model agree", DIFFERENTIAL, "programs_and_model_agree"),
    goal("R2", "no packet sees half a policy", "e2e_atomic", "no_packet_sees_half_a_policy"),
    goal("R3", "kills and swaps lose no packet", "e2e_crash", "kills_and_swaps_lose_no_packet"),
    goal("R3", "upgrades reset no connection", "e2e_carry", "connections_outlive_other_sizes_of_tables"),
    goal("R4", "a fault leaves old or new", FAULTS, "a_fault_at_any_call_leaves_old_or_new"),
    goal("R4", "a fault at the journal does", FAULTS, "a_fault_at_the_journal_leaves_old_or_new"),
    goal(
        "R4",
        "a fault in a rich life leaves all or nothing",
        FAULTS,
        "a_fault_in_the_life_of_a_rich_persona_leaves_all_or_nothing",
    ),
    goal("R5", "what is wrong changes no byte", "e2e_refusal", "what_is_wrong_changes_no_byte"),
    goal("R6", "no policy locks the operator out", "e2e_hostile", "no_policy_locks_the_operator_out"),
    goal("R7", "a flood of new flows evicts nobody", "e2e_hostile", "a_flood_of_new_flows_evicts_nobody"),
    goal("R11", "a deadline holds without the daemon", "e2e_expiry", "no_packet_passes_after_the_deadline"),
    goal("R15", "nothing passes without programs", "e2e_gap", "nothing_passes_a_port_without_programs"),
    goal(
        "R16",
        "no tag and no piece gets past",
        "e2e_tags",
        "tags_and_pieces_are_judged_alike_by_both_hooks",
    ),
    goal(
        "S20",
        "a drain ends with its last connection",
        "e2e_switch_times",
        "a_drain_goes_on_at_once_when_its_last_connection_ends",
    ),
    goal(
        "S21",
        "no packet sees half a personality",
        "e2e_flip",
        "every_packet_bears_the_mark_of_the_rules_that_let_it_pass",
    ),
    goal(
        "S21",
        "no packet meets old rules by new routes",
        "e2e_switch_mix",
        "packets_meet_old_rules_by_new_routes_never_and_new_rules_by_old_routes_for_a_moment",
    ),
    goal(
        "S23",
        "connections are refused as long as it is said",
        "e2e_switch_times",
        "the_time_that_new_connections_are_refused_is_what_the_metric_says",
    ),
    goal(
        "S24",
        "switches under load lose nothing",
        "e2e_switch_load",
        "switches_under_load_lose_nothing_that_both_allow",
    ),
    goal(
        "S26",
        "a fault in a switch leaves one personality",
        FAULTS,
        "switch::a_fault_in_a_switch_leaves_one_personality_whole",
    ),
    goal(
        "S28",
        "a threat is answered at once",
        "e2e_switch_times",
        "a_threat_shuts_an_interface_within_a_tenth_of_a_second",
    ),
];

/// Lives of P2, which goes on for its whole amount.
const CYCLES: &str = "1000";

/// The test program of R1, which tries mutants as well.
const DIFFERENTIAL: &str = "differential";

/// The test program of R4 and S26.
const FAULTS: &str = "e2e_faults";

/// The goal that is not a test.
const MUTANTS: &str = "mutants";

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    let known = |name: &String| name == MUTANTS || GOALS.iter().any(|goal| goal.name == name);
    if let Some(unknown) = options.goals.iter().find(|name| !known(name)) {
        let names: Vec<_> = GOALS.iter().map(|goal| goal.name).chain([MUTANTS]).collect();
        bail!("goal `{unknown}` is not known: use {}", names.join(", "));
    }
    if !setup::is_root() {
        bail!("the goals are about the kernel: run this as root");
    }
    setup::programs()?;
    let is_wanted = |name: &str| options.goals.is_empty() || options.goals.iter().any(|goal| goal == name);
    let goals: Vec<&Goal> = GOALS.iter().filter(|goal| is_wanted(goal.name)).collect();
    let programs: Vec<&str> = goals.iter().map(|goal| goal.binary).chain([DIFFERENTIAL]).collect();
    build::with_tests(places, &programs)?;
    // Most of the time of a fault is a daemon's that starts.
    let is_fast = goals.iter().any(|goal| goal.binary == FAULTS);
    if is_fast {
        build::optimised(places)?;
    }
    let mut failed = Vec::new();
    for goal in goals {
        say("soak", &format!("{}: {}", goal.name, goal.says));
        let mut test = cargo(places);
        test.args(["test", "--quiet", "--test", goal.binary, "--"]);
        test.args([goal.test, "--exact", "--nocapture"]);
        let binaries = build::binaries(places, goal.binary == FAULTS);
        test.env("HUB_TEST_ROOT", "1").env("HUB_BIN_DIR", binaries);
        if let Some(part) = options.part {
            test.env("HUB_SOAK_PART", part.to_string());
        }
        if let Some(words) = &options.only {
            test.env("HUB_SOAK_ONLY", words);
        }
        test.env("HUB_SOAK_MINUTES", options.minutes.to_string()).env("HUB_TEST_CYCLES", CYCLES);
        if !status(&mut test)?.success() {
            failed.push(goal.name);
        }
    }
    if is_wanted(MUTANTS) && !mutants::run(places)? {
        failed.push(MUTANTS);
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    complain(&format!("not reached: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}
