//! `hub.yaml`, as written. Every key may be left out; the defaults are in [`crate::model::config`].
//! Relative paths begin at the folder of the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alert::{AlertDocument, WebhookDocument};
use super::application::CatalogueEntryDocument;
use super::located::Place;
use super::node::{NodeDocument, OtherNodeDocument};
use super::parts::{OneOrMany, Scalar};
use super::pool::PoolDocument;
use super::read::Reading;
use super::rule::RuleDocument;
use super::snippet::Diagnostic;
use super::source;
use super::subnet::SubnetDocument;
use crate::desired::{Role, TcHook, Xdp};
use crate::model::config::{Config, LogLevel, RoutePriority};
use crate::model::qos::{Engine, Queues};

/// Configuration of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HubDocument {
    /// Where the REST API listens.
    pub api: ApiDocument,
    /// Where Prometheus metrics are served.
    pub metrics: MetricsDocument,
    /// Where names of hosts are answered.
    pub dns: DnsDocument,
    /// Folder of what was created at run time; default `/var/lib/hub`.
    pub state_dir: Option<PathBuf>,
    /// Folder of sockets and locks; default `/run/hub`.
    pub runtime_dir: Option<PathBuf>,
    /// Where the BPF file system is mounted; default `/sys/fs/bpf`.
    pub bpffs: Option<PathBuf>,
    /// Folder of persona documents; default `/etc/hub/documents`.
    pub documents: Option<PathBuf>,
    /// Interfaces that the hub filters on; default none.
    pub interfaces: Vec<HubInterfaceDocument>,
    /// How programs get onto interfaces.
    pub attach: AttachDocument,
    /// What stays reachable on the host whatever the policies say.
    pub failsafe: FailsafeDocument,
    /// Sizes of the data path's tables.
    pub limits: LimitsDocument,
    /// Idle timeouts of connections by state.
    pub timeouts: TimeoutsDocument,
    /// Prefixes by name, for personas with `ip_range: auto`; no other range may overlap them.
    pub pools: BTreeMap<String, PoolDocument>,
    /// Subnets by name, for personalities with `subnet_id`; default none.
    pub subnets: BTreeMap<String, SubnetDocument>,
    /// Applications by name, beside those that the hub knows, for personalities; default none.
    pub applications: BTreeMap<String, CatalogueEntryDocument>,
    /// Where virtual ranges come from, for personas whose range another one has; default `100.64.0.0/10`, and
    /// a random `fd…/48` that the hub keeps.
    pub overlap_pool: Option<OneOrMany<String>>,
    /// Ports of the hub that masqueraded connections get; default `61000-65535`.
    pub masquerade_ports: Option<String>,
    /// How long personas live.
    pub life: LifeDocument,
    /// Which of several personas that take one range (`overlap: override`) has it; default `earliest_expiry`.
    pub route_priority: RoutePriority,
    /// How bandwidths are kept.
    pub qos: EngineDocument,
    /// Which hub of several this is; default: the only one.
    pub node: NodeDocument,
    /// The other hubs, for personas with `gateway: {choose: free}`; default none.
    pub nodes: Vec<OtherNodeDocument>,
    /// How much is logged; default `info`. The environment variable `RUST_LOG` comes first.
    pub log: LogLevel,
    /// Rules that come before every persona's, seen from its members. A deny is final; an allow leaves the
    /// rest to the persona's rules unless it says `final: true`.
    pub baseline: Vec<RuleDocument>,
    /// How long after a cold start TCP may go on in mid-stream, if the rules allow it; default `60s`.
    pub loose_tcp: Option<String>,
    /// Thresholds on the sums over all personas; default none.
    pub alerts: Vec<AlertDocument>,
    /// Who is told of alerts, those of personas too; default nobody.
    pub webhooks: Vec<WebhookDocument>,
}

/// Where the REST API listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApiDocument {
    /// Unix socket; default `/run/hub/hubd.sock`.
    pub socket: Option<PathBuf>,
    /// TCP address and port; needs `token_file`, or `tls` with `client_ca`. Default: none.
    pub listen: Option<String>,
    /// File with the bearer token that TCP clients must present.
    pub token_file: Option<PathBuf>,
    /// Certificates for TCP.
    pub tls: Option<TlsDocument>,
}

