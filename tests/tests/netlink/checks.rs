//! Health checks from inside a resource's namespace, against real servers beside the hub.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hub_daemon::checks::{Origin, Pace, Tools, run};
use hub_daemon::desired::interfaces::{Place, Selector};
use hub_daemon::model::check::{Check, CheckAsked, CheckResult};
use hub_daemon::model::page::Page;

use crate::interfaces::{inside, resource};
use crate::lab::{Member, ip, lab, wait_until};

pub(crate) fn tools() -> Tools {
    let pace = Pace {
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(2),
        passes: 2,
        phase: Duration::from_secs(3),
    };
    Tools {
        pace,
        origin: Origin::default(),
        servers: vec![address("10.1.0.1")],
        handshake: Arc::new(|link, peers, within| {
            let told = format!("{link}, {peers:?}, {within:?}");
            let age = (link == "wg0").then_some(Duration::from_secs(12));
            Box::pin(std::future::ready(age.ok_or(told)))
        }),
        applied: Arc::new(|| Ok(())),
        rules: Arc::new(|| Box::pin(std::future::ready(Ok("2 packets judged as the rules say".to_owned())))),
        drops: Arc::new(|| Box::pin(std::future::ready(Ok(7)))),
    }
}

pub(crate) fn page(url: &str, ca: Option<&Path>) -> Check {
    Check::Http(Page::new(url, ca).unwrap())
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn ask(member: &Member, checks: Vec<Check>, tools: &Tools) -> Vec<CheckResult> {
    let place = Place { namespace: Some(member.namespace()), selector: Selector::Name("eth0".into()) };
    ask_from(&place, None, checks, tools)
}

/// Asks by the interface and these devices alone.
fn ask_from(place: &Place, devices: Option<&[&str]>, checks: Vec<Check>, tools: &Tools) -> Vec<CheckResult> {
    let devices: Option<Vec<String>> =
        devices.map(|devices| devices.iter().map(|device| (*device).to_owned()).collect());
    let asked = |check| CheckAsked { waits: true, devices: devices.clone(), ..CheckAsked::new(check, false) };
    let asked: Vec<_> = checks.into_iter().map(asked).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(run(&asked, place, tools))
}

pub(crate) fn connected() -> Member {
    let red = resource();
    for command in ["ip address add 10.1.0.5/24 dev eth0", "ip address add fd01::5/64 dev eth0 nodad"] {
        inside(&red, command);
    }
    red
}

/// A real DNS server beside the hub.
pub(crate) struct Dnsmasq(Child);

impl Dnsmasq {
    pub(crate) fn start() -> Self {
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--user=root", "--bind-interfaces", "--interface=hubred", "--local=/example/"]);
        command.args(["--address=/host.example/10.1.0.1"]).stderr(Stdio::null());
        Self(command.spawn().expect("dnsmasq is installed"))
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Answers every request with a status, as long as the test runs.
fn web(address: &str, status: &'static str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = [0; 1024];
            if stream.read(&mut bytes).is_ok_and(|length| length > 0) {
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).ok();
            }
        }
    });
}

