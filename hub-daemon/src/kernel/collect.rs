//! stub
use std::path::Path;
use super::clock::Clock;
#[derive(Debug)]
pub struct Collected { pub kept: u64 }
pub fn run(_pins: &Path, _clock: &Clock) -> Result<Collected, super::reader::ReadError> { Ok(Collected { kept: 0 }) }
