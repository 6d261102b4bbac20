//! The stages, one idea each. A stage reads the scratch space and maps, and answers `Ok` or a reason.

pub(crate) mod classify;
pub(crate) mod commit;
pub(crate) mod filter;
pub(crate) mod flow;
pub(crate) mod fragment;
pub(crate) mod front;
pub(crate) mod limit;
pub(crate) mod quarantine;
pub(crate) mod route;
