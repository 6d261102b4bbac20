//! The daemon with very many personas: how long a change takes, and what it costs.
//!
//! Wall time says what a client waits for, and on a busy machine mostly what others do; the daemon's CPU time
//! beside it is what the hub itself needs. Ratios are between numbers of one run.

mod by_hand;
mod documents;
mod meter;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use self::{
    documents::{chains, element, member, personas, rules, sets},
    meter::{Taken, children_ms, logged, process_ms},
};
use super::{
    bound::inside,
    hub::{Hub, field},
    lab::{Families, Lab, MEMBER_PORT},
    place::Files,
    report::Setting,
    sample::{number, quantile},
    stop,
};
use crate::{clock::timed, command::run, say::say};

/// Where metrics are, in the namespace of the daemon.
const METRICS: u16 = 9_177;
/// Elements of sets that are synced at once.
const ELEMENTS: u32 = 100_000;
/// Personas that have as many rules together, and rules of each.
const RULES: (u32, u32) = (100, 1_000);

/// Everything that was measured, in milliseconds.
#[derive(Debug)]
pub(super) struct Scale {
    rows: Vec<Taken>,
    /// What does not fit a row, in words.
    ratios: Vec<(String, f64)>,
}

/// How many of everything.
struct Size {
    personas: u32,
    patches: u32,
    posts: u32,
    scraped: u32,
}

pub(super) fn measure(files: &Files, quick: bool) -> Result<Scale> {
    let size = if quick {
        Size { personas: 1_000, patches: 20, posts: 10, scraped: 2_000 }
    } else {
        Size { personas: 10_000, patches: 100, posts: 30, scraped: 32_000 }
    };
    let mut scale = Scale { rows: Vec::new(), ratios: Vec::new() };
    scale.changes(files, &size)?;
    scale.elements(files)?;
    scale.rules(files)?;
    scale.scrapes(files, &size)?;
    Ok(scale)
}

impl Scale {
    /// A file of many personas, then one change among them.
    fn changes(&mut self, files: &Files, size: &Size) -> Result<()> {
        let lab = Lab::new("scale", Families::V4)?;
        let hub = start(files, &lab, "changes")?;
        load(&hub, &personas(200, 8), 200)?;
        self.rows.push(posts(&hub, "POST to active, 200 personas", size.posts, 0)?);
        let count = size.personas;
        say("bench", &format!("a file of {count} personas"));
        let text = personas(count, 8);
        let live = first_packet(&lab, member(count - 1), || load(&hub, &text, count))?;
        let (read, applied) = (logged(&hub, "read_ms")?, logged(&hub, "apply_ms")?);
        let title = format!("YAML of {count} personas, {} rules: parse", count * 8);
        self.rows.push(Taken { title, wall: vec![read], cpu: None });
        self.rows.push(Taken { title: "… to live: first packet judged".to_owned(), ..live });
        let by_hand = by_hand::measure(&lab, hub.folder())?;
        let ratio = quantile(&by_hand.wall, 0.5) / applied;
        self.rows.push(Taken { title: "… parsed to live".to_owned(), wall: vec![applied], cpu: None });
        self.rows.push(by_hand);
        self.ratios.push(("ip -batch, without any rules ÷ parsed to live".to_owned(), ratio));
        self.ratios.push(("file to live ÷ parse (goal ≤ 1.3)".to_owned(), (read + applied) / read));
        self.rows.push(posts(&hub, &format!("POST to active, {count} personas"), size.posts, 1)?);
        say("bench", "changes of one persona");
        let port = |turn: u32| json!({"security_policies": [{"protocol": "tcp", "port": 1_000 + turn, "action": "allow"}]});
        let patch = |turn| hub.request("PATCH", "/personas/first-0", &port(turn).to_string()).map(drop);
        self.rows.push(repeat(&hub, &format!("PATCH, {count} personas"), size.patches, patch)?);
        Ok(())
    }

    /// Many elements of sets at once, beside nftables.
    fn elements(&mut self, files: &Files) -> Result<()> {
        say("bench", &format!("{ELEMENTS} elements of sets"));
        let lab = Lab::new("scale", Families::V4)?;
        let hub = start(files, &lab, "elements")?;
        load(&hub, &sets(0), 1)?;
        let synced = self.synced(&hub, &sets(ELEMENTS), 1, &format!("{ELEMENTS} set elements"))?;
        let elements: Vec<String> = (0..ELEMENTS).map(|index| element(index).to_string()).collect();
        let text = format!(
            "table inet hub {{\n set staff {{\n  type ipv4_addr; elements = {{ {} }}\n }}\n}}\n",
            elements.join(", ")
        );
        self.beside_nft(files, &lab, &text, &format!("{ELEMENTS} elements"), synced)
    }

