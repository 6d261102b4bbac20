//! The monitor hears what changes, and says so when it missed something.

use std::collections::BTreeSet;
use std::time::Duration;

use hub_daemon::desired::{Address, RouteKey, Via};
use hub_daemon::kernel::monitor::{BUFFER_BYTES, Change, Monitor};
use hub_daemon::kernel::netlink::Netlink;
use hub_daemon::reconcile::Table as _;
use hub_daemon::tables::addresses::Addresses;
use hub_daemon::tables::routes::Routes;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use crate::lab::{ip, lab, wait_until};

/// Runs a test beside a monitor; both stay on the test's thread, hence in its namespace.
fn beside_monitor(buffer_bytes: usize, test: impl AsyncFnOnce(&mut Receiver<Change>) + Send + 'static) {
    lab(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let monitor = Monitor::open(buffer_bytes).unwrap();
            let (sender, mut changes) = channel(64);
            let running = monitor.run(sender);
            let test = async {
                test(&mut changes).await;
                drop(changes);
            };
            let (ended, ()) = tokio::join!(running, test);
            ended.unwrap();
        });
    });
}

/// Everything heard until nothing came for a moment.
async fn heard(changes: &mut Receiver<Change>) -> BTreeSet<Change> {
    let mut heard = BTreeSet::new();
    while let Ok(Some(change)) = timeout(Duration::from_millis(200), changes.recv()).await {
        heard.insert(change);
    }
    heard
}

/// Without addresses of its own, which would be heard when they have been probed.
fn a_veth_that_is_up() {
    ip("link add a0 type veth peer name a1");
    ip("link set a0 addrgenmode none");
    ip("link set a1 addrgenmode none");
    up();
}

/// Sets both ends up. The kernel looks at carriers once a second: it tells of links, and forgets neighbours of one
/// without, when it has.
fn up() {
    ip("link set a1 up");
    ip("link set a0 up");
    wait_until("both ends have a carrier", || {
        ["a0", "a1"].iter().all(|name| ip(&format!("link show {name}")).contains("state UP"))
    });
}

#[test]
fn every_table_is_heard() {
    beside_monitor(BUFFER_BYTES, async |changes| {
        ip("link add a0 type veth peer name a1");
        assert_eq!(heard(changes).await, [Change::Links].into());
        up();
        heard(changes).await;
        for (arguments, change) in [
            ("address add 10.1.0.1/32 dev a0 noprefixroute", Change::Addresses),
            ("-6 address add fd01::1/128 dev a0 nodad noprefixroute", Change::Addresses),
            ("route add 10.2.0.0/24 dev a0", Change::Routes),
            ("-6 route add fd02::/64 dev a0", Change::Routes),
            ("rule add from 10.2.0.0/24 lookup 100", Change::Rules),
            ("-6 rule add from fd02::/64 lookup 100", Change::Rules),
            ("neighbour add 10.2.0.2 lladdr 02:00:00:00:00:01 dev a0", Change::Neighbours),
            ("link delete a0", Change::Links),
        ] {
            ip(arguments);
            let heard = heard(changes).await;
            assert!(heard.contains(&change), "{arguments}: {heard:?}");
        }
    });
}

