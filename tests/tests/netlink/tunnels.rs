//! Tunnels: made, changed, kept while the daemon is dead, repaired and removed, by a process and by the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hub_daemon::desired::interfaces::{Tunnel, TunnelBackend, TunnelPeer};
use hub_daemon::desired::{Desired, Namespace};
use hub_daemon::kernel::wireguard::{Backend, Place, keys, process};
use hub_daemon::model::PersonaId;
use hub_daemon::reconcile::Report;

use crate::endpoints::member;
use crate::lab::{Folder, Member, ip, lab, open, open_in, wait_until};

pub(crate) const HERE: &str = "hubw1a";
const THERE: &str = "hubw1b";
/// Tells a process that is killed where it works: folder and namespace.
const WORK: &str = "HUB_TEST_TUNNELS";

/// Who encrypts on this machine; says so where the kernel cannot.
fn backends() -> Vec<TunnelBackend> {
    let probe = Command::new("ip").args(["link", "add", "hubprobe", "type", "wireguard"]).output().unwrap();
    if probe.status.success() {
        ip("link delete hubprobe");
        return vec![TunnelBackend::Userspace, TunnelBackend::Kernel];
    }
    eprintln!(
        "left out for the kernel: it has no WireGuard (`cargo xtask vm netlink` runs it where there is)"
    );
    vec![TunnelBackend::Userspace]
}

/// Writes a private key of this many equal bytes; its file and its public key.
pub(crate) fn key(folder: &Path, byte: u8) -> (PathBuf, String) {
    let path = folder.join(format!("key{byte}"));
    // A file that is written again is one that changed.
    if !path.exists() {
        fs::write(&path, keys::base64(&[byte; 32]) + "\n").unwrap();
    }
    (path, keys::base64(&keys::public(&[byte; 32])))
}

pub(crate) fn peer(endpoint: &str, host: u8) -> TunnelPeer {
    TunnelPeer {
        endpoint: Some(endpoint.parse().unwrap()),
        allowed: inner(host),
        keepalive_seconds: 0,
        preshared_key_file: None,
    }
}

fn inner(host: u8) -> BTreeSet<ipnet::IpNet> {
    [format!("10.9.0.{host}/32"), format!("fd09::{host}/128")].map(|net| net.parse().unwrap()).into()
}

/// A member behind an endpoint, and a tunnel between the hub and it, with both ends the hub's.
pub(crate) fn desired(folder: &Path, namespace: &Namespace, backend: TunnelBackend) -> Desired {
    let mut desired = Desired::default();
    member(&mut desired, "red", 1, namespace.clone());
    let ((own, own_public), (other, other_public)) = (key(folder, 1), key(folder, 2));
    let tunnel = |namespace: Option<&Namespace>, file: &Path, port, host, public: &str, peer| Tunnel {
        namespace: namespace.cloned(),
        persona: PersonaId("red".into()),
        segment: None,
        backend,
        private_key_file: file.to_owned(),
        listen_port: Some(port),
        mark: None,
        addresses: inner(host),
        mtu: 1340,
        peers: BTreeMap::from([(public.to_owned(), peer)]),
    };
    let here = tunnel(None, &own, 51_820, 1, &other_public, peer("10.1.1.5:51821", 2));
    let there = tunnel(Some(namespace), &other, 51_821, 2, &own_public, peer("10.1.1.1:51820", 1));
    desired.tunnels = [(HERE.into(), here), (THERE.into(), there)].into();
    desired
}

/// Routes through the tunnel, which nobody makes by himself.
fn routes(red: &Member) {
    for (net, back) in [("10.9.0.2/32", "10.9.0.1/32"), ("fd09::2/128", "fd09::1/128")] {
        ip(&format!("route replace {net} dev {HERE}"));
        let (done, said) = red.run(&format!("ip route replace {back} dev {THERE}"));
        assert!(done, "{said}");
    }
}

#[track_caller]
pub(crate) fn all_well(reports: &[Report]) -> usize {
    for report in reports {
        assert_eq!(report.failures, [], "{}", report.table);
    }
    reports.iter().map(|report| report.put + report.deleted).sum()
}

fn failures(reports: &[Report]) -> String {
    let all = reports.iter().flat_map(|report| &report.failures);
    all.map(|failure| failure.error.clone()).collect::<Vec<_>>().join("\n")
}

/// Pings in the background.
fn pings(count: u32, target: &str) -> Child {
    let count = count.to_string();
    let mut ping = Command::new("ping");
    ping.args(["-n", "-q", "-i", "0.005", "-W", "2", "-c", &count, target]);
    ping.stdout(Stdio::piped()).spawn().unwrap()
}

