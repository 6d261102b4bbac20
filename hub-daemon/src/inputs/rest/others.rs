//! The other hubs: what they say of themselves, and what they are asked to do.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderName, Method, Request, StatusCode, header};
use futures::future::join_all;
use http_body_util::{BodyExt as _, Full, Limited};

use super::BODY_BYTES;
use super::problem::ProblemDetails;
use crate::client::tls::Connector;
use crate::client::{NoAnswer, Target, bearer};
use crate::model::nodes::{OtherNode, Place};
use crate::view::NodeView;

/// Most time that hubs have to say how full they are: all are asked at once.
pub(super) const TELL_TIME: Duration = Duration::from_secs(1);

/// What another hub answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) location: Option<String>,
    pub(super) body: Bytes,
}

impl Answer {
    /// Why it refused.
    pub(super) fn problem(&self) -> ProblemDetails {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| {
            ProblemDetails::of_status(self.status, format!("it answered {}", self.status))
        })
    }
}

/// Why another hub did not answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// It was not asked: nobody is there, or it takes nothing from us.
    Unreachable(String),
    /// It may have done what it was asked.
    Unknown(String),
}

impl Silence {
    pub(super) fn why(self) -> String {
        match self {
            Self::Unreachable(why) | Self::Unknown(why) => why,
        }
    }
}

/// What every hub says of itself, or why it says nothing, in their order; with the state there of a persona.
pub(super) async fn tell(nodes: &[OtherNode], persona: Option<&str>) -> Vec<Result<NodeView, String>> {
    let path = persona.map_or_else(|| "/v1/node".to_owned(), |name| format!("/v1/node?persona={name}"));
    join_all(nodes.iter().map(|node| view(node, &path))).await
}

async fn view(node: &OtherNode, path: &str) -> Result<NodeView, String> {
    let answer = ask(node, Method::GET, path, &[], Bytes::new(), TELL_TIME).await.map_err(Silence::why)?;
    if answer.status != StatusCode::OK {
        return Err(format!("it answers {}: {}", answer.status, answer.problem().detail));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| format!("its answer is not to be understood: {error}"))
}

/// Sends a request and reads the whole answer, both within `limit`.
pub(super) async fn ask(
    node: &OtherNode,
    method: Method,
    path: &str,
    headers: &[(HeaderName, &str)],
    body: Bytes,
    limit: Duration,
) -> Result<Answer, Silence> {
    // The files are read at every request, so that they may be replaced.
    let target = target(&node.place).map_err(Silence::Unreachable)?;
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, target.host());
    if let Some(path) = &node.token_file {
        let token = tokio::fs::read_to_string(path).await;
        let token = token.map_err(|error| Silence::Unreachable(format!("{}: {error}", path.display())))?;
        let value =
            bearer(&token).ok_or_else(|| Silence::Unreachable(format!("{}: not a token", path.display())))?;
        request = request.header(header::AUTHORIZATION, value);
    }
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Full::new(body)).map_err(|error| Silence::Unreachable(error.to_string()))?;
    let asked = async {
        let response = target.send(request).await.map_err(|reason| match reason {
            NoAnswer::Unreachable(_) | NoAnswer::Refused => Silence::Unreachable(reason.to_string()),
            NoAnswer::Broken(_) => Silence::Unknown(reason.to_string()),
        })?;
        let (head, body) = response.into_parts();
        let location = head.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let body = Limited::new(body, BODY_BYTES).collect().await;
        let body = body.map_err(|error| Silence::Unknown(error.to_string()))?.to_bytes();
        Ok(Answer { status: head.status, location: location.map(str::to_owned), body })
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(Silence::Unknown(format!("it does not answer within {} s", limit.as_secs()))),
    }
}

fn target(place: &Place) -> Result<Target, String> {
    match place {
        Place::Unix(path) => Ok(Target::Unix(path.clone())),
        Place::Tcp { url, trust } => {
            let read = |trust: &crate::model::nodes::Trust| {
                let shown = trust.shown.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
                Connector::read(&trust.ca, shown).map_err(|error| error.to_string())
            };
            let tls = trust.as_ref().map(read).transpose()?;
            Ok(Target::Tcp { host: url.host.clone(), port: url.port, tls })
        }
    }
}
