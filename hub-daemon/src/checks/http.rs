//! GET of a page: a status below 400 passes.
//!
//! `http` asks in the clear, `https` whoever shows a certificate for the host by an authority that is trusted,
//! `https+insecure` whoever answers: then the check says whether something is there, not who.

use std::io;
use std::net::{IpAddr, SocketAddr};

use axum::body::Bytes;
use axum::http::{Request, StatusCode, header};
use futures::stream::{FuturesUnordered, StreamExt as _};
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

/// Most addresses of one name that are asked.
const ADDRESSES: usize = 8;

/// Gets a page from whichever address of its host has it first: all are asked at once, so that one that is dead, or of
/// a family that does not get there, costs no time.
pub(super) async fn get(page: &Page, servers: &[IpAddr], origin: &Origin) -> Result<String, String> {
    let all = find(page.url(), servers, origin).await?;
    first(all.into_iter().map(|to| get_from(page, to, origin))).await
}

async fn get_from(page: &Page, to: SocketAddr, origin: &Origin) -> Result<String, String> {
    let status = ask(page, to, origin).await.map_err(|reason| format!("{page} at {to}: {reason}"))?;
    if status.as_u16() < 400 { Ok(format!("{status} came")) } else { Err(format!("{page} answers {status}")) }
}

/// The first success, or every reason, each once.
async fn first(
    all: impl Iterator<Item = impl Future<Output = Result<String, String>>>,
) -> Result<String, String> {
    let mut answers: FuturesUnordered<_> = all.collect();
    let mut reasons: Vec<String> = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(seen) => return Ok(seen),
            Err(reason) if reasons.contains(&reason) => {}
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}

async fn find(url: &Url, servers: &[IpAddr], origin: &Origin) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = url.host.parse() {
        return Ok(vec![SocketAddr::new(address, url.port)]);
    }
    let found: Vec<SocketAddr> = if servers.is_empty() {
        let found = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
        found.map_err(|error| format!("{} has no address: {error}", url.host))?.collect()
    } else {
        let found = dns::addresses(servers, &url.host, origin).await?;
        found.into_iter().map(|address| SocketAddr::new(address, url.port)).collect()
    };
    if found.is_empty() {
        return Err(format!("{} has no address", url.host));
    }
    // Of both families, however many there are of one.
    let (four, six): (Vec<SocketAddr>, Vec<SocketAddr>) = found.into_iter().partition(SocketAddr::is_ipv4);
    let kept = [four, six].into_iter().flat_map(|family| family.into_iter().take(ADDRESSES / 2));
    Ok(kept.collect())
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_dead_does_not_hold_up_the_others() {
        let answers =
            [(60, Ok("503 came")), (1, Err("no route")), (2, Ok("200 OK came")), (3, Err("no route"))];
        let all = |answers: Vec<(u64, Result<&'static str, &'static str>)>| {
            answers.into_iter().map(|(seconds, answer)| async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                answer.map(str::to_owned).map_err(str::to_owned)
            })
        };
        assert_eq!(first(all(answers.to_vec())).await, Ok("200 OK came".to_owned()));
        let bad = vec![(1, Err("no route")), (2, Err("refused")), (3, Err("no route"))];
        assert_eq!(first(all(bad)).await, Err("no route; refused".to_owned()));
    }

    #[tokio::test]
    async fn a_page_comes_from_the_address_of_a_name_that_has_it() {
        // Here the name has addresses of both families, as a rule, and one of them has a server.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        let page = Page::new(&url, None).unwrap();
        assert_eq!(get(&page, &[], &Origin::default()).await, Ok("200 OK came".to_owned()));
    }
}
