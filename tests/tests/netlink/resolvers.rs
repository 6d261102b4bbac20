//! Name servers of personalities: files, and systemd-resolved on a bus of the test's own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::{Child, Command, Stdio};

use hub_daemon::desired::interfaces::{Place, Resolver, Selector};
use hub_daemon::desired::{Desired, Namespace};
use hub_daemon::kernel::resolver::file::is_ours;
use hub_daemon::model::PersonaId;
use hub_daemon::reconcile::Report;

use crate::lab::{Folder, ip, lab, open, wait_until};
use crate::resolved::{Link, Manager, Resolved};

fn desired(namespace: Option<&str>, servers: &[&str], manage_resolv_conf: bool) -> Desired {
    let resolver = Resolver {
        place: Place {
            namespace: namespace.map(|name| Namespace::Name(name.into())),
            selector: Selector::Name("lan0".into()),
        },
        persona: PersonaId("red".into()),
        servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
        search: vec!["red.example".into()],
        manage_resolv_conf,
    };
    Desired { resolvers: [("red-eth0".to_owned(), resolver)].into(), ..Desired::default() }
}

fn did(reports: &[Report]) -> (usize, usize, usize) {
    let report = reports.iter().find(|report| report.table == "resolvers").unwrap();
    assert_eq!(report.failures, []);
    (report.put, report.deleted, report.drift)
}

fn refusal(reports: &[Report]) -> String {
    let report = reports.iter().find(|report| report.table == "resolvers").unwrap();
    let [failure] = report.failures.as_slice() else { panic!("{report:?}") };
    assert_eq!(failure.persona, Some(PersonaId("red".into())));
    failure.error.clone()
}

#[test]
fn a_namespace_has_its_servers_in_a_file_and_loses_them_without_a_trace() {
    lab(|| {
        let folder = Folder::new();
        let file = folder.path().join("netns/red/resolv.conf");
        let mut tables = open(&folder);
        let wanted = desired(Some("red"), &["10.1.0.1", "fd01::1"], false);
        assert_eq!(did(&tables.apply(&wanted)), (1, 0, 0));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.ends_with("\nsearch red.example\nnameserver 10.1.0.1\nnameserver fd01::1\n"), "{text}");
        assert_eq!(did(&tables.apply(&wanted)), (0, 0, 0));
        fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(did(&tables.apply(&wanted)), (1, 0, 1), "somebody else wrote there");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        let other = desired(Some("red"), &["10.1.0.2"], false);
        assert_eq!(did(&open(&folder).apply(&other)), (1, 0, 0), "after a restart");
        assert_eq!(open(&folder).teardown().removed, ["name servers of red-eth0"]);
        assert!(!folder.path().join("netns/red").exists());
    });
}

#[test]
fn the_hosts_file_comes_back_byte_by_byte_after_a_crash_at_any_step() {
    lab(|| {
        let folder = Folder::new();
        let file = folder.path().join("resolv.conf");
        let bytes = b"# by hand \xff\nnameserver 192.0.2.53\noptions rotate";
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&file, Some(7), Some(8)).unwrap();
        let exact = || {
            let metadata = fs::metadata(&file).unwrap();
            let owners = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
            (fs::read(&file).unwrap(), owners) == (bytes.to_vec(), (0o640, 7, 8))
        };
        let wanted = desired(None, &["10.1.0.1"], true);
        assert!(exact());

        // What was there is kept, and the hub dies before it changes anything: here by a folder in its way.
        let in_the_way = folder.path().join("resolv.conf.hub-new");
        fs::create_dir(&in_the_way).unwrap();
        assert!(refusal(&open(&folder).apply(&wanted)).starts_with("write "));
        fs::remove_dir(&in_the_way).unwrap();
        assert!(folder.path().join("state/resolvers.json").exists() && exact());
        assert_eq!(did(&open(&folder).apply(&Desired::default())), (0, 1, 0), "the next hub wants nothing");
        assert!(exact());

        fs::create_dir(&in_the_way).unwrap();
        refusal(&open(&folder).apply(&wanted));
        fs::remove_dir(&in_the_way).unwrap();
        assert_eq!(did(&open(&folder).apply(&wanted)), (1, 0, 0), "the next hub goes on");
        assert!(is_ours(&fs::read(&file).unwrap()));

        // The hub dies after the change, and before it forgot what was there.
        let kept = fs::read(folder.path().join("state/resolvers.json")).unwrap();
        assert_eq!(open(&folder).teardown().failures, []);
        assert!(exact());
        fs::write(folder.path().join("state/resolvers.json"), kept).unwrap();
        assert_eq!(open(&folder).teardown().failures, []);
        assert!(exact(), "put back twice is put back once");
    });
}

