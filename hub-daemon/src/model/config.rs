//! The daemon's configuration, checked, with defaults filled in.

mod choices;
mod outside;
mod pattern;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hub_common::flow::{FLOW_STATES, TIMEOUT_SECONDS};
use hub_common::limits;
use ipnet::{IpNet, Ipv4Net};

pub use self::choices::{LogLevel, RoutePriority};
use self::outside::{overlap_pool, ports};
use self::pattern::glob;
use super::application::{self, Defined};
use super::pool::{self, Pool};
use super::problems::Problems;
use super::protocol::{self, Protocol};
use super::subnet::{self, Subnet};
use super::webhook::Webhook;
use super::{
    alert::Alert, bandwidth::Bandwidth, baseline, node::Node, nodes::OtherNode, qos::Queueing, rule::Rule,
};
use super::{life, names, span};
use crate::command::Problem;
use crate::desired::{Role, TcHook, Xdp};
use crate::document::hub::{
    ApiDocument, HubDocument, HubInterfaceDocument, LimitsDocument, TimeoutsDocument,
};

/// Configuration of the daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the REST API listens.
    pub api: Api,
    /// Where metrics are served.
    pub metrics: SocketAddr,
    /// Where names of hosts are answered over DNS.
    pub dns: Option<SocketAddr>,
    /// Folder of what was created at run time.
    pub state_dir: PathBuf,
    /// Folder of sockets and locks.
    pub runtime_dir: PathBuf,
    /// Where the BPF file system is mounted.
    pub bpffs: PathBuf,
    /// Folder of persona documents.
    pub documents: PathBuf,
    /// Interfaces that the hub filters on; the first that fits a name decides.
    pub interfaces: Vec<Interface>,
    /// How the TC programs get onto ports.
    pub tc_hook: TcHook,
    /// Ports of the host that stay reachable: (protocol, port).
    pub failsafe: BTreeSet<(u8, u16)>,
    /// Sizes of the data path's tables.
    pub limits: Limits,
    /// Idle timeouts in seconds by flow state (`hub_common::flow::FLOW_STATES`).
    pub timeout_seconds: [u32; 8],
    /// Where ranges are taken from, by name; ranges that personas name themselves must not overlap these.
    pub pools: BTreeMap<String, Pool>,
    /// Subnets by name, which personalities are in.
    pub subnets: BTreeMap<String, Subnet>,
    /// Applications beside those that the hub knows.
    pub applications: Defined,
    /// How long personas live.
    pub life: life::Limits,
    /// Which of several personas that take one range has it.
    pub route_priority: RoutePriority,
    /// Where virtual ranges come from; a family that is missing has a range that the hub made up.
    pub overlap_pool: Vec<IpNet>,
    /// First and last port for masqueraded connections.
    pub masquerade_ports: (u16, u16),
    /// What makes packets of limited personas wait.
    pub qos: Queueing,
    /// Which hub of several this is.
    pub node: Node,
    /// The other hubs.
    pub nodes: Arc<[OtherNode]>,
    /// How much is logged.
    pub log: LogLevel,
    /// Rules that come before every persona's.
    pub baseline: Vec<Rule>,
    /// How long after a cold start TCP may go on in mid-stream.
    pub loose_tcp: Duration,
    /// Thresholds on the sums over all personas.
    pub alerts: Vec<Alert>,
    /// Who is told of alerts.
    pub webhooks: Vec<Webhook>,
}

/// Where the REST API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Unix socket.
    pub socket: PathBuf,
    /// TCP, never without authentication.
    pub tcp: Option<ApiTcp>,
}

/// The API on TCP: at least one of a token and a client authority is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTcp {
    /// Address and port.
    pub listen: SocketAddr,
    /// File with the bearer token.
    pub token_file: Option<PathBuf>,
    /// Certificates.
    pub tls: Option<Tls>,
}

/// PEM files for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain of the server.
    pub cert: PathBuf,
    /// Private key of the server.
    pub key: PathBuf,
    /// Authority whose client certificates are accepted.
    pub client_ca: Option<PathBuf>,
}

/// Interfaces of one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name, or pattern with `*` and `?`.
    pub pattern: String,
    /// Whether `pattern` is a pattern.
    pub is_glob: bool,
    /// Which side of the hub they are on.
    pub role: Role,
    /// Whether XDP runs there beside TC.
    pub xdp: Xdp,
    /// What its link carries.
    pub bandwidth: Option<Bandwidth>,
}

impl Interface {
    /// Whether it means the interface of this name.
    pub fn fits(&self, name: &str) -> bool {
        if self.is_glob { glob(self.pattern.as_bytes(), name.as_bytes()) } else { self.pattern == name }
    }
}

/// Sizes of the data path's tables, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Personas at once.
    pub personas: u32,
    /// Compiled rules over all personas.
    pub rules: u32,
    /// Established connections.
    pub flows: u32,
    /// Half-open connections.
    pub opening_flows: u32,
    /// IPv6 prefixes over all personas.
    pub ipv6_prefixes: u32,
    /// Pairs of peers.
    pub peers: u32,
}

