//! What each reason for a drop means to an operator, and what can be done about it.

use hub_common::event::Reason;

/// One sentence or two about a reason.
#[expect(clippy::too_many_lines, reason = "one sentence for each reason")]
pub const fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Truncated => {
            "The packet is shorter than its own headers say: it was cut on the way, or somebody probes"
        }
        Reason::BadHeader => "The IP header contradicts itself, which no stack sends: look at the sender",
        Reason::Nonlinear => {
            "The kernel could not lay the headers out for reading: it is short of memory, or the packet is crafted"
        }
        Reason::Vlan => {
            "The packet has a VLAN tag on a port without one: untag it on the switch, or make the VLAN device the port"
        }
        Reason::Ethertype => {
            "The frame is neither IP nor ARP, and members of a persona may send nothing else"
        }
        Reason::SourceRoute => {
            "The packet prescribes its own route (IPv4 source route, or IPv6 routing header 0), which is never forwarded"
        }
        Reason::ExtensionHeaders => {
            "The IPv6 extension headers are too many, out of order or cut off: look at the sender"
        }
        Reason::Martian => {
            "An address of the packet must never be forwarded, such as loopback or unspecified: look at the sender"
        }
        Reason::FragmentTiny => {
            "The first fragment ends before the transport header, a known way around filters: look at the sender"
        }
        Reason::FragmentUnknown => {
            "The first fragment of this packet was not seen, came later, or was refused: look for drops of that one"
        }
        Reason::NoPort => {
            "The interface is in no port table: it is being set up or torn down; if this lasts, compare with the hub's ports"
        }
        Reason::Spoof => {
            "The source address does not belong behind the interface it came in on: check `ip_range` of the persona, the interface's persona, and the route back to the sender"
        }
        Reason::Expired => "The persona's `expiration` has passed: extend it, or remove the persona",
        Reason::Blocked => "The persona is blocked: nothing passes until it is unblocked",
        Reason::Draining => {
            "The persona is draining, or about to change over to rules that would refuse this: connections from \
             before go on, and no others of the kind begin until that is ended"
        }
        Reason::NoPolicy => {
            "The persona has no policy in the data path yet: it is being set up; if this lasts, look at its conditions"
        }
        Reason::Protocol => {
            "The protocol is not among the persona's `protocols`: add it there if it is wanted"
        }
        Reason::RuleDeny => "A rule with action `deny` matches: change it, or put an allowing rule before it",
        Reason::RuleReject => {
            "A rule with action `reject` matches, and the sender is told: change it, or put an allowing rule before it"
        }
        Reason::DefaultDeny => {
            "No rule matches, and the default action does not let it pass: add a rule that allows it"
        }
        Reason::InterPersona => {
            "The two personas are not peers: let them talk in both documents if that is wanted"
        }
        Reason::NoFlow => {
            "The packet goes on with a connection that is unknown: it ended, was idle for too long, or began before the hub did; opening it again helps"
        }
        Reason::IcmpError => {
            "The ICMP error is about no live connection, or it is a redirect, which is never passed on"
        }
        Reason::FlowTableFull => {
            "The table of connections is full, and this one is refused: look for a flood, or raise the limit of flows"
        }
        Reason::HubLocal => {
            "The packet goes to a service of the hub itself, which members of personas may not use; a failsafe port would be reachable"
        }
        Reason::Multicast => {
            "Multicast and broadcast do not pass between a persona and others, except what finds neighbours"
        }
        Reason::RouterAdvertisement => {
            "A member of a persona acts as a router (advertisement or redirect): members may not move others' traffic"
        }
        Reason::TcpFlags => "No stack sends these TCP flags: somebody scans",
        Reason::NoTranslation => {
            "No port or address is left to translate to, the uplink has no address of the family, or a member dialled the virtual range of its own persona: see `masquerade_ports` in hub.yaml"
        }
        Reason::Detected => {
            "A detector of the persona fired for the sender, or for the target of the connection, and its action is to drop: see `hubctl events --type packet`"
        }
        Reason::Land => "The source is the target, which no stack sends: the packet is forged",
        Reason::FlowRate => {
            "The sender began more flows than the persona's detector `flow_rate` takes: it may go on when the window is over"
        }
        Reason::ForeignGateway => {
            "A member asks for the link address of a gateway of another persona, or of another address of the hub: its own gateway is all it gets"
        }
        Reason::Policed => {
            "The persona used more than its bandwidth on all interfaces together, and no queue takes that: raise `qos.bandwidth` or `qos.ceil`, or leave out `qos.police` to queue on each"
        }
        Reason::ConnectionLimit => {
            "The source has as many connections as the persona, or one of its rules, lets it have at once: it may go on when some of them are over; raise `max_connections_per_source` if that is wanted"
        }
        Reason::RateLimit => {
            "More came than a rule with action rate_limit lets pass: raise `rate` or `burst` if that is wanted"
        }
        Reason::Quarantine => {
            "One end is in the persona's quarantine, or a rule puts it there: see `hubctl persona quarantine`, which lifts it too"
        }
        Reason::Internal => {
            "The programs disagree with their tables, which is a defect of the hub: please report it"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_sentence() {
        for reason in Reason::ALL {
            let text = explain(*reason);
            assert!(text.starts_with(char::is_uppercase) && !text.ends_with('.'), "{text}");
            assert_eq!(Reason::ALL.iter().filter(|other| explain(**other) == text).count(), 1, "{text}");
        }
    }
}
