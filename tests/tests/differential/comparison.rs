//! Runs the programs on packets and holds what they do against the model's verdict.

use std::collections::BTreeMap;

use hub_common::event::{Hook, Reason};
use hub_common::outcome::{VERDICT_DROP, VERDICT_ROUTE, VERDICT_SKIP};
use hub_common::stats::HookTotals;
use hub_tests::datapath::{DataPath, TC_NEXT, TC_REDIRECT, TC_SHOT, XDP_DROP, XDP_PASS, XDP_REDIRECT};
use hub_tests::generate::{Packet, World};
use hub_tests::model::{Entry, Verdict};

/// The kernel gives longer frames to a test of XDP in several buffers.
const SINGLE_BUFFER_BYTES: usize = 3_400;

/// The programs, with what their counters said last.
pub(crate) struct Comparison {
    pub(crate) datapath: DataPath,
    /// How often a verdict was carried out in which way.
    pub(crate) hits: BTreeMap<&'static str, u64>,
    /// Whether the ports of this hub run XDP.
    has_xdp: bool,
    totals: [HookTotals; 3],
    drops: BTreeMap<(u32, Reason), u64>,
}

impl Comparison {
    pub(crate) fn new(datapath: DataPath) -> Self {
        Self {
            datapath,
            hits: BTreeMap::new(),
            has_xdp: true,
            totals: [HookTotals::ZERO; 3],
            drops: BTreeMap::new(),
        }
    }

    /// Starts over with another hub.
    pub(crate) fn begin(&mut self, world: &World, has_xdp: bool) {
        self.has_xdp = has_xdp;
        self.datapath.forget();
        self.datapath.fill(&world.model);
        for hook in Hook::ALL {
            self.totals[hook as usize] = self.datapath.totals(hook);
            for reason in Reason::ALL {
                self.drops.insert((hook as u32, *reason), self.datapath.drops(hook, *reason));
            }
        }
    }

    /// Runs the programs on a packet; an error says what they did instead of what was expected.
    pub(crate) fn check(&mut self, packet: &Packet, expected: Verdict, asks_why: bool) -> Result<(), String> {
        match (packet.frame.get(12), expected) {
            (Some(0x08), Verdict::Pass) => self.hit("IPv4 pass"),
            (Some(0x08), Verdict::Drop(_) | Verdict::Reject(_)) => self.hit("IPv4 drop"),
            (Some(0x86), Verdict::Pass) => self.hit("IPv6 pass"),
            (Some(0x86), Verdict::Drop(_) | Verdict::Reject(_)) => self.hit("IPv6 drop"),
            _ => {}
        }
        let runnable = DataPath::takes_tc(&packet.frame);
        if asks_why && runnable {
            self.check_why(packet, expected)?;
        }
        let (hook, program, port, came_by) = match packet.entry {
            Entry::In(port) => (Hook::TcIn, "hub_tc_in", port, 0),
            Entry::Out { port, came_by } => (Hook::TcOut, "hub_tc_out", port, came_by),
        };
        if hook == Hook::TcIn && self.has_xdp && self.check_xdp(port, &packet.frame, expected)? {
            return Ok(());
        }
        if !runnable {
            return Ok(());
        }
        let code = self.datapath.run_tc(program, port, came_by, &packet.frame).code;
        self.check_tc(hook, code, expected)
    }

    /// Whether XDP finished the packet, rightly.
    fn check_xdp(&mut self, port: u32, frame: &[u8], expected: Verdict) -> Result<bool, String> {
        match (self.datapath.run_xdp(port, frame).code, expected) {
            // A port that is not in the table, caps, and an answer to the sender, are left to TC.
            (XDP_PASS, Verdict::Drop(reason)) if reason != Reason::NoPort && reason != Reason::Policed => {
                Err(format!("XDP did not drop: {}", self.grown(Hook::XdpIn)))
            }
            (XDP_PASS, _) => Ok(false),
            (XDP_REDIRECT, Verdict::Pass) => {
                self.hit("xdp redirect");
                Ok(true)
            }
            (XDP_DROP, Verdict::Drop(reason)) => {
                self.hit("xdp drop");
                // In a frame of several buffers, what lies behind the first is beyond reach, there or not.
                let beyond = reason == Reason::Truncated && frame.len() > SINGLE_BUFFER_BYTES;
                let nonlinear = self.datapath.drops(Hook::XdpIn, Reason::Nonlinear);
                let before = self.drops.get(&(Hook::XdpIn as u32, Reason::Nonlinear)).copied();
                let reason = if beyond && before != Some(nonlinear) { Reason::Nonlinear } else { reason };
                self.check_count(Hook::XdpIn, reason).map(|()| true)
            }
            (code, _) => Err(format!("XDP returned {code}: {}", self.grown(Hook::XdpIn))),
        }
    }

