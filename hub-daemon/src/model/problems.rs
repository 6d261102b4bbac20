//! Collects problems, so that a document is answered with all of them at once.

use std::fmt::Display;

use crate::command::Problem;

/// Problems found so far.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes a problem with the field at `pointer`.
    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Display) {
        self.0.push(Problem::new(pointer, detail.to_string()));
    }

    /// The value, or its error noted as a problem with the field at `pointer`.
    pub fn take<T, E: Display>(&mut self, pointer: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(pointer, error)).ok()
    }

    /// Adds what another check found.
    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.0.extend(problems);
    }

    /// The value if nothing is wrong.
    pub fn settle<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything found.
    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}