    /// As many rules, which go into arrays.
    fn rules(&mut self, files: &Files) -> Result<()> {
        let (count, each) = RULES;
        let total = count * each;
        say("bench", &format!("{total} rules"));
        let lab = Lab::new("scale", Families::V4)?;
        let hub = start(files, &lab, "rules")?;
        // Ranges, addresses and routes are there before: what is measured are rules.
        load(&hub, &rules(count, 1), count)?;
        let what = format!("{total} rules of {count} personas");
        let synced = self.synced(&hub, &rules(count, each), count, &what)?;
        self.beside_nft(files, &lab, &chains(count, each), &format!("{total} rules"), synced)
    }

    /// What the hub takes for a file of so many personas. Returns that from parsed to live.
    fn synced(&mut self, hub: &Hub, text: &str, count: u32, what: &str) -> Result<f64> {
        let before = process_ms(hub)?;
        load(hub, text, count)?;
        let (synced, cpu) = (logged(hub, "apply_ms")?, process_ms(hub)? - before);
        self.rows.push(Taken { title: format!("{what}, parsed to live"), wall: vec![synced], cpu: None });
        let read = logged(hub, "read_ms")?;
        self.rows.push(Taken {
            title: format!("{what}, file to live"),
            wall: vec![read + synced],
            cpu: Some(cpu),
        });
        Ok(synced)
    }

    /// What `nft -f` takes for the same.
    fn beside_nft(&mut self, files: &Files, lab: &Lab, text: &str, what: &str, synced: f64) -> Result<()> {
        let path = files.folder.join("beside.nft");
        fs::write(&path, text)?;
        let mut nft = Vec::new();
        let cpu = children_ms()?;
        for _ in 0..3 {
            let fed = || run(Command::new("nft").arg("-f").arg(&path));
            let (done, time) = timed(|| inside(lab.peer.path(), fed));
            done?;
            nft.push(time.as_secs_f64() * 1e3);
            inside(lab.peer.path(), || run(Command::new("nft").args(["flush", "ruleset"])))?;
        }
        let cpu = (children_ms()? - cpu) / 3.0;
        let ratio = quantile(&nft, 0.5) / synced;
        self.ratios.push((format!("nft -f ÷ parsed to live, {what} (goal ≥ 20)"), ratio));
        self.rows.push(Taken { title: format!("nft -f, {what}"), wall: nft, cpu: Some(cpu) });
        Ok(())
    }

    /// Metrics of very many personas.
    fn scrapes(&mut self, files: &Files, size: &Size) -> Result<()> {
        let count = size.scraped;
        say("bench", &format!("metrics of {count} personas"));
        let lab = Lab::new("scale", Families::V4)?;
        let hub = start(files, &lab, "scrapes")?;
        load(&hub, &personas(count, 2), count)?;
        // What comes after the load is none of the scrapes'.
        thread::sleep(Duration::from_secs(5));
        let mut bytes = 0;
        let taken = repeat(&hub, &format!("GET /metrics, {count} personas"), 5, |_| {
            bytes = inside(lab.middle()?.path(), scrape)?;
            Ok(())
        })?;
        let cpu = taken.cpu.unwrap_or(f64::NAN);
        self.ratios.push(("CPU of a scrape in ms (goal ≤ 10)".to_owned(), cpu));
        self.ratios.push(("MB of a scrape".to_owned(), number(bytes) / 1e6));
        self.rows.push(taken);
        Ok(())
    }

    /// For people.
    pub(super) fn table(&self, setting: &Setting) -> String {
        let Setting { kernel, cpu, date, commit } = setting;
        let mut lines = vec![format!("Linux {kernel}, {cpu}, {date}, commit {commit}"), String::new()];
        lines.push(format!("{:<48} {:>10} {:>10} {:>12}", "ms", "p50", "p99", "CPU each"));
        lines.extend(self.rows.iter().map(Taken::row));
        lines.push(String::new());
        lines.extend(self.ratios.iter().map(|(name, ratio)| format!("{name:<48} {ratio:>10.2}")));
        lines.join("\n")
    }

