//! A hub with connections that need their entries, and what must hold of them whatever is started.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, member_at, outside_at, with_port};
use hub_tests::lab::{Config, Server, Space, World, wait_until};
use serde_json::{Value, json};

use crate::LIMITS;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Exchanges that every connection must get through before and after each step.
pub(crate) const EXCHANGES: u64 = 20;
/// Port of members whose use puts an address into quarantine.
pub(crate) const TRAP: u16 = 23;
/// No connection is taken up in mid-stream: without its entry it is over.
pub(crate) const STRICT: &str = "loose_tcp: 0s\n";

/// Numbered lines there and back without a pause, until it is ended.
pub(crate) struct Talk {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Talk {
    fn start(mut stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut back = [0; 512];
            while !is_over.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                let line = [number.to_be_bytes(); 64].concat();
                stream.write_all(&line)?;
                stream.read_exact(&mut back)?;
                assert_eq!(back[..], line[..], "what came back of line {number}");
                count.store(number + 1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(())
        });
        Self { stop, done, thread }
    }

    /// Waits until so much more was exchanged.
    #[track_caller]
    fn goes_on(&self, when: &str) {
        let goal = self.done.load(Ordering::Relaxed) + EXCHANGES;
        wait_until(&format!("a connection goes on: {when}"), PATIENCE, || {
            assert!(!self.thread.is_finished(), "a connection has ended: {when}");
            self.done.load(Ordering::Relaxed) >= goal
        });
    }

    /// How many lines came back, all of them whole.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap();
        self.done.load(Ordering::Relaxed)
    }
}

/// One new connection after the other, each with its answer, until it is ended.
pub(crate) struct Caller {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Caller {
    pub(crate) fn start(from: Space, v4: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut called = 0;
            while !is_over.load(Ordering::Relaxed) {
                // What is lost while programs change is sent again.
                assert_eq!(from.tcp(outside_at(v4), 8_080, PATIENCE), Answered, "call {called}");
                called += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            called
        });
        Self { stop, thread }
    }

    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A hub with a member whose connections to the outside live by their entries alone: nothing may come to its own.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) hook: (&'static str, &'static str),
    _servers: [Server; 2],
    talks: Vec<Talk>,
}

impl Site {
    pub(crate) fn new(hook: (&'static str, &'static str)) -> Self {
        Self::of_version(hook, None)
    }

    /// With the programs of another version.
    pub(crate) fn of_version(hook: (&'static str, &'static str), version: Option<&Path>) -> Self {
        let mut world = World::with(1, &format!("{STRICT}{}", LIMITS[0]));
        // The first start knew nothing of the hook.
        world.hub.process().kill();
        if version.is_some() {
            let folder = world.hub.folder().to_owned();
            let at = |name: &str| folder.join(name).display().to_string();
            world.hub.hubctl(&["down", "--bpffs", &at("bpf"), "--runtime-dir", &at("run")]).expect_success();
            fs::remove_dir_all(folder.join("state")).unwrap();
            world.hub.change_version(version);
        }
        configure(&world, hook, LIMITS[0]);
        world.hub.restart();
        world.create(
            0,
            &json!({"security_policies": [
                {"name": "trap", "protocol": "tcp", "port": TRAP, "action": "quarantine", "ttl": "1h"},
                {"name": "web", "protocol": "tcp", "port": 80, "action": "allow"},
            ]}),
        );
        let servers = [world.members[0].serve(&[80, TRAP]), world.outside.serve(&[8_080])];
        for v4 in FAMILIES {
            world.outside.expect_tcp(member_at(0, v4), 80, Answered);
            world.outside.ip(&format!(
                "address add {}/{} dev eth0 nodad",
                trapped(v4),
                if v4 { 24 } else { 64 }
            ));
            fetch(&world, v4, TRAP);
        }
        let talk = |v4| Talk::start(world.members[0].connect(outside_at(v4), 8_080));
        let talks = FAMILIES.map(talk).into();
        let site = Self { world, hook, _servers: servers, talks };
        site.goes_on("at first");
        site
    }

    #[track_caller]
    pub(crate) fn goes_on(&self, when: &str) {
        self.talks.iter().for_each(|talk| talk.goes_on(when));
    }

    /// Ends the daemon, by a signal or as asked, and starts another with these sizes.
    #[track_caller]
    pub(crate) fn restart(&mut self, limits: &str, dies: bool, when: &str) {
        if dies {
            self.world.hub.process().kill();
        } else {
            assert!(self.world.hub.process().stop().success(), "{when}");
        }
        configure(&self.world, self.hook, limits);
        self.goes_on(&format!("{when}, without a daemon"));
        self.world.hub.restart();
        self.world.active("p0");
        self.goes_on(when);
    }

