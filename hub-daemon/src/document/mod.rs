//! Documents: what operators write, as they write it.
//!
//! These types hold text and numbers as given, so that a definition reads back in the form it was
//! written in. What the text means is the business of [`crate::model`].

pub mod alert;
pub mod application;
pub mod detect;
pub mod hub;
pub mod interface;
pub mod located;
pub mod node;
pub mod parts;
pub mod persona;
pub mod personality;
pub mod pool;
pub mod qos;
pub mod read;
pub mod rule;
pub mod service;
pub mod signature;
pub mod snippet;
pub mod source;
pub mod subnet;
pub mod template;
#[cfg(test)]
mod tests;
pub mod text;

/// JSON schemas of the documents by name, for editors.
pub fn schemas() -> [(&'static str, schemars::Schema); 4] {
    [
        ("persona", schemars::schema_for!(persona::PersonaDocument)),
        ("personality", schemars::schema_for!(personality::PersonalityDocument)),
        ("interface", schemars::schema_for!(interface::InterfaceRecordDocument)),
        ("hub", schemars::schema_for!(hub::HubDocument)),
    ]
}
