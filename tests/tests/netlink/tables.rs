//! Routes, rules, addresses and switches: put, read back, delete.

use std::time::Instant;

use hub_daemon::desired::shared_map::SharedMap;
use hub_daemon::desired::{Address, Desired, Route, RouteKey, Rule, Via};
use hub_daemon::kernel::netlink::Netlink;
use hub_daemon::kernel::{ethtool, sysctl};
use hub_daemon::model::PersonaId;
use hub_daemon::reconcile::{Report, Table as _, Tracked, reconcile};
use hub_daemon::tables::addresses::Addresses;
use hub_daemon::tables::routes::{Routes, read_back};
use hub_daemon::tables::rules::Rules;
use jiff::{SignedDuration, Timestamp};

use crate::lab::{Folder, ip, lab, open, wait_until};

fn key(target: &str, metric: u32, table: u32) -> RouteKey {
    RouteKey { table, target: target.parse().unwrap(), metric }
}

fn to(via: Via) -> Route {
    Route { via, persona: PersonaId("red".into()) }
}

fn interface(name: &str) -> Route {
    to(Via::Interface(name.into()))
}

fn gateway(address: &str, interface: Option<&str>) -> Route {
    to(Via::Gateway { gateway: address.parse().unwrap(), interface: interface.map(str::to_owned) })
}

fn two_links() {
    ip("link add a0 type veth peer name a1");
    ip("link add b0 type bridge");
    for link in ["a0", "a1", "b0"] {
        ip(&format!("link set {link} up"));
    }
    ip("address add 10.9.0.2/24 dev a0");
    ip("address add fd09::2/64 dev a0 nodad");
}

fn routes() -> Tracked<Routes> {
    Tracked::new(Routes::new(Netlink::open().unwrap()))
}

#[track_caller]
fn did(report: &Report, put: usize, deleted: usize, drift: usize) {
    assert_eq!(report.failures, []);
    assert_eq!((report.put, report.deleted, report.drift), (put, deleted, drift));
}

#[test]
fn routes_read_back_as_they_were_put() {
    lab(|| {
        two_links();
        let wanted: SharedMap<_, _> = [
            (key("10.1.0.0/24", 1000, 254), interface("b0")),
            (key("10.1.0.0/24", 1010, 254), interface("a0")),
            (key("10.2.0.0/24", 1000, 17_700_001), gateway("10.9.0.1", None)),
            (key("10.3.0.0/24", 1000, 254), gateway("192.0.2.1", Some("b0"))),
            (key("10.4.0.0/24", 1000, 254), to(Via::Unreachable)),
            (key("10.5.0.0/24", 1000, 254), to(Via::Blackhole)),
            (key("0.0.0.0/0", 1000, 17_700_001), interface("b0")),
            (key("fd01::/64", 1000, 254), interface("b0")),
            (key("fd01::/64", 1010, 254), interface("a0")),
            (key("fd02::/64", 1000, 17_700_001), gateway("fd09::1", None)),
            (key("fd03::/64", 1000, 254), gateway("fd99::1", Some("b0"))),
            (key("fd04::/64", 1000, 254), to(Via::Unreachable)),
            (key("fd05::/64", 1000, 254), to(Via::Blackhole)),
            (key("::/0", 1000, 17_700_001), interface("b0")),
            (key("fd06::/64", 0, 254), interface("b0")),
        ]
        .map(|(key, via)| (read_back(&key), via))
        .into();
        let mut table = routes();
        did(&reconcile(&mut table, &wanted), wanted.len(), 0, 0);
        did(&reconcile(&mut table, &wanted), 0, 0, 0);
        did(&reconcile(&mut routes(), &wanted), 0, 0, 0);
        did(&reconcile(&mut table, &SharedMap::new()), 0, wanted.len(), 0);
        for gone in wanted.keys() {
            table.table().delete(gone).unwrap();
        }
    });
}

#[test]
fn route_is_replaced_in_place() {
    lab(|| {
        two_links();
        let (four, six) = (key("10.1.0.0/24", 1000, 254), key("fd01::/64", 1000, 254));
        let mut table = routes();
        let hops = |hop: &str, six_hop: &str| {
            SharedMap::from([
                (four.clone(), gateway(hop, Some("a0"))),
                (six.clone(), gateway(six_hop, Some("a0"))),
            ])
        };
        did(&reconcile(&mut table, &hops("10.9.0.1", "fd09::1")), 2, 0, 0);
        did(&reconcile(&mut table, &hops("10.9.0.3", "fd09::3")), 2, 0, 0);
        assert_eq!(ip("route show proto 177").lines().count(), 1);
        let six_routes = ip("-6 route show proto 177");
        assert_eq!(six_routes.lines().count(), 1, "no multipath route of old and new: {six_routes}");
        let other = SharedMap::from([(four, to(Via::Blackhole)), (six, interface("b0"))]);
        did(&reconcile(&mut table, &other), 2, 0, 0);
        did(&reconcile(&mut table, &other), 0, 0, 0);
    });
}

