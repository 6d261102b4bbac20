//! TLS towards a server: its certificate is checked by the authority that was named and by no other, by those of the
//! machine, or not at all, as whoever asks says.

mod anybody;

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use anybody::Anybody;

/// Makes TLS connections.
pub(crate) struct Connector(TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

/// Why certificates are not as they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// A PEM file.
    #[error("{}: {detail}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Those of the machine.
    #[error("this machine has no authorities to trust: install ca-certificates, or name a file by `ca`")]
    Machine,
    /// None at all: the library has no way to ask.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}

impl Unfit {
    fn new(path: &Path, detail: &impl ToString) -> Self {
        Self::File { path: path.to_owned(), detail: detail.to_string() }
    }
}

impl Connector {
    /// Reads the authority that is trusted, and the certificate and key to show, if any.
    pub(crate) fn read(ca: &Path, shown: Option<(&Path, &Path)>) -> Result<Self, Unfit> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| Unfit::new(ca, &error))?;
        }
        if roots.is_empty() {
            return Err(Unfit::new(ca, &"there is no certificate in it"));
        }
        let builder = builder()?.with_root_certificates(roots);
        let config = match shown {
            Some((cert, key)) => {
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| Unfit::new(key, &error))?;
                builder
                    .with_client_auth_cert(certificates(cert)?, private)
                    .map_err(|error| Unfit::new(cert, &error))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Trusts the authorities of the machine, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub(crate) fn by_machine() -> Result<Self, Unfit> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(Unfit::Machine);
        }
        let config = builder()?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Trusts whoever answers.
    pub(crate) fn by_nobody() -> Result<Self, Unfit> {
        let verifier = Arc::new(Anybody(provider()));
        let config = builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands with the server of this name or address.
    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Unfit> {
    Ok(ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| Unfit::new(path, &error))
}

/// Whether the server ended the connection with a TLS alert: it wants another certificate, or one at all.
pub(crate) fn refused(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let tls = io.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::AlertReceived(_)))
}
