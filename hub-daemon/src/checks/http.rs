//! GET of a page: a status below 400 passes.
//!
//! `http` asks in the clear, `https` whoever shows a certificate for the host by an authority that is trusted,
//! `https+insecure` whoever answers: then the check says whether something is there, not who.

use std::io;
use std::net::{IpAddr, SocketAddr};

use axum::body::Bytes;
use axum::http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};

use super::{Origin, dns};
use crate::client::tls::Connector;
use crate::model::page::{Page, Trust};
use crate::model::url::Url;

pub(super) async fn get(page: &Page, servers: &[IpAddr], origin: &Origin) -> Result<String, String> {
    let to = find(page.url(), servers, origin).await?;
    let status = ask(page, to, origin).await.map_err(|reason| format!("{page} at {to}: {reason}"))?;
    if status.as_u16() < 400 { Ok(format!("{status} came")) } else { Err(format!("{page} answers {status}")) }
}

async fn find(url: &Url, servers: &[IpAddr], origin: &Origin) -> Result<SocketAddr, String> {
    if let Ok(address) = url.host.parse() {
        return Ok(SocketAddr::new(address, url.port));
    }
    if servers.is_empty() {
        let mut found = tokio::net::lookup_host((url.host.as_str(), url.port))
            .await
            .map_err(|error| format!("{} has no address: {error}", url.host))?;
        return found.next().ok_or_else(|| format!("{} has no address", url.host));
    }
    let found = dns::addresses(servers, &url.host, origin).await?;
    let address = found.first().ok_or_else(|| format!("{} has no address", url.host))?;
    Ok(SocketAddr::new(*address, url.port))
}

async fn ask(page: &Page, to: SocketAddr, origin: &Origin) -> Result<StatusCode, String> {
    let url = page.url();
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let request = Request::get(&url.path)
        .header(header::HOST, format!("{host}:{}", url.port))
        .header(header::USER_AGENT, concat!("hubd/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let Some(trust) = page.trust() else {
        let stream = origin.connect(to).await.map_err(|error| error.to_string())?;
        return exchange(stream, request).await;
    };
    let connector = connector(trust).await?;
    let stream = origin.connect(to).await.map_err(|error| error.to_string())?;
    let stream = connector.connect(&url.host, stream).await;
    exchange(stream.map_err(|error| in_words(&error, &url.host, trust))?, request).await
}

/// Reads the authorities at every try, so that they may be replaced; beside other checks, which it must not delay.
async fn connector(trust: &Trust) -> Result<Connector, String> {
    let trust = trust.clone();
    let read = spawn_blocking(move || match &trust {
        Trust::Machine => Connector::by_machine(),
        Trust::File(ca) => Connector::read(ca, None),
        Trust::Anybody => Connector::by_nobody(),
    });
    read.await.map_err(|error| error.to_string())?.map_err(|unfit| unfit.to_string())
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = begun.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    connection.abort();
    answer.map(|answer| answer.status()).map_err(|error| error.to_string())
}

/// Why there is no TLS with a host, and what to do.
fn in_words(error: &io::Error, host: &str, trust: &Trust) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let certificate = match tls {
        Some(TlsError::InvalidCertificate(certificate)) => certificate,
        Some(TlsError::InvalidMessage(_)) => return "it does not speak TLS".to_owned(),
        Some(_) | None => return error.to_string(),
    };
    let at = |time: u64| jiff::Timestamp::from_second(time.cast_signed()).unwrap_or_default();
    if let CertificateError::ExpiredContext { not_after, .. } = certificate {
        return format!("its certificate expired at {}: renew it", at(not_after.as_secs()));
    }
    if let CertificateError::NotValidYetContext { not_before, .. } = certificate {
        return format!("its certificate is valid from {} on: compare the clocks", at(not_before.as_secs()));
    }
    if let CertificateError::NotValidForNameContext { presented, .. } = certificate {
        return format!("its certificate is for {}, not for {host}", names(presented));
    }
    // A signature is bad where an authority has the name of the one that issued it, and another key.
    if !matches!(certificate, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
        return format!("its certificate is not valid: {certificate}");
    }
    match trust {
        Trust::File(ca) => format!("who issued its certificate is not in `ca` {}", ca.display()),
        Trust::Machine | Trust::Anybody => {
            "who issued its certificate is unknown here: name the authority's file by `ca`".to_owned()
        }
    }
}

/// Names as people write them, of `DnsName("red.example")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest.trim_end_matches(')'));
        inner.trim_matches('"').to_owned()
    };
    let bare: Vec<String> = presented.iter().map(bare).collect();
    if bare.is_empty() { "nobody".to_owned() } else { bare.join(", ") }
}