#[test]
fn foreign_routes_are_never_touched() {
    lab(|| {
        two_links();
        ip("route add 10.1.0.0/24 dev a0 metric 1000 proto static");
        ip("-6 route add fd01::/64 dev a0 metric 1000 proto static");
        let before = (ip("route show table all"), ip("-6 route show table all"));
        let mut table = routes();
        let wanted = [("10.1.0.0/24", "b0"), ("fd01::/64", "b0")]
            .map(|(target, link)| (key(target, 1000, 254), interface(link)))
            .into();
        let report = reconcile(&mut table, &wanted);
        assert_eq!((report.put, report.failures.len()), (0, 2));
        assert!(report.failures[0].error.contains("route 10.1.0.0/24 metric 1000 table 254"));
        did(&reconcile(&mut table, &SharedMap::new()), 0, 0, 0);
        for foreign in wanted.keys() {
            table.table().delete(foreign).unwrap();
        }
        assert_eq!((ip("route show table all"), ip("-6 route show table all")), before);
    });
}

#[test]
fn refusal_tells_object_and_the_kernels_own_words() {
    lab(|| {
        two_links();
        let mut table = Routes::new(Netlink::open().unwrap());
        let error = table.put(&key("10.1.0.0/24", 1000, 254), &gateway("192.0.2.1", None)).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("put route 10.1.0.0/24 metric 1000 table 254: "), "{message}");
        assert!(message.ends_with("(Nexthop has invalid gateway)"), "{message}");
        let error = table.put(&key("10.1.0.0/24", 1000, 254), &interface("gone")).unwrap_err();
        assert!(error.to_string().contains("there is no interface `gone`"), "{error}");
    });
}

#[test]
fn twenty_thousand_routes_come_and_go() {
    lab(|| {
        two_links();
        let wanted: SharedMap<_, _> = (0..10_000u32)
            .flat_map(|n| {
                let (high, low) = (n >> 8, n & 0xff);
                let four = format!("10.{high}.{low}.0/24").parse().unwrap();
                let six = format!("fd00:{n:x}::/64").parse().unwrap();
                [four, six].map(|target| (RouteKey { table: 254, target, metric: 1000 }, interface("b0")))
            })
            .collect();
        let mut table = routes();
        let mut timed = |wanted: &SharedMap<_, _>| {
            let start = Instant::now();
            (reconcile(&mut table, wanted), start.elapsed())
        };
        let (put, put_time) = timed(&wanted);
        did(&put, 20_000, 0, 0);
        let (same, same_time) = timed(&wanted);
        did(&same, 0, 0, 0);
        let (deleted, deleted_time) = timed(&SharedMap::new());
        did(&deleted, 0, 20_000, 0);
        eprintln!("20,000 routes: put {put_time:?}, compare {same_time:?}, delete {deleted_time:?}");
    });
}

#[test]
fn rules_read_back_as_they_were_put() {
    lab(|| {
        let foreign = "from 10.0.0.0/8 lookup 100 priority 17705";
        ip(&format!("rule add {foreign}"));
        let rule = |source: &str, table| Rule { priority: 17_701, source: source.parse().unwrap(), table };
        let wanted = [
            rule("10.1.0.0/24", 17_700_001),
            rule("10.1.0.7/32", 17_700_002),
            rule("fd01::/64", 17_700_001),
            rule("0.0.0.0/0", 200),
            rule("::/0", 200),
        ]
        .map(|rule| (rule, ()))
        .into();
        let mut table = Tracked::new(Rules::new(Netlink::open().unwrap()));
        did(&reconcile(&mut table, &wanted), 5, 0, 0);
        did(&reconcile(&mut table, &wanted), 0, 0, 0);
        ip("rule del from 10.1.0.0/24 lookup 17700001 priority 17701");
        did(&reconcile(&mut table, &wanted), 1, 0, 1);
        did(&reconcile(&mut table, &[].into()), 0, 5, 0);
        for gone in wanted.keys() {
            table.table().delete(gone).unwrap();
        }
        assert!(ip("rule show").contains("from 10.0.0.0/8 lookup 100"));
    });
}

fn address(net: &str, expires: Option<Timestamp>) -> ((String, ipnet::IpNet), Address) {
    (("b0".to_owned(), net.parse().unwrap()), Address { expires })
}

