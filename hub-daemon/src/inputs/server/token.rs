//! The bearer token (RFC 6750) of the TCP listener.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use subtle::ConstantTimeEq as _;

use super::ListenError;
use crate::inputs::rest::problem::ProblemDetails;

/// Fewest bytes of a token: 128 bits as 32 hexadecimal digits, or better.
const TOKEN_BYTES_MIN: usize = 32;

/// A secret that clients show. Its `Debug` does not.
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads it from a file that only its owner and group may read.
    ///
    /// # Errors
    /// When the file cannot be read, others may read it, or the token is too short.
    pub fn read(path: &Path) -> Result<Self, ListenError> {
        let place = || path.display().to_string();
        let io = |source| ListenError::Io { intent: "read the token file", place: place(), source };
        let mode = std::fs::metadata(path).map_err(io)?.permissions().mode();
        if mode & 0o007 != 0 {
            let detail = "others may read or write it; run chmod 600 on it";
            return Err(ListenError::Token { path: place(), detail });
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        let token = text.trim().as_bytes();
        if token.len() < TOKEN_BYTES_MIN {
            let detail = "shorter than 32 characters; make one with `openssl rand -hex 32`";
            return Err(ListenError::Token { path: place(), detail });
        }
        Ok(Self(token.into()))
    }

    /// Whether `shown` is the token, in time that does not depend on where they differ.
    fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

/// The router, for those who show the token.
pub(super) fn required(router: Router, token: Token) -> Router {
    router.layer(from_fn_with_state(token, check))
}

async fn check(State(token): State<Token>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let (detail, challenge) = match shown {
        Some(shown) if token.is(shown) => return next.run(request).await,
        Some(_) => ("the token is not the hub's", "Bearer realm=\"hub\", error=\"invalid_token\""),
        None => ("send the header `Authorization: Bearer TOKEN`", "Bearer realm=\"hub\""),
    };
    let problem = ProblemDetails::of_status(StatusCode::UNAUTHORIZED, detail);
    ([(header::WWW_AUTHENTICATE, challenge)], problem).into_response()
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}