impl Limits {
    /// Slots of the segment table: room for personas that ended, whose numbers rest.
    pub fn segments(&self) -> u32 {
        let wanted = self.personas.saturating_add(self.personas / 4).next_power_of_two();
        wanted.clamp(limits::SEGMENTS, limits::SEGMENTS_MAX)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            personas: 10_000,
            rules: limits::RULES,
            flows: limits::FLOWS,
            opening_flows: limits::FLOWS_NEW,
            ipv6_prefixes: limits::V6_PREFIXES,
            peers: limits::PEERS,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api: Api { socket: "/run/hub/hubd.sock".into(), tcp: None },
            metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, 9178)),
            dns: None,
            state_dir: "/var/lib/hub".into(),
            runtime_dir: "/run/hub".into(),
            bpffs: "/sys/fs/bpf".into(),
            documents: "/etc/hub/documents".into(),
            interfaces: Vec::new(),
            tc_hook: TcHook::Auto,
            // SSH, and the answers of DHCP servers (RFC 2131, RFC 8415).
            failsafe: BTreeSet::from([(6, 22), (17, 68), (17, 546)]),
            limits: Limits::default(),
            timeout_seconds: TIMEOUT_SECONDS,
            pools: BTreeMap::new(),
            subnets: BTreeMap::new(),
            applications: BTreeMap::new(),
            // RFC 6598: shared address space, which no host outside has.
            overlap_pool: vec![IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10))],
            // Beyond the ports that the kernel gives to the host's own connections.
            masquerade_ports: (61_000, 65_535),
            life: life::Limits::default(),
            route_priority: RoutePriority::default(),
            qos: Queueing::default(),
            node: Node::default(),
            nodes: Arc::default(),
            log: LogLevel::default(),
            baseline: Vec::new(),
            loose_tcp: Duration::from_mins(1),
            alerts: Vec::new(),
            webhooks: Vec::new(),
        }
    }
}

impl Config {
    /// Checks a document that lies in `folder`, which relative paths begin at. Problems carry JSON pointers.
    pub fn new(document: &HubDocument, folder: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let default = Self::default();
        let place = |written: &Option<PathBuf>, default: PathBuf| {
            written.as_ref().map_or(default, |path| folder.join(path))
        };
        let (baseline, alerts) = baseline::watched(&mut problems, document);
        let runtime_dir = place(&document.runtime_dir, default.runtime_dir);
        let config = Self {
            api: api(&mut problems, &document.api, folder, runtime_dir.join("hubd.sock")),
            metrics: listen(&mut problems, "/metrics/listen", document.metrics.listen.as_deref())
                .unwrap_or(default.metrics),
            dns: listen(&mut problems, "/dns/listen", document.dns.listen.as_deref()),
            state_dir: place(&document.state_dir, default.state_dir),
            runtime_dir,
            bpffs: place(&document.bpffs, default.bpffs),
            documents: place(&document.documents, default.documents),
            interfaces: interfaces(&mut problems, &document.interfaces),
            tc_hook: document.attach.tc,
            failsafe: match &document.failsafe.ports {
                Some(ports) => failsafe(&mut problems, ports),
                None => default.failsafe,
            },
            limits: table_sizes(&mut problems, &document.limits),
            timeout_seconds: timeouts(&mut problems, &document.timeouts),
            overlap_pool: match &document.overlap_pool {
                Some(written) => overlap_pool(&mut problems, written),
                None => default.overlap_pool,
            },
            masquerade_ports: match document.masquerade_ports.as_deref() {
                Some(text) => problems.take("/masquerade_ports", ports(text)).unwrap_or_default(),
                None => default.masquerade_ports,
            },
            pools: pool::read(&mut problems, document),
            subnets: subnet::read(&mut problems, &document.subnets),
            applications: application::read(&mut problems, &document.applications),
            life: life::limits(&mut problems, &document.life),
            route_priority: document.route_priority,
            qos: Queueing { engine: document.qos.engine, queues: document.qos.queues, ..Queueing::default() },
            node: Node::new(&mut problems, &document.node),
            nodes: OtherNode::list(&mut problems, document, folder).into(),
            log: document.log,
            baseline,
            loose_tcp: match document.loose_tcp.as_deref() {
                Some("0" | "0s") => Duration::ZERO,
                Some(text) => problems.take("/loose_tcp", span::parse(text)).unwrap_or_default(),
                None => default.loose_tcp,
            },
            alerts,
            webhooks: Webhook::list(&mut problems, &document.webhooks, folder),
        };
        problems.settle(config)
    }
}

fn listen(problems: &mut Problems, pointer: &str, written: Option<&str>) -> Option<SocketAddr> {
    let text = written?;
    let address = text.parse().map_err(|_format| {
        format!("address `{text}`: use an IP address and a port, for example 127.0.0.1:9178 or [::1]:9178")
    });
    problems.take(pointer, address)
}

