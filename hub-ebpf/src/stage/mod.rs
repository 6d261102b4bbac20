//! The stages, one idea each. A stage reads the scratch space and maps, and answers `Ok` or a reason.

pub(crate) mod adjacency;
pub(crate) mod admit;
pub(crate) mod candidate;
pub(crate) mod classify;
pub(crate) mod commit;
pub(crate) mod connections;
pub(crate) mod detect;
pub(crate) mod filter;
pub(crate) mod flow;
pub(crate) mod fragment;
pub(crate) mod front;
pub(crate) mod gate;
pub(crate) mod handshake;
pub(crate) mod hear;
pub(crate) mod limit;
pub(crate) mod masquerade;
pub(crate) mod neighbour;
pub(crate) mod open;
pub(crate) mod quarantine;
pub(crate) mod related;
pub(crate) mod route;
pub(crate) mod shape;
pub(crate) mod trace;
pub(crate) mod translate;