/// How many were sent and how many were not answered.
fn lost(ping: Child) -> (u32, u32) {
    let said = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    let line = said.lines().find(|line| line.contains("packets transmitted"));
    let mut numbers =
        line.iter().flat_map(|line| line.split(' ')).filter_map(|word| word.parse::<u32>().ok());
    let (Some(sent), Some(back)) = (numbers.next(), numbers.next()) else { panic!("{said}") };
    (sent, sent - back)
}

fn index(link: &str) -> String {
    ip(&format!("-o link show {link}")).split(':').next().unwrap().to_owned()
}

fn pid(place: &Place) -> Option<u32> {
    process::find(&place.file("sock")).map(|found| found.pid)
}

/// Nothing of a tunnel is left: no link, no process, no file.
#[track_caller]
fn nothing_is_left(folder: &Path, red: &Member, pids: &[u32]) {
    for links in [ip("-o link show"), red.run("ip -o link show").1] {
        assert!(!links.contains("hubw"), "{links}");
    }
    for pid in pids {
        // A process that was collected has no folder any more.
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} runs");
    }
    assert!(!folder.join(process::TUNNELS).exists());
}

#[test]
fn a_tunnel_is_made_carries_packets_and_leaves_nothing() {
    lab(|| {
        for backend in backends() {
            let (folder, red) = (Folder::new(), Member::new());
            let mut network = open(&folder);
            let desired = desired(folder.path(), &red.namespace(), backend);
            all_well(&network.apply(&desired));
            let (here, there) = (
                Place::new(folder.path(), HERE, None),
                Place::new(folder.path(), THERE, Some(&red.namespace())),
            );
            let began = Instant::now();
            here.shake_hands(Duration::from_secs(5)).unwrap();
            eprintln!("{backend:?}: handshake within {:?}", began.elapsed());
            routes(&red);
            for target in ["10.9.0.2", "fd09::2"] {
                assert_eq!(lost(pings(20, target)), (20, 0), "{target}");
            }
            // Neither this process nor another one finds anything to do.
            assert_eq!(all_well(&network.apply(&desired)), 0);
            assert_eq!(all_well(&open(&folder).apply(&desired)), 0);
            let status = there.status().unwrap();
            let wanted = if backend == TunnelBackend::Kernel { Backend::Kernel } else { Backend::Userspace };
            assert_eq!(status.backend, wanted);
            let peer = status.peers.values().next().unwrap();
            assert!(peer.received_bytes > 40 * 64 && peer.sent_bytes > 40 * 64, "{peer:?}");
            assert!(peer.handshake_age.unwrap() < Duration::from_mins(1), "{peer:?}");
            let shown = ip(&format!("-d link show {HERE}"));
            assert!(shown.contains("mtu 1340") && shown.contains("alias hub wireguard "), "{shown}");
            let pids: Vec<u32> = [&here, &there].into_iter().filter_map(pid).collect();
            assert_eq!(pids.len(), if backend == TunnelBackend::Kernel { 0 } else { 2 });
            all_well(&network.apply(&Desired::default()));
            nothing_is_left(folder.path(), &red, &pids);
        }
    });
}

#[test]
fn auto_takes_the_kernel_where_it_can() {
    lab(|| {
        let wanted =
            if backends().contains(&TunnelBackend::Kernel) { Backend::Kernel } else { Backend::Userspace };
        let (folder, red) = (Folder::new(), Member::new());
        let mut network = open(&folder);
        let desired = desired(folder.path(), &red.namespace(), TunnelBackend::Auto);
        all_well(&network.apply(&desired));
        assert_eq!(Place::new(folder.path(), HERE, None).status().unwrap().backend, wanted);
        let teardown = open(&folder).teardown();
        assert_eq!(teardown.failures, []);
        assert!(teardown.removed.contains(&format!("tunnel {HERE}")), "{:?}", teardown.removed);
        // The first process had started what the second one ended: it collects.
        all_well(&network.apply(&Desired::default()));
        nothing_is_left(folder.path(), &red, &[]);
    });
}

#[test]
fn a_kernel_without_wireguard_is_named() {
    lab(|| {
        if backends().contains(&TunnelBackend::Kernel) {
            return eprintln!("left out: this kernel has WireGuard");
        }
        let (folder, red) = (Folder::new(), Member::new());
        let desired = desired(folder.path(), &red.namespace(), TunnelBackend::Kernel);
        let said = failures(&open(&folder).apply(&desired));
        assert!(said.contains("this kernel has no WireGuard"), "{said}");
        nothing_is_left(folder.path(), &red, &[]);
    });
}

