//! Orders of switches: what a body means, and what the hub makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::caller::Caller;
use super::interfaces::has_label;
use super::problem::ProblemDetails;
use crate::command::switch::{Order, SwitchCommand};
use crate::command::{Command, Problem, Rejection, RejectionKind, Reply};
use crate::datapath_view::Impacts;
use crate::document::personality::DrainDocument;
use crate::document::read::escape;
use crate::inputs::datapath::Datapath;
use crate::model::experiment::{ALL, is_chosen};
use crate::model::span;
use crate::view::switch::{OperationView, PlanView};

/// Most connections that a plan names.
const FLOWS: usize = 100;

/// A switch, as it is ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwitchDocument {
    /// The personality: `NAME` for its last version, or `NAME@VERSION`. In a group `{interface}` stands for the
    /// name of each record, and it is left out where `interfaces` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "web@3")]
    pub(crate) personality: Option<String>,
    /// Why, for people and the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// Only say what it would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dry_run: Option<bool>,
    /// Flip at once: nothing is drained, and nothing is compared with before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) urgent: Option<bool>,
    /// How connections end; what is not said here is as the personality says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drain: Option<DrainDocument>,
    /// It goes back unless it is confirmed within so long after it is verified, as `120s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) confirm_within: Option<String>,
    /// It goes back so long after the flip, as `30m`.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub(crate) lasts: Option<String>,
}

/// A switch of several interfaces: all of them, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupDocument {
    /// Names of their records, or by name the personality that each is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interfaces: Option<GroupInterfaces>,
    /// In place of names: every interface whose record has all of these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// How many of a hundred of them are switched, 1 to 100: each by the hash of `salt` and its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub(crate) percent: Option<u8>,
    /// With `percent`: another salt makes another choice; default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) salt: Option<String>,
    /// What they are switched to, and how.
    pub(crate) switch: SwitchDocument,
}

/// The interfaces of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum GroupInterfaces {
    /// Their names: all have the same personality.
    Names(Vec<String>),
    /// The personality of each.
    Each(BTreeMap<String, String>),
}

/// What `asked` says, and for the rest what `held` does.
fn over(held: Option<&DrainDocument>, asked: &DrainDocument) -> DrainDocument {
    let Some(held) = held else { return asked.clone() };
    DrainDocument {
        timeout: asked.timeout.clone().or_else(|| held.timeout.clone()),
        threshold: asked.threshold.or(held.threshold),
        scope: asked.scope.or(held.scope),
        block: asked.block.or(held.block),
        on_timeout: asked.on_timeout.or(held.on_timeout),
        udp: asked.udp.or(held.udp),
        idle_cutoff: asked.idle_cutoff.clone().or_else(|| held.idle_cutoff.clone()),
    }
}

/// A rejection of an order, by the words of the body.
pub(super) fn in_words(problem: Problem) -> Problem {
    let pointer = if problem.pointer == "/to" { "/personality".to_owned() } else { problem.pointer };
    Problem { pointer, ..problem }
}

impl Api {
    /// The order that a body means.
    pub(super) fn order(
        &self,
        interface: &str,
        personality: Option<&str>,
        asked: &SwitchDocument,
        caller: &Caller,
    ) -> Result<Order, ProblemDetails> {
        let mut problems = Vec::new();
        let mut time = |pointer: &str, text: &Option<String>| -> Option<Duration> {
            let parsed = span::parse(text.as_ref()?);
            parsed.map_err(|error| problems.push(Problem::new(pointer, error.to_string()))).ok()
        };
        let confirm_within = time("/confirm_within", &asked.confirm_within);
        let lasts = time("/for", &asked.lasts);
        if asked.urgent == Some(true) && asked.drain.is_some() {
            problems.push(Problem::new("/drain", "an urgent switch drains nothing: leave one of them out"));
        }
        if personality.is_none() {
            problems.push(Problem::new("", "field `personality` is missing"));
        }
        let Some(to) = personality.filter(|_| problems.is_empty()) else {
            return refuse(problems);
        };
        let held = self.personality(to).ok();
        let drain = asked.drain.as_ref();
        let drain =
            drain.map(|drain| over(held.and_then(|view| view.definition.drain.clone()).as_ref(), drain));
        Ok(Order {
            interface: interface.to_owned(),
            to: to.to_owned(),
            by: caller.by.clone(),
            why: asked.why.clone().unwrap_or_default(),
            drain,
            urgent: asked.urgent.unwrap_or(false),
            confirm_within,
            lasts,
            ordered_by: caller.connection,
        })
    }

    /// The orders of a group, of the interfaces that are [`meant`](Self::meant).
    pub(super) fn orders(
        &self,
        meant: &[(String, Option<String>)],
        asked: &SwitchDocument,
        caller: &Caller,
    ) -> Result<Vec<Order>, ProblemDetails> {
        let order = |(interface, to): &(String, Option<String>)| {
            self.order(interface, to.as_deref(), asked, caller).map_err(|problem| problem.below("/switch"))
        };
        meant.iter().map(order).collect()
    }