#[test]
fn what_the_hub_does_itself_is_told_apart() {
    lab(|| {
        a_veth_that_is_up();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let own = Netlink::open().unwrap();
            let monitor = Monitor::open(BUFFER_BYTES).unwrap().knowing([own.port()].into());
            let (sender, mut changes) = channel(64);
            let test = async {
                let mut routes = Routes::new(own);
                let key =
                    |target: &str| RouteKey { table: 254, target: target.parse().unwrap(), metric: 1_000 };
                for target in ["10.2.0.0/24", "fd02::/64"] {
                    routes.lead(&key(target), &Via::Blackhole).unwrap();
                    assert_eq!(heard(&mut changes).await, [Change::Own].into(), "{target} was put");
                }
                ip("route del blackhole 10.2.0.0/24 proto 177");
                assert_eq!(heard(&mut changes).await, [Change::Routes].into(), "others take ours");
                ip("address add 10.1.0.1/32 dev a0 noprefixroute");
                assert!(heard(&mut changes).await.contains(&Change::Addresses), "others add one of IPv4");
                ip("-6 address add fd01::1/128 dev a0 nodad noprefixroute");
                assert!(heard(&mut changes).await.contains(&Change::Addresses), "others add one of IPv6");
                let mut addresses = Addresses::new(Netlink::open().unwrap());
                let key = ("a0".to_owned(), "fd01::2/128".parse().unwrap());
                addresses.put(&key, &Address { expires: None }).unwrap();
                assert_eq!(heard(&mut changes).await, [Change::Own].into(), "one of IPv6 is put");
                addresses.delete(&key).unwrap();
                assert!(heard(&mut changes).await.contains(&Change::Addresses), "one of IPv6 goes");
                drop(changes);
            };
            let (ended, ()) = tokio::join!(monitor.run(sender), test);
            ended.unwrap();
        });
    });
}

#[test]
fn neighbour_states_that_do_not_matter_are_not_heard() {
    beside_monitor(BUFFER_BYTES, async |changes| {
        a_veth_that_is_up();
        ip("neighbour replace 10.2.0.2 lladdr 02:00:00:00:00:01 dev a0 nud stale");
        heard(changes).await;
        let neighbours =
            async |changes: &mut Receiver<Change>| heard(changes).await.contains(&Change::Neighbours);
        ip("neighbour replace 10.2.0.2 lladdr 02:00:00:00:00:01 dev a0 nud reachable");
        assert!(!neighbours(changes).await, "same MAC, still valid");
        ip("neighbour replace 10.2.0.2 lladdr 02:00:00:00:00:02 dev a0 nud reachable");
        assert!(neighbours(changes).await, "another MAC");
        ip("neighbour del 10.2.0.2 dev a0");
        assert!(neighbours(changes).await, "gone");
    });
}

#[test]
fn overrun_asks_for_a_resync_and_listening_goes_on() {
    beside_monitor(4096, async |changes| {
        ip("link add b0 type bridge");
        ip("link set b0 up");
        heard(changes).await;
        // The monitor cannot read while this thread works.
        for n in 0..64 {
            ip(&format!("route add 10.2.{n}.0/24 dev b0"));
        }
        assert!(heard(changes).await.contains(&Change::Resync));
        ip("rule add from 10.2.0.0/24 lookup 100");
        assert_eq!(heard(changes).await, [Change::Rules].into());
    });
}

#[test]
fn inventory_tells_links_and_foreign_routes() {
    lab(|| {
        ip("link add a0 mtu 1400 type veth peer name a1");
        ip("tuntap add t0 mode tun");
        ip("link set a0 up");
        ip("link set a1 up");
        ip("address add 10.1.0.1/24 dev a0");
        ip("address add fd01::1/64 dev a0 nodad");
        ip("route add 10.2.0.0/16 dev a0");
        ip("route add default dev a0");
        ip("route add 10.3.0.0/16 dev a0 proto 177");
        let inventory = Netlink::open().unwrap().inventory().unwrap();
        let nets: Vec<_> = inventory.foreign_routes.iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.1.0.0/24", "10.2.0.0/16", "fd01::/64"]);
        let (veth, tun) = (&inventory.links["a0"], &inventory.links["t0"]);
        assert_eq!((veth.up, veth.kind.as_str(), veth.mtu, veth.l3_only), (true, "veth", 1400, false));
        assert!(veth.addresses.contains(&"10.1.0.1/24".parse().unwrap()));
        assert!(veth.addresses.contains(&"fd01::1/64".parse().unwrap()));
        assert!(!tun.up && tun.l3_only && tun.kind == "tun");
        assert!(!inventory.links["lo"].l3_only);
    });
}