/// Not a test of its own: the process that the next one kills. Without its instructions it has nothing to do.
#[test]
fn the_daemon_that_is_killed() {
    let Ok(work) = std::env::var(WORK) else { return };
    let (folder, namespace) = work.split_once('|').unwrap();
    let desired =
        desired(Path::new(folder), &Namespace::Name(namespace.to_owned()), TunnelBackend::Userspace);
    let mut network = open_in(Path::new(folder));
    all_well(&network.apply(&desired));
    fs::write(Path::new(folder).join("ready"), "").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_tunnel_outlives_the_daemon_and_is_taken_over() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let Namespace::Name(name) = red.namespace() else { panic!("it has a path") };
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tunnels::the_daemon_that_is_killed", "--nocapture"])
            .env(WORK, format!("{}|{name}", folder.path().display()))
            .spawn()
            .unwrap();
        wait_until("the daemon made the tunnel", || folder.path().join("ready").exists());
        let here = Place::new(folder.path(), HERE, None);
        here.shake_hands(Duration::from_secs(5)).unwrap();
        routes(&red);
        let (link, before) = (index(HERE), pid(&here).unwrap());
        let ping = pings(600, "10.9.0.2");
        std::thread::sleep(Duration::from_millis(500));
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let mut network = open(&folder);
        let desired = desired(folder.path(), &red.namespace(), TunnelBackend::Userspace);
        assert_eq!(all_well(&network.apply(&desired)), 0, "it is taken over as it is");
        let (sent, missing) = lost(ping);
        eprintln!("daemon killed with SIGKILL and another one started: {missing} of {sent} pings lost");
        assert_eq!((sent, missing, index(HERE), pid(&here)), (600, 0, link, Some(before)));
        all_well(&network.apply(&Desired::default()));
    });
}

#[test]
fn a_process_that_dies_is_started_again_behind_the_same_link() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let mut network = open(&folder);
        let (told, mut changes) = tokio::sync::mpsc::channel(8);
        network.tell(told);
        let desired = desired(folder.path(), &red.namespace(), TunnelBackend::Userspace);
        all_well(&network.apply(&desired));
        routes(&red);
        let here = Place::new(folder.path(), HERE, None);
        here.shake_hands(Duration::from_secs(5)).unwrap();
        let (link, before) = (index(HERE), pid(&here).unwrap());
        let killed = Instant::now();
        assert!(Command::new("kill").args(["-9", &before.to_string()]).status().unwrap().success());
        wait_until("its end is told", || changes.try_recv().is_ok());
        all_well(&network.apply(&desired));
        here.shake_hands(Duration::from_secs(5)).unwrap();
        eprintln!("process killed: handshake again after {:?}", killed.elapsed());
        assert_eq!(index(HERE), link, "routes and programs stay");
        assert_ne!(pid(&here), Some(before));
        assert_eq!(lost(pings(20, "10.9.0.2")), (20, 0));
        all_well(&network.apply(&Desired::default()));
    });
}

#[test]
fn an_endpoint_changes_without_loss_and_a_key_without_another_link() {
    lab(|| {
        for backend in backends() {
            let (folder, red) = (Folder::new(), Member::new());
            let mut network = open(&folder);
            let mut desired = desired(folder.path(), &red.namespace(), backend);
            all_well(&network.apply(&desired));
            routes(&red);
            let here = Place::new(folder.path(), HERE, None);
            here.shake_hands(Duration::from_secs(5)).unwrap();
            let link = index(HERE);

            let ping = pings(600, "10.9.0.2");
            std::thread::sleep(Duration::from_millis(500));
            for endpoint in ["[fd01:0:0:1::5]:51821", "10.1.1.5:51821", "[fd01:0:0:1::5]:51821"] {
                let peers = &mut desired.tunnels.get_mut(HERE).unwrap().peers;
                peers.values_mut().next().unwrap().endpoint = Some(endpoint.parse().unwrap());
                all_well(&network.apply(&desired));
            }
            let (sent, missing) = lost(ping);
            eprintln!("{backend:?}: three other endpoints: {missing} of {sent} pings lost");
            assert_eq!((sent, missing), (600, 0));

            // Both ends get the member's other key: the peer is replaced, the link stays. A call that comes while
            // the far end has its old key is lost, and the kernel repeats it after 5.3 s at most.
            let (count, seconds) = if backend == TunnelBackend::Kernel { (1_600, 8) } else { (600, 5) };
            let (file, public) = key(folder.path(), 3);
            let ping = pings(count, "10.9.0.2");
            std::thread::sleep(Duration::from_millis(500));
            let old = desired.tunnels.get_mut(HERE).unwrap().peers.pop_first().unwrap().1;
            desired.tunnels.get_mut(HERE).unwrap().peers.insert(public.clone(), old);
            desired.tunnels.get_mut(THERE).unwrap().private_key_file = file;
            all_well(&network.apply(&desired));
            here.shake_hands(Duration::from_secs(seconds)).unwrap();
            let (sent, missing) = lost(ping);
            eprintln!("{backend:?}: another key at both ends: {missing} of {sent} pings lost");
            let most = if backend == TunnelBackend::Kernel { sent * 3 / 4 } else { sent / 2 };
            assert!(missing < most, "packets pass again");
            assert_eq!(index(HERE), link);
            let peers: Vec<String> = here.status().unwrap().peers.keys().map(keys::base64).collect();
            assert_eq!(peers, [public]);
            assert_eq!(lost(pings(20, "fd09::2")), (20, 0));
            all_well(&network.apply(&Desired::default()));
        }
    });
}

