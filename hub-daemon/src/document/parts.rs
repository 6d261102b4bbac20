//! Shapes that several fields share: one or a list, a number or a text.
//!
//! `Deserialize` is written by hand where serde's `untagged` would lose the place of an error.

use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use utoipa::ToSchema;

/// A number or a text, as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema, ToSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// Written without quotes and only digits.
    Number(u64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Scalar {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a whole number")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                u64::try_from(value)
                    .map(Scalar::Number)
                    .map_err(|_negative| E::invalid_value(de::Unexpected::Signed(value), &self))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// Written without brackets.
    One(T),
    /// Written as a list.
    Many(Vec<T>),
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> OneOrMany<T> {
    /// The values, however they were written.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }

    /// Each value with the JSON pointer that leads to it below `base`.
    pub fn pointed(&self, base: &str) -> impl Iterator<Item = (String, &T)> {
        let listed = matches!(self, Self::Many(_));
        self.as_slice().iter().enumerate().map(move |(index, value)| {
            (if listed { format!("{base}/{index}") } else { base.to_owned() }, value)
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list of values")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(OneOrMany::One)
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(OneOrMany::One)
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(OneOrMany::One)
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(OneOrMany::One)
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(OneOrMany::One)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(OneOrMany::Many)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OneOrMany::One)
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

/// Declares an enum that is written either as a scalar or as a mapping.
macro_rules! scalar_or_mapping {
    ($(#[$doc:meta])* $name:ident, $scalar:ident($scalar_type:ty), $mapping:ident($mapping_type:ty), $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema, ToSchema)]
        #[serde(untagged)]
        pub enum $name {
            /// The short form.
            $scalar($scalar_type),
            /// The long form.
            $mapping($mapping_type),
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl<'de> Visitor<'de> for Reader {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_u64<E: de::Error>(self, value: u64) -> Result<$name, E> {
                        <$scalar_type>::deserialize(value.into_deserializer()).map($name::$scalar)
                    }
                    fn visit_str<E: de::Error>(self, value: &str) -> Result<$name, E> {
                        <$scalar_type>::deserialize(value.into_deserializer()).map($name::$scalar)
                    }
                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        <$mapping_type>::deserialize(MapAccessDeserializer::new(map)).map($name::$mapping)
                    }
                }
                deserializer.deserialize_any(Reader)
            }
        }
    };
}

scalar_or_mapping!(
    /// Bandwidth of both directions, or of each.
    BandwidthDocument, Both(Scalar), Each(BandwidthEach),
    "a bandwidth like 100Mbps, or a mapping with `ingress` and `egress`"
);
scalar_or_mapping!(
    /// An interface by name, or with the prefixes behind it.
    InterfaceDocument, Name(String), Placed(InterfacePlaced),
    "the name of an interface, or a mapping with `name` and `prefixes`"
);
scalar_or_mapping!(
    /// Detectors by the name of a set, or each.
    DetectorsDocument, Preset(String), Each(Box<super::detect::DetectorsEach>),
    "`default`, or a mapping from detectors to their settings"
);
scalar_or_mapping!(
    /// TCP flags as text (`syn,!ack`), or as two lists.
    TcpFlagsDocument, Text(String), Lists(TcpFlagsLists),
    "TCP flags like `syn,!ack`, or a mapping with `set` and `unset`"
);

scalar_or_mapping!(
    /// An address with its length, or with its scope as well.
    AddressDocument, Text(String), Placed(super::personality::AddressPlaced),
    "an address with its length, or a mapping with `address` and `scope`"
);
scalar_or_mapping!(
    /// An interface by name, or by what else it is known by.
    SelectorDocument, Name(String), Each(super::interface::SelectorEach),
    "the name of an interface, or a mapping with `name`, `mac` or `altname`"
);

impl AddressDocument {
    /// The address with its length, as written.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Placed(placed) => &placed.address,
        }
    }
}

impl Default for SelectorDocument {
    fn default() -> Self {
        Self::Name(String::new())
    }
}

/// Bandwidth by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, DeriveDeserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BandwidthEach {
    /// Towards members, for example `100Mbps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Scalar>,
    /// From members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Scalar>,
}

/// An interface with the prefixes behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeriveDeserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InterfacePlaced {
    /// Name of the interface.
    pub name: String,
    /// Which part of the persona's range is behind it; default: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<OneOrMany<String>>,
}

/// TCP flags that must be set or unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, DeriveDeserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpFlagsLists {
    /// Flags that must be set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Flags that must not be set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
}
