//! Which test programs run in a machine, and with what.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    build::{self, TestProgram},
    command::run,
    places::Places,
    say::say,
};

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// A few minutes: the form that each change must pass.
    Quick,
    /// Everything that an emulated machine is fast enough for.
    Full,
}

/// A program that runs in the machine.
pub(super) struct Step {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// Whether it needs a machine whose time is even.
    pub(super) is_measured: bool,
}

/// The step that is no test: what the programs cost the verifier.
const BUDGET: &str = "budget";

/// Test files with tests whose figures hold in a machine with even time, and these tests.
const EVEN: [(&str, &str); 1] = [("e2e_edt", "departure_times_keep_bandwidth_and_latency_in_both_families")];

/// Test files of the short form, with the tests in them; none means all. Each test loads the programs, which
/// takes an emulated machine several seconds.
const QUICK: [(&str, &[&str]); 6] = [
    ("fixtures", &["passed_packets_leave", "a_connection_that_the_deadline_cut", "every_reason"]),
    ("differential", &[]),
    ("e2e_source", &["the_request_of_the_source"]),
    ("e2e_attach", &["filters_judge", "what_others_remove"]),
    ("e2e_edt", &["the_engine_is_shown"]),
    ("e2e_restart", &["killed_again_and_again"]),
];

/// Test files that never meet a kernel, or are about this machine's, about terminals, Prometheus, systemd-networkd or
/// `NetworkManager` (`cargo xtask package --test` has a whole systemd), or have ssh, python or tshark as clients and
/// servers, which the archive has not, or measure bandwidths and nothing else.
const ELSEWHERE: [&str; 12] = [
    "api",
    "golden",
    "generator",
    "model",
    "lab",
    "e2e_applications",
    "e2e_bandwidth",
    "e2e_exact",
    "e2e_networkd",
    "e2e_networkmanager",
    "e2e_switch_terminal",
    "e2e_prometheus",
];

/// Test files with tests that read the repository, and the tests that do not.
const PARTS: [(&str, &str); 1] = [("fuzz", "a_record_is_read_like_the_kernel")];

/// Tests that measure bandwidths, waits and answers, which an emulated machine does not keep.
const MEASURED: [&str; 7] = [
    "a_flood_waits_no_longer_than_the_latency",
    "a_newcomer_among_two_hundred_is_there_within_a_second_and_disturbs_nobody",
    "a_queue_of_somebody_else_stays_and_the_bandwidth_is_capped_all_the_same",
    "handshakes_are_timed_and_speech_goes_before_bulk",
    "personas_whose_addresses_are_translated_keep_their_bandwidth",
    "tcp_gets_its_bandwidth_in_both_directions_and_families",
    "the_api_answers_while_ten_thousand_end",
];

/// Builds everything and says what to run.
pub(super) fn build(places: &Places, extent: Extent, filters: &[String]) -> Result<Vec<Step>> {
    let built = programs(places, extent, filters)?;
    let object = places.object().display().to_string();
    let mut steps = vec![Step {
        name: BUDGET.to_owned(),
        program: build::binaries(places, false).join("xtask"),
        arguments: vec!["budget".to_owned(), "--object".to_owned(), object],
        is_measured: false,
    }];
    steps.extend(built.into_iter().filter(|built| built.is_test).filter_map(
        |TestProgram { name, program, .. }| {
            let mut arguments: Vec<String> = match (extent, QUICK.iter().find(|(quick, _)| *quick == name)) {
                (Extent::Quick, None) => return None,
                (Extent::Quick, Some((_, tests))) => tests.iter().map(|test| (*test).to_owned()).collect(),
                (Extent::Full, _) if ELSEWHERE.contains(&name.as_str()) => return None,
                (Extent::Full, _) => PARTS
                    .iter()
                    .filter(|(part, _)| *part == name)
                    .map(|(_, test)| (*test).to_owned())
                    .collect(),
            };
            let left_out = MEASURED.iter().chain(EVEN.iter().map(|(_, test)| test));
            arguments.extend(left_out.flat_map(|test| ["--skip".to_owned(), (*test).to_owned()]));
            Some(Step { name, program, arguments, is_measured: false })
        },
    ));
    steps.retain(|step| {
        filters.is_empty() || filters.iter().any(|filter| step.name.contains(filter.as_str()))
    });
    let measured = EVEN.iter().filter_map(|(file, test)| {
        let step = steps.iter().find(|step| step.name == *file)?;
        let arguments = vec!["--nocapture".to_owned(), (*test).to_owned()];
        Some(Step { name: step.name.clone(), program: step.program.clone(), arguments, is_measured: true })
    });
    let measured: Vec<Step> = measured.collect();
    steps.extend(measured);
    Ok(steps)
}

/// The test programs whose names fit, which cargo builds if need be, with all other programs.
fn programs(places: &Places, extent: Extent, filters: &[String]) -> Result<Vec<TestProgram>> {
    let mut wanted: Vec<String> = filters
        .iter()
        .filter(|filter| !BUDGET.contains(filter.as_str()))
        .map(|name| format!("*{name}*"))
        .collect();
    if filters.is_empty() && extent == Extent::Quick {
        wanted.extend(QUICK.iter().map(|(name, _)| (*name).to_owned()));
    }
    say("vm", "building the tests");
    let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
    build::with_tests(places, &names)?;
    if wanted.is_empty() && !filters.is_empty() {
        return Ok(Vec::new());
    }
    build::test_programs(places, &names)
}

/// The name of a program that ended and whether it passed, out of a line of the serial console.
pub(super) fn end(line: &str) -> Option<(&str, bool)> {
    let mut words = line.strip_prefix("@@ ")?.split(' ');
    let name = words.next()?;
    match words.next()? {
        "passed" => Some((name, true)),
        "failed" => Some((name, false)),
        _ => None,
    }
}

/// Lines of the list that the machine's first program reads: a name, then a command line.
pub(super) fn list(steps: &[&Step]) -> String {
    let line = |step: &&Step| {
        let mut words = vec![step.name.clone(), inside(step)];
        words.extend(step.arguments.iter().cloned());
        words.join(" ") + "\n"
    };
    steps.iter().map(line).collect()
}

/// Test files in which no test ran: the names in the short form fit nothing.
pub(super) fn idle<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut file = "";
    let mut idle = Vec::new();
    for line in lines {
        if let Some(name) = line.strip_prefix("@@ ").and_then(|line| line.strip_suffix(" begins")) {
            file = name;
        } else if line == "running 0 tests" {
            idle.push(file);
        }
    }
    idle
}

/// Where a program lies in the machine.
pub(super) fn inside(step: &Step) -> String {
    format!("/hub/{}", step.name)
}

/// A copy without debug information: it is loaded into emulated memory.
pub(super) fn strip(source: &std::path::Path, target: &std::path::Path) -> Result<()> {
    run(Command::new("strip").arg("-o").arg(target).arg(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_from_other_lines() {
        assert_eq!(end("@@ fixtures passed 12 s"), Some(("fixtures", true)));
        assert_eq!(end("@@ fixtures failed 12 s: 101"), Some(("fixtures", false)));
        assert_eq!(end("@@ fixtures begins"), None);
        assert_eq!(end("test passed"), None);
    }

    #[test]
    fn files_without_tests_are_noticed() {
        let lines =
            ["@@ one begins", "running 2 tests", "@@ one passed 3 s", "@@ two begins", "running 0 tests"];
        assert_eq!(idle(lines.into_iter()), ["two"]);
    }
}
