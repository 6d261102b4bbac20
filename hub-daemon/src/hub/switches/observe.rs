//! What was seen of an interface, because the hub asked: phases go on by it, and health is judged by it.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::Hub;
use crate::command::switch::{FlowCount, Observation};
use crate::command::{Rejection, Reply};
use crate::model::check::CheckResult;
use crate::systems::personality::checks;
use crate::systems::personality::switch::Phase;

impl Hub {
    /// Takes an answer. One to a question that is no longer asked says nothing.
    pub(in super::super) fn observed(
        &mut self,
        name: &str,
        ticket: u64,
        observation: Observation,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        let record = self.record(name)?;
        if let Some(switch) = record.switch.as_ref().filter(|switch| switch.counts == ticket)
            && let Observation::Flows(flows) = observation
        {
            // After the flip the first answer is the last that says something of before.
            if !switch.drains() && (switch.phase.is_before_flip() || switch.flows.is_none()) {
                self.revision += 1;
                let records = &mut Arc::make_mut(&mut self.interfaces).records;
                if let Some(switch) = records.get_mut(name).and_then(|record| record.switch.as_mut()) {
                    switch.flows = Some(flows);
                }
            }
            return Ok(Reply::Done);
        }
        if record.ticket != ticket {
            return Ok(Reply::Done);
        }
        let phase = record.switch.as_ref().map(|switch| switch.phase);
        match (phase, observation) {
            (None, Observation::Checks(results)) => self.looked_after(name, results, now),
            (Some(Phase::Drain), Observation::Flows(flows)) => self.counted(name, flows, now),
            (Some(phase), Observation::Checks(results)) if phase.asks_checks() => {
                self.checked(name, phase, results, now);
            }
            (None | Some(_), Observation::Checks(_) | Observation::Flows(_)) => {}
        }
        Ok(Reply::Done)
    }

    fn counted(&mut self, name: &str, flows: FlowCount, now: Timestamp) {
        let over = self.with_switch(name, |switch| {
            switch.flows = Some(flows);
            flows.active <= switch.drain.threshold
        });
        if over == Some(true) {
            self.flip_when_ready(name, now);
        }
    }

    fn checked(&mut self, name: &str, phase: Phase, results: Vec<CheckResult>, now: Timestamp) {
        let asked = self.asked(name);
        let Some(record) = self.interfaces.records.get(name) else { return };
        let before = record.switch.as_ref().and_then(|switch| switch.baseline.clone());
        let failure = if phase == Phase::Preflight {
            // Only the tunnel of what is to come must be there; the rest is what things are compared with.
            checks::answered(&asked, &results).skip(self.baseline_of(name).len()).find_map(
                |(asked, result)| {
                    let failed = result.is_none_or(|result| !result.passed);
                    failed.then(|| {
                        result.map_or_else(
                            || format!("{}: it was not answered", asked.check),
                            |result| format!("{}: {}", result.check, result.detail),
                        )
                    })
                },
            )
        } else {
            checks::failure(&asked, &results, before.as_ref(), phase.goes())
        };
        // What worked until the switch began is not shut because nobody can look at it.
        let unseen = checks::unasked(&results).filter(|_| phase == Phase::RollbackVerify);
        let said = unseen.map(|why| format!("the way back could not be checked: {why}"));
        let failure = failure.filter(|_| said.is_none());
        self.notice(name, said);
        let past = checks::past(&asked, &results);
        self.with_switch(name, |switch| {
            switch.checks = results;
            if phase == Phase::Preflight {
                switch.baseline = Some(past);
            } else {
                switch.verified = past;
            }
        });
        match (failure, phase) {
            (Some(failure), _) => self.fail(name, &failure, now),
            (None, Phase::Preflight) => self.preflown(name, now),
            (None, Phase::Verify) => self.verified(name, now),
            (None, Phase::RollbackVerify) => self.rolled_back(name, now),
            (None, Phase::FallbackVerify) => self.fell_back(name, now),
            (
                None,
                Phase::Prepare
                | Phase::Drain
                | Phase::Ready
                | Phase::Flip
                | Phase::Verified
                | Phase::AwaitConfirm
                | Phase::Rollback
                | Phase::Fallback,
            ) => {}
        }
    }
}
