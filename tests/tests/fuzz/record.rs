//! Where the seeds of `netlink` come from: a namespace with something of everything, ours and others'.
//!
//! Every run asks this kernel anew and reads what it says twice, from the kernel and from the record: both must
//! be the same. `HUB_FUZZ_RECORD=1` writes the records down as well, in `tests/corpus/netlink`.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use hub_daemon::desired::queues::{Class, Fifo, Queue, QueueKey, QueuePlace};
use hub_daemon::desired::{Address, GATE_PRIORITY, PROTOCOL, RouteKey, Rule, Via};
use hub_daemon::kernel::netlink::Netlink;
use hub_daemon::reconcile::Table;
use hub_daemon::tables::addresses::Addresses;
use hub_daemon::tables::endpoints::Endpoints;
use hub_daemon::tables::gates::Gates;
use hub_daemon::tables::queues::Queues;
use hub_daemon::tables::routes::Routes;
use hub_daemon::tables::rules::Rules;
use hub_tests::root;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

use crate::netlink::{Raw, keys};

/// Writes the seeds anew.
const RECORD: &str = "HUB_FUZZ_RECORD";
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
/// `IFLA_EXT_MASK` with `RTEXT_FILTER_SKIP_STATS`, as the hub asks for links.
const WITHOUT_STATISTICS: [u8; 8] = [8, 0, 29, 0, 8, 0, 0, 0];
/// `RTMGRP_*` of links, neighbours, queues, addresses, routes and rules.
const GROUPS: u32 = 0x1 | 0x4 | 0x8 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400;

/// Notifications of each kind that are kept.
const OF_EACH_KIND: usize = 3;

/// Where the seeds lie.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/netlink"))
}

/// Others' things: whatever this kernel has of them.
const OTHERS: &str = "ip link add br0 type bridge
    ip link add wire type veth peer name far
    ip link add hubnot type veth peer name hubfar
    ip link add dull type dummy
    ip link add vlan7 link wire type vlan id 7
    ip link add vrf9 type vrf table 9
    ip link set wire master br0
    ip link set wire alias somebody's
    ip addr add 192.0.2.1/24 dev far
    ip addr add 198.51.100.1 peer 198.51.100.2 dev far
    ip addr add 2001:db8::1/64 dev far nodad valid_lft 900 preferred_lft 800
    ip link set lo up
    ip link set br0 up
    ip link set wire up
    ip link set far up
    ip route add 203.0.113.0/24 via 192.0.2.9 proto static metric 20 mtu 1300
    ip route add 10.9.0.0/16 nexthop via 192.0.2.9 weight 2 nexthop via 192.0.2.8
    ip route add blackhole 10.8.0.0/16 table 300
    ip route add 10.7.0.0/16 via inet6 fe80::1 dev far
    ip route add 10.6.0.0/16 encap ip id 1 dst 192.0.2.7 dev far
    ip -6 route add 2001:db8:9::/48 via 2001:db8::9
    ip -6 route add unreachable 2001:db8:8::/48
    ip nexthop add id 5 via 192.0.2.9 dev far
    ip route add 10.5.0.0/16 nhid 5
    ip rule add from 192.0.2.0/24 iif far lookup 300 priority 100
    ip rule add fwmark 1/0xff blackhole priority 101
    ip -6 rule add to 2001:db8::/32 ipproto tcp dport 80-90 lookup 300 priority 102
    ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev far nud permanent
    ip -6 neigh add 2001:db8::9 lladdr 02:00:00:00:00:0a dev far nud reachable
    ip neigh add 192.0.2.8 dev far nud failed
    ip neigh add proxy 192.0.2.77 dev far
    tc qdisc add dev wire root handle 1: prio
    tc qdisc add dev wire parent 1:2 handle 20: tbf rate 1mbit burst 10kb latency 50ms
    tc qdisc add dev far clsact
    tc qdisc add dev br0 root handle 5: htb default 3
    tc class add dev br0 parent 5: classid 5:3 htb rate 1mbit";
