//! `hubctl why`: what the data path would do with a packet, which rule says so, and what to do about it.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;

use axum::http::Method;
use clap::Args;
use hub_common::event::Reason;

use super::client::Client;
use super::exit::{DROPPED, Failure};
use super::output::Output;
use super::table::section;
use crate::datapath_view::{Answer, AnswerRule, Question};

/// A packet to ask about.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// IP protocol, by name or number
    protocol: String,
    /// Sender; an IPv6 address with a port goes in brackets
    #[arg(value_name = "SRC[:PORT]")]
    source: End,
    /// Receiver; for ICMP the port is the type
    #[arg(value_name = "DST[:PORT]")]
    target: End,
    /// Interface the packet comes in on; default: the one that the kernel routes the sender by
    #[arg(long = "in", value_name = "INTERFACE")]
    port: Option<String>,
}

/// An address, and a port if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    address: IpAddr,
    port: Option<u16>,
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(end) = text.parse::<SocketAddr>() {
            return Ok(Self { address: end.ip(), port: Some(end.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        match bare.parse() {
            Ok(address) => Ok(Self { address, port: None }),
            Err(_) => Err("use ADDRESS, IPV4:PORT or [IPV6]:PORT".to_owned()),
        }
    }
}

pub(super) async fn run(client: &Client, output: Output, asked: Asked) -> Result<ExitCode, Failure> {
    let question = Question {
        protocol: asked.protocol,
        source: asked.source.address,
        source_port: asked.source.port,
        target: asked.target.address,
        target_port: asked.target.port,
        port: asked.port,
    };
    let question = serde_json::to_value(&question).map_err(Failure::answer)?;
    let answer = client.send(Method::POST, "/v1/why", &question).await?;
    output.show(&answer.body, describe)?;
    let verdict = answer.body.get("verdict").and_then(serde_json::Value::as_str);
    match verdict {
        Some("drop" | "reject") => Ok(ExitCode::from(DROPPED)),
        Some(_) => Ok(ExitCode::SUCCESS),
        None => Err(Failure::Answer("no verdict in it".to_owned())),
    }
}

fn describe(answer: &Answer) -> String {
    let persona = |name: &Option<String>| name.clone().unwrap_or_else(|| "no persona".to_owned());
    let in_brackets = |reason: &String| format!(" ({reason})");
    let reason = answer.reason.as_ref().map(in_brackets).unwrap_or_default();
    let leaves = answer.leaves_by.as_ref().map(|name| format!(", out on {name}")).unwrap_or_default();
    let established =
        if answer.established { "\nan established connection lets it pass; no rule was asked" } else { "" };
    let rules: Vec<String> = answer.rules.iter().map(describe_rule).collect();
    format!(
        "{}{reason}: {}\nfrom {} to {}, in on {}{leaves}{established}{}{}",
        answer.verdict,
        answer.explanation,
        persona(&answer.source_persona),
        persona(&answer.target_persona),
        answer.port,
        section("decided by", &rules.join("\n")),
        hint_of(answer)
    )
}

fn hint_of(answer: &Answer) -> String {
    let named = |reason: &&Reason| Some(reason.name()) == answer.reason.as_deref();
    let reason = Reason::ALL.iter().find(named);
    reason.map(|reason| format!("\n\nhint: {}", hint(*reason))).unwrap_or_default()
}

fn describe_rule(rule: &AnswerRule) -> String {
    let position = match rule.rule {
        Some(rule) => format!("rule {rule}"),
        None => "default action".to_owned(),
    };
    format!("{} {} {position}, {}: {}", rule.persona, rule.direction, rule.written, rule.text)
}

/// What an operator may do about a drop.
fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::Truncated | Reason::BadHeader | Reason::Martian | Reason::FragmentTiny | Reason::TcpFlags => {
            "the packet is malformed; look at its sender"
        }
        Reason::Nonlinear => "the sender's offloads make frames that cannot be read; see `ethtool -k`",
        Reason::Vlan => "the port has no VLAN; send untagged, or make the VLAN interface a port",
        Reason::Ethertype => "only IP and ARP pass on ports of personas",
        Reason::SourceRoute | Reason::ExtensionHeaders => "send it without these options or headers",
        Reason::FragmentUnknown => "its first fragment was lost or refused; lower the sender's MTU",
        Reason::NoPort => "the interface is not a port of the hub; see `interfaces` in hub.yaml",
        Reason::Spoof => "the sender's address is not in the persona's ip_range, or it came in elsewhere",
        Reason::Expired => "extend it before it ends, or create it anew: `hubctl persona create`",
        Reason::Blocked | Reason::Draining => "see the persona's conditions: `hubctl persona show`",
        Reason::NoPolicy => "the persona is being set up; if it stays, see `hubctl status`",
        Reason::Protocol => "add the protocol to the persona's `protocols`",
        Reason::RuleDeny | Reason::RuleReject => "change that rule, or put an allow before it",
        Reason::ConnectionLimit => "close some, or raise `max_connections_per_source`; see `hubctl flows`",
        Reason::RateLimit => "wait, or raise `rate` or `burst` of that rule",
        Reason::Quarantine => "wait until it ends, or lift it: `hubctl persona quarantine lift`",
        Reason::DefaultDeny => "add a rule that allows it",
        Reason::InterPersona => "name each persona in the `peers` of the other",
        Reason::NoFlow => "the connection is unknown or has timed out; it must begin with a SYN",
        Reason::IcmpError => "it speaks of a connection that the hub does not know",
        Reason::FlowTableFull => {
            "raise `limits` in hub.yaml, or find who opens the connections: `hubctl flows`"
        }
        Reason::HubLocal => "members may not reach services of the hub itself; see `failsafe` in hub.yaml",
        Reason::Multicast => "multicast and broadcast do not cross the hub",
        Reason::RouterAdvertisement => "members may not act as routers",
        Reason::NoTranslation => {
            "nothing is left to translate to, or a member dials the virtual range of its own persona"
        }
        Reason::Detected | Reason::FlowRate => {
            "a detector fired; see `hubctl events` and the persona's `detectors`, or wait"
        }
        Reason::Land => "its source is its target; look for who forges it",
        Reason::ForeignGateway => "members find their own gateways alone; see the routes of the sender",
        Reason::Policed => {
            "raise `qos.bandwidth`, which all interfaces have together, or leave out `qos.police`"
        }
        Reason::Internal => "this is a defect; please report it with `hubctl status --json`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_with_and_without_port() {
        let end = |text: &str| text.parse::<End>().map(|end| (end.address.to_string(), end.port));
        assert_eq!(end("10.0.0.1"), Ok(("10.0.0.1".into(), None)));
        assert_eq!(end("10.0.0.1:80"), Ok(("10.0.0.1".into(), Some(80))));
        assert_eq!(end("fd00::1"), Ok(("fd00::1".into(), None)));
        assert_eq!(end("[fd00::1]"), Ok(("fd00::1".into(), None)));
        assert_eq!(end("[fd00::1]:80"), Ok(("fd00::1".into(), Some(80))));
        assert!(end("example.org:80").is_err());
        assert!(end("10.0.0.1:99999").is_err());
    }
}
