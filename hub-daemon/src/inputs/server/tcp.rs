//! TCP listeners: for the API only with a token or client certificates.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use super::early;
use super::tls::{self, TlsOptions};
use super::token::Token;
use super::{ListenError, Listener, Socket};

/// How the API is reached over TCP. Everything that is set is asked for: with a token and a client CA,
/// clients need both.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// Where to listen.
    pub address: SocketAddr,
    /// File with the bearer token.
    pub token_file: Option<PathBuf>,
    /// Certificates.
    pub tls: Option<TlsOptions>,
}

/// Opens the API's TCP listener. Call within a tokio runtime.
///
/// # Errors
/// When clients would not have to show who they are, when a token would cross a network in clear text,
/// when a file is missing or unfit, or when the address cannot be bound.
pub fn bind_tcp(options: &TcpOptions) -> Result<Listener, ListenError> {
    let address = options.address;
    let certified = options.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if options.token_file.is_none() && !certified {
        return Err(ListenError::Open(address));
    }
    if options.tls.is_none() && !address.ip().is_loopback() {
        return Err(ListenError::ClearText(address));
    }
    let token = options.token_file.as_deref().map(Token::read).transpose()?;
    let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
    let listener = bind(address)?;
    Ok(Listener { socket: Socket::Tcp { listener, tls }, token })
}

/// Opens a listener that anybody may talk to: for metrics, which are read-only. Call within a tokio runtime.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind_plain(address: SocketAddr) -> Result<Listener, ListenError> {
    let listener = bind(address)?;
    Ok(Listener { socket: Socket::Tcp { listener, tls: None }, token: None })
}

fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let io = |source| ListenError::Io { intent: "listen on", place: address.to_string(), source };
    early::tcp(address).map_err(io)
}
