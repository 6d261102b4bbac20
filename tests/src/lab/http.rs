//! Requests to the API of a hub, over its socket. No program is started for them: tests ask a hundred times a second.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime;

/// What the API said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body; `Null` when there was none or it is not JSON.
    pub body: serde_json::Value,
}

impl Answer {
    /// The body, if the status is the expected one.
    #[track_caller]
    pub fn expect(self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{:#}", self.body);
        self.body
    }

    /// The first header with this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// Asks, and takes the whole answer; one connection a request.
///
/// # Errors
/// Nobody answers at the socket within `limit`, or the connection ends before the answer does.
pub(super) fn ask(
    socket: &Path,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
    limit: Duration,
) -> anyhow::Result<Answer> {
    let mut request = Request::builder().method(method).uri(path).header("host", "hub");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned())))?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(limit, exchange(socket, request)).await? })
}

async fn exchange(socket: &Path, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the runtime.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.map(Response::into_parts)?;
    let body = body.collect().await?.to_bytes();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    Ok(Answer {
        status: head.status.as_u16(),
        headers: headers.collect(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}