    /// Nothing is left of a change, and each hook has one program.
    #[track_caller]
    pub(crate) fn is_whole(&self, when: &str) {
        wait_until(&format!("maps of before are gone: {when}"), PATIENCE, || {
            !self.pins().join("old").exists() && !self.pins().join("new").exists()
        });
        let left = self.world.hub.hubctl(&["--json", "gc", "--dry-run"]).expect_success();
        assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), json!({"found": []}), "{when}");
        let status = self.world.hub.get("/v1/status").expect(200);
        let attached = status["attachments"].as_array().unwrap();
        assert!(attached.len() >= 4, "{when}: {status:#}");
        for at in attached {
            let port = at["interface"].as_str().unwrap();
            let found = match (at["hook"].as_str().unwrap(), at["mode"].as_str().unwrap()) {
                ("tc_in", "tcx") => self.programs(port, TcAttachType::Ingress),
                ("tc_out", "tcx") => self.programs(port, TcAttachType::Egress),
                (hook @ ("tc_in" | "tc_out"), _) => {
                    let side = if hook == "tc_in" { "ingress" } else { "egress" };
                    self.ids(&format!("tc filter show dev {port} {side}"))
                }
                _ => self.ids(&format!("ip -details link show {port}")),
            };
            assert_eq!(found, [at["program_id"].as_u64().unwrap()], "{when}: {at:#}");
        }
    }

    /// How many programs there are on ports, as the hub says.
    pub(crate) fn attached(&self) -> usize {
        self.world.hub.get("/v1/status").expect(200)["attachments"].as_array().unwrap().len()
    }

    /// Whether TC programs have links.
    fn has_links(&self) -> bool {
        let pinned = fs::read_dir(self.pins().join("link")).unwrap().flatten();
        pinned.map(|link| link.file_name().into_string().unwrap()).any(|name| name.ends_with("hub_tc_in"))
    }

    /// Numbers of the programs on links of both ports.
    pub(crate) fn running(&self) -> Vec<u64> {
        let of = |port: &str| {
            // Kernels without such links have filters, which are not pinned.
            let tc = [TcAttachType::Ingress, TcAttachType::Egress]
                .map(|side| if self.has_links() { self.programs(port, side) } else { Vec::new() });
            [tc.concat(), self.ids(&format!("ip -details link show {port}"))].concat()
        };
        [of("up0"), of("seg0")].concat()
    }

    fn programs(&self, port: &str, side: TcAttachType) -> Vec<u64> {
        let (_, found) = self.world.router.within(|| SchedClassifier::query_tcx(port, side)).unwrap();
        found.iter().map(|program| program.id().into()).collect()
    }

    /// Numbers of the programs that a command lists.
    fn ids(&self, command: &str) -> Vec<u64> {
        let shown = self.world.router.sh(command);
        let ours = shown.lines().filter(|line| line.contains("hub_tc") || line.contains("prog/xdp"));
        let words = ours.filter_map(|line| line.split(" id ").nth(1)?.split(' ').next());
        words.map(|word| word.parse().unwrap()).collect()
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.world.hub.folder().join("bpf/hub/v1")
    }

    /// What the hub says that it lost.
    pub(crate) fn lost(&self) -> String {
        let status = self.world.hub.get("/v1/status").expect(200);
        let all = status["conditions"].as_array().unwrap().iter();
        let found = all.map(ToString::to_string).find(|condition| condition.contains("ColdStart"));
        found.unwrap_or_default()
    }

    pub(crate) fn packets(&self) -> u64 {
        let counters = self.world.hub.get("/v1/personas/p0/counters").expect(200);
        counters["egress"]["packets"].as_u64().unwrap()
    }

    /// Packets that the rules judged, by place.
    pub(crate) fn judged(&self) -> BTreeMap<String, u64> {
        let counters = self.world.hub.get("/v1/personas/p0/counters").expect(200);
        let rules = counters["rules"].as_array().unwrap().iter();
        rules.map(|rule| (rule["rule"].to_string(), rule["packets"].as_u64().unwrap())).collect()
    }

    /// The address that touched the trap is kept out, and the other one is not.
    #[track_caller]
    pub(crate) fn keeps_out(&self, when: &str) {
        for v4 in FAMILIES {
            let asks =
                |from: IpAddr| self.world.why(&format!("tcp {from} {}", with_port(member_at(0, v4), 80)));
            let (answer, passes) = asks(trapped(v4));
            assert!(!passes && answer["reason"] == "quarantine", "{when}: {answer:#}");
            assert!(asks(outside_at(v4)).1, "{when}");
        }
    }

    pub(crate) fn finish(self) -> u64 {
        self.talks.into_iter().map(Talk::finish).sum()
    }
}

pub(crate) fn configure(world: &World, (role, more): (&str, &str), limits: &str) {
    let config = Config::default().interface("up0", "uplink").interface("seg0", role);
    world.hub.configure(&config.with(&format!("{STRICT}{more}{limits}")));
}

/// The address outside that touches the trap.
fn trapped(v4: bool) -> IpAddr {
    if v4 { "192.0.2.11".parse().unwrap() } else { "2001:db8:2::11".parse().unwrap() }
}

/// Asks the member from that address, and whether it got through to a listener does not matter.
fn fetch(world: &World, v4: bool, port: u16) {
    let target = with_port(member_at(0, v4), port);
    let script = format!("curl --silent --max-time 0.3 --interface {} http://{target}/ || true", trapped(v4));
    world.outside.sh(&script);
}