#[test]
fn what_works_passes_in_both_families() {
    lab(|| {
        let red = connected();
        let _dns = Dnsmasq::start();
        web("10.1.0.1:8080", "204 No Content");
        web("[fd01::1]:8080", "302 Found");
        let name = |name: &str, server: &str| Check::Dns { server: address(server), name: name.into() };
        let checks = vec![
            Check::Carrier,
            Check::Addresses(vec!["10.1.0.5/24".parse().unwrap(), "fd01::5/64".parse().unwrap()]),
            Check::Applied,
            Check::Rules,
            Check::Drops { before: Some(0) },
            Check::Neighbour(address("10.1.0.1")),
            Check::Neighbour(address("fd01::1")),
            Check::Ping(address("10.1.0.1")),
            Check::Ping(address("fd01::1")),
            Check::Route { target: address("10.1.0.77"), device: None },
            Check::Route { target: address("fd01::77"), device: Some("eth0".into()) },
            name("host.example", "10.1.0.1"),
            name("nobody.example", "fd01::1"),
            Check::Handshake { link: "wg0".into(), peers: Vec::new(), within: Duration::from_mins(3) },
            Check::Tcp("10.1.0.1:8080".parse().unwrap()),
            Check::Tcp("[fd01::1]:8080".parse().unwrap()),
            page("http://host.example:8080/health", None),
            page("http://[fd01::1]:8080/", None),
        ];
        let count = checks.len();
        let results = ask(&red, checks, &tools());
        assert_eq!(results.len(), count);
        for result in &results {
            assert!(result.passed && result.tries >= 2, "{result:?}");
        }
        assert_eq!(results[7].check, "ping 10.1.0.1");
        assert!(results[7].detail.starts_with("10.1.0.1 answered in "), "{:?}", results[7]);
        assert!(results[12].detail.starts_with("fd01::1 answered NXDOMAIN in "), "{:?}", results[12]);
    });
}

#[test]
fn routers_and_servers_are_reached_by_their_address_of_the_link() {
    lab(|| {
        let red = connected();
        let _dns = Dnsmasq::start();
        // Another link, which has such addresses as well.
        inside(&red, "ip link add other type veth peer name far");
        inside(&red, "ip link set other up");
        inside(&red, "ip link set far up");
        ip("address add fe80::1/64 dev hubred nodad");
        let link = address("fe80::1");
        let checks = || {
            let name = "host.example".to_owned();
            vec![Check::Neighbour(link), Check::Ping(link), Check::Dns { server: link, name }]
        };
        for result in ask(&red, checks(), &tools()) {
            assert!(result.passed, "{result:?}");
        }
        let place = Place { namespace: Some(red.namespace()), selector: Selector::Name("eth0".into()) };
        for result in ask_from(&place, Some(&[]), checks(), &tools()) {
            assert!(result.passed, "by the interface alone: {result:?}");
        }
    });
}

#[test]
fn what_does_not_work_says_why_in_words() {
    lab(|| {
        let red = connected();
        let _dns = Dnsmasq::start();
        web("10.1.0.1:8080", "503 Service Unavailable");
        let mut tools = tools();
        tools.pace.phase = Duration::from_millis(300);
        tools.applied = Arc::new(|| Err("route 10.2.0.0/24: there is no interface `eth7`".into()));
        let told = |check: Check| {
            let [result] = ask(&red, vec![check], &tools).try_into().unwrap();
            assert!(!result.passed, "{result:?}");
            result.detail
        };
        let both = |nets: &[&str]| Check::Addresses(nets.iter().map(|net| net.parse().unwrap()).collect());
        assert_eq!(told(both(&["10.1.0.5/24", "10.1.0.6/24"])), "eth0 does not have 10.1.0.6/24");
        assert_eq!(told(Check::Neighbour(address("10.1.0.99"))), "10.1.0.99 does not answer ARP on eth0");
        assert_eq!(
            told(Check::Neighbour(address("fd01::99"))),
            "fd01::99 does not answer neighbour solicitations on eth0"
        );
        assert_eq!(told(Check::Ping(address("192.0.2.1"))), "there is no route to 192.0.2.1");
        assert_eq!(
            told(Check::Route { target: address("10.1.0.1"), device: Some("wg0".into()) }),
            "packets to 10.1.0.1 leave by eth0, not by wg0"
        );
        assert_eq!(
            told(Check::Route { target: address("fd02::1"), device: None }),
            "there is no route to fd02::1"
        );
        let refused = Check::Dns { server: address("10.1.0.1"), name: "elsewhere.test".into() };
        assert_eq!(told(refused), "10.1.0.1 answers REFUSED for elsewhere.test");
        let nobody = Check::Dns { server: address("10.1.0.5"), name: ".".into() };
        assert_eq!(told(nobody), "nobody answers DNS at 10.1.0.5");
        let within = Duration::from_secs(5);
        let silent = Check::Handshake { link: "wg1".into(), peers: vec!["key".into()], within };
        assert_eq!(told(silent), "wg1, [\"key\"], 5s");
        assert!(told(Check::Tcp("10.1.0.1:9".parse().unwrap())).contains("does not take connections"));
        assert_eq!(
            told(page("http://10.1.0.1:8080/", None)),
            "http://10.1.0.1:8080/ answers 503 Service Unavailable"
        );
        assert_eq!(told(Check::Applied), "route 10.2.0.0/24: there is no interface `eth7`");
        ip("link set hubred down");
        wait_until("the carrier to go", || inside(&red, "ip link show dev eth0").contains("NO-CARRIER"));
        assert_eq!(told(Check::Carrier), "eth0 has no carrier");
        inside(&red, "ip link set eth0 down");
        assert_eq!(told(Check::Carrier), "eth0 is down");
    });
}

