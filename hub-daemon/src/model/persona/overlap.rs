//! What a persona wants where ranges of others are its own too.

use super::Persona;
use crate::document::persona::OverlapDocument;

impl Persona {
    /// Whether others may know its ranges by other addresses: only behind ports of its own is it known whose
    /// packets they are.
    pub fn may_be_translated(&self) -> bool {
        self.overlap != OverlapDocument::Reject && self.has_ports()
    }

    /// Whether it takes the ranges of others for its life.
    pub fn overrides(&self) -> bool {
        self.overlap == OverlapDocument::Override
    }

    /// Whether nobody else is behind its interfaces and endpoints.
    pub fn has_ports(&self) -> bool {
        !(self.attachments.is_empty() && self.endpoints.is_empty())
    }
}
