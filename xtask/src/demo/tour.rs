//! Walks through steps: prints commands and answers, and keeps the score of checks.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{
    lab::Lab,
    shell::{Place, Running, Seen},
};
use crate::{clock::wait_until, say::show};

/// Lines of an answer that are shown, unless a step wants more.
const LINES: usize = 14;
/// Columns of a line that are shown.
const COLUMNS: usize = 150;

/// How long something may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// One step: a title, and what it runs and checks.
pub(super) struct Step {
    pub(super) title: &'static str,
    pub(super) run: fn(&mut Tour) -> Result<()>,
}

/// The score at the end.
pub(super) struct Outcome {
    pub(super) passed: usize,
    pub(super) failed: Vec<String>,
}

/// A lab with a reader before it.
pub(super) struct Tour {
    pub(super) lab: Lab,
    outcome: Outcome,
    step: &'static str,
}

impl Tour {
    pub(super) fn new(lab: Lab) -> Self {
        Self { lab, outcome: Outcome { passed: 0, failed: Vec::new() }, step: "" }
    }

    /// Goes through the steps in order; one that cannot go on ends the tour.
    pub(super) fn walk(&mut self, steps: &[Step]) {
        for (index, step) in steps.iter().enumerate() {
            self.step = step.title;
            show(&format!("\n── {} of {} · {}", index + 1, steps.len(), step.title));
            if let Err(error) = (step.run)(self) {
                self.fail(&format!("{error:#}"));
                if self.lab.go_on().is_ok() {
                    show(&format!("the end of hubd's log:\n{}", self.lab.log()));
                }
                return;
            }
        }
    }

    /// Clears the lab away; the score.
    pub(super) fn end(self) -> Outcome {
        self.outcome
    }

    /// Runs a command and shows it with the beginning of its answer.
    pub(super) fn run(&self, place: Place, script: &str) -> Result<Seen> {
        self.run_lines(place, script, LINES)
    }

    /// As [`Self::run`], with so many lines of the answer.
    pub(super) fn run_lines(&self, place: Place, script: &str, lines: usize) -> Result<Seen> {
        prompt(place, script);
        let seen = self.lab.run(place, script)?;
        answer(&seen.text, lines);
        Ok(seen)
    }

    /// Runs a command until it answers with these words or patience ends; shows its last answer.
    pub(super) fn wait(&self, place: Place, script: &str, words: &str) -> Result<Seen> {
        prompt(place, script);
        let mut last = None;
        wait_until(PATIENCE, || {
            let seen = last.insert(self.lab.run(place, script));
            seen.as_ref().map_or(true, |seen| seen.has(words))
        });
        let seen = last.context("it was asked at least once")??;
        answer(&seen.text, LINES);
        Ok(seen)
    }

    /// Starts a command and shows it.
    pub(super) fn start(&self, place: Place, name: &str, script: &str) -> Result<Running> {
        prompt(place, &format!("{script} &"));
        self.lab.start(place, name, script)
    }

    /// Shows what a started command answered, and waits for its end.
    pub(super) fn end_of(&self, running: Running, lines: usize) -> Result<Seen> {
        let seen = running.end()?;
        self.lab.go_on()?;
        answer(&seen.text, lines);
        Ok(seen)
    }

    /// Shows what a started command answered until these words, and ends it.
    pub(super) fn end_after(&self, running: Running, words: &str, lines: usize) -> Result<Seen> {
        let seen = running.end_after(words)?;
        self.lab.go_on()?;
        answer(&seen.text, lines);
        Ok(seen)
    }

    /// Keeps the score of one promise.
    pub(super) fn check(&mut self, promise: &str, holds: bool) {
        if holds {
            show(&format!("  ✓ {promise}"));
            self.outcome.passed += 1;
        } else {
            self.fail(promise);
        }
    }

    fn fail(&mut self, what: &str) {
        show(&format!("  ✗ {what}"));
        self.outcome.failed.push(format!("{}: {what}", self.step));
    }
}

fn prompt(place: Place, script: &str) {
    show(&format!("{}$ {script}", place.name()));
}

/// Shows the first lines of an answer.
pub(super) fn answer(text: &str, lines: usize) {
    let all: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    for line in all.iter().take(lines) {
        let cut: String = line.chars().take(COLUMNS).collect();
        let dots = if cut.len() < line.len() { "…" } else { "" };
        show(&format!("    {cut}{dots}"));
    }
    if all.len() > lines {
        show(&format!("    … {} more lines", all.len() - lines));
    }
}
