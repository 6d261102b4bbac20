//! Who asks for something about switches, and by which connection: that one is not in the way of a switch.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::command::switch::Connection;
use crate::inputs::server::Peer;

/// Name of the header by which a program on this machine says from which session it was called: four words, as
/// `SSH_CONNECTION` has them.
pub(crate) const SESSION: &str = "hub-session";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// As the kernel or the connection vouches.
    pub(super) by: String,
    /// The connection that the request came by, or the session that it was made in.
    pub(super) connection: Option<Connection>,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<Peer>();
        let connection = match peer {
            Some(Peer::Tcp { address, local: Some(local) }) => {
                Some([*address, *local].map(|end| (end.ip().to_canonical(), end.port())))
            }
            // Whoever reaches the socket may say so: who may order a switch may let any connection pass.
            Some(Peer::Unix { .. }) => {
                parts.headers.get(SESSION).and_then(|session| session_of(session.to_str().ok()?))
            }
            Some(Peer::Tcp { local: None, .. }) | None => None,
        };
        Ok(Self { by: peer.map_or_else(|| "api".to_owned(), ToString::to_string), connection })
    }
}

/// Both ends of a session, as `SSH_CONNECTION` of `sshd(8)` has them.
fn session_of(text: &str) -> Option<Connection> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [client, client_port, server, server_port] = words.as_slice() else { return None };
    let end = |address: &str, port: &str| -> Option<(IpAddr, u16)> {
        Some((address.parse::<IpAddr>().ok()?.to_canonical(), port.parse().ok()?))
    };
    Some([end(client, client_port)?, end(server, server_port)?])
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn caller(peer: Peer, session: &str) -> Caller {
        let request = Request::builder().header(SESSION, session).extension(peer).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        let Ok(caller) = Caller::from_request_parts(&mut parts, &()).await;
        caller
    }

    #[tokio::test]
    async fn a_connection_is_both_ends_of_tcp_or_the_session_of_the_caller() {
        let tcp = Peer::Tcp {
            address: "[::ffff:192.0.2.1]:50000".parse().unwrap(),
            local: Some("[::ffff:10.0.0.1]:8443".parse().unwrap()),
        };
        let of = |text: &str| session_of(text);
        let found = caller(tcp.clone(), "192.0.2.9 1 10.0.0.9 22").await;
        assert_eq!(found.connection, of("192.0.2.1 50000 10.0.0.1 8443"), "not what somebody else says");
        let unix = Peer::Unix { uid: 0, gid: 0, pid: Some(7) };
        let found = caller(unix.clone(), "fd00::9 50000 fd00::1 22").await;
        assert_eq!(
            found.connection.unwrap(),
            [("fd00::9".parse().unwrap(), 50_000), ("fd00::1".parse().unwrap(), 22)]
        );
        assert_eq!(found.by, "uid 0 pid 7");
        for wrong in ["", "fd00::9 50000 fd00::1", "a 1 b 2", "fd00::9 70000 fd00::1 22", "1 2 3 4 5"] {
            assert_eq!(caller(unix.clone(), wrong).await.connection, None, "{wrong}");
        }
    }
}