#[test]
fn what_is_asked_by_an_interface_of_the_hub_leaves_by_no_other() {
    lab(|| {
        let _red = connected();
        ip("link add other type veth peer name behind");
        ip("link set behind up");
        ip("link set other up");
        let mut tools = tools();
        tools.pace.phase = Duration::from_millis(300);
        let by = |name: &str| Place { namespace: None, selector: Selector::Name(name.into()) };
        for host in ["10.1.0.5", "fd01::5"] {
            let port = |port| std::net::SocketAddr::new(address(host), port);
            let checks = vec![
                Check::Ping(address(host)),
                Check::Tcp(port(80)),
                page(&format!("http://{}/", port(80)), None),
                Check::Dns { server: address(host), name: ".".into() },
            ];
            for result in ask_from(&by("other"), Some(&[]), checks, &tools) {
                let said = format!("packets to {host} leave by hubred, not by other");
                assert!(!result.passed && result.detail.contains(&said), "{result:?}");
            }
            for (place, devices) in
                [(by("other"), None), (by("other"), Some(["hubred"].as_slice())), (by("hubred"), Some(&[]))]
            {
                let [result] =
                    ask_from(&place, devices, vec![Check::Ping(address(host))], &tools).try_into().unwrap();
                assert!(result.passed, "{place:?} {devices:?}: {result:?}");
            }
        }
    });
}

#[test]
fn a_duplicate_address_that_the_kernel_found_fails() {
    lab(|| {
        let red = resource();
        ip("address add fd01::6/64 dev hubred nodad");
        inside(&red, "sysctl -qw net.ipv6.conf.eth0.accept_dad=1");
        inside(&red, "ip address add fd01::6/64 dev eth0");
        wait_until("duplicate detection", || inside(&red, "ip address show dev eth0").contains("dadfailed"));
        let mut tools = tools();
        tools.pace.phase = Duration::from_millis(100);
        let [result] = ask(&red, vec![Check::Addresses(vec!["fd01::6/64".parse().unwrap()])], &tools)
            .try_into()
            .unwrap();
        assert_eq!(result.detail, "another host on the link of eth0 has fd01::6");
    });
}

#[test]
fn a_gateway_that_comes_back_is_found_and_one_that_left_is_missed() {
    lab(|| {
        let red = connected();
        let tools = tools();
        let gateway = || {
            let check = Check::Neighbour(address("10.1.0.1"));
            let [result] = ask(&red, vec![check], &tools).try_into().unwrap();
            result.passed
        };
        assert!(gateway());
        // The kernel would believe what it knows for half a minute.
        ip("address del 10.1.0.1/24 dev hubred");
        assert!(!gateway());
        ip("address add 10.1.0.1/24 dev hubred");
        assert!(gateway());
    });
}
