//! Endpoints: made whole, made known, or not made at all.

use std::process::{Child, Command};

use hub_daemon::desired::{Address, Desired, Endpoint, Namespace, Route, RouteKey, Via};
use hub_daemon::kernel::ethtool;
use hub_daemon::kernel::namespace::OpenNamespace;
use hub_daemon::kernel::netlink::Netlink;
use hub_daemon::model::PersonaId;
use hub_daemon::reconcile::{Report, faults};
use jiff::{SignedDuration, Timestamp};

use crate::lab::{Folder, Member, add_persona, ip, lab, open, wait_until};

/// A persona with one endpoint, and everything that makes it reachable.
pub(crate) fn member(desired: &mut Desired, id: &str, number: u8, namespace: Namespace) {
    let name = format!("hub{id}");
    add_persona(desired, id, number.into(), &name);
    let endpoint = Endpoint {
        namespace,
        interface: "eth0".into(),
        addresses: vec![
            format!("10.1.{number}.5/24").parse().unwrap(),
            format!("fd01:0:0:{number}::5/64").parse().unwrap(),
        ],
        gateways: vec![
            format!("10.1.{number}.1").parse().unwrap(),
            format!("fd01:0:0:{number}::1").parse().unwrap(),
        ],
        mtu: 1400,
        expires: None,
    };
    for gateway in &endpoint.gateways {
        desired.addresses.insert((name.clone(), (*gateway).into()), Address { expires: None });
    }
    for address in &endpoint.addresses {
        let key = RouteKey { table: 254, target: address.addr().into(), metric: 1000 };
        let route = Route { via: Via::Interface(name.clone()), persona: PersonaId(id.into()) };
        desired.routes.insert(key, route);
    }
    desired.endpoints.insert(name, endpoint);
}

#[track_caller]
fn all_well(reports: &[Report]) {
    for report in reports {
        assert_eq!(report.failures, [], "{}", report.table);
    }
}

fn work(reports: &[Report]) -> usize {
    reports.iter().map(|report| report.put + report.deleted).sum()
}

#[test]
fn member_reaches_its_gateway() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let mut network = open(&folder);
        let mut desired = Desired::default();
        member(&mut desired, "red", 1, red.namespace());
        let reports = network.apply(&desired);
        all_well(&reports);
        assert_eq!(work(&reports), 5);
        for gateway in ["10.1.1.1", "fd01:0:0:1::1"] {
            let (reached, output) = red.run(&format!("ping -c 1 -W 2 {gateway}"));
            assert!(reached, "{output}");
        }
        let (_, routes) = red.run("ip route");
        assert_eq!(
            routes.trim(),
            "default via 10.1.1.1 dev eth0 proto 177 onlink \n10.1.1.1 dev eth0 proto 177 scope link"
        );
        let (_, addresses) = red.run("ip address show dev eth0");
        assert!(addresses.contains("inet 10.1.1.5/32"), "{addresses}");
        assert!(
            addresses.contains("mtu 1400") && !addresses.contains("tentative noprefixroute"),
            "{addresses}"
        );
        assert!(red.run("ping -c 1 -W 1 127.0.0.1").0, "the loopback is up");
        let inside = OpenNamespace::open(&red.namespace()).unwrap();
        assert!(inside.run(|| ethtool::gro("eth0")).unwrap().unwrap());
        // Neither this process nor another one finds anything to do.
        assert_eq!(work(&network.apply(&desired)), 0);
        assert_eq!(work(&open(&folder).apply(&desired)), 0);
    });
}

#[test]
fn members_reach_each_other_through_the_hub() {
    lab(|| {
        let (folder, red, blue) = (Folder::new(), Member::new(), Member::new());
        let mut desired = Desired::default();
        for switch in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            desired.sysctls.insert(switch.into(), "1".into());
        }
        member(&mut desired, "red", 1, red.namespace());
        member(&mut desired, "blue", 2, blue.namespace());
        all_well(&open(&folder).apply(&desired));
        for target in ["10.1.2.5", "fd01:0:0:2::5"] {
            let (reached, output) = red.run(&format!("ping -c 1 -W 2 {target}"));
            assert!(reached, "{output}");
        }
    });
}

