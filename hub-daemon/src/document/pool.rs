//! Pools of `hub.yaml`: prefixes, or prefixes with what else is to be said of them.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::parts::OneOrMany;

/// Prefixes that personas get their ranges from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PoolDocument {
    /// Just the prefixes.
    Prefixes(OneOrMany<String>),
    /// The long form.
    Pool(PoolFields),
}

/// The long form of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolFields {
    /// Prefixes in CIDR notation, IPv4 or IPv6.
    pub prefixes: OneOrMany<String>,
    /// How long a range rests before another persona gets it; default `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
}

impl PoolDocument {
    /// The prefixes, with the JSON pointer that leads to each below `base`.
    pub fn pointed(&self, base: &str) -> Vec<(String, &String)> {
        match self {
            Self::Prefixes(prefixes) => prefixes.pointed(base).collect(),
            Self::Pool(pool) => pool.prefixes.pointed(&format!("{base}/prefixes")).collect(),
        }
    }

    /// How long a range rests, as written.
    pub fn quarantine(&self) -> Option<&str> {
        match self {
            Self::Prefixes(_) => None,
            Self::Pool(pool) => pool.quarantine.as_deref(),
        }
    }
}

impl<'de> Deserialize<'de> for PoolDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = PoolDocument;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a prefix, a list of prefixes, or {prefixes, quarantine}")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                String::deserialize(value.into_deserializer()).map(OneOrMany::One).map(PoolDocument::Prefixes)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                let prefixes = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(PoolDocument::Prefixes(OneOrMany::Many(prefixes)))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                PoolFields::deserialize(MapAccessDeserializer::new(map)).map(PoolDocument::Pool)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
