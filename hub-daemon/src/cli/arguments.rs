//! The arguments of hubctl.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::candidate::TryAsked;
use super::doctor::DoctorAsked;
use super::dump::DumpAsked;
use super::exit::TABLE;
use super::experiment::ExperimentVerb;
use super::interface::InterfaceVerb;
use super::lists::{QuarantineVerb, SetVerb};
use super::personality::PersonalityVerb;
use super::top::TopAsked;
use super::trace::TraceAsked;
use super::why::Asked;
use crate::inputs::server::DEFAULT_SOCKET;

/// Control a running hub
#[derive(Debug, Parser)]
#[command(name = "hubctl", version, after_help = TABLE, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// How to reach the hub, and how to show its answers.
#[derive(Clone, Debug, Args)]
pub(super) struct Connection {
    /// The hub's unix socket
    #[arg(long, global = true, env = "HUB_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,
    /// Reach the hub over TCP instead: http://HOST:PORT or https://HOST:PORT
    #[arg(long, global = true, env = "HUB_URL")]
    pub(super) url: Option<String>,
    /// File with the bearer token
    #[arg(long, global = true, env = "HUB_TOKEN_FILE", value_name = "PATH")]
    pub(super) token_file: Option<PathBuf>,
    /// CA of the hub's certificate, PEM
    #[arg(long, global = true, env = "HUB_CA", value_name = "PATH")]
    pub(super) ca: Option<PathBuf>,
    /// Certificate to show to the hub, PEM
    #[arg(long, global = true, env = "HUB_CERT", value_name = "PATH", requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// Key of that certificate, PEM
    #[arg(long, global = true, env = "HUB_KEY", value_name = "PATH", requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// Form of the answer; personas in yaml are documents as `persona create -f` takes them
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Same as --output json
    #[arg(long, global = true)]
    json: bool,
}