/// Ours, as far as the tables do not make it themselves.
const OURS: &str = "ip link add hub-a1b2c3 type veth peer name member
    ip link set hub-a1b2c3 group 177 alias hub|red:eth0|0011223344556677
    ip link set hub-a1b2c3 up
    ip link set member up";

/// Runs one command a line; what this kernel or this `ip` does not have is left out.
fn run(script: &str) {
    for line in script.lines() {
        let words: Vec<String> = line.split_whitespace().map(|word| word.replace('|', " ")).collect();
        drop(Command::new(&words[0]).args(&words[1..]).output());
    }
}

fn make() {
    run(OTHERS);
    run(OURS);
    let kernel = || Netlink::open().unwrap();
    let key = |target: &str, metric| RouteKey { table: 1_000, target: target.parse().unwrap(), metric };
    let mut routes = Routes::new(kernel());
    routes.lead(&key("10.100.0.0/24", 7), &Via::Interface("hub-a1b2c3".into())).unwrap();
    routes.lead(&key("fd00:100::/64", 7), &Via::Unreachable).unwrap();
    let gateway = Via::Gateway { gateway: "192.0.2.9".parse().unwrap(), interface: Some("far".into()) };
    routes.lead(&key("0.0.0.0/0", 0), &gateway).unwrap();
    let mut rules = Rules::new(kernel());
    for source in ["10.100.0.0/24", "fd00:100::/64"] {
        let rule = Rule { priority: GATE_PRIORITY + 1, source: source.parse().unwrap(), table: 1_000 };
        rules.put(&rule, &()).unwrap();
    }
    Gates::new(kernel()).put(&("seg0".into(), true), &()).unwrap();
    Gates::new(kernel()).put(&("seg0".into(), false), &()).unwrap();
    let mut addresses = Addresses::new(kernel());
    for net in ["10.100.0.1/24", "fd00:100::1/64"] {
        let key = ("hub-a1b2c3".to_owned(), net.parse().unwrap());
        addresses.put(&key, &Address { expires: None }).unwrap();
    }
    let mut queues = Queues::new(kernel());
    let class = |parent| Class { parent, rate_bps: 8_000_000, ceil_bps: 80_000_000_000, priority: 3 };
    for (place, queue) in [
        (QueuePlace::Root, Queue::Root),
        (QueuePlace::Class(1), Queue::Class(class(0))),
        (QueuePlace::Class(0x10), Queue::Class(class(1))),
        (QueuePlace::Fifo(0x10), Queue::Fifo(Fifo { limit_bytes: 50_000, cut_bytes: None })),
        (QueuePlace::Class(0x11), Queue::Class(class(1))),
        (QueuePlace::Fifo(0x11), Queue::Fifo(Fifo { limit_bytes: 50_000, cut_bytes: Some(3_000) })),
    ] {
        queues.put(&QueueKey { interface: "hub-a1b2c3".into(), place }, &queue).unwrap();
    }
}

fn open(groups: u32) -> OwnedFd {
    let route = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route).unwrap();
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).unwrap();
    socket
}

/// Asks for a whole table: the answer's messages but the last, which says that it is whole.
fn dump(kind: u16, family: u8, index: u32) -> Vec<u8> {
    let socket = open(0);
    let mut body = vec![0; 20];
    body[0] = family;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    if kind == libc::RTM_GETLINK {
        body.truncate(16);
        body.extend(WITHOUT_STATISTICS);
    }
    let length = body.len() as u32 + 16;
    let head = [length.to_ne_bytes(), (u32::from(kind) | u32::from(DUMP) << 16).to_ne_bytes()].concat();
    send(socket.as_raw_fd(), &[head, vec![0; 8], body].concat(), MsgFlags::empty()).unwrap();
    let mut all = Vec::new();
    loop {
        let mut buffer = vec![0; 65_536];
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        let last = Raw::all(&buffer[..length]).last().map(|message| message.kind);
        if last == Some(NLMSG_DONE) {
            return [all, buffer[..length - 20].to_vec()].concat();
        }
        all.extend_from_slice(&buffer[..length]);
    }
}