/// Certificates for the API on TCP; PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsDocument {
    /// Certificate chain of the server.
    pub cert: PathBuf,
    /// Private key of the server.
    pub key: PathBuf,
    /// Authority whose client certificates are accepted.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// Where metrics are served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsDocument {
    /// TCP address and port; default `127.0.0.1:9178`.
    pub listen: Option<String>,
}

/// Where names of hosts are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DnsDocument {
    /// UDP address and port of a DNS server for `HOST.PERSONA.hub`; default: none.
    pub listen: Option<String>,
}

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubInterfaceDocument {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Pattern of names with `*` and `?`, instead of `name`.
    #[serde(default, rename = "match")]
    pub pattern: Option<String>,
    /// Which side of the hub it is on.
    pub role: Role,
    /// Whether XDP runs there beside TC; default `auto`.
    #[serde(default)]
    pub xdp: Xdp,
    /// What its link carries, like `1Gbps`: personas with `ceil` borrow from what is idle of it. Default:
    /// unknown, so that `ceil` alone limits them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Scalar>,
}

/// How programs get onto interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AttachDocument {
    /// The hook of the TC programs; default `auto`.
    pub tc: TcHook,
}

/// How bandwidths are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineDocument {
    /// What makes packets wait; default `auto`. `edt` needs the queue `fq` in the kernel (`sch_fq`).
    pub engine: Engine,
    /// When interfaces have queues: `needed`, the default, from the first bandwidth on until there is no persona;
    /// `always` as long as there is a persona. In the moment that an interface gets its queue, packets are lost.
    pub queues: Queues,
}

/// What stays reachable on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailsafeDocument {
    /// Ports like `tcp/22`; replaces the default `[tcp/22, udp/68, udp/546]`.
    pub ports: Option<Vec<String>>,
}

/// Sizes of the data path's tables; memory is taken for them at start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsDocument {
    /// Personas at once.
    pub personas: Option<u32>,
    /// Compiled rules over all personas.
    pub rules: Option<u32>,
    /// Established connections.
    pub flows: Option<u32>,
    /// Half-open connections.
    pub opening_flows: Option<u32>,
    /// IPv6 prefixes over all personas.
    pub ipv6_prefixes: Option<u32>,
    /// Pairs of peers.
    pub peers: Option<u32>,
}

/// How long personas live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LifeDocument {
    /// Life of a persona that gives neither `expiration` nor `ttl`; default: it stays.
    pub default_ttl: Option<String>,
    /// Longest life from admission on, extensions included; default: no limit.
    pub max_ttl: Option<String>,
}

/// Idle timeouts of connections, for example `2h`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsDocument {
    /// TCP before the handshake is complete.
    pub opening: Option<String>,
    /// TCP after the handshake.
    pub established: Option<String>,
    /// TCP after a reset or both FINs.
    pub closed: Option<String>,
    /// Others without an answer.
    pub one_way: Option<String>,
    /// Others with an answer.
    pub two_way: Option<String>,
    /// ICMP requests.
    pub icmp: Option<String>,
    /// TCP after the first FIN.
    pub closing: Option<String>,
}

/// Reads `hub.yaml`. An empty file is the default configuration. All errors at once.
pub fn parse(path: &Path, text: &str) -> Result<Config, Vec<Diagnostic>> {
    let mut nodes = source::nodes(path, text)?;
    if let Some(second) = nodes.get(1) {
        let detail = "a second document: hub.yaml holds one; personas go into the `documents` folder";
        return Err(vec![Diagnostic::new(path, text, second.place(), "", detail)]);
    }
    let Some(node) = nodes.pop() else { return Ok(Config::default()) };
    let mut reading = Reading::<HubDocument>::new(node.to_value());
    let folder = path.parent().unwrap_or(Path::new(""));
    let config = reading.document.as_ref().map(|document| Config::new(document, folder));
    let config = match config {
        Some(Ok(config)) => Some(config),
        Some(Err(problems)) => {
            reading.add(problems);
            None
        }
        None => None,
    };
    match config {
        Some(config) if reading.problems.is_empty() => Ok(config),
        _ => Err(source::show_all(path, text, &node, &reading.problems)),
    }
}

/// The error for a file that cannot be read at all.
pub fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic::new(path, "", Place::default(), "", format!("cannot be read: {error}"))
}