#[test]
fn addresses_read_back_and_foreign_ones_stay() {
    lab(|| {
        two_links();
        let expires = Timestamp::now() + SignedDuration::from_secs(100);
        let wanted = |expires| {
            SharedMap::from([
                address("10.1.0.1/32", None),
                address("10.1.0.2/24", Some(expires)),
                address("fd01::1/128", None),
                address("fd01::2/64", Some(expires)),
            ])
        };
        let mut table = Tracked::new(Addresses::new(Netlink::open().unwrap()));
        did(&reconcile(&mut table, &wanted(expires)), 4, 0, 0);
        did(&reconcile(&mut table, &wanted(expires)), 0, 0, 0);
        assert!(!ip("route show dev b0").contains("10.1.0.0/24"), "no prefix route");
        assert!(!ip("-6 address show dev b0").contains("inet6 fd01::1/128 scope global tentative"));
        let later = expires + SignedDuration::from_secs(1000);
        did(&reconcile(&mut table, &wanted(later)), 2, 0, 0);
        did(&reconcile(&mut table, &wanted(later)), 0, 0, 0);
        ip("address add 10.7.0.1/24 dev b0");
        let report = reconcile(&mut table, &[address("10.7.0.1/24", None)].into());
        assert_eq!((report.put, report.deleted, report.failures.len()), (0, 4, 1));
        assert!(ip("address show dev b0").contains("10.7.0.1/24"));
    });
}

#[test]
fn address_goes_at_its_expiry_without_the_daemon() {
    lab(|| {
        two_links();
        let expires = Timestamp::now() + SignedDuration::from_secs(1);
        let mut table = Addresses::new(Netlink::open().unwrap());
        for net in ["10.1.0.1/32", "fd01::1/128"] {
            let (key, value) = address(net, Some(expires));
            table.put(&key, &value).unwrap();
        }
        assert_eq!(table.list().unwrap().len(), 2);
        wait_until("the kernel removes both addresses", || table.list().unwrap().is_empty());
        // What is gone already deletes without an error.
        table.delete(&address("10.1.0.1/32", None).0).unwrap();
        table.delete(&address("fd01::1/128", None).0).unwrap();
    });
}

#[test]
fn switches_go_back_to_what_they_were() {
    lab(|| {
        two_links();
        let folder = Folder::new();
        let (host, single) = ("net/ipv4/ip_forward", "net/ipv4/conf/b0/rp_filter");
        let before = (sysctl::read(host).unwrap(), sysctl::read(single).unwrap());
        assert_eq!(before, ("0".into(), "0".into()));
        let sysctls = [(host, "1"), (single, "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let desired = Desired { sysctls: sysctls.into(), ..Desired::default() };
        let total =
            |reports: Vec<Report>| reports.iter().map(|report| report.put + report.deleted).sum::<usize>();
        assert_eq!(total(open(&folder).apply(&desired)), 2);
        assert_eq!((sysctl::read(host).unwrap(), sysctl::read(single).unwrap()), ("1".into(), "2".into()));
        // Another daemon remembers what the first one found.
        assert_eq!(total(open(&folder).apply(&desired)), 0);
        assert_eq!(total(open(&folder).apply(&Desired::default())), 2);
        assert_eq!((sysctl::read(host).unwrap(), sysctl::read(single).unwrap()), before);
    });
}

#[test]
fn xdp_pays_on_no_software_device() {
    lab(|| {
        two_links();
        for link in ["lo", "a0", "b0", "gone"] {
            assert!(!ethtool::xdp_pays(link), "{link}");
        }
        assert!(ethtool::tx_vlan_offload("a0").unwrap());
        ethtool::set_tx_vlan_offload("a0", false).unwrap();
        assert!(!ethtool::tx_vlan_offload("a0").unwrap());
        assert_eq!(ethtool::driver("a0").unwrap().0, "veth");
    });
}

#[test]
fn the_next_route_takes_over_without_a_gap() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use hub_daemon::desired::Route;
    use hub_daemon::model::PersonaId;

    lab(|| {
        two_links();
        ip("route add default dev a0 metric 9");
        ip("-6 route add default dev a0 metric 9");
        let targets = ["10.1.0.0/24", "fd01::/64"];
        // The first of two personas ends: the second moves up.
        let wanted = |ranked: &[(u32, &str)]| {
            let mut desired = Desired::default();
            for target in targets {
                for (metric, via) in ranked {
                    let route = Route { persona: PersonaId((*via).into()), ..interface(via) };
                    desired.routes.insert(key(target, *metric, 254), route);
                }
            }
            desired
        };
        let folder = Folder::new();
        let mut network = open(&folder);
        let (both, one) = (wanted(&[(1000, "b0"), (1010, "a1")]), wanted(&[(1000, "a1")]));
        network.apply(&both);
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        std::thread::scope(|scope| {
            for address in ["10.1.0.9", "fd01::9"] {
                let (stop, asked) = (&stop, &asked);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let found = ip(&format!("route get {address}"));
                        assert!(found.contains("dev b0") || found.contains("dev a1"), "a gap: {found}");
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..50 {
                network.apply(&one);
                assert!(ip("route get 10.1.0.9").contains("dev a1"));
                network.apply(&both);
                assert!(ip("-6 route get fd01::9").contains("dev b0"));
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(asked.load(Ordering::Relaxed) > 100, "the routes were looked at while they changed");
    });
}