impl Connection {
    /// The form that was asked for.
    pub(super) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// For programs, as the API gives it
    Json,
    /// For files
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show the hub's own condition: personas, conditions, programs, tables
    Status,
    /// List this hub and the others of `nodes` with what is free
    Node,
    /// List, show, create, edit, extend or delete personas
    #[command(subcommand)]
    Persona(PersonaVerb),
    /// Keep, list, show or delete personalities; switch interfaces to them, revert, confirm, cancel
    #[command(subcommand)]
    Personality(PersonalityVerb),
    /// Create, list, show or delete the records of interfaces that have personalities
    #[command(subcommand)]
    Interface(InterfaceVerb),
    /// Switch a part of some interfaces to another personality, and measure both parts
    #[command(subcommand)]
    Experiment(ExperimentVerb),
    /// Tell how great a threat is, for interfaces that have a personality by level; without a level, show it
    ThreatLevel {
        /// The level
        level: Option<String>,
        /// Only this interface, by the name of its record; may be given several times
        #[arg(long = "interface", value_name = "NAME", requires = "level")]
        interfaces: Vec<String>,
    },
    /// List live connections
    Flows {
        /// Only those of this persona
        persona: Option<String>,
        /// Most connections to list
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Show counters of a persona, or the totals of the data path
    Counters {
        /// Name or id
        persona: Option<String>,
    },
    /// List alerts: thresholds, and where they stand
    Alerts,
    /// Show dropped and logged packets, changes and alerts as they happen
    Events(EventsAsked),
    /// List pools and how much of them is used
    Pools,
    /// Remove what is the hub's in the kernel and belongs to no persona
    Gc {
        /// Only list it
        #[arg(long)]
        dry_run: bool,
    },
    /// Ask what the data path would do with a packet, and why: exit code 0 if it passes, 1 if not
    Why(Asked),
    /// Show rates, drops and connections of personas, busiest first, drawn anew
    Top(TopAsked),
    /// Show packets with their verdicts as they happen, also those of established connections
    Trace(TraceAsked),
    /// Look at the machine as the hub needs it, and say what to do; works with the daemon dead
    Doctor(DoctorAsked),
    /// Write what is needed to find a fault from afar into one file, without secrets; works with the daemon dead
    SupportDump(DumpAsked),
    /// Check documents without a daemon; prints every error with its place
    Check {
        /// Files, or folders of .yaml files
        #[arg(required = true, value_hint = ValueHint::AnyPath)]
        paths: Vec<PathBuf>,
    },
    /// Show what `apply` would change
    Plan,
    /// Create or replace personas from files as one change; without files, read the documents folder and
    /// make it what the hub wants, as SIGHUP does
    Apply {
        /// YAML files of personas, which the API then owns
        #[arg(value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// Take the change back after this long, as 120s, unless `hubctl confirm` comes in time
        #[arg(long, value_name = "TIME", requires = "files")]
        confirm: Option<String>,
    },
    /// Keep the change that waits for confirmation
    Confirm,
    /// Take back the change that waits for confirmation
    Revert,
    /// Remove the hub's programs, routes, rules and interfaces; works with the daemon dead
    Down {
        /// Where the BPF file system is mounted
        #[arg(long, default_value = "/sys/fs/bpf", value_name = "PATH")]
        bpffs: PathBuf,
        /// Where the daemon keeps its lock and the switches of before
        #[arg(long, default_value = "/run/hub", value_name = "PATH")]
        runtime_dir: PathBuf,
        /// Where the daemon keeps its state, and the name servers of before
        #[arg(long, default_value = "/var/lib/hub", value_name = "PATH")]
        state_dir: PathBuf,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages
    Man {
        /// Existing folder
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PersonaVerb {
    /// List personas
    List(ListAsked),
    /// Show one persona
    Show {
        /// Name or id
        persona: String,
    },
    /// Create personas from a file, or one from flags
    Create(Box<CreateAsked>),
    /// Edit a definition in $VISUAL or $EDITOR
    Edit {
        /// Name or id
        persona: String,
    },
    /// Move the end of a persona
    Extend {
        /// Name or id
        persona: String,
        #[command(flatten)]
        end: NewEnd,
    },
    /// Create a persona like another one
    Clone {
        /// Name or id of the one that is there, alive or a template
        persona: String,
        /// Name of the new one
        name: String,
        /// Field that is to be different, as YAML; may be given several times: --set ttl=4h
        #[arg(long, value_name = "FIELD=VALUE")]
        set: Vec<String>,
    },
    /// List templates, or show one
    Template {
        /// Its name
        name: Option<String>,
    },
    /// Create a persona of a template
    FromTemplate {
        /// Name of the template
        template: String,
        /// Name of the persona
        name: String,
        /// Field that is to be different, as YAML; may be given several times: --set ttl=4h
        #[arg(long, value_name = "FIELD=VALUE")]
        set: Vec<String>,
    },
    /// Try a definition beside the live one: what it would judge differently, nothing decided
    Try(TryAsked),
    /// List or change what sets hold at run time
    #[command(subcommand)]
    Set(SetVerb),
    /// List, add or lift addresses that a persona does not talk to
    #[command(subcommand)]
    Quarantine(QuarantineVerb),
    /// Delete personas
    Delete {
        /// Let connections that exist go on for so long, at most 5m
        #[arg(long, value_name = "TIME")]
        drain: Option<String>,
        /// Names or ids
        #[arg(required = true)]
        personas: Vec<String>,
    },
}

/// Which personas to list.
#[derive(Debug, Args)]
pub(super) struct ListAsked {
    /// pending, provisioning, active, expiring, expired, deleting or failed
    #[arg(long)]
    pub(super) state: Option<String>,
    /// api or file
    #[arg(long)]
    pub(super) origin: Option<String>,
    /// Label that the persona has; may be given several times
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub(super) labels: Vec<String>,
    /// Go on with what becomes of them, one line each
    #[arg(short, long)]
    pub(super) watch: bool,
}

/// A new persona, from a file or from flags.
#[derive(Debug, Args)]
#[group(id = "definition", required = true, args = ["file", "name"])]
pub(super) struct CreateAsked {
    /// YAML or JSON with one or several documents; - is standard input
    #[arg(short, long, conflicts_with = "name", value_hint = ValueHint::FilePath)]
    pub(super) file: Option<PathBuf>,
    /// Unique name
    pub(super) name: Option<String>,
    /// Template that everything else is taken from
    #[arg(long, value_name = "NAME")]
    pub(super) template: Option<String>,
    /// Prefix in CIDR notation; may be given several times
    #[arg(long, value_name = "PREFIX")]
    pub(super) ip_range: Vec<String>,
    /// Protocol that may pass at all; may be given several times
    #[arg(long = "protocol", value_name = "NAME")]
    pub(super) protocols: Vec<String>,
    /// Rule, first match wins: allow:tcp/80, deny:udp/53, reject:tcp/8000-8080, log:icmp
    #[arg(long = "rule", value_name = "ACTION:PROTOCOL[/PORT]")]
    pub(super) rules: Vec<String>,
    /// Bits per second, as 100Mbps
    #[arg(long)]
    pub(super) bandwidth: Option<String>,
    /// Longest queueing delay that the hub may add, as 50ms
    #[arg(long)]
    pub(super) latency: Option<String>,
    /// Existing interface whose traffic belongs to it; may be given several times
    #[arg(long = "interface", value_name = "NAME")]
    pub(super) interfaces: Vec<String>,
    /// Persona it may talk to; may be given several times
    #[arg(long = "peer", value_name = "NAME")]
    pub(super) peers: Vec<String>,
    /// Label; may be given several times
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub(super) labels: Vec<String>,
    /// Hub that it lives on
    #[arg(long, value_name = "NAME", conflicts_with_all = ["node_labels", "choose"])]
    pub(super) node: Option<String>,
    /// Label that the gateways which it lives on have; may be given several times
    #[arg(long = "node-label", value_name = "KEY=VALUE")]
    pub(super) node_labels: Vec<String>,
    /// Let the hub choose one of these gateways; free: the one of which the largest part stays free
    #[arg(long, value_name = "HOW")]
    pub(super) choose: Option<String>,
    /// Life from here on, as 4h or 2d12h
    #[arg(long, conflicts_with = "until")]
    pub(super) ttl: Option<String>,
    /// When it ends, as 2030-12-31T23:59:59Z
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
}

/// When a persona shall end.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct NewEnd {
    /// Life from here on, as 4h or 2d12h
    #[arg(long)]
    pub(super) ttl: Option<String>,
    /// When it ends, as 2030-12-31T23:59:59Z
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<jiff::Timestamp>,
}

/// Which events to show.
#[derive(Debug, Args)]
pub(super) struct EventsAsked {
    /// Go on; without it, ends after a second without events
    #[arg(short, long)]
    pub(super) follow: bool,
    /// End after this many
    #[arg(short = 'n', long)]
    pub(super) count: Option<u64>,
    /// packet, change, switch or alert
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) kind: Option<String>,
    /// Only events about this persona
    #[arg(long)]
    pub(super) persona: Option<String>,
    /// Show the first bytes of packets, from the IP header on
    #[arg(long)]
    pub(super) headers: bool,
}