#[test]
fn wrong_keys_and_bad_files_are_told_with_what_would_be_right() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let mut network = open(&folder);
        let mut desired = desired(folder.path(), &red.namespace(), TunnelBackend::Auto);
        let peers = &mut desired.tunnels.get_mut(HERE).unwrap().peers;
        let right = peers.pop_first().unwrap();
        let (_, wrong) = key(folder.path(), 9);
        peers.insert(wrong.clone(), right.1);
        all_well(&network.apply(&desired));
        let here = Place::new(folder.path(), HERE, None);
        let said = here.shake_hands(Duration::from_secs(1)).unwrap_err().to_string();
        let begin =
            format!("tunnel {HERE}: no handshake within 1s with {wrong} at 10.1.1.5:51821: compare the keys");
        assert!(said.starts_with(&begin), "{said}");

        let file = folder.path().join("bad");
        fs::write(&file, "hunter2\n").unwrap();
        desired.tunnels.get_mut(HERE).unwrap().private_key_file.clone_from(&file);
        desired.tunnels.remove(THERE);
        all_well(&network.apply(&Desired::default()));
        let said = failures(&network.apply(&desired));
        let path = file.display();
        assert!(said.contains(&format!("key file {path}: it should hold one key, 44 characters")), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        nothing_is_left(folder.path(), &red, &[]);
        fs::remove_file(&file).unwrap();
        let said = failures(&network.apply(&desired));
        assert!(said.contains(&format!("key file {path}: No such file")), "{said}");
        all_well(&network.apply(&Desired::default()));
    });
}

#[test]
fn what_others_change_is_repaired_and_what_is_others_stays() {
    lab(|| {
        let (folder, red) = (Folder::new(), Member::new());
        let mut network = open(&folder);
        let mut desired = desired(folder.path(), &red.namespace(), TunnelBackend::Userspace);
        all_well(&network.apply(&desired));
        let there = Place::new(folder.path(), THERE, Some(&red.namespace()));
        let before = pid(&there);
        assert!(red.run(&format!("ip address flush dev {THERE}")).0);
        assert!(red.run(&format!("ip link set {THERE} down mtu 1280")).0);
        ip(&format!("link delete {HERE}"));
        all_well(&network.apply(&desired));
        assert_eq!(all_well(&network.apply(&desired)), 0);
        assert_eq!(pid(&there), before, "it is repaired, not made anew");
        let (_, shown) = red.run(&format!("ip -br address show dev {THERE}"));
        assert!(shown.contains("10.9.0.2/32") && shown.contains("fd09::2/128"), "{shown}");
        routes(&red);
        Place::new(folder.path(), HERE, None).shake_hands(Duration::from_secs(5)).unwrap();
        assert_eq!(lost(pings(20, "10.9.0.2")), (20, 0));

        ip("tuntap add dev hubw2a mode tun");
        let tunnel = desired.tunnels.remove(HERE).unwrap();
        desired.tunnels.insert("hubw2a".into(), tunnel);
        let said = failures(&network.apply(&desired));
        assert!(said.contains("tunnel hubw2a: there is an interface of this name that the hub did not make"));
        all_well(&network.apply(&Desired::default()));
        assert!(ip("-o link show").contains("hubw2a"), "it is somebody else's");
    });
}
