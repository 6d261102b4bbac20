//! Talks to the hub: HTTP/1 over the unix socket, or over TCP with a token or certificates.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::Value;

use super::arguments::Connection;
use super::exit::Failure;
use crate::client::tls::Connector;
use crate::client::{self, NoAnswer, Target};
use crate::inputs::rest::SESSION;
use crate::inputs::rest::problem::ProblemDetails;
use crate::model::url::Url;

/// Most time for one answer; the hub itself gives up after ten seconds.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// A way to reach the hub.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    authorization: Option<HeaderValue>,
}

/// An answer with its headers.
#[derive(Debug)]
pub(super) struct Answer {
    /// The `ETag`, if there is one.
    pub(super) tag: Option<HeaderValue>,
    /// The body; null when it is empty.
    pub(super) body: Value,
}

impl Client {
    pub(super) fn new(connection: &Connection) -> Result<Self, Failure> {
        let authorization = connection.token_file.as_deref().map(authorization).transpose()?;
        let target = match &connection.url {
            None => Target::Unix(connection.socket.clone()),
            Some(url) => tcp_target(url, connection)?,
        };
        Ok(Self { target, authorization })
    }

    /// Reads.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask(Method::GET, path, None, None).await
    }

    /// Sends a document.
    pub(super) async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.ask(method, path, Some(body), None).await
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let asked = async {
            let response = self.open(method, path, body, if_match).await?;
            let tag = response.headers().get(header::ETAG).cloned();
            let bytes = response.into_body().collect().await.map_err(Failure::answer)?.to_bytes();
            if bytes.is_empty() {
                return Ok(Answer { tag, body: Value::Null });
            }
            Ok(Answer { tag, body: serde_json::from_slice(&bytes).map_err(Failure::answer)? })
        };
        match tokio::time::timeout(ANSWER_TIME, asked).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(self.unreachable(std::io::Error::from(ErrorKind::TimedOut))),
        }
    }

    /// Sends a request; a refusal is a failure, any other answer is left to be read.
    pub(super) async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request =
            Request::builder().method(&method).uri(path).header(header::HOST, self.target.host());
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(tag) = if_match {
            request = request.header(header::IF_MATCH, tag);
        }
        // The session that hubctl is called in is not in the way of a switch.
        let is_near = matches!(self.target, Target::Unix(_)) && method != Method::GET;
        if let Some(session) = std::env::var_os("SSH_CONNECTION").filter(|_| is_near)
            && let Ok(session) = HeaderValue::from_bytes(session.as_encoded_bytes())
        {
            request = request.header(SESSION, session);
        }
        let bytes = match body {
            None => Bytes::new(),
            Some(body) => {
                let patch = method == Method::PATCH;
                let media_type = if patch { "application/merge-patch+json" } else { "application/json" };
                request = request.header(header::CONTENT_TYPE, media_type);
                Bytes::from(serde_json::to_vec(body).map_err(Failure::answer)?)
            }
        };
        let request = request.body(Full::new(bytes)).map_err(|error| Failure::Usage(error.to_string()))?;
        let response = self.target.send(request).await.map_err(|reason| match reason {
            NoAnswer::Unreachable(source) => self.unreachable(source),
            NoAnswer::Refused => Failure::Forbidden { place: self.target.host() },
            NoAnswer::Broken(error) => Failure::answer(error),
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(Failure::answer)?.to_bytes();
        Err(Failure::Problem(Box::new(problem(status, &bytes))))
    }

    fn unreachable(&self, source: std::io::Error) -> Failure {
        let place = match &self.target {
            Target::Unix(path) => path.display().to_string(),
            Target::Tcp { .. } => self.target.host(),
        };
        if source.kind() == ErrorKind::PermissionDenied {
            Failure::Forbidden { place }
        } else {
            Failure::Unreachable { place, source }
        }
    }
}

fn problem(status: StatusCode, bytes: &[u8]) -> ProblemDetails {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| ProblemDetails::of_status(status, String::from_utf8_lossy(bytes).into_owned()))
}

fn authorization(path: &Path) -> Result<HeaderValue, Failure> {
    let token = std::fs::read_to_string(path)
        .map_err(|source| Failure::local("read the token file", path.display(), source))?;
    client::bearer(&token).ok_or_else(|| Failure::Usage(format!("{}: not a token", path.display())))
}

fn tcp_target(url: &str, connection: &Connection) -> Result<Target, Failure> {
    let Some(Url { secure, host, port, .. }) = Url::parse(url) else {
        return Err(Failure::Usage(format!("--url `{url}`: use http://HOST:PORT or https://HOST:PORT")));
    };
    let tls = match (secure, &connection.ca) {
        (false, _) => None,
        (true, None) => {
            let detail = "https needs --ca with the CA of the hub's certificate";
            return Err(Failure::Usage(detail.to_owned()));
        }
        (true, Some(ca)) => {
            let shown = connection.cert.as_deref().zip(connection.key.as_deref());
            Some(Connector::read(ca, shown).map_err(|error| Failure::Usage(error.to_string()))?)
        }
    };
    Ok(Target::Tcp { host, port, tls })
}

/// A text as one step of a path (RFC 3986 section 3.3).
pub(super) fn step(text: &str) -> String {
    let mut step = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            step.push(char::from(byte));
        } else {
            step.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    step
}

fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0').to_ascii_uppercase()
}

/// A path with query parameters; those without a value are left out.
pub(super) fn query<'a>(
    path: &str,
    parameters: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> String {
    let given = parameters.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let text: Vec<String> = given.map(|(name, value)| format!("{name}={}", step(value))).collect();
    if text.is_empty() { path.to_owned() } else { format!("{path}?{}", text.join("&")) }
}
