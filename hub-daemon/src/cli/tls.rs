//! TLS towards the hub: its certificate is checked by the CA that was named, and by no other.

use std::error::Error as _;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::arguments::Connection;
use super::exit::Failure;

/// Makes TLS connections.
pub(super) struct Connector(TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    pub(super) fn new(connection: &Connection) -> Result<Self, Failure> {
        let Some(ca) = &connection.ca else {
            return Err(Failure::Usage("https needs --ca with the CA of the hub's certificate".to_owned()));
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| unfit(ca, &error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unfit(ca, &error))?
            .with_root_certificates(roots);
        let config = match (&connection.cert, &connection.key) {
            (Some(cert), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unfit(key, &error))?;
                builder
                    .with_client_auth_cert(certificates(cert)?, private)
                    .map_err(|error| unfit(cert, &error))?
            }
            (Some(_), None) | (None, Some(_) | None) => builder.with_no_client_auth(),
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, std::io::Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| unfit(path, &error))
}

fn unfit(path: &Path, error: &dyn Display) -> Failure {
    Failure::Usage(format!("{}: {error}", path.display()))
}

/// Whether the hub ended the connection with a TLS alert: it wants another certificate, or one at all.
pub(super) fn refused(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    let tls = io.and_then(std::io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::AlertReceived(_)))
}
