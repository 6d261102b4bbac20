//! Which of several hubs takes a persona that names none: those that fit, the one first of which the largest part
//! stays free.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::command::Problem;
use crate::document::node::{GatewayDocument, NodeRole};
use crate::document::persona::PersonaDocument;
use crate::model::persona::Persona;
use crate::model::problems::Problems;
use crate::model::rule::Direction;
use crate::view::{NodeRoom, NodeView, PersonaState};

/// What a persona asks of the hub that takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    labels: BTreeMap<String, String>,
    bps: [u64; 2],
}

/// What is left of a hub once it has the persona, in thousandths of a thousandth; then its name.
type Rank<'a> = (Reverse<u64>, &'a str);

/// Parts of a whole.
const PARTS: u128 = 1_000_000;

/// Hubs in the order in which they are to be asked to take it, and why the others are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Names of hubs that fit.
    pub order: Vec<String>,
    /// Why hubs do not fit, by name.
    pub unfit: Vec<(String, String)>,
}

impl Asked {
    /// Checks a definition whose hub is to be chosen.
    pub fn new(document: &PersonaDocument) -> Result<Self, Vec<Problem>> {
        let gateway = document.gateway.clone().unwrap_or_default();
        let mut problems = Problems::default();
        if gateway.node.is_some() {
            problems.add("/gateway/choose", "gateway: use either `node` or `choose`");
        }
        let bare = PersonaDocument { gateway: None, ..document.clone() };
        match Persona::new(&bare) {
            Ok(persona) => {
                let bps = [Direction::Ingress, Direction::Egress].map(|direction| {
                    let limit = persona.qos().and_then(|qos| qos.limit(direction));
                    limit.map_or(0, |limit| limit.rate.bps())
                });
                problems.settle(Self { labels: gateway.labels.unwrap_or_default(), bps })
            }
            Err(found) => {
                problems.extend(found);
                Err(problems.into_vec())
            }
        }
    }

    /// The definition as the hub of this name gets it.
    pub fn placed(document: &PersonaDocument, node: &str) -> PersonaDocument {
        let gateway = GatewayDocument { node: Some(node.to_owned()), ..GatewayDocument::default() };
        PersonaDocument { gateway: Some(gateway), ..document.clone() }
    }

    /// Chooses among hubs by what each says of itself, or why it says nothing. One that has the persona already is
    /// the only one to be asked: it knows whether this is the same request again.
    pub fn choose<'a>(
        &self,
        said: impl IntoIterator<Item = (&'a str, Result<&'a NodeView, &'a str>)>,
    ) -> Choice {
        let mut ranked: Vec<Rank<'a>> = Vec::new();
        let mut unfit = Vec::new();
        for (name, view) in said {
            let ranks = view.map_err(str::to_owned).and_then(|view| {
                let holds = view.persona.is_some_and(is_held);
                let part = self.fits(name, view)?;
                Ok((holds, part))
            });
            match ranks {
                Ok((false, part)) => ranked.push((Reverse(part), name)),
                Ok((true, _)) => return Choice { order: vec![name.to_owned()], unfit: Vec::new() },
                Err(why) => unfit.push((name.to_owned(), why)),
            }
        }
        ranked.sort_unstable();
        Choice { order: ranked.into_iter().map(|(_, name)| name.to_owned()).collect(), unfit }
    }

    /// Which part of the hub stays free, or why it does not take the persona.
    fn fits(&self, name: &str, view: &NodeView) -> Result<u64, String> {
        match &view.name {
            Some(own) if own == name => {}
            Some(own) => return Err(format!("it says that its name is `{own}`")),
            None => return Err("it has no `node.name`, which personas are bound to".to_owned()),
        }
        if view.role != NodeRole::Gateway {
            return Err("its role is `hub`: only gateways are chosen".to_owned());
        }
        let wrong = self.labels.iter().find(|(key, value)| view.labels.get(*key) != Some(value));
        if let Some((key, value)) = wrong {
            let own =
                view.labels.get(key).map_or_else(|| format!("no `{key}`"), |own| format!("{key}={own}"));
            return Err(format!("its labels have {own}, not {key}={value}"));
        }
        if !view.ready {
            return Err("it is not ready".to_owned());
        }
        if view.persona.is_some_and(is_held) {
            return Ok(0);
        }
        self.left(view)
    }

    /// The smallest part that is left of what is limited.
    fn left(&self, view: &NodeView) -> Result<u64, String> {
        let NodeRoom { personas, ingress_bps, egress_bps } = view.free;
        let all = view.capacity;
        let [ingress, egress] = self.bps;
        let mut least = PARTS as u64;
        for (what, free, all, asked) in [
            ("personas", Some(personas), Some(all.personas), 1),
            ("bit/s of ingress", ingress_bps, all.ingress_bps, ingress),
            ("bit/s of egress", egress_bps, all.egress_bps, egress),
        ] {
            let (Some(free), Some(all)) = (free, all) else { continue };
            let Some(left) = free.checked_sub(asked) else {
                return Err(format!("it is full: {free} of {all} {what} are free, {asked} are asked for"));
            };
            let part = u128::from(left) * PARTS / u128::from(all.max(1));
            least = least.min(u64::try_from(part).unwrap_or(u64::MAX));
        }
        Ok(least)
    }
}

