//! A traced packet in words: what became of it and which rule had the last word.

use hub_common::event::Event;
use hub_common::outcome::{VERDICT_DEFER, VERDICT_DROP, VERDICT_REDIRECT, VERDICT_SKIP, VERDICT_STACK};
use hub_common::trace::{
    TRACED_ESTABLISHED, TRACED_NEW, TRACED_REJECT, TRACED_REPLY, TRACED_SENDER_RULE, TRACED_VERDICT_SHIFT,
};

use super::names::persona;
use crate::datapath_view::PacketEvent;
use crate::inputs::trace::TracedPacket;
use crate::view::Snapshot;

/// The view of a traced packet.
pub(crate) fn view(packet: PacketEvent, event: &Event, snapshot: &Snapshot) -> TracedPacket {
    let has = |bit: u32| event.traced & bit != 0;
    let verdict = match event.traced >> TRACED_VERDICT_SHIFT & 0xff {
        VERDICT_DROP if has(TRACED_REJECT) => "reject",
        VERDICT_DROP => "drop",
        VERDICT_REDIRECT => "redirect",
        VERDICT_STACK => "stack",
        VERDICT_SKIP => "skip",
        VERDICT_DEFER => "defer",
        _ => "unknown",
    };
    let connection = if has(TRACED_ESTABLISHED) {
        "established"
    } else if has(TRACED_NEW) {
        "new"
    } else {
        "none"
    };
    // The flow's first sender is the sender of this packet unless it is a reply.
    let owner = if has(TRACED_SENDER_RULE) == has(TRACED_REPLY) {
        event.target_segment
    } else {
        event.source_segment
    };
    let owner = packet.rule.and_then(|_| persona(snapshot, owner));
    let written = |position: u16| owner?.rule_sources.get(usize::from(position)).cloned();
    TracedPacket {
        verdict: verdict.to_owned(),
        connection: connection.to_owned(),
        reply: has(TRACED_REPLY),
        rule_persona: owner.map(|owner| owner.definition.name.clone()),
        rule_written: packet.rule.and_then(written),
        packet,
    }
}