    fn check_tc(&mut self, hook: Hook, code: u32, expected: Verdict) -> Result<(), String> {
        let after = self.datapath.totals(hook);
        let before = std::mem::replace(&mut self.totals[hook as usize], after);
        let passed = after.passed - before.passed == 1;
        let redirected = after.redirected - before.redirected == 1;
        let skipped = after.skipped - before.skipped == 1;
        let replied = after.replied - before.replied == 1;
        match (code, expected) {
            (TC_NEXT, Verdict::Pass) if passed => self.hit("tc pass"),
            (TC_REDIRECT, Verdict::Pass) if redirected => self.hit("tc redirect"),
            (TC_NEXT, Verdict::Skip) if skipped => self.hit("skip"),
            (TC_SHOT, Verdict::Drop(reason) | Verdict::Reject(reason)) => {
                self.hit("tc drop");
                return self.check_count(hook, reason);
            }
            (TC_REDIRECT, Verdict::Reject(reason)) if replied => {
                self.hit("tc reply");
                return self.check_count(hook, reason);
            }
            _ => {
                return Err(format!(
                    "{} returned {code}, passed {passed}, redirected {redirected}, skipped {skipped}, \
                     replied {replied}: {}",
                    hook.name(),
                    self.grown(hook),
                ));
            }
        }
        Ok(())
    }

    /// Asks `hub_why`, which must say beforehand what becomes of the packet.
    fn check_why(&mut self, packet: &Packet, expected: Verdict) -> Result<(), String> {
        let asked = match packet.entry {
            // Where no port is, it answers as for packets on their way out.
            Entry::In(_) if expected == Verdict::Drop(Reason::NoPort) => return Ok(()),
            Entry::In(port) => port,
            Entry::Out { .. } if matches!(expected, Verdict::Skip | Verdict::Drop(Reason::NoPort)) => {
                return Ok(());
            }
            Entry::Out { came_by, .. } => came_by,
        };
        self.datapath.run_tc("hub_why", asked, 0, &packet.frame);
        let answer = self.datapath.answer();
        let (verdict, reason) = match expected {
            // It speaks of policies; how full a cap is changes with each packet.
            Verdict::Pass | Verdict::Drop(Reason::Policed) => (VERDICT_ROUTE, 0),
            Verdict::Skip => (VERDICT_SKIP, 0),
            Verdict::Drop(reason) | Verdict::Reject(reason) => (VERDICT_DROP, reason as u32),
        };
        if answer.verdict == verdict && (verdict != VERDICT_DROP || answer.reason == reason) {
            self.hit("why");
            return Ok(());
        }
        Err(format!("hub_why says {} {:?}", answer.verdict, Reason::from_number(answer.reason)))
    }

    /// A drop is counted once, under its reason.
    fn check_count(&mut self, hook: Hook, reason: Reason) -> Result<(), String> {
        self.hit(reason.name());
        let now = self.datapath.drops(hook, reason);
        let before = self.drops.insert((hook as u32, reason), now).unwrap_or(0);
        if now == before + 1 { Ok(()) } else { Err(self.grown(hook)) }
    }

    /// Which reason counters grew since they were last looked at.
    fn grown(&self, hook: Hook) -> String {
        let grew = |reason: &&Reason| {
            let before = self.drops.get(&(hook as u32, **reason)).copied().unwrap_or(0);
            self.datapath.drops(hook, **reason) != before
        };
        let names: Vec<_> = Reason::ALL.iter().filter(grew).map(|reason| reason.name()).collect();
        format!("{} dropped {names:?}", hook.name())
    }

    fn hit(&mut self, name: &'static str) {
        *self.hits.entry(name).or_default() += 1;
    }
}