    /// For programs.
    pub(super) fn write(&self, path: &Path, setting: &Setting) -> Result<()> {
        let Setting { kernel, cpu, date, commit } = setting;
        let ratios = self.ratios.iter().map(|(name, ratio)| json!({"name": name, "ratio": ratio}));
        let text = serde_json::to_string_pretty(&json!({
            "kernel": kernel, "cpu": cpu, "date": date, "commit": commit,
            "scale": self.rows.iter().map(Taken::json).collect::<Vec<_>>(),
            "ratios": ratios.collect::<Vec<_>>(),
        }))?;
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}

fn start(files: &Files, lab: &Lab, name: &str) -> Result<Hub> {
    let folder = files.folder.join(format!("scale-{name}"));
    let at = folder.display();
    let config = format!(
        "api: {{socket: {at}/hubd.sock}}\nmetrics: {{listen: \"127.0.0.1:{METRICS}\"}}\n\
         state_dir: {at}/state\nruntime_dir: {at}/run\nbpffs: {at}/bpf\ndocuments: {at}/documents\n\
         limits: {{personas: 40000, rules: 1000000}}\n\
         interfaces:\n- {{name: wan0, role: uplink, xdp: off}}\n- {{name: lan0, role: segment, xdp: off}}\n"
    );
    Hub::launch(&files.hubd, folder.clone(), lab, &config)
}

/// Has the daemon read a file of personas, and waits until so many of files are in the kernel.
fn load(hub: &Hub, text: &str, count: u32) -> Result<()> {
    let lines = meter::lines(hub, "apply_ms")?;
    fs::write(hub.folder().join("documents/personas.yaml"), text)?;
    // A daemon that takes long answers that it is busy, and goes on.
    if let Err(error) = hub.request("POST", "/reload", "")
        && !error.to_string().contains(": 503:")
    {
        return Err(error);
    }
    for _ in 0..24_000 {
        stop::check()?;
        // The daemon says so when the kernel holds them.
        if meter::lines(hub, "apply_ms")? > lines {
            let status = hub.get("/status")?;
            if field(&status, "/personas/active").as_u64() >= Some(count.into()) {
                return Ok(());
            }
        }
        thread::sleep(Duration::from_millis(25));
    }
    bail!("the hub does not hold {count} personas after ten minutes: {}", hub.get("/status")?)
}

/// Runs work, and takes the time from its begin until a packet reaches a member.
fn first_packet(lab: &Lab, to: Ipv4Addr, work: impl FnOnce() -> Result<()>) -> Result<Taken> {
    let line = format!("addr add {to}/32 dev lo");
    inside(lab.members.path(), || run(Command::new("ip").args(line.split(' '))))?;
    let socket = |port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("open a socket");
    let sender = inside(lab.peer.path(), || socket(0))?;
    let receiver = inside(lab.members.path(), || socket(MEMBER_PORT))?;
    receiver.set_read_timeout(Some(Duration::from_millis(10)))?;
    thread::scope(|scope| {
        let arrival = scope.spawn(move || timed(|| arrive(&sender, &receiver, to)));
        work()?;
        let (arrived, time) = arrival.join().map_err(|_panic| anyhow::anyhow!("the sender panicked"))?;
        arrived?;
        Ok(Taken { title: String::new(), wall: vec![time.as_secs_f64() * 1e3], cpu: None })
    })
}

/// Sends until something arrives.
fn arrive(sender: &UdpSocket, receiver: &UdpSocket, to: Ipv4Addr) -> Result<()> {
    for _ in 0..60_000 {
        stop::check()?;
        // Refused until the hub has the range: there is no route.
        drop(sender.send_to(b"first", (to, MEMBER_PORT)));
        if receiver.recv(&mut [0; 64]).is_ok() {
            return Ok(());
        }
    }
    bail!("no packet arrived in ten minutes")
}

fn posts(hub: &Hub, title: &str, count: u32, turn: u32) -> Result<Taken> {
    say("bench", title);
    let name = if turn == 0 { "first" } else { "second" };
    repeat(hub, title, count, |index| {
        let body = json!({
            "name": format!("{name}-{index}"), "ip_range": format!("10.{}.{index}.0/24", 200 + turn),
            "security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}],
        });
        let answer = hub.request("POST", "/personas", &body.to_string())?;
        if field(&answer, "/state") != "active" {
            bail!("the persona is not active: {answer}");
        }
        Ok(())
    })
}

/// Takes the time of each call, and the daemon's CPU time of all, with what they leave to be done.
fn repeat(hub: &Hub, title: &str, count: u32, mut call: impl FnMut(u32) -> Result<()>) -> Result<Taken> {
    let before = process_ms(hub)?;
    let mut wall = Vec::new();
    for index in 0..count {
        stop::check()?;
        let (done, time) = timed(|| call(index));
        done?;
        wall.push(time.as_secs_f64() * 1e3);
    }
    thread::sleep(Duration::from_millis(500));
    let cpu = (process_ms(hub)? - before) / f64::from(count);
    Ok(Taken { title: title.to_owned(), wall, cpu: Some(cpu) })
}

/// Reads all metrics; returns how many bytes they are.
fn scrape() -> Result<u64> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, METRICS)).context("connect to the metrics")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("the metrics are not to be had");
    }
    Ok(answer.len() as u64)
}
