//! Serves HTTP/1 on a listener within bounds, whoever is at the other end.
//!
//! At most [`CONNECTIONS`] connections per listener, [`HEADER_TIME`] for the header of each request. A
//! connection more pushes out the oldest one that has no request under way: who opens connections and
//! says nothing cannot keep others out. The REST API and the metrics share this code.

mod connections;
mod early;
mod peer;
mod stall;
mod tcp;
mod tls;
mod token;
mod unix;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use self::connections::{Connections, Slot};
pub use self::peer::Peer;
use self::stall::Stalling;
pub use self::tcp::{TcpOptions, bind_plain, bind_tcp};
pub use self::tls::TlsOptions;
pub use self::token::Token;
pub use self::unix::bind_unix;

/// Where the API's socket is unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/hub/hubd.sock";
/// Most connections of one listener at once.
pub const CONNECTIONS: usize = 64;
/// Most time for a TLS handshake, and for the header of a request.
pub const HEADER_TIME: Duration = Duration::from_secs(5);
/// Most bytes of a request's header.
const HEADER_BYTES: usize = 64 * 1_024;
/// Most time for requests under way to end when the listener closes.
const CLOSING_TIME: Duration = Duration::from_secs(2);
/// Pause after a failed accept, which means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A file or socket operation failed.
    #[error("{intent} {place}: {source}")]
    Io {
        /// What was tried.
        intent: &'static str,
        /// Path or address.
        place: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another process listens on the socket.
    #[error("{0}: another process listens there; stop it or choose another `api.socket`")]
    Taken(String),
    /// The path holds something that is not a socket.
    #[error("{0}: not a socket; remove it or choose another `api.socket`")]
    NotSocket(String),
    /// A TCP listener without any way to know who is there.
    #[error("api.listen {0}: set `api.token_file` or `api.tls.client_ca`; TCP is never open to everybody")]
    Open(std::net::SocketAddr),
    /// A token would cross the network in clear text.
    #[error("api.listen {0}: set `api.tls`; a token in clear text is for loopback addresses only")]
    ClearText(std::net::SocketAddr),
    /// The token file is not fit for use.
    #[error("token file {path}: {detail}")]
    Token {
        /// The file.
        path: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// A certificate or key is not fit for use.
    #[error("{path}: {detail}")]
    Tls {
        /// The file.
        path: String,
        /// What is wrong.
        detail: String,
    },
}

/// An open listener. Connections wait in the kernel until it is served.
pub struct Listener {
    socket: Socket,
    token: Option<Token>,
}

enum Socket {
    Unix { listener: UnixListener, guard: unix::SocketFile },
    Tcp { listener: TcpListener, tls: Option<TlsAcceptor> },
}

enum Accepted {
    Unix(UnixStream, Peer),
    Tcp(tokio::net::TcpStream, Peer, Option<TlsAcceptor>),
}

/// Extension of every request: turns true when the listener closes, so that endless answers end.
#[derive(Clone, Debug)]
pub struct Closing(watch::Receiver<bool>);

impl Closing {
    /// Ends when the listener closes.
    pub async fn closed(&mut self) {
        // An error means that the sender is gone: nobody is left to say that it closes.
        drop(self.0.wait_for(|closing| *closing).await);
    }
}

impl Listener {
    /// The address of a TCP listener.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        match &self.socket {
            Socket::Unix { .. } => None,
            Socket::Tcp { listener, .. } => listener.local_addr().ok(),
        }
    }

    async fn accept(&self) -> std::io::Result<Accepted> {
        match &self.socket {
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let peer = Peer::of_unix(&stream)?;
                Ok(Accepted::Unix(stream, peer))
            }
            Socket::Tcp { listener, tls } => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let local = stream.local_addr().ok();
                Ok(Accepted::Tcp(stream, Peer::Tcp { address, local }, tls.clone()))
            }
        }
    }
}

/// Answers requests until `closing` turns true (or its sender is gone), then lets those under way end.
pub async fn serve(listener: Listener, router: Router, closing: watch::Receiver<bool>) {
    let mut closing = Closing(closing);
    let router = match &listener.token {
        Some(token) => token::required(router, token.clone()),
        None => router,
    };
    let mut connections = Connections::new(CONNECTIONS);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.closed() => break,
        };
        match accepted {
            Ok(accepted) => {
                let (router, closing) = (router.clone(), closing.clone());
                connections.start(|slot| connect(accepted, router, slot, closing));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    if let Socket::Unix { guard, .. } = &listener.socket {
        guard.remove();
    }
    drop(listener);
    connections.finish(CLOSING_TIME).await;
}

async fn connect(accepted: Accepted, router: Router, slot: Arc<Slot>, closing: Closing) {
    match accepted {
        Accepted::Unix(stream, peer) => talk(stream, peer, router, slot, closing).await,
        Accepted::Tcp(stream, peer, None) => talk(stream, peer, router, slot, closing).await,
        Accepted::Tcp(stream, peer, Some(tls)) => {
            match tokio::time::timeout(HEADER_TIME, tls.accept(stream)).await {
                Ok(Ok(stream)) => talk(stream, peer, router, slot, closing).await,
                Ok(Err(error)) => tracing::info!(%peer, %error, "TLS handshake failed"),
                Err(_elapsed) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        }
    }
}

/// Speaks HTTP/1 on one stream until it ends.
async fn talk<S>(stream: S, peer: Peer, router: Router, slot: Arc<Slot>, mut closing: Closing)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = connections::service(router, slot, peer.clone(), closing.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_header_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(Stalling::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.closed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
