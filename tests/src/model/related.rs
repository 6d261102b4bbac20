//! ICMP errors: they pass with the connection that they speak of.

use hub_common::event::Reason;

use super::judge::{Judged, Step, refuse};
use super::{Model, Tuple};

impl Model {
    /// An ICMP error passes if it goes back to the sender of a live flow's packet.
    pub(super) fn related(&self, judged: &Judged, quoted: Tuple) -> Step {
        const REDIRECT: u8 = 5;
        let packet = &judged.packet;
        let redirect = packet.source.is_ipv4() && packet.icmp_type == REDIRECT;
        if redirect || packet.target != quoted.source {
            return refuse(Reason::IcmpError);
        }
        let [from, to] = judged.segments;
        // The error travels against the quoted packet, so its ends are in the segments of that one's ends;
        // the host itself is a router on every path.
        let goes_back =
            |[sender, receiver]: [Option<u32>; 2]| to == sender && (from == receiver || judged.from_host);
        let of_flow = self.live(quoted, judged.now).is_some_and(|flow| {
            let [first, other] = flow.segments;
            goes_back(if flow.tuple() == quoted { [first, other] } else { [other, first] })
        });
        let ends = [quoted.source, quoted.target].map(|address| self.segment_of_quoted(address));
        if of_flow || (self.is_untracked(quoted, [to, from], judged.now) && goes_back(ends)) {
            return Ok(());
        }
        refuse(Reason::IcmpError)
    }
}
