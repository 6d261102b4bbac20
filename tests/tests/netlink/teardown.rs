//! `down` with the daemon dead: everything of ours goes, everything else stays.

use hub_daemon::desired::{Address, Desired, Endpoint, Route, RouteKey, Rule, Via};
use hub_daemon::kernel::sysctl;
use hub_daemon::model::PersonaId;

use crate::lab::{Folder, Member, add_persona, ip, lab, open};

#[test]
fn teardown_removes_what_is_ours_alone() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        ip("link add hubforeign type veth peer name hubpeer");
        ip("link add b0 type bridge");
        ip("link set b0 up");
        ip("address add 10.7.0.1/24 dev b0");
        ip("route add 10.6.0.0/24 dev b0 metric 1000");
        ip("rule add from 10.6.0.0/24 lookup 100 priority 17750");
        let state = || {
            let read =
                ["-br link show", "-br address show", "route show table all", "-6 route show table all"];
            read.map(ip).into_iter().chain([ip("rule show"), ip("-6 rule show")]).collect::<Vec<_>>()
        };
        let before = state();

        let mut desired = Desired::default();
        add_persona(&mut desired, "red", 1, "hub1");
        let endpoint = Endpoint {
            namespace: red.namespace(),
            interface: "eth0".into(),
            addresses: vec!["10.1.0.5/24".parse().unwrap()],
            gateways: vec!["10.1.0.1".parse().unwrap()],
            mtu: 1500,
            expires: None,
        };
        desired.endpoints.insert("hub1".into(), endpoint);
        for link in ["hub1", "b0"] {
            desired
                .addresses
                .insert((link.into(), "10.1.0.1/32".parse().unwrap()), Address { expires: None });
        }
        for (target, link) in [("10.1.0.5/32", "hub1"), ("10.6.0.0/16", "b0"), ("fd06::/64", "b0")] {
            let key = RouteKey { table: 254, target: target.parse().unwrap(), metric: 1000 };
            let route = Route { via: Via::Interface(link.into()), persona: PersonaId("red".into()) };
            desired.routes.insert(key, route);
        }
        let rule = Rule { priority: 17_700, source: "10.1.0.0/24".parse().unwrap(), table: 17_700_001 };
        desired.rules.insert(rule);
        desired.sysctls.insert("net/ipv4/ip_forward".into(), "1".into());
        let reports = open(&folder).apply(&desired);
        assert!(reports.iter().all(|report| report.failures.is_empty()), "{reports:?}");

        let teardown = open(&folder).teardown();
        assert_eq!(teardown.failures, []);
        assert_eq!(
            teardown.removed,
            [
                "rule 17700: from 10.1.0.0/24 lookup 17700001",
                "route 10.1.0.5/32 metric 1000 table 254",
                "route 10.6.0.0/16 metric 1000 table 254",
                "route fd06::/64 metric 1000 table 254",
                "address 10.1.0.1/32 on b0",
                "address 10.1.0.1/32 on hub1",
                "endpoint hub1",
                "switch net/ipv4/ip_forward",
            ]
        );
        assert_eq!(state(), before);
        assert_eq!(sysctl::read("net/ipv4/ip_forward").unwrap(), "0");
        assert!(open(&folder).teardown().removed.is_empty());
    });
}

#[test]
fn many_endpoints_go_at_once_and_foreign_links_of_any_group_stay() {
    lab(|| {
        let folder = Folder::new();
        for n in 0..40 {
            ip(&format!("link add hub{n} group 177 type veth peer name p{n}"));
        }
        ip("link add own0 group 177 type bridge");
        let teardown = open(&folder).teardown();
        assert_eq!((teardown.removed.len(), teardown.failures), (40, vec![]));
        // Somebody else uses the group that links are deleted by.
        ip("link add own1 group 177177 type bridge");
        for n in 0..3 {
            ip(&format!("link add hub{n} group 177 type veth peer name p{n}"));
        }
        let teardown = open(&folder).teardown();
        assert_eq!((teardown.removed.len(), teardown.failures), (3, vec![]));
        let links = ip("-br link show");
        assert!(links.lines().count() == 3 && links.contains("own0") && links.contains("own1"), "{links}");
    });
}