fn api(problems: &mut Problems, document: &ApiDocument, folder: &Path, socket: PathBuf) -> Api {
    let tls = document.tls.as_ref().map(|tls| Tls {
        cert: folder.join(&tls.cert),
        key: folder.join(&tls.key),
        client_ca: tls.client_ca.as_ref().map(|path| folder.join(path)),
    });
    let client_ca = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if document.listen.is_some() && document.token_file.is_none() && !client_ca {
        let detail = "TCP needs authentication: add `token_file`, or `tls` with `client_ca`, \
                      or use the socket only";
        problems.add("/api/listen", detail);
    }
    let tcp = listen(problems, "/api/listen", document.listen.as_deref());
    Api {
        socket: document.socket.as_ref().map_or(socket, |path| folder.join(path)),
        tcp: tcp.map(|listen| ApiTcp {
            listen,
            token_file: document.token_file.as_ref().map(|path| folder.join(path)),
            tls,
        }),
    }
}

fn interfaces(problems: &mut Problems, written: &[HubInterfaceDocument]) -> Vec<Interface> {
    let mut interfaces = Vec::new();
    for (index, document) in written.iter().enumerate() {
        let base = format!("/interfaces/{index}");
        let (pattern, is_glob) = match (&document.name, &document.pattern) {
            (Some(name), None) => (name.clone(), false),
            (None, Some(pattern)) => (pattern.clone(), true),
            _ => {
                problems.add(base, "give either `name` or `match`");
                continue;
            }
        };
        problems
            .take(&format!("{base}/{}", if is_glob { "match" } else { "name" }), names::interface(&pattern));
        let bandwidth = document.bandwidth.as_ref();
        let bandwidth = bandwidth
            .and_then(|written| problems.take(&format!("{base}/bandwidth"), Bandwidth::parse(written)));
        interfaces.push(Interface { pattern, is_glob, role: document.role, xdp: document.xdp, bandwidth });
    }
    interfaces
}

fn failsafe(problems: &mut Problems, written: &[String]) -> BTreeSet<(u8, u16)> {
    if written.len() > limits::FAILSAFE as usize {
        problems.add("/failsafe/ports", format!("{} ports: use at most {}", written.len(), limits::FAILSAFE));
    }
    let mut ports = BTreeSet::new();
    for (index, text) in written.iter().enumerate() {
        match port(text) {
            Some(port) => _ = ports.insert(port),
            None => problems.add(
                format!("/failsafe/ports/{index}"),
                format!("port `{text}`: use tcp/PORT or udp/PORT, for example tcp/22"),
            ),
        }
    }
    ports
}

fn port(text: &str) -> Option<(u8, u16)> {
    let (name, port) = text.split_once('/')?;
    match Protocol::parse(&name.into()) {
        Ok(Protocol::Number(number)) if number == protocol::TCP || number == protocol::UDP => {
            Some((number, port.parse().ok().filter(|port| *port != 0)?))
        }
        _ => None,
    }
}

fn table_sizes(problems: &mut Problems, document: &LimitsDocument) -> Limits {
    let default = Limits::default();
    let mut size = |name: &str, written: Option<u32>, default: u32, max: u32| {
        let size = written.unwrap_or(default);
        if !(1..=max).contains(&size) {
            problems.add(format!("/limits/{name}"), format!("limit {size}: use 1 to {max}"));
        }
        size
    };
    Limits {
        personas: size("personas", document.personas, default.personas, 100_000),
        rules: size("rules", document.rules, default.rules, 4_194_304),
        flows: size("flows", document.flows, default.flows, 16_777_216),
        opening_flows: size("opening_flows", document.opening_flows, default.opening_flows, 16_777_216),
        ipv6_prefixes: size("ipv6_prefixes", document.ipv6_prefixes, default.ipv6_prefixes, 1_048_576),
        peers: size("peers", document.peers, default.peers, 1_048_576),
    }
}

fn timeouts(problems: &mut Problems, document: &TimeoutsDocument) -> [u32; 8] {
    let mut seconds = TIMEOUT_SECONDS;
    let written = [
        &document.opening,
        &document.established,
        &document.closed,
        &document.one_way,
        &document.two_way,
        &document.icmp,
        &document.closing,
    ];
    for ((slot, name), written) in seconds.iter_mut().zip(FLOW_STATES).zip(written) {
        let Some(text) = written else { continue };
        let pointer = format!("/timeouts/{name}");
        let Some(span) = problems.take(&pointer, span::parse(text)) else { continue };
        match u32::try_from(span.as_secs()) {
            Ok(whole) if (1..=30 * 86_400).contains(&whole) => *slot = whole,
            _ => problems.add(pointer, format!("timeout `{text}`: use 1s to 30d")),
        }
    }
    seconds
}
