//! The policies of one segment that are compiled at once: the live one, one on trial, and the one that its lease falls
//! back to. A policy that changes its part keeps its slots: a switch and its way back are stores, not builds.

use std::sync::Arc;

use hub_common::open::OPEN_NONE;
use hub_common::segment::Segment as Entry;
use hub_common::shape::Shape;

use super::MapFault;
use super::ends::Ends;
use super::policies::{Built, Policies, Site};
use crate::desired::Segment;
use crate::kernel::clock::Clock;
use crate::model::SegmentId;
use crate::model::policy::Policy;

/// One compiled policy.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Where it lies.
    pub(crate) built: Built,
    /// What it was built from; `None` for what an earlier run left.
    pub(crate) policy: Option<Arc<Policy>>,
    /// Which of the segment's limits are its.
    series: u8,
    shape: Shape,
    ends: Ends,
    /// Packets were judged by it beside the live one: flows remember that.
    judged: bool,
}

/// The compiled policies of a segment; one may have two parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// What packets are judged by.
    pub(crate) live: Option<Arc<Slot>>,
    /// What is on trial, or waits.
    pub(crate) candidate: Option<Arc<Slot>>,
    /// What packets are judged by when the lease has ended.
    pub(crate) lease: Option<Arc<Slot>>,
}

/// What a segment should have.
pub(crate) struct Wish<'a> {
    pub(crate) id: SegmentId,
    pub(crate) segment: &'a Segment,
    /// What comes with the policy; zero for nothing.
    pub(crate) shape: Shape,
    /// What comes with the policy on trial.
    pub(crate) trial_shape: Shape,
    /// Whether the trial is the one that goes on.
    pub(crate) same_trial: bool,
    pub(crate) clock: &'a Clock,
}

impl Slot {
    /// Whether it was built from this policy.
    pub(crate) fn is(&self, policy: &Arc<Policy>) -> bool {
        self.policy.as_ref().is_some_and(|own| Arc::ptr_eq(own, policy) || own == policy)
    }

    /// Whether it is what would be built. Deadlines of rules are compiled in: a step of the clock makes another
    /// policy of the same one. Those that it was built with count, not those of this moment: drift must not add up.
    fn fits(&self, policy: &Arc<Policy>, shape: &Shape, clock: &Clock) -> bool {
        self.is(policy) && self.shape == *shape && self.ends.is_close(&Ends::new(policy, clock))
    }
}

impl PartialEq for Standing {
    fn eq(&self, other: &Self) -> bool {
        self.parts().map(word) == other.parts().map(word)
    }
}

fn word(slot: Option<&Arc<Slot>>) -> Option<u32> {
    slot.map(|slot| slot.built.word)
}

impl Standing {
    /// The words of an entry, in the order of series.
    pub(crate) fn words(entry: &Entry) -> [u32; 3] {
        [entry.policy, entry.candidate, entry.lease_policy]
    }

    /// What an earlier run left.
    pub(crate) fn found(entry: &Entry, find: impl Fn(u32) -> Option<Built>) -> Self {
        let slot = |series: u8, word: u32| {
            let built = (word != 0).then(|| find(word)).flatten()?;
            let (policy, judged, ends) = (None, true, Ends::default());
            Some(Arc::new(Slot { built, policy, series, shape: Shape::ZERO, ends, judged }))
        };
        let [live, candidate, lease] = Self::words(entry);
        Self { live: slot(0, live), candidate: slot(1, candidate), lease: slot(2, lease) }
    }

    fn parts(&self) -> [Option<&Arc<Slot>>; 3] {
        [self.live.as_ref(), self.candidate.as_ref(), self.lease.as_ref()]
    }

    fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.parts().into_iter().flatten()
    }

    /// Whether one of the policies comes with a shape.
    pub(crate) fn is_shaped(&self) -> bool {
        // What an earlier run left is not known.
        self.slots().any(|slot| slot.policy.is_none() || slot.shape != Shape::ZERO)
    }

    /// Port sets of what packets are judged by.
    pub(crate) fn open(&self) -> [u8; 4] {
        self.live.as_ref().map_or([OPEN_NONE; 4], |slot| slot.built.open)
    }

    /// The policies, each with the series of its limits.
    pub(crate) fn policies(&self) -> Vec<(u8, &Policy)> {
        self.slots().filter_map(|slot| Some((slot.series, slot.policy.as_deref()?))).collect()
    }

    /// The slots that the other does not have, each once.
    pub(crate) fn without(&self, other: &Self) -> Vec<Arc<Slot>> {
        let mut gone: Vec<Arc<Slot>> = Vec::new();
        for slot in self.slots() {
            if other.slots().chain(&gone).all(|other| other.built.word != slot.built.word) {
                gone.push(Arc::clone(slot));
            }
        }
        gone
    }

    /// What follows, with as much as can be of what is there; also what was built for it. On an error nothing is kept.
    pub(crate) fn next(
        &self,
        policies: &mut Policies,
        wish: &Wish<'_>,
    ) -> Result<(Self, Vec<Arc<Slot>>), MapFault> {
        let mut built = Vec::new();
        match self.try_next(policies, wish, &mut built) {
            Ok(next) => Ok((next, built)),
            Err(error) => {
                for slot in &built {
                    policies.retire(slot.built);
                }
                Err(error)
            }
        }
    }

    fn try_next(
        &self,
        policies: &mut Policies,
        wish: &Wish<'_>,
        built: &mut Vec<Arc<Slot>>,
    ) -> Result<Self, MapFault> {
        let Wish { segment, clock, .. } = wish;
        let fitting = |policy: &Arc<Policy>, shape: &Shape| {
            self.slots().find(|slot| slot.fits(policy, shape, clock)).cloned()
        };
        let mut next = Self { live: fitting(&segment.policy, &wish.shape), candidate: None, lease: None };
        if let Some(trial) = &segment.candidate {
            let kept = fitting(&trial.policy, &wish.trial_shape);
            // Flows remember who judged them: another trial of the same policy is another policy to them.
            next.candidate = kept.filter(|slot| wish.same_trial || trial.held || !slot.judged);
        }
        if next.live.is_none() {
            let likes = self.live.as_ref().map_or(0, |slot| slot.series);
            let slot = next.build(policies, wish, (&segment.policy, &wish.shape), likes)?;
            built.push(Arc::clone(&slot));
            next.live = Some(slot);
        }
        if let Some(trial) = &segment.candidate {
            let missing = next.candidate.is_none() && !(wish.same_trial && self.candidate.is_none());
            if missing {
                match next.build(policies, wish, (&trial.policy, &wish.trial_shape), 1) {
                    Ok(slot) => {
                        built.push(Arc::clone(&slot));
                        next.candidate = Some(slot);
                    }
                    Err(error) if trial.held || segment.transition.is_some() => return Err(error),
                    // There is no trial, and the persona is as well off as before.
                    Err(error) => {
                        tracing::warn!(segment = %wish.id, %error, "candidate is not judged");
                    }
                }
            }
            if !trial.held {
                next.candidate = next.candidate.map(|slot| Arc::new(Slot { judged: true, ..slot.copy() }));
            }
        }
        if let Some(lease) = &segment.lease {
            let known = [&next.candidate, &next.live].into_iter().flatten().chain(self.slots());
            next.lease = known.into_iter().find(|slot| slot.is(&lease.policy)).cloned();
            if next.lease.is_none() {
                let slot = next.build(policies, wish, (&lease.policy, &wish.shape), 2)?;
                built.push(Arc::clone(&slot));
                next.lease = Some(slot);
            }
        }
        Ok(next)
    }

    /// Builds a policy beside those that are here.
    fn build(
        &self,
        policies: &mut Policies,
        wish: &Wish<'_>,
        (policy, shape): (&Arc<Policy>, &Shape),
        likes: u8,
    ) -> Result<Arc<Slot>, MapFault> {
        let is_free = |series: &u8| self.slots().all(|slot| slot.series != *series);
        let series = std::iter::once(likes).chain(0..4).find(is_free).unwrap_or(likes);
        let ends = Ends::new(policy, wish.clock);
        let site = Site { owner: (wish.id, series), policy, shape, ends: &ends, clock: wish.clock };
        let built = policies.build(&site)?;
        let policy = Some(Arc::clone(policy));
        Ok(Arc::new(Slot { built, policy, series, shape: *shape, ends, judged: false }))
    }
}

impl Slot {
    fn copy(&self) -> Self {
        let Self { built, policy, series, shape, ends, judged } = self;
        Self {
            built: *built,
            policy: policy.clone(),
            series: *series,
            shape: *shape,
            ends: ends.clone(),
            judged: *judged,
        }
    }
}
