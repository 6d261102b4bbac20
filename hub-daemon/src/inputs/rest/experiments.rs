//! `/experiments`: a part of some interfaces gets another personality, and both parts are measured.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::caller::Caller;
use super::operations::Receipt;
use super::orders::{GroupDocument, GroupInterfaces, SwitchDocument, in_words};
use super::problem::ProblemDetails;
use super::query::Named;
use super::{Api, body, idempotency};
use crate::command::experiment::{Begin, ExperimentCommand, How};
use crate::command::{Command, Problem, Rejection, RejectionKind, Reply};
use crate::systems::experiment::Arm;
use crate::view::experiment::ExperimentView;

/// An experiment, as it is ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExperimentDocument {
    /// Unique name.
    #[schema(example = "bigger-queues")]
    pub(crate) name: String,
    /// Names of records, or by name the personality that each would have on side B.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interfaces: Option<GroupInterfaces>,
    /// In place of names: every interface whose record has all of these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// How many of a hundred interfaces are switched, 1 to 99: each by the hash of `salt` and its name.
    #[schema(minimum = 1, maximum = 99)]
    pub(crate) percent: u8,
    /// Another salt makes another choice; default: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) salt: Option<String>,
    /// What those on side B are switched to, and how.
    pub(crate) switch: SwitchDocument,
}

/// Another percentage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareDocument {
    /// How many of a hundred interfaces are on side B; more only adds some.
    #[schema(minimum = 1, maximum = 99)]
    percent: u8,
    /// Why, for people and the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Flip at once: nothing is drained, and nothing is compared with before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    urgent: Option<bool>,
}

/// The end of an experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EndDocument {
    /// The side whose personality all get: `a`, what they had before, or `b`.
    keep: Arm,
    /// Why, for people and the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Flip at once: nothing is drained, and nothing is compared with before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    urgent: Option<bool>,
}

/// Experiments by name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ExperimentList {
    /// Those under way, and the last ones that are over.
    pub(crate) experiments: Vec<ExperimentView>,
}

/// Lists experiments: those under way, and the last ones that are over
#[utoipa::path(get, path = "/experiments", tag = "personalities", operation_id = "list_experiments",
    responses((status = 200, body = ExperimentList)))]
pub(super) async fn list(State(api): State<Api>) -> Json<ExperimentList> {
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let views = snapshot.experiments.values().map(|experiment| ExperimentView::new(experiment));
    Json(ExperimentList { experiments: views.collect() })
}

/// Shows an experiment: its sides, what was counted on each, and how they compare
#[utoipa::path(get, path = "/experiments/{experiment}", tag = "personalities",
    operation_id = "show_experiment",
    params(("experiment" = String, Path, description = "its name")),
    responses((status = 200, body = ExperimentView), (status = 404, description = "no such experiment")))]
pub(super) async fn show(
    State(api): State<Api>,
    Named(name): Named,
) -> Result<Json<ExperimentView>, ProblemDetails> {
    let found = api.hub.snapshot.borrow().experiments.get(&name).cloned();
    let found = found.ok_or_else(|| ProblemDetails::not_found("experiment", &name))?;
    Ok(Json(ExperimentView::new(&found)))
}

/// Begins an experiment: a part of the interfaces is switched, all of that part or none
///
/// `switch.dry_run` answers with the two sides and changes nothing.
#[utoipa::path(post, path = "/experiments", tag = "personalities", operation_id = "begin_experiment",
    request_body = ExperimentDocument,
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key with the same body gets the same answer, for 24 hours"),
    ),
    responses(
        (status = 200, body = ExperimentView, description = "with `dry_run`: what it would be"),
        (status = 202, body = ExperimentView, description = "side B is being switched",
            headers(("Location" = String))),
        (status = 400, description = "not JSON"),
        (status = 409, description = "the name is taken, or an interface cannot be on one of the sides"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the order is invalid, or one side would have no interface"),
        (status = 503, description = "the hub is busy or stopping"),
        (status = 507, description = "a limit of the hub is reached"),
    ))]
