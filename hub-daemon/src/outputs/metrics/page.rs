//! The answer to one scrape, made piece by piece as fast as the socket takes it.
//!
//! What is in memory at once is a piece or two, whatever the number of personas: each piece is written and
//! sent while it is in the processor's cache, and a slow reader holds numbers instead of text.

use std::convert::Infallible;

use axum::body::Bytes;

use super::roster::Row;
use super::rows::Rows;
use super::text::{Kind, Text};
use super::{persona, qos};

/// Bytes of a piece, about.
const PIECE: usize = 64 * 1_024;
/// Room for what is written before the length of a piece is looked at, mostly.
const ROOM: usize = 4 * 1_024;

/// A family of series of personas.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    /// Writes the series of one persona.
    pub(super) write: fn(&Rows, &Row, &mut Text),
}

/// What is left to be sent.
pub(super) struct Page {
    /// Families of the hub itself.
    head: Option<String>,
    rows: Rows,
    /// The family that is being written, and the row of it that is next.
    family: usize,
    row: usize,
    is_over: bool,
}

impl Page {
    pub(super) fn new(head: String, rows: Rows) -> Self {
        Self { head: Some(head), rows, family: 0, row: 0, is_over: false }
    }

    /// Writes until the piece is long enough. Returns whether everything was written.
    fn fill(&mut self, text: &mut Text) -> bool {
        while let Some(family) = family(self.family) {
            if self.row == 0 {
                text.family(family.name, family.kind, family.help);
            }
            for row in self.rows.roster.rows.get(self.row..).unwrap_or_default() {
                (family.write)(&self.rows, row, text);
                self.row += 1;
                if text.len() >= PIECE {
                    return false;
                }
            }
            (self.family, self.row) = (self.family + 1, 0);
        }
        true
    }
}

fn family(index: usize) -> Option<&'static Family> {
    persona::FAMILIES.iter().chain(&qos::FAMILIES).nth(index)
}

impl Iterator for Page {
    type Item = Result<Bytes, Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(head) = self.head.take() {
            return Some(Ok(head.into()));
        }
        if self.is_over {
            return None;
        }
        let mut text = Text::with_capacity(PIECE + ROOM);
        self.is_over = self.fill(&mut text);
        if self.is_over {
            text.parts(["# EOF\n"]);
        }
        Some(Ok(text.into_bytes()))
    }
}
