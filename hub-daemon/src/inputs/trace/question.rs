//! What a trace asks for, as JSON, and the filter that it becomes.

use std::net::IpAddr;
use std::time::Duration;

use hub_common::address::V4_OFFSET_BITS;
use hub_common::trace::{TRACE_DROPS, TRACE_PORT, TRACE_PROTOCOL, TraceFilter};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::document::parts::Scalar;
use crate::model::SegmentId;
use crate::model::protocol::{self, Protocol};

/// Longest life of a trace, and its life unless asked otherwise.
pub const SECONDS_MAX: u32 = 3_600;
/// Life of a trace that does not say.
pub const SECONDS: u32 = 60;

/// Which packets to show. What is left out is any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceQuestion {
    /// Name or id of a persona at either end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
    /// Address or prefix of the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Address or prefix of the receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Port of either end, or ICMP identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// IP protocol: a name or a number; `icmp` is that of both families.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Dropped packets only.
    #[serde(default)]
    pub drops: bool,
    /// End after this many packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// End after this many seconds, 1 to 3600; default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

/// What is wrong with a question: field and reason.
pub type Refusal = (&'static str, String);

impl TraceQuestion {
    /// The filter, without its end; `segment` is that of the persona, if one was named.
    pub fn filter(&self, segment: Option<SegmentId>) -> Result<TraceFilter, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let mut filter = TraceFilter { segment: segment.map_or(0, |segment| segment.0), ..TraceFilter::ZERO };
        for (field, written) in [("source", &self.source), ("target", &self.target)] {
            let Some(written) = written else { continue };
            let Some(prefix) = prefix(written) else {
                let detail = format!("`{written}`: use an address or a prefix, as 10.1.0.0/16");
                refusals.push((field, detail));
                continue;
            };
            let (address, bits) = mapped(prefix);
            if field == "source" {
                (filter.source, filter.source_bits) = (address, bits);
            } else {
                (filter.target, filter.target_bits) = (address, bits);
            }
        }
        if let Some(port) = self.port {
            filter.port = port;
            filter.flags |= TRACE_PORT;
        }
        if let Some(written) = &self.protocol {
            let scalar = written
                .parse()
                .map_or_else(|_| Scalar::Text(written.clone()), |number: u64| Scalar::Number(number));
            match Protocol::parse(&scalar) {
                Ok(Protocol::Any) => {}
                Ok(Protocol::Icmp) => {
                    filter.protocol = [protocol::ICMP, protocol::ICMPV6];
                    filter.flags |= TRACE_PROTOCOL;
                }
                Ok(Protocol::Number(number)) => {
                    filter.protocol = [number; 2];
                    filter.flags |= TRACE_PROTOCOL;
                }
                Err(error) => refusals.push(("protocol", error.to_string())),
            }
        }
        if self.drops {
            filter.flags |= TRACE_DROPS;
        }
        if self.seconds.is_some_and(|seconds| seconds == 0 || seconds > SECONDS_MAX) {
            refusals.push(("seconds", format!("use 1 to {SECONDS_MAX}")));
        }
        if self.count == Some(0) {
            refusals.push(("count", "use 1 or more, or leave it out".to_owned()));
        }
        if refusals.is_empty() { Ok(filter) } else { Err(refusals) }
    }

    /// How long the trace lives.
    pub fn life(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(SECONDS).into())
    }
}

fn prefix(written: &str) -> Option<IpNet> {
    let address: Result<IpAddr, _> = written.parse();
    address.map(IpNet::from).ok().or_else(|| written.parse().ok())
}

fn mapped(prefix: IpNet) -> (hub_common::address::Address, u8) {
    match prefix {
        IpNet::V4(prefix) => {
            (hub_common::address::mapped(prefix.network().octets()), prefix.prefix_len() + V4_OFFSET_BITS)
        }
        IpNet::V6(prefix) => (prefix.network().octets(), prefix.prefix_len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_is_named() {
        let question = TraceQuestion {
            source: Some("10.0.0".into()),
            protocol: Some("tpc".into()),
            seconds: Some(0),
            count: Some(0),
            ..TraceQuestion::default()
        };
        let fields: Vec<&str> = question.filter(None).unwrap_err().iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, ["source", "protocol", "seconds", "count"]);
    }

    #[test]
    fn addresses_and_prefixes_become_mapped_prefixes() {
        let question = TraceQuestion {
            source: Some("10.1.2.3".into()),
            target: Some("fd00::/8".into()),
            protocol: Some("icmp".into()),
            ..TraceQuestion::default()
        };
        let filter = question.filter(Some(SegmentId(7))).unwrap();
        assert_eq!((filter.source_bits, filter.target_bits, filter.segment), (128, 8, 7));
        assert_eq!((filter.protocol, filter.flags), ([1, 58], TRACE_PROTOCOL));
    }
}
