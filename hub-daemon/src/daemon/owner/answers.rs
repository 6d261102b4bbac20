//! What the owner tells others: answers to those who wait, the state, and what changed in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::announce::changes;
use super::{Owner, Waiting};
use crate::command::Reply;
use crate::datapath_view::{ChangeEvent, EventView};
use crate::model::PersonaId;
use crate::view::PersonaView;

impl Owner {
    /// Answers what waited for this revision with the state as it is now; what asked for `postponed`
    /// personas goes on waiting.
    pub(super) fn answer(&mut self, revision: u64, postponed: &BTreeSet<PersonaId>) {
        let snapshot = self.channels.snapshot.borrow().clone();
        let fresh = |view: &PersonaView| {
            Box::new(
                snapshot.personas.get(&view.id).map_or_else(|| view.clone(), |view| PersonaView::clone(view)),
            )
        };
        let is_over = |reply: &Reply| match reply {
            Reply::Created(view) | Reply::Updated(view) => !postponed.contains(&view.id),
            Reply::Applied { .. } => postponed.is_empty(),
            Reply::Deleted
            | Reply::Orphans(_)
            | Reply::Segment(_)
            | Reply::Personality(_)
            | Reply::Interface(_)
            | Reply::Switched(_)
            | Reply::Plan(_)
            | Reply::Experiment(_)
            | Reply::Done => true,
        };
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.revision <= revision && is_over(&waiting.reply));
        self.waiting = waiting;
        for Waiting { reply, answer, .. } in ready {
            let reply = match reply {
                Reply::Created(view) => Reply::Created(fresh(&view)),
                Reply::Updated(view) => Reply::Updated(fresh(&view)),
                other @ (Reply::Deleted
                | Reply::Orphans(_)
                | Reply::Segment(_)
                | Reply::Personality(_)
                | Reply::Interface(_)
                | Reply::Switched(_)
                | Reply::Plan(_)
                | Reply::Experiment(_)
                | Reply::Done
                | Reply::Applied { .. }) => other,
            };
            // Who asked may have gone.
            drop(answer.send(Ok(reply)));
        }
    }

    pub(super) fn publish(&mut self) {
        let mut snapshot = self.hub.snapshot(Timestamp::now());
        snapshot.one_sided.clone_from(self.one_sided.found());
        let snapshot = Arc::new(snapshot);
        let before = self.channels.snapshot.send_replace(Arc::clone(&snapshot));
        for change in changes(&before.personas, &snapshot.personas) {
            self.event(change.what, Some(&change.persona), change.message);
        }
        for (interface, message) in self.hub.take_notices() {
            self.event("switch", Some(&interface), message);
        }
    }

    pub(super) fn event(&self, what: &str, persona: Option<&str>, message: String) {
        tracing::info!(what, persona, message, "change");
        let event = ChangeEvent {
            time: Timestamp::now(),
            what: what.to_owned(),
            persona: persona.map(ToOwned::to_owned),
            message,
        };
        // Nobody may be following.
        drop(self.channels.events.send(EventView::Change(event)));
    }
}
