//! GET of a URL: a status below 400 passes.
//!
//! `http` asks in the clear. `https+insecure` asks over TLS whoever answers: the check says whether something
//! is there, not who. `https` is refused, since nothing here says which authorities to trust.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::{Origin, dns};

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    is_tls: bool,
    host: String,
    port: u16,
    path: String,
}

pub(super) async fn get(url: &str, servers: &[IpAddr], origin: &Origin) -> Result<String, String> {
    let target = parse(url)?;
    let to = find(&target, servers, origin).await?;
    let status = ask(&target, to, origin).await.map_err(|error| format!("{url} at {to}: {error}"))?;
    if status.as_u16() < 400 { Ok(format!("{status} came")) } else { Err(format!("{url} answers {status}")) }
}

fn parse(url: &str) -> Result<Target, String> {
    let uri: Uri = url.parse().map_err(|error| format!("URL `{url}`: {error}"))?;
    let (is_tls, port) = match uri.scheme_str() {
        Some("http") => (false, 80),
        Some("https+insecure") => (true, 443),
        Some("https") => {
            return Err(format!("URL `{url}`: no authorities to trust: use `https+insecure://`"));
        }
        _ => return Err(format!("URL `{url}`: use `http://` or `https+insecure://`")),
    };
    let host = uri.host().ok_or_else(|| format!("URL `{url}` has no host"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Target { is_tls, host, port: uri.port_u16().unwrap_or(port), path: path.to_owned() })
}

async fn find(target: &Target, servers: &[IpAddr], origin: &Origin) -> Result<SocketAddr, String> {
    if let Ok(address) = target.host.parse() {
        return Ok(SocketAddr::new(address, target.port));
    }
    if servers.is_empty() {
        let mut found = tokio::net::lookup_host((target.host.as_str(), target.port))
            .await
            .map_err(|error| format!("{} has no address: {error}", target.host))?;
        return found.next().ok_or_else(|| format!("{} has no address", target.host));
    }
    let found = dns::addresses(servers, &target.host, origin).await?;
    let address = found.first().ok_or_else(|| format!("{} has no address", target.host))?;
    Ok(SocketAddr::new(*address, target.port))
}

async fn ask(target: &Target, to: SocketAddr, origin: &Origin) -> io::Result<StatusCode> {
    let stream = origin.connect(to).await?;
    let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
    let request = Request::get(&target.path)
        .header(header::HOST, format!("{host}:{}", target.port))
        .header(header::USER_AGENT, concat!("hubd/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    if !target.is_tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
    exchange(connector()?.connect(name, stream).await?, request).await
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> io::Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(io::Error::other);
    connection.abort();
    Ok(answer?.status())
}

fn connector() -> io::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes every certificate, as the scheme of the URL says.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_how_whom_and_what() {
        let target = |is_tls, host: &str, port, path: &str| Target {
            is_tls,
            host: host.into(),
            port,
            path: path.into(),
        };
        assert_eq!(parse("http://10.0.0.1").unwrap(), target(false, "10.0.0.1", 80, "/"));
        assert_eq!(parse("http://[fd00::1]:8080/a?b=c").unwrap(), target(false, "fd00::1", 8080, "/a?b=c"));
        assert_eq!(parse("https+insecure://red.example/x").unwrap(), target(true, "red.example", 443, "/x"));
        for wrong in ["https://10.0.0.1", "ftp://10.0.0.1", "10.0.0.1", "http://"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
