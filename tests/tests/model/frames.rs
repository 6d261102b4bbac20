//! Frames that are broken, odd, or not where they belong.

use super::*;

/// A name, a change to a frame, and what becomes of it.
type Damaged = (&'static str, fn(&mut Vec<u8>), Verdict);

#[test]
fn frames_that_are_not_ip() {
    let with_type = |ethertype: [u8; 2]| {
        let mut frame = udp(MEMBER, REMOTE).frame();
        frame[12..14].copy_from_slice(&ethertype);
        frame
    };
    let table = [
        ("arp", PORT_A, [0x08, 0x06], Skip),
        ("arp", UPLINK, [0x08, 0x06], Skip),
        ("lldp", PORT_A, [0x88, 0xcc], Drop(Reason::Ethertype)),
        ("lldp", UPLINK, [0x88, 0xcc], Skip),
        ("vlan", PORT_A, [0x81, 0x00], Drop(Reason::Vlan)),
        ("vlan", UPLINK, [0x81, 0x00], Skip),
        ("qinq", SHARED, [0x88, 0xa8], Drop(Reason::Vlan)),
        ("no port", 99, [0x08, 0x06], Drop(Reason::NoPort)),
    ];
    for (name, interface, ethertype, expected) in table {
        let verdict = hub().judge(Entry::In(interface), &with_type(ethertype), NOW);
        assert_eq!(verdict, expected, "{name} on {interface}");
    }
    assert_eq!(hub().judge(Entry::In(UPLINK), &[0; 13], NOW), Drop(Reason::Truncated));
}

#[test]
fn members_ask_for_their_own_gateway() {
    let question = |sender: &str, asked: &str| match (ip(sender), ip(asked)) {
        (IpAddr::V4(sender), IpAddr::V4(asked)) => [&[0; 12][..], &[8, 6], &arp(1, sender, asked)].concat(),
        (sender, IpAddr::V6(asked)) => {
            Datagram::icmp(sender, asked.into(), 135, 0, [0; 4]).with_payload(&asked.octets()).frame()
        }
        pair => panic!("two families: {pair:?}"),
    };
    let foreign = Drop(Reason::ForeignGateway);
    for (port, sender, asked, expected) in [
        (PORT_A, MEMBER, HUB, Skip),
        (PORT_A, "0.0.0.0", HUB, Skip),
        (PORT_A, MEMBER, GATEWAYS[0], foreign),
        (PORT_A, MEMBER6, GATEWAYS[1], foreign),
        (PORT_A, "0.0.0.0", GATEWAYS[0], foreign),
        (PORT_A, MEMBER, "203.0.113.1", foreign),
        (UPLINK, REMOTE, GATEWAYS[0], Skip),
        (UPLINK, REMOTE6, GATEWAYS[1], Skip),
        (SHARED, MEMBER, GATEWAYS[2], foreign),
        (SHARED, "fe80::5", GATEWAYS[3], Skip),
        (SHARED, "fe80::5", "2001:db8:beef::1", foreign),
    ] {
        let mut hub = hub();
        hub.locals.insert(ip("2001:db8:beef::1"));
        let verdict = hub.judge(Entry::In(port), &question(sender, asked), NOW);
        assert_eq!(verdict, expected, "{sender} asks for {asked} on {port}");
    }
    let mut beside = hub();
    beside.gateways.insert((1, ip("203.0.113.1")));
    assert_eq!(beside.judge(Entry::In(PORT_A), &question(MEMBER, "203.0.113.1"), NOW), Skip);
}

#[test]
fn broken_headers() {
    let frame = |change: fn(&mut Vec<u8>)| {
        let mut frame = udp(REMOTE, MEMBER).frame();
        change(&mut frame);
        frame
    };
    let table: [Damaged; 10] = [
        ("cut in the IP header", |f| f.truncate(33), Drop(Reason::Truncated)),
        ("cut in the payload", |f| f.truncate(44), Drop(Reason::Truncated)),
        ("version 5", |f| f[14] = 0x55, Drop(Reason::BadHeader)),
        ("header of 16 bytes", |f| f[14] = 0x44, Drop(Reason::BadHeader)),
        ("total shorter than header", |f| f[17] = 19, Drop(Reason::BadHeader)),
        ("total longer than frame", |f| f[17] = 200, Drop(Reason::Truncated)),
        ("total without transport", |f| f[17] = 27, Drop(Reason::Truncated)),
        ("udp length of 7", |f| f[39] = 7, Drop(Reason::BadHeader)),
        ("loopback source", |f| f[26] = 127, Drop(Reason::Martian)),
        ("padding is ignored", |f| f.extend([0; 20]), Pass),
    ];
    for (name, change, expected) in table {
        assert_eq!(hub().judge(Entry::In(UPLINK), &frame(change), NOW), expected, "{name}");
    }
    let mut tcp = syn(REMOTE, MEMBER, 80).frame();
    tcp[46] = 0x40;
    assert_eq!(hub().judge(Entry::In(UPLINK), &tcp, NOW), Drop(Reason::BadHeader), "TCP header of 16 bytes");
    tcp[46] = 0x60;
    assert_eq!(hub().judge(Entry::In(UPLINK), &tcp, NOW), Drop(Reason::Truncated), "TCP options cut off");
}

#[test]
fn addresses_that_nobody_may_use() {
    let martian = Drop(Reason::Martian);
    assert_table(&[
        ("this network", UPLINK, udp("0.0.0.0", MEMBER), martian),
        ("multicast source", UPLINK, udp("224.0.0.1", MEMBER), martian),
        ("loopback target", PORT_A, udp(MEMBER, "127.0.0.1"), martian),
        ("mapped on the wire", PORT_A, udp(MEMBER6, "::ffff:10.2.0.5"), martian),
        ("IPv6 loopback", UPLINK, udp("::1", MEMBER6), martian),
        ("IPv6 multicast source", UPLINK, udp("ff02::1", MEMBER6), martian),
        ("no source", UPLINK, udp("::", MEMBER6), martian),
        ("no source, by ICMPv6", UPLINK, Datagram::ping(ip("::"), ip(MEMBER6), 7), martian),
        ("another link's", UPLINK, udp("fe80::bad", MEMBER6), martian),
        ("no address yet", UPLINK, udp("0.0.0.0", "255.255.255.255"), Skip),
        ("no address yet, a member", PORT_A, udp("0.0.0.0", "255.255.255.255"), martian),
    ]);
}

#[test]
fn ipv4_options() {
    let with = |options: &[u8]| udp(REMOTE, MEMBER).with_options(options);
    assert_table(&[
        ("router alert", UPLINK, with(&[148, 4, 0, 0]), Pass),
        ("end of list hides the rest", UPLINK, with(&[1, 0, 131, 0]), Pass),
        ("loose source route", UPLINK, with(&[131, 3, 4]), Drop(Reason::SourceRoute)),
        ("strict source route", PORT_A, with(&[1, 137, 3, 4]), Drop(Reason::SourceRoute)),
        ("option of length 1", UPLINK, with(&[7, 1, 0, 0]), Drop(Reason::BadHeader)),
        ("option longer than the header", UPLINK, with(&[7, 40, 4]), Drop(Reason::BadHeader)),
    ]);
}

#[test]
fn ipv6_extension_headers() {
    let with = |extensions: Vec<Extension>| {
        let mut datagram = udp(REMOTE6, MEMBER6);
        datagram.extensions = extensions;
        datagram
    };
    let options = |count| vec![Extension::padding(60, 1); count];
    let refused = Drop(Reason::ExtensionHeaders);
    assert_table(&[
        (
            "every kind",
            UPLINK,
            with(vec![
                Extension::router_alert(),
                Extension::routing(4),
                Extension::padding(60, 2),
                Extension::authentication(),
                Extension::fragment(9, Fragment { position: 0, more: false }),
            ]),
            Pass,
        ),
        ("six", UPLINK, with(options(6)), Pass),
        ("seven", UPLINK, with(options(7)), refused),
        ("late hop-by-hop", UPLINK, with(vec![Extension::padding(60, 1), Extension::padding(0, 1)]), refused),
        ("routing type 0", UPLINK, with(vec![Extension::routing(0)]), Drop(Reason::SourceRoute)),
    ]);
    let mut longer_than_packet = with(options(1));
    longer_than_packet.extensions[0].bytes[1] = 200;
    assert_eq!(judge(&mut hub(), UPLINK, &longer_than_packet), Drop(Reason::Truncated));
}

#[test]
fn sources_belong_behind_their_port() {
    let spoof = Drop(Reason::Spoof);
    assert_table(&[
        ("own", PORT_A, udp(MEMBER, REMOTE), Pass),
        ("own, shared port", SHARED, udp(MEMBER, REMOTE), Pass),
        ("another segment's", PORT_A, udp(OTHER, REMOTE), spoof),
        ("a longer prefix is another segment's", PORT_A, udp("10.1.99.1", REMOTE), spoof),
        ("nobody's", PORT_A, udp(REMOTE, OTHER), spoof),
        ("nobody's, shared port", SHARED, udp(REMOTE6, OTHER6), spoof),
        ("link-local", PORT_A, udp("fe80::5", REMOTE6), spoof),
        ("a member's, from outside", UPLINK, udp(MEMBER, OTHER), spoof),
        ("a member's, from outside to nobody", UPLINK, udp(MEMBER6, REMOTE6), spoof),
        ("the hub's own, from a member", PORT_A, udp(HUB, REMOTE), spoof),
        ("the hub's own, from outside", UPLINK, udp("203.0.113.1", MEMBER), spoof),
        ("foreign traffic", UPLINK, udp(REMOTE, "198.51.100.1"), Skip),
        ("foreign multicast", UPLINK, udp(REMOTE, "224.0.0.5"), Skip),
    ]);
}

#[test]
fn groups_and_links_are_not_reached_from_segments() {
    let multicast = Drop(Reason::Multicast);
    assert_table(&[
        ("multicast", PORT_A, udp(MEMBER, "224.0.0.251"), multicast),
        ("broadcast", SHARED, udp(MEMBER, "255.255.255.255"), multicast),
        ("IPv6 multicast", PORT_A, udp(MEMBER6, "ff02::fb"), multicast),
        ("link-local", PORT_A, udp(MEMBER6, "fe80::1"), multicast),
        ("IPv4 link-local", PORT_A, udp(MEMBER, "169.254.169.254"), multicast),
    ]);
}

#[test]
fn neighbour_discovery_is_left_to_the_kernel() {
    let message = |kind| Datagram::icmp(ip("fe80::5"), ip("ff02::1"), kind, 0, [0; 4]).with_payload(&[0; 16]);
    let mut table = Vec::new();
    for kind in (130..=137).chain([143]) {
        table.push(("from outside", UPLINK, message(kind), Skip));
        let sent_by_routers_only = [134, 137].contains(&kind);
        let expected = if sent_by_routers_only { Drop(Reason::RouterAdvertisement) } else { Skip };
        table.push(("from a member", PORT_A, message(kind), expected));
    }
    table.push(("echo is none", PORT_A, message(128), Drop(Reason::Spoof)));
    let unicast =
        |source, target| Datagram::icmp(ip(source), ip(target), 136, 0, [0; 4]).with_payload(&[0; 16]);
    table.extend([
        ("to the hub", PORT_A, unicast(MEMBER6, "fe80::1"), Skip),
        ("across the hub", PORT_A, unicast(MEMBER6, REMOTE6), Pass),
        ("across the hub, spoofed", PORT_A, unicast(OTHER6, REMOTE6), Drop(Reason::Spoof)),
        ("across the hub, from outside", UPLINK, unicast(REMOTE6, MEMBER6), Drop(Reason::DefaultDeny)),
    ]);
    let detection = Datagram::icmp(ip("::"), ip("ff02::1:ff00:5"), 135, 0, [0; 4]).with_payload(&[0; 16]);
    table.push(("duplicate address detection", PORT_A, detection, Skip));
    assert_table(&table);
}