#[test]
fn the_hosts_file_is_written_where_that_is_allowed_and_nobody_else_owns_it() {
    lab(|| {
        let folder = Folder::new();
        let file = folder.path().join("resolv.conf");
        fs::write(&file, "nameserver 192.0.2.53\n").unwrap();
        let said = refusal(&open(&folder).apply(&desired(None, &["10.1.0.1"], false)));
        assert!(said.contains("manage_resolv_conf: true"), "{said}");
        fs::remove_file(&file).unwrap();
        symlink("stub-resolv.conf", &file).unwrap();
        let said = refusal(&open(&folder).apply(&desired(None, &["10.1.0.1"], true)));
        assert!(said.contains("is a symbolic link to stub-resolv.conf"), "{said}");
        assert_eq!(fs::read_link(&file).unwrap().to_str(), Some("stub-resolv.conf"));
        let said = refusal(&open(&folder).apply(&desired(Some("/proc/1/ns/net"), &["10.1.0.1"], true)));
        assert!(said.contains("has no name below /run/netns"), "{said}");
    });
}

/// A bus of the test's own.
struct Bus(Child);

impl Bus {
    fn start(folder: &Folder) -> Self {
        let socket = folder.path().join("bus");
        let file = folder.path().join("bus.conf");
        let listen = format!("<listen>unix:path={}</listen>", socket.display());
        let policy = r#"<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>"#;
        fs::write(&file, format!("<busconfig>{listen}{policy}</busconfig>")).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--config-file"]).arg(&file).stdout(Stdio::null());
        let bus = Self(command.spawn().expect("dbus-daemon is installed"));
        wait_until("the bus", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        bus
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn systemd_resolved_is_told_of_servers_and_told_again_what_was_before() {
    lab(|| {
        let folder = Folder::new();
        ip("link add lan0 type veth peer name lan1");
        let index: u32 = ip("-oneline link show lan0").split(':').next().unwrap().parse().unwrap();
        let _bus = Bus::start(&folder);
        // It does not know the link yet, and loses what is set first.
        let resolved =
            Resolved::start(&folder, index, Manager { unknown: 2, loses: 1, ..Manager::default() });
        let own = Link {
            servers: vec![(inet(), vec![192, 0, 2, 53], 853, "dns.example".into())],
            domains: vec![("office.example".into(), true)],
            default_route: false,
        };
        resolved.set(own.clone());
        fs::write(folder.path().join("resolv.conf"), "nameserver 127.0.0.53\n").unwrap();

        let wanted = desired(None, &["10.1.0.1", "fd01::1"], true);
        let mut tables = open(&folder);
        assert_eq!(did(&tables.apply(&wanted)), (1, 0, 0));
        let told = resolved.link();
        assert_eq!(told.servers.len(), 2);
        assert_eq!(told.servers[0], (inet(), vec![10, 1, 0, 1], 0, String::new()));
        assert_eq!((told.domains, told.default_route), (vec![("red.example".to_owned(), false)], true));
        assert_eq!(resolved.flushes(), 1, "answers of before are forgotten");
        assert_eq!(fs::read(folder.path().join("resolv.conf")).unwrap(), b"nameserver 127.0.0.53\n");
        assert_eq!(did(&tables.apply(&wanted)), (0, 0, 0));
        resolved.set(Link::default());
        assert_eq!(did(&tables.apply(&wanted)), (1, 0, 1), "it forgot, as after a start anew");
        assert_eq!(did(&open(&folder).apply(&wanted)), (0, 0, 0), "found again");
        assert_eq!(open(&folder).teardown().removed, ["name servers of red-eth0"]);
        assert_eq!(resolved.link(), own, "exactly as before");

        resolved.set(Link::default());
        let mut tables = open(&folder);
        did(&tables.apply(&wanted));
        assert_eq!(did(&tables.apply(&Desired::default())), (0, 1, 0));
        assert_eq!((resolved.link(), resolved.reverts()), (Link::default(), 1), "nothing was set before");
    });
}

fn inet() -> i32 {
    libc::AF_INET
}