pub(super) async fn begin(
    State(api): State<Api>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Receipt, ProblemDetails> {
    let key = idempotency::key(&headers)?;
    let bytes = body::read(&headers, body, body::JSON).await?;
    let asked: ExperimentDocument = body::other(&bytes)?;
    let begin = api.experiment_of(asked, &caller)?;
    if begin.dry_run {
        return Receipt::new(StatusCode::OK, &api.experiment(ExperimentCommand::Begin(begin)).await?);
    }
    let place = format!("/v1/experiments/{}", begin.name);
    let receipts = api.receipts.clone();
    let make = async move {
        let view = api.experiment(ExperimentCommand::Begin(begin)).await?;
        Ok(Receipt::new(StatusCode::ACCEPTED, &view)?.at(place))
    };
    receipts.once(idempotency::about(key, &uri, &bytes), make).await
}

/// Has more or fewer interfaces of an experiment on side B: all that change sides, or none
#[utoipa::path(patch, path = "/experiments/{experiment}", tag = "personalities",
    operation_id = "change_experiment", request_body = ShareDocument,
    params(("experiment" = String, Path, description = "its name")),
    responses(
        (status = 200, body = ExperimentView, description = "nobody had to change sides"),
        (status = 202, body = ExperimentView, description = "some are being switched"),
        (status = 404, description = "no such experiment"),
        (status = 409, description = "it is not running, or one of the interfaces is being switched"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the body is invalid, or one side would have no interface"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn change(
    State(api): State<Api>,
    Named(experiment): Named,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Receipt, ProblemDetails> {
    let bytes = body::read(&headers, body, body::MERGE_PATCH).await?;
    let ShareDocument { percent, why, urgent } = body::other(&bytes)?;
    let how = how(caller, why, urgent);
    api.changed(ExperimentCommand::Share { experiment, percent, how }).await
}

/// Ends an experiment: all of its interfaces get the personality of one side, or none changes
///
/// An interface that somebody gave another personality meanwhile keeps that.
#[utoipa::path(post, path = "/experiments/{experiment}/end", tag = "personalities",
    operation_id = "end_experiment", request_body = EndDocument,
    params(("experiment" = String, Path, description = "its name")),
    responses(
        (status = 200, body = ExperimentView, description = "it is over"),
        (status = 202, body = ExperimentView, description = "the other side is being switched"),
        (status = 404, description = "no such experiment"),
        (status = 409, description = "it is not running, or one of the interfaces is being switched"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the body is invalid"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn end(
    State(api): State<Api>,
    Named(experiment): Named,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Receipt, ProblemDetails> {
    let bytes = body::read(&headers, body, body::JSON).await?;
    let EndDocument { keep, why, urgent } = body::other(&bytes)?;
    let how = how(caller, why, urgent);
    api.changed(ExperimentCommand::End { experiment, keep, how }).await
}

/// Forgets an experiment that is over
#[utoipa::path(delete, path = "/experiments/{experiment}", tag = "personalities",
    operation_id = "delete_experiment",
    params(("experiment" = String, Path, description = "its name")),
    responses(
        (status = 204, description = "it is forgotten"),
        (status = 404, description = "no such experiment"),
        (status = 409, description = "it is under way: end it first"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn delete(
    State(api): State<Api>,
    Named(experiment): Named,
) -> Result<StatusCode, ProblemDetails> {
    api.command(Command::Experiment(ExperimentCommand::Delete { experiment })).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn how(caller: Caller, why: Option<String>, urgent: Option<bool>) -> How {
    How {
        by: caller.by,
        why: why.unwrap_or_default(),
        urgent: urgent.unwrap_or(false),
        ordered_by: caller.connection,
    }
}

impl Api {
    /// The experiment that a body means.
    fn experiment_of(&self, asked: ExperimentDocument, caller: &Caller) -> Result<Begin, ProblemDetails> {
        if asked.switch.lasts.is_some() {
            let detail = "an experiment lasts until it is ended: leave it out";
            return Err(invalid(Problem::new("/switch/for", detail)));
        }
        let ExperimentDocument { name, interfaces, labels, percent, salt, switch } = asked;
        let group = GroupDocument { interfaces, labels, switch, ..GroupDocument::default() };
        let why = group.switch.why.clone().unwrap_or_default();
        let reason =
            if why.is_empty() { format!("experiment {name}") } else { format!("experiment {name}: {why}") };
        let meant = self.meant(&group)?;
        let mut orders = self.orders(&meant, &group.switch, caller)?;
        for order in &mut orders {
            order.why.clone_from(&reason);
        }
        let salt = salt.unwrap_or_else(|| name.clone());
        let dry_run = group.switch.dry_run == Some(true);
        Ok(Begin { name, salt, percent, by: caller.by.clone(), why, orders, dry_run })
    }

    async fn experiment(&self, command: ExperimentCommand) -> Result<ExperimentView, ProblemDetails> {
        let reply = self.hub_command(Command::Experiment(command)).await?;
        let reply = reply.map_err(|rejection| {
            let problems = rejection.problems.into_iter().map(below_switch).collect();
            ProblemDetails::from(Rejection { problems, kind: rejection.kind })
        })?;
        let Reply::Experiment(experiment) = reply else {
            return Err(ProblemDetails::unavailable("the hub does not say what became of the experiment"));
        };
        Ok(ExperimentView::new(&experiment))
    }

    async fn changed(&self, command: ExperimentCommand) -> Result<Receipt, ProblemDetails> {
        let view = self.experiment(command).await?;
        let status = if view.operations.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
        Receipt::new(status, &view)
    }
}

/// What is wrong with an order is below `switch`, by the words of the body.
fn below_switch(problem: Problem) -> Problem {
    if matches!(problem.pointer.as_str(), "" | "/name" | "/percent") {
        return problem;
    }
    let Problem { pointer, detail } = in_words(problem);
    Problem { pointer: format!("/switch{pointer}"), detail }
}

fn invalid(problem: Problem) -> ProblemDetails {
    Rejection { kind: RejectionKind::Invalid, problems: vec![problem] }.into()
}
