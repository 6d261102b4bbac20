//! Versions: a personality never changes; another content is another version of the name.

use std::fmt;

use ring::digest::{SHA256, digest as hash};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::document::personality::PersonalityDocument;
use crate::model::names::{self, NameError};

/// One version of a personality, written `web@3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version {
    /// Name of the personality.
    pub name: String,
    /// Number, from 1.
    pub number: u32,
}

/// A personality as somebody asks for it: a version, or the last one of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the personality.
    pub name: String,
    /// Number; the last one if absent.
    pub number: Option<u32>,
}

/// Why a text names no personality.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// A name that cannot be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No number behind the `@`.
    #[error("personality `{0}`: use NAME, or NAME@VERSION with a number from 1")]
    Number(String),
}

/// The SHA-256 of a document in its normal form, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Digest(pub String);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.number)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = WantedError;

    fn try_from(text: String) -> Result<Self, WantedError> {
        let Wanted { name, number } = Wanted::parse(&text)?;
        number.map(|number| Self { name, number }).ok_or(WantedError::Number(text))
    }
}

impl Wanted {
    /// Reads `NAME` or `NAME@VERSION`.
    pub fn parse(text: &str) -> Result<Self, WantedError> {
        let (name, number) = match text.split_once('@') {
            None => (text, None),
            Some((name, number)) => {
                let number = number.parse().ok().filter(|number| *number != 0);
                (name, Some(number.ok_or_else(|| WantedError::Number(text.to_owned()))?))
            }
        };
        names::persona(name)?;
        Ok(Self { name: name.to_owned(), number })
    }
}

/// The digest of a document; who wrote the same in another order or notation of YAML gets the same.
pub fn digest(document: &PersonalityDocument) -> Digest {
    let text = serde_json::to_vec(document).unwrap_or_default();
    Digest(hexadecimal(hash(&SHA256, &text).as_ref()))
}

/// Bytes in hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
        text
    })
}
