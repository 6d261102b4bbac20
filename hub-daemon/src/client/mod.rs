//! Asks somebody else over HTTP/1: hubctl its hub, a hub the other hubs, alerts their receivers. One request a
//! connection, over a unix socket, TCP or TLS; whoever asks bounds the time.

pub(crate) mod tls;

use std::io;
use std::path::PathBuf;

use axum::body::Bytes;
use axum::http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Target {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A host, by name or by address without brackets.
    Tcp { host: String, port: u16, tls: Option<tls::Connector> },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// Nobody takes connections there: nothing was sent.
    #[error("{0}")]
    Unreachable(io::Error),
    /// It wants a certificate, or another one: nothing was heard.
    #[error("it does not take this certificate, or wants one")]
    Refused,
    /// The connection broke: the request may have been heard.
    #[error("{0}")]
    Broken(hyper::Error),
}

impl Target {
    /// The `Host` header.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// Sends a request; the body of the answer is left to be read.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, NoAnswer> {
        let unreachable = NoAnswer::Unreachable;
        match self {
            Self::Unix(path) => {
                exchange(UnixStream::connect(path).await.map_err(unreachable)?, request).await
            }
            Self::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
                match tls {
                    None => exchange(stream, request).await,
                    Some(connector) => {
                        let stream = connector.connect(host, stream).await.map_err(unreachable)?;
                        exchange(stream, request).await
                    }
                }
            }
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, NoAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(NoAnswer::Broken)?;
    tokio::spawn(async move {
        // The same error reaches whoever reads the answer.
        drop(connection.await);
    });
    let answer = sender.send_request(request).await;
    answer.map_err(|error| if tls::refused(&error) { NoAnswer::Refused } else { NoAnswer::Broken(error) })
}

/// The `Authorization` header with a token as it stands in a file.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}