    /// The interfaces that a group is made of, each with its personality.
    pub(super) fn meant(
        &self,
        asked: &GroupDocument,
    ) -> Result<Vec<(String, Option<String>)>, ProblemDetails> {
        let percent = asked.percent.unwrap_or(ALL);
        if !(1..=ALL).contains(&percent) {
            return refuse(vec![Problem::new("/percent", format!("{percent} %: use 1 to {ALL}"))]);
        }
        let snapshot = Arc::clone(&self.hub.snapshot.borrow());
        let of = |name: &String| {
            let written = asked.switch.personality.as_ref();
            (name.clone(), written.map(|written| written.replace("{interface}", name)))
        };
        let (meant, places): (Vec<_>, Vec<String>) = match (&asked.interfaces, &asked.labels) {
            (Some(GroupInterfaces::Names(names)), None) => {
                let places = (0..names.len()).map(|index| format!("/interfaces/{index}"));
                (names.iter().map(of).collect(), places.collect())
            }
            (Some(GroupInterfaces::Each(each)), None) => {
                let meant = each.iter().map(|(name, to)| (name.clone(), Some(to.clone())));
                (meant.collect(), each.keys().map(|name| format!("/interfaces/{}", escape(name))).collect())
            }
            (None, Some(labels)) if !labels.is_empty() => {
                let those = snapshot
                    .interfaces
                    .values()
                    .filter(|view| labels.iter().all(|(key, value)| has_label(view, key, value)));
                those.map(|view| (of(&view.name), "/labels".to_owned())).unzip()
            }
            (None | Some(_), None | Some(_)) => {
                return refuse(vec![Problem::new("", "give one of `interfaces` and `labels`")]);
            }
        };
        let mut seen = BTreeSet::new();
        let wrong = meant.iter().zip(places).filter_map(|((name, _), place)| {
            if !snapshot.interfaces.contains_key(name) {
                return Some(Problem::new(place, format!("no interface record `{name}`")));
            }
            (!seen.insert(name)).then(|| Problem::new(place, format!("`{name}` is there twice")))
        });
        let mut wrong: Vec<Problem> = wrong.collect();
        if meant.is_empty() {
            let place = if asked.labels.is_some() { "/labels" } else { "/interfaces" };
            wrong.push(Problem::new(place, "no interface is meant"));
        }
        if !wrong.is_empty() {
            return refuse(wrong);
        }
        let salt = asked.salt.as_deref().unwrap_or_default();
        let all = meant.len();
        let chosen = meant.into_iter().filter(|(name, _)| is_chosen(salt, name, percent));
        let chosen: Vec<_> = chosen.collect();
        if chosen.is_empty() {
            let detail = format!("{percent} % chooses none of {all} interfaces: use more, or another `salt`");
            return refuse(vec![Problem::new("/percent", detail)]);
        }
        Ok(chosen)
    }

    pub(super) async fn plan(&self, order: Order) -> Result<PlanView, ProblemDetails> {
        let reply = self.switch_command(SwitchCommand::Plan(order), in_words).await?;
        let Reply::Plan(mut plan) = reply else {
            return Err(ProblemDetails::unavailable("the hub gave no plan"));
        };
        plan.connections = self.impacts(&plan).await;
        Ok(*plan)
    }

    /// What a switch would mean for connections; none where the data path cannot be asked.
    async fn impacts(&self, plan: &PlanView) -> Option<Impacts> {
        let (segment, judged) = (plan.segment, plan.judged.clone());
        let read = move |datapath: &dyn Datapath| {
            judged.ask(segment, Timestamp::now(), |change| datapath.impacted(change, FLOWS))
        };
        self.read(read).await.ok()
    }

    /// Has the hub do something about switches; with a time, waits so long for their end.
    pub(super) async fn switches(
        &self,
        command: SwitchCommand,
        wait: Option<Duration>,
    ) -> Result<Vec<OperationView>, ProblemDetails> {
        let reply = self.switch_command(command, in_words).await?;
        self.became(reply, wait).await
    }

    /// Switches a group; a problem of one interface says which.
    pub(super) async fn start_all(
        &self,
        orders: Vec<Order>,
        names: &[String],
        wait: Option<Duration>,
    ) -> Result<Vec<OperationView>, ProblemDetails> {
        let alone = orders.len() == 1;
        let named = |problem: Problem| {
            let (index, rest) =
                if alone { (Some(0), problem.pointer.clone()) } else { split(&problem.pointer) };
            let name = index.and_then(|index| names.get(index));
            let Problem { pointer, detail } = in_words(Problem { pointer: rest, ..problem });
            let pointer = if pointer.is_empty() { pointer } else { format!("/switch{pointer}") };
            Problem { pointer, detail: name.map_or(detail.clone(), |name| format!("`{name}`: {detail}")) }
        };
        let reply = self.switch_command(SwitchCommand::Start(orders), named).await?;
        self.became(reply, wait).await
    }

    async fn became(
        &self,
        reply: Reply,
        wait: Option<Duration>,
    ) -> Result<Vec<OperationView>, ProblemDetails> {
        let Reply::Switched(views) = reply else {
            return Err(ProblemDetails::unavailable("the hub does not say what became of the switch"));
        };
        Ok(match wait {
            Some(time) => self.when_over(views, time).await,
            None => views,
        })
    }

    async fn switch_command(
        &self,
        command: SwitchCommand,
        words: impl Fn(Problem) -> Problem,
    ) -> Result<Reply, ProblemDetails> {
        let reply = self.hub_command(Command::Switch(command)).await?;
        reply.map_err(|rejection| {
            let problems = rejection.problems.into_iter().map(words).collect();
            Rejection { problems, kind: rejection.kind }.into()
        })
    }
}

fn refuse<T>(problems: Vec<Problem>) -> Result<T, ProblemDetails> {
    Err(Rejection { kind: RejectionKind::Invalid, problems }.into())
}

/// The number in front of a pointer, and the rest.
fn split(pointer: &str) -> (Option<usize>, String) {
    let rest = pointer.strip_prefix('/').unwrap_or(pointer);
    let (first, _) = rest.split_once('/').unwrap_or((rest, ""));
    match first.parse() {
        Ok(index) => (Some(index), rest.strip_prefix(first).unwrap_or_default().to_owned()),
        Err(_word) => (None, pointer.to_owned()),
    }
}
