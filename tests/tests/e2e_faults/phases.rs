//! What goes on when a fault strikes, and what must hold afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{Answer, Config, Server, Stopwatch, World, wait_until};
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::calls::{Places, places};
use crate::rich::Whole;
use crate::strike::{attach, has_struck, listing, listing_of_files, words};
use crate::{Case, What};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a persona lives that is watched while it ends: longer than `strace` takes to follow the daemon.
const LIFE: SignedDuration = SignedDuration::from_millis(1_500);
/// What a persona allows that nobody touches, and what it does not.
const OPEN: u16 = 7_000;
const CLOSED: u16 = 7_003;
/// So many personas beside it, from which on changes go into the journal.
const MANY: usize = 256;
/// Sizes of the table of rules, by turns.
const RULES: [u32; 2] = [4_096, 2_048];

/// A hub with a persona that nobody touches, and room for another.
pub(crate) struct Site {
    pub(crate) world: World,
    _servers: [Server; 2],
    attached: Vec<(Value, Value)>,
    /// How often maps got another size.
    resized: usize,
    /// Personas that nobody touches.
    others: usize,
    /// What the kernel holds with a persona that has everything, and without.
    pub(crate) whole: Option<Whole>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(2, &limits(0))
    }

    fn with(members: usize, lines: &str) -> Self {
        let world = World::with(members, lines);
        let servers = [world.members[0].serve(&[OPEN, CLOSED]), world.members[1].serve(&[7_001])];
        world.create(0, &policy(7_001));
        let attached = attachments(&world);
        Self { world, _servers: servers, attached, resized: 0, others: 1, whole: None }
    }

    /// One with so many personas of files beside it that a change is a line of the journal.
    pub(crate) fn of_many() -> Self {
        // Ports that two personas might share belong to nobody.
        let mut site = Self::with(4, &limits(0));
        let persona = |number: usize| {
            format!("---\nkind: persona\nname: many{number}\nip_range: 10.120.{number}.0/24\n")
        };
        let text: String = (0..MANY).map(persona).collect();
        fs::write(site.world.hub.documents().join("many.yaml"), text).unwrap();
        site.world.hub.hubctl(&["apply"]).expect_success();
        site.others += MANY;
        site
    }

    /// Whether faults are meant for the files of the state alone.
    pub(crate) fn is_of_many(&self) -> bool {
        self.others > 1
    }

    /// One for lives of a persona that has everything.
    pub(crate) fn of_rich() -> Self {
        let mut site = Self::with(2, "pools: {lab: [10.200.0.0/16, \"fd00:200::/32\"]}\n");
        site.world.lab.space("guest");
        site.whole = Some(Whole::of(&site));
        site
    }

    /// Which calls a phase makes, by the numbers that are worth a fault.
    pub(crate) fn count(&mut self, what: What) -> Places {
        let trace = self.trace();
        let mut found = Places::default();
        let listings = if self.is_of_many() {
            vec![listing_of_files(&self.world, &trace)]
        } else {
            [false, true].map(|state| listing(&self.world, &trace, state)).into()
        };
        for words in listings {
            assert!(!self.run(what, &words, &format!("{what:?} without a fault")));
            found.extend(places(&fs::read_to_string(&trace).unwrap()));
        }
        found
    }

    /// Lets a fault strike; whether it met a call.
    pub(crate) fn strike(&mut self, case: &Case) -> bool {
        let trace = self.trace();
        let words = words(&self.world, &case.fault, &trace);
        let died = self.run(case.what, &words, &format!("{case:?}"));
        died || has_struck(&trace)
    }

    /// Nothing is left of all that was done.
    #[track_caller]
    pub(crate) fn assert_as_before(self) {
        assert_eq!(attachments(&self.world), self.attached, "programs are where they were");
        let left = self.world.hub.hubctl(&["--json", "gc", "--dry-run"]).expect_success();
        assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), json!({"found": []}));
        if let Some(whole) = self.whole {
            assert!(whole.failed > 0, "no fault was told as a failure");
        }
    }

    fn trace(&self) -> PathBuf {
        self.world.lab.folder().join("trace")
    }

    /// Goes through a phase under `strace`; whether the daemon died of it.
    fn run(&mut self, what: What, words: &[String], name: &str) -> bool {
        match what {
            What::Life => self.life(words, name),
            What::Journal => self.life_in_the_journal(words, name),
            What::Rich => self.rich_life(words, name),
            What::End => self.end(words, name),
            What::Start => self.start(words, name),
            What::Resize => {
                self.resized += 1;
                let config = Config::default().interface("up0", "uplink");
                let config = config.interface("seg0", "segment").interface("seg1", "segment");
                self.world.hub.configure(&config.with(&limits(self.resized)));
                self.start(words, name)
            }
        }
    }

    /// Makes, changes and deletes a persona.
    fn life(&mut self, words: &[String], name: &str) -> bool {
        let (died, held) = self.live(words, name);
        self.end_life(held, name);
        died
    }

    /// As [`Self::life`], and what the hub says it holds is what the next one reads.
    fn life_in_the_journal(&mut self, words: &[String], name: &str) -> bool {
        let (died, held) = self.live(words, name);
        self.world.hub.process().kill();
        self.world.hub.restart();
        assert_eq!(self.settle(name), held, "{name}: what was read back");
        let listed = self.world.hub.get("/v1/personas?limit=1000").expect(200);
        let others = listed["personas"].as_array().unwrap().iter();
        let others = others.filter(|view| view["definition"]["name"] != "p1" && view["state"] == "active");
        assert_eq!(others.count(), self.others, "{name}: nobody else changed");
        self.end_life(held, name);
        died
    }

    /// Goes through a life under `strace`: whether the daemon died, and the port that is allowed then. What was
    /// answered holds.
    fn live(&mut self, words: &[String], name: &str) -> (bool, u16) {
        let mut strace = attach(words, self.world.hub.process().id());
        let mut possible = BTreeSet::from([0]);
        for (method, path, port) in [("POST", "", 7_001), ("PUT", "/p1", 7_002), ("DELETE", "/p1", 0)] {
            let definition = if port == 0 { Value::Null } else { World::definition(1, &policy(port)) };
            // Who is killed does not answer, and an answer may be what a fault meets.
            match self.ask(method, path, &definition).0 {
                200..300 => possible = BTreeSet::from([port]),
                400..500 => {}
                _ => drop(possible.insert(port)),
            }
        }
        self.goes_on(name);
        // Asked to end, it lets the daemon go; killed, it may leave a call that never was.
        strace.stop();
        let died = !self.world.hub.process().is_running();
        let held = self.settle(name);
        assert!(possible.contains(&held), "{name}: {held} is none of {possible:?}");
        (died, held)
    }

    /// Sends a request about personas: status and body, 0 if nobody answered.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let path = format!("/v1/personas{path}");
        let answer = self.world.hub.try_send(method, &path, body, Duration::from_secs(10));
        answer.map_or((0, Value::Null), |answer| (answer.status, answer.body))
    }

    /// What the hub says of a persona, if it answers.
    pub(crate) fn look(&self, path: &str) -> Option<Answer> {
        let path = format!("/v1/personas{path}");
        self.world.hub.try_send("GET", &path, &Value::Null, Duration::from_secs(10))
    }

    fn end_life(&mut self, held: u16, name: &str) {
        if held != 0 {
            self.world.hub.request("DELETE", "/v1/personas/p1", &[], "").expect(204);
        }
        self.is_repaired(name);
    }

    /// Waits until the kernel holds what the hub says; the port that is allowed, or 0 for no persona.
    fn settle(&mut self, name: &str) -> u16 {
        let mut allowed = 0;
        wait_until(&format!("{name}: the kernel holds what the hub says"), PATIENCE * 2, || {
            self.is_back();
            // Who is killed may look alive for a moment.
            let Some(answer) = self.look("/p1") else { return false };
            let wanted = match answer.status {
                404 => 0,
                _ => answer.body["definition"]["security_policies"][0]["port"][1].as_u64().unwrap_or(1),
            };
            let [first, second, again] = [7_001, 7_002, 7_001].map(|port| self.passes(port));
            if first != again {
                // The change came in between.
                return false;
            }
            // Of a persona that is there, one is allowed.
            allowed = match (first, second) {
                (true, false) => 7_001,
                (false, true) => 7_002,
                _ => 0,
            };
            (wanted == 0 || answer.body["state"] == "active") && u64::from(allowed) == wanted
        });
        allowed
    }

    /// Lets a persona come to its end.
    fn end(&mut self, words: &[String], name: &str) -> bool {
        let mut fields = policy(7_001);
        let deadline = Timestamp::now() + LIFE;
        fields["expiration"] = deadline.to_string().into();
        self.world.create(1, &fields);
        self.world.outside.expect_udp(member_at(1, true), 7_001, Answered);
        let mut strace = attach(words, self.world.hub.process().id());
        wait_until(&format!("{name}: the end is seen"), PATIENCE, || {
            Timestamp::now() > deadline && (!self.world.hub.process().is_running() || self.has_ended())
        });
        strace.stop();
        let died = !self.world.hub.process().is_running();
        self.world.outside.expect_udp(member_at(1, true), 7_001, Silent);
        self.goes_on(name);
        wait_until(&format!("{name}: the route is gone"), PATIENCE * 2, || {
            self.is_back();
            self.has_ended() && self.world.router.ip("route show 10.100.1.0/24").trim().is_empty()
        });
        self.world.hub.request("DELETE", "/v1/personas/p1", &[], "").expect(204);
        self.is_repaired(name);
        died
    }

    fn has_ended(&self) -> bool {
        self.look("/p1").is_some_and(|answer| answer.body["state"] == "expired")
    }

    /// Starts the daemon, then once more without a fault.
    fn start(&mut self, words: &[String], name: &str) -> bool {
        self.world.hub.process().kill();
        // Faster, but where a filter stops the call no signal is delivered.
        let is_kill = words.iter().any(|word| word.contains("signal="));
        let filter = (!is_kill).then_some("--seccomp-bpf");
        let words = ["strace"].into_iter().chain(filter).chain(words.iter().map(String::as_str));
        self.world.hub.launch_under(&words.collect::<Vec<_>>());
        let watch = Stopwatch::start();
        while self.world.hub.process().is_running()
            && watch.elapsed() < PATIENCE
            && !self.world.hub.is_ready()
        {
            self.goes_on(name);
        }
        self.goes_on(name);
        let died = !self.world.hub.process().is_running();
        if died {
            self.world.outside.expect_udp(member_at(0, true), CLOSED, Silent);
        }
        // The daemon is the child of strace, and may outlive it for a moment.
        let group = Pid::from_raw(self.world.hub.process().id().cast_signed());
        // Asked to end and not killed, it writes down what it saw.
        self.world.hub.process().stop();
        wait_until("the daemon is gone", PATIENCE, || killpg(group, None).is_err());
        self.world.hub.restart();
        self.world.active("p0");
        self.goes_on(name);
        assert!(!self.world.why(&format!("udp 192.0.2.10 10.100.0.10:{CLOSED}")).1, "{name}");
        died
    }

    /// Starts the daemon if it has died.
    pub(crate) fn is_back(&mut self) {
        if !self.world.hub.process().is_running() {
            self.world.hub.restart();
        }
    }

    /// Whoever survived a fault still hears what others do to the network.
    pub(crate) fn is_repaired(&self, name: &str) {
        let route = "10.100.0.0/24 dev seg0";
        self.world.router.ip(&format!("route delete {route}"));
        wait_until(&format!("{name}: a route is put back"), PATIENCE, || {
            !self.world.router.ip(&format!("route show {route}")).trim().is_empty()
        });
    }

    /// What the persona that nobody touches allows passes.
    #[track_caller]
    pub(crate) fn goes_on(&self, name: &str) {
        for v4 in FAMILIES {
            let outcome = self.world.outside.udp(member_at(0, v4), OPEN, PATIENCE);
            assert!(outcome == Answered, "{name}, IPv4 {v4}: {outcome:?}; {}", self.drops(v4));
        }
    }

    /// What became of packets, whether a daemon runs or not.
    fn drops(&self, v4: bool) -> String {
        let again = self.world.outside.udp(member_at(0, v4), OPEN, PATIENCE / 10);
        let pins = self.world.hub.folder().join("bpf/hub/v1");
        let script = format!("bpftool map dump pinned {}/DROPS; ip -s neighbour; nstat -asz", pins.display());
        format!("the next one: {again:?}\n{}", self.world.router.try_sh(&script, PATIENCE).stdout)
    }

    /// Whether the loaded program would let a packet to a port of the other persona pass.
    fn passes(&self, port: u16) -> bool {
        self.world.why(&format!("udp 192.0.2.10 10.100.1.10:{port}")).1
    }
}

/// A line of `hub.yaml` about sizes.
fn limits(turn: usize) -> String {
    format!("limits: {{rules: {}}}", RULES[turn % RULES.len()])
}

fn attachments(world: &World) -> Vec<(Value, Value)> {
    let status = world.hub.get("/v1/status").expect(200);
    let found = status["attachments"].as_array().unwrap().iter();
    found.map(|attachment| (attachment["interface"].clone(), attachment["hook"].clone())).collect()
}

/// Allows one port, and forbids the other by many rules; [`OPEN`] is always allowed.
fn policy(port: u16) -> Value {
    let mut rules = vec![json!({"protocol": "udp", "port": [OPEN, port], "action": "allow"})];
    rules.extend((0..20).map(|number| json!({"protocol": "udp", "port": 8_000 + number, "action": "allow"})));
    rules.push(json!({"protocol": "udp", "action": "deny"}));
    json!({"security_policies": rules})
}