/// What the kernel told in the meantime: a few messages of each kind.
fn heard(socket: &OwnedFd) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 65_536];
    let mut count: BTreeMap<u16, usize> = BTreeMap::new();
    while let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
        let kinds = Raw::all(&buffer[..length]).into_iter().map(|message| message.kind);
        let seen = kinds.map(|kind| *count.entry(kind).and_modify(|seen| *seen += 1).or_insert(1)).min();
        if seen.is_some_and(|seen| seen <= OF_EACH_KIND) {
            all.extend_from_slice(&buffer[..length]);
        }
    }
    all
}

/// Each record with its name.
fn record() -> Vec<(&'static str, Vec<u8>)> {
    let listener = open(GROUPS);
    make();
    run("ip route delete 10.9.0.0/16
        ip rule delete priority 100
        ip addr delete 198.51.100.1 peer 198.51.100.2 dev far
        ip neigh delete 192.0.2.9 dev far
        tc qdisc delete dev wire root
        ip link delete dull");
    let notices = heard(&listener);
    let index = Netlink::open().unwrap().index("hub-a1b2c3", "record").unwrap();
    let (v4, v6) = (libc::AF_INET as u8, libc::AF_INET6 as u8);
    vec![
        ("links", dump(libc::RTM_GETLINK, 0, 0)),
        ("addresses", dump(libc::RTM_GETADDR, 0, 0)),
        ("routes4", dump(libc::RTM_GETROUTE, v4, 0)),
        ("routes6", dump(libc::RTM_GETROUTE, v6, 0)),
        ("rules4", dump(libc::RTM_GETRULE, v4, 0)),
        ("rules6", dump(libc::RTM_GETRULE, v6, 0)),
        ("neighbours", dump(libc::RTM_GETNEIGH, 0, 0)),
        ("queues", dump(libc::RTM_GETQDISC, 0, 0)),
        ("classes", dump(libc::RTM_GETTCLASS, 0, index)),
        ("notices", notices),
    ]
}

/// Lists a table from the record and from the kernel.
fn same<T: Table>(open: fn(Netlink) -> T, record: &[u8], at_least: usize) {
    let mut good = true;
    let read = keys(open, record, &mut good);
    assert!(good, "{}: the record is refused", T::NAME);
    let live: Vec<T::Key> = open(Netlink::open().unwrap()).list().unwrap().into_keys().collect();
    assert_eq!(read, live, "{}", T::NAME);
    assert!(read.len() >= at_least, "{}: {read:?}", T::NAME);
}

fn compare() {
    let records = record();
    let whole: Vec<u8> =
        records.iter().filter(|(name, _)| *name != "notices").flat_map(|(_, bytes)| bytes.clone()).collect();
    same(Routes::new, &whole, 3);
    same(Rules::new, &whole, 2);
    same(Gates::new, &whole, 2);
    same(Addresses::new, &whole, 2);
    same(Endpoints::new, &whole, 1);
    same(Queues::new, &whole, 6);
    assert!(Raw::all(&records[9].1).len() >= 20, "few changes were heard of");
    if std::env::var_os(RECORD).is_some() {
        fs::create_dir_all(folder()).unwrap();
        for (name, bytes) in &records {
            fs::write(folder().join(name).with_extension("bin"), bytes).unwrap();
        }
    }
}

#[test]
fn a_record_is_read_like_the_kernel() {
    if !root() {
        return;
    }
    assert_eq!(PROTOCOL, 177, "`ip` above gives the group by its number");
    let inside = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        compare();
    });
    if let Err(panic) = inside.join() {
        std::panic::resume_unwind(panic);
    }
}