#[test]
fn endpoint_changes_in_place() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let mut network = open(&folder);
        let mut desired = Desired::default();
        member(&mut desired, "red", 1, red.namespace());
        all_well(&network.apply(&desired));
        let index = || Netlink::open().unwrap().link("hubred").unwrap().unwrap().index;
        let before = index();
        let endpoint = desired.endpoints.get_mut("hubred").unwrap();
        endpoint.expires = Some(Timestamp::now() + SignedDuration::from_secs(500));
        endpoint.addresses[0] = "10.1.1.6/24".parse().unwrap();
        let key = |address: &str| RouteKey { table: 254, target: address.parse().unwrap(), metric: 1000 };
        let route = desired.routes.remove(&key("10.1.1.5/32")).unwrap();
        desired.routes.insert(key("10.1.1.6/32"), route);
        let reports = network.apply(&desired);
        all_well(&reports);
        assert_eq!((work(&reports), index()), (3, before));
        let (_, addresses) = red.run("ip -4 address show dev eth0");
        assert!(addresses.contains("10.1.1.6/32") && !addresses.contains("10.1.1.5/32"), "{addresses}");
        assert!(
            addresses.contains("valid_lft 501sec") || addresses.contains("valid_lft 500sec"),
            "{addresses}"
        );
        // The kernel forgets routes and IPv6 addresses of a link that goes down.
        ip("link set hubred down");
        let reports = network.apply(&desired);
        all_well(&reports);
        let drift: Vec<_> = reports.iter().map(|report| (report.table, report.drift)).collect();
        assert_eq!(drift[1], ("endpoints", 1), "{drift:?}");
        assert_eq!(drift[6], ("routes", 2), "{drift:?}");
        assert!(red.run("ping -c 1 -W 2 10.1.1.1").0);
    });
}

#[test]
fn failed_persona_leaves_nothing_and_others_work() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let links = ip("link show");
        let mut network = open(&folder);
        let mut desired = Desired::default();
        member(&mut desired, "lost", 1, Namespace::Name("hub-test-there-is-none".into()));
        let reports = network.apply(&desired);
        let faults = faults(&reports);
        assert_eq!(faults.keys().collect::<Vec<_>>(), [&PersonaId("lost".into())]);
        let message = &faults.values().next().unwrap()[0];
        assert_eq!(
            message,
            "put endpoint hublost: open network namespace /run/netns/hub-test-there-is-none: \
             No such file or directory (os error 2)"
        );
        assert_eq!((work(&reports), ip("link show")), (0, links));
        member(&mut desired, "red", 2, red.namespace());
        let reports = network.apply(&desired);
        assert_eq!(work(&reports), 5);
        assert!(red.run("ping -c 1 -W 2 10.1.2.1").0);
    });
}

#[test]
fn persona_is_taken_back_when_its_last_step_fails() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let mut desired = Desired::default();
        member(&mut desired, "red", 1, red.namespace());
        let key = RouteKey { table: 254, target: "10.8.0.0/24".parse().unwrap(), metric: 1000 };
        let route = Route { via: Via::Interface("gone".into()), persona: PersonaId("red".into()) };
        desired.routes.insert(key, route);
        let before = (ip("link show"), ip("route show table all"), ip("address show"));
        let reports = open(&folder).apply(&desired);
        assert_eq!(faults(&reports).len(), 1);
        assert_eq!(work(&reports), 0);
        assert_eq!((ip("link show"), ip("route show table all"), ip("address show")), before);
        assert!(!red.run("ip link show dev eth0").0, "the member's end is gone too");
    });
}