/// Whether a hub has the persona itself.
fn is_held(state: PersonaState) -> bool {
    !matches!(state, PersonaState::Elsewhere | PersonaState::Expired)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked(more: &Value) -> Asked {
        let mut document = json!({"name": "a", "ip_range": "auto", "gateway": {"choose": "free"}});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Asked::new(&serde_json::from_value(document).unwrap()).unwrap()
    }

    /// A gateway that has so many of a hundred personas and so many of a thousand kilobits a second.
    fn gateway(name: &str, personas: u64, kbps: Option<u64>) -> NodeView {
        let all = kbps.map(|_| 1_000_000);
        let [bps, free] = [kbps, kbps.map(|used| 1_000 - used)].map(|kbps| Some(kbps? * 1_000));
        NodeView {
            name: Some(name.into()),
            role: NodeRole::Gateway,
            labels: [("site".to_owned(), "east".to_owned())].into(),
            ready: true,
            capacity: NodeRoom { personas: 100, ingress_bps: all, egress_bps: all },
            used: NodeRoom { personas, ingress_bps: bps, egress_bps: bps },
            free: NodeRoom { personas: 100 - personas, ingress_bps: free, egress_bps: free },
            persona: None,
        }
    }

    fn choose(asked: &Asked, views: &[NodeView]) -> Choice {
        asked.choose(views.iter().map(|view| (view.name.as_deref().unwrap_or("nameless"), Ok(view))))
    }

    #[test]
    fn the_hub_that_stays_the_freest_comes_first_and_names_break_ties() {
        let views = [
            gateway("d", 10, None),
            gateway("c", 20, Some(0)),
            gateway("b", 10, Some(5)),
            gateway("a", 0, Some(700)),
        ];
        assert_eq!(choose(&asked(&json!({})), &views).order, ["b", "d", "c", "a"]);
        let small = asked(&json!({"qos": {"bandwidth": "300kbps"}}));
        assert_eq!(choose(&small, &views).order, ["d", "c", "b", "a"], "what it asks for counts");
        assert_eq!(choose(&small, &[]), Choice::default());
    }

    #[test]
    fn every_hub_that_does_not_fit_says_why() {
        let of = |change: fn(&mut NodeView)| {
            let mut view = gateway("a", 5, Some(900));
            change(&mut view);
            let asked = asked(&json!({"gateway": {"choose": "free", "labels": {"site": "east"}},
                "qos": {"bandwidth": {"ingress": "100kbps", "egress": "101kbps"}}}));
            let choice = asked.choose([("a", Ok(&view))]);
            assert!(choice.order.is_empty(), "{choice:?}");
            choice.unfit[0].1.clone()
        };
        for (change, why) in [
            (|view| view.name = Some("z".into()), "name is `z`"),
            (|view| view.name = None, "no `node.name`"),
            (|view| view.role = NodeRole::Hub, "only gateways"),
            (
                |view| view.labels = [("site".to_owned(), "west".to_owned())].into(),
                "have site=west, not site=east",
            ),
            (|view| view.labels.clear(), "have no `site`, not site=east"),
            (|view| view.ready = false, "not ready"),
            (|view| view.free.personas = 0, "0 of 100 personas are free"),
            (|_| {}, "100000 of 1000000 bit/s of egress are free, 101000 are asked for"),
        ] as [(fn(&mut NodeView), &str); 8]
        {
            assert!(of(change).contains(why), "{} / {why}", of(change));
        }
        let choice = asked(&json!({})).choose([("a", Err("no route to host"))]);
        assert_eq!(choice.unfit, [("a".to_owned(), "no route to host".to_owned())]);
    }

    #[test]
    fn a_hub_that_has_the_persona_already_is_the_only_one_asked() {
        let mut views = [gateway("a", 0, None), gateway("b", 100, None)];
        for (state, order) in [
            (PersonaState::Active, &["b"][..]),
            (PersonaState::Provisioning, &["b"]),
            (PersonaState::Elsewhere, &["a"]),
            (PersonaState::Expired, &["a"]),
        ] {
            views[1].persona = Some(state);
            assert_eq!(choose(&asked(&json!({})), &views).order, order, "{state:?}");
        }
    }

    #[test]
    fn a_definition_that_is_wrong_is_chosen_for_by_nobody() {
        let document = json!({"name": "-", "ip_range": "10.0.0.1/33",
            "gateway": {"choose": "free", "node": "a"}});
        let found = Asked::new(&serde_json::from_value(document).unwrap()).unwrap_err();
        let pointers: Vec<&str> = found.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(pointers, ["/gateway/choose", "/name", "/ip_range"]);
    }
}