#[test]
fn endpoint_that_fails_inside_the_namespace_is_undone() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let mut network = open(&folder);
        let mut desired = Desired::default();
        member(&mut desired, "red", 1, red.namespace());
        let links = ip("link show");
        // A default route of the member's own, with the metric that ours would get.
        for command in ["link add own0 type bridge", "link set own0 up", "route add default dev own0"] {
            assert!(red.run(&format!("ip {command}")).0);
        }
        let reports = network.apply(&desired);
        let message = faults(&reports).into_values().next().unwrap().remove(0);
        assert!(message.contains("put route 0.0.0.0/0 metric 0 table 254: File exists"), "{message}");
        assert_eq!(ip("link show"), links);
        assert!(!red.run("ip link show dev eth0").0);
        assert!(red.run("ip link show dev lo").1.contains("state DOWN"), "the loopback was left alone");
        // A second endpoint in a namespace that has one.
        assert!(red.run("ip route del default").0);
        all_well(&network.apply(&desired));
        member(&mut desired, "blue", 2, red.namespace());
        desired.endpoints.get_mut("hubblue").unwrap().interface = "eth1".into();
        let message = faults(&network.apply(&desired)).into_values().next().unwrap().remove(0);
        assert!(message.contains("through `eth1`: the namespace has it through `eth0` already"), "{message}");
        assert!(red.run("ping -c 1 -W 2 10.1.1.1").0, "the first endpoint works on");
    });
}

#[test]
fn own_namespace_is_refused() {
    lab(|| {
        let folder = Folder::new();
        let mut desired = Desired::default();
        let own = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
        member(&mut desired, "red", 1, Namespace::Name(own));
        let before = ip("route show table all");
        let message = faults(&open(&folder).apply(&desired));
        assert!(message.into_values().next().unwrap()[0].contains("is the hub's own"));
        assert_eq!(ip("route show table all"), before);
    });
}

#[test]
fn foreign_interface_of_our_name_is_left_alone() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        ip("link add hubred type bridge");
        let mut desired = Desired::default();
        member(&mut desired, "red", 1, red.namespace());
        let message = faults(&open(&folder).apply(&desired));
        assert!(message.into_values().next().unwrap()[0].contains("that the hub did not make"));
        assert!(ip("-d link show hubred").contains("bridge"));
    });
}

#[test]
fn unfinished_endpoint_is_made_anew() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let mut network = open(&folder);
        let mut desired = Desired::default();
        // What a daemon leaves that is killed after its first step.
        ip("link add hubred group 177 type veth peer name left0");
        member(&mut desired, "red", 1, red.namespace());
        all_well(&network.apply(&desired));
        assert!(red.run("ping -c 1 -W 2 10.1.1.1").0);
        // What one leaves that is killed between the steps of a deletion.
        ip("link set hubred group 177177");
        assert_eq!(work(&network.apply(&desired)), 1);
        assert_eq!(work(&network.apply(&desired)), 0);
        ip("link add huborphan group 177 type veth peer name left1");
        let reports = network.apply(&desired);
        assert_eq!((work(&reports), reports[1].deleted), (1, 1));
    });
}

#[test]
fn endpoint_of_a_namespace_that_went_is_reported() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let mut network = open(&folder);
        let mut desired = Desired::default();
        member(&mut desired, "red", 1, red.namespace());
        all_well(&network.apply(&desired));
        drop(red);
        wait_until("the link goes with the namespace", || {
            Netlink::open().unwrap().link("hubred").unwrap().is_none()
        });
        let reports = network.apply(&desired);
        assert_eq!(reports[1].drift, 1);
        assert_eq!(faults(&reports).keys().collect::<Vec<_>>(), [&PersonaId("red".into())]);
        assert_eq!(work(&reports), 0);
    });
}

/// A namespace with a name, as `ip netns` makes it, and a process inside.
struct Named {
    name: String,
    process: Child,
}

impl Named {
    fn new() -> Self {
        let name = format!("hub-netlink-{}", nix::unistd::gettid());
        ip(&format!("netns add {name}"));
        let process = Command::new("ip").args(["netns", "exec", &name, "sleep", "60"]).spawn().unwrap();
        Self { name, process }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        Command::new("ip").args(["netns", "delete", &self.name]).status().ok();
    }
}

#[test]
fn namespace_is_found_by_name_and_by_process() {
    lab(|| {
        let (folder, named) = (Folder::new(), Named::new());
        let pid = named.process.id();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        wait_until("the process enters", || {
            std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|entered| entered != own)
        });
        let mut network = open(&folder);
        for namespace in [Namespace::Name(named.name.clone()), Namespace::Pid(pid)] {
            let mut desired = Desired::default();
            member(&mut desired, "red", 1, namespace);
            all_well(&network.apply(&desired));
            let link = ip(&format!("-n {} link show dev eth0", named.name));
            assert!(link.contains("mtu 1400"), "{link}");
        }
    });
}
