//! Starts the daemon: configuration, lock, kernel side, state, inputs, and the end by a signal.

mod engine;
mod ground;
mod past;
mod signals;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::ground::{capacities, clsact_advice, lock, on_its_own};
use self::past::restored;
use self::signals::{Signals, received};
use super::applier::Applier;
use super::documents;
use super::log::Log;
use super::owner::{Channels, Owner};
use super::{measurer, observer};
use crate::document::hub;
use crate::document::snippet::Diagnostic;
use crate::document::text;
use crate::inputs::datapath::Datapath as Readable;
use crate::inputs::reload::{ReloadMode, ReloadRequest};
use crate::inputs::server::{self, ListenError, TcpOptions, TlsOptions};
use crate::inputs::trace::Tracer;
use crate::inputs::{HubHandle, rest};
use crate::kernel::attach::Hook;
use crate::kernel::clock::Clock;
use crate::kernel::collect::Collector;
use crate::kernel::events::Events;
use crate::kernel::load::{self, LoadError};
use crate::kernel::monitor::{self, Monitor};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::kernel::queues::pacer::{self, PacerError};
use crate::kernel::reader::{ReadError, Reader};
use crate::model::config::Config;
use crate::outputs::alerts::watch::Watcher;
use crate::outputs::stats::ReconcileStats;
use crate::outputs::switches::SwitchLog;
use crate::outputs::{metrics, names};
use crate::reconcile::Tracked;
use crate::store::{Store, StoreError};
use crate::tables::datapath::{Datapath, MapFault};
use crate::tables::network::Network;
use crate::tables::pins::Pins;
use crate::tables::resolvers::Roots;
use crate::view::Snapshot;

/// Requests that wait for their turn before senders wait.
const QUEUE: usize = 64;
/// Events kept for slow followers.
const EVENTS: usize = 4_096;
/// What systemd gives a start from each sign of life on, if its own limit is over by then.
const START: Duration = Duration::from_mins(1);

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Diagnostic>),
    /// Another hub runs here.
    #[error("another hubd holds {0}: stop it, or give this one its own `runtime_dir` and `bpffs`")]
    Running(PathBuf),
    /// A folder cannot be used.
    #[error("{path}: {source}", path = .path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Packets cannot be made to wait as asked.
    #[error(transparent)]
    Pacer(#[from] PacerError),
    /// The data path cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map is not as it should be.
    #[error(transparent)]
    Map(#[from] MapFault),
    /// A map cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The state is of another version, or cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Netlink does not answer.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The runtime cannot be set up.
    #[error("set up signals and threads: {0}")]
    Runtime(#[from] io::Error),
}

/// Reads the configuration; without a file, every default.
pub fn config(path: Option<&Path>) -> Result<Config, StartError> {
    let Some(path) = path else { return Ok(Config::default()) };
    let text = fs::read(path).map_err(|error| StartError::Config(vec![hub::unreadable(path, &error)]))?;
    let text = text::decode(path, text).map_err(StartError::Config)?;
    hub::parse(path, &text).map_err(StartError::Config)
}

/// Runs until SIGTERM or SIGINT; `file` is read again on SIGHUP, interfaces go back on
/// SIGUSR1. The data path stays as it is: `hubctl down` takes it away.
pub async fn run(mut config: Config, file: Option<PathBuf>, log: Log) -> Result<(), StartError> {
    log.set(config.log);
    // First of all: a signal that comes while the hub starts must wait, not kill.
    let mut signals = Signals::new()?;
    let _lock = lock(&config.runtime_dir)?;
    if config.qos.paces() {
        pacer::probe()?;
    }
    // What another version stored ends this start before anything is changed.
    let mut store = Store::new(&config.state_dir);
    let stored = store.load()?;
    let mounted = load::ensure_bpffs(&config.bpffs)?;
    if mounted {
        tracing::info!(path = %config.bpffs.display(), "mounted a BPF file system");
    }
    let capacities = capacities(&config.limits);
    let loaded = load::load(&config.bpffs, &capacities)?;
    let (pins, is_anew, cold_start) = (loaded.pins.clone(), loaded.is_anew, loaded.cold_start.clone());
    tracing::info!(adopted = loaded.adopted, pins = %pins.display(), "data path loaded");
    if let Some(why) = &cold_start {
        tracing::warn!(why, "not all of an earlier run goes on");
    }

    let clock = Clock::calibrate(&pins)?;
    let hook = Hook::choose(config.tc_hook);
    tracing::info!(tc = hook.name(), "hook of the TC programs");
    let mut datapath = Datapath::new(loaded, &capacities, hook)?;
    if is_anew {
        datapath.loose_tcp_for(config.loose_tcp, &clock);
    }
    let applier = Applier {
        network: Network::open(&config.runtime_dir, Roots::of_machine(&config.state_dir))?,
        datapath,
        leftovers: Tracked::new(Pins::new(&config.bpffs)),
        netlink: Netlink::open()?,
        collector: Collector::open(&pins)?,
        clock,
        pins: pins.clone(),
        hurry: Arc::default(),
        sweep_at: None,
    };

    let mut hub = restored(&mut config, &mut store, stored)?;
    tracing::info!(engine = config.qos.name(), "engine of bandwidths");
    hub.set_condition("ColdStart", cold_start);
    hub.set_condition("ClsactFilters", (hook == Hook::Clsact).then(|| clsact_advice(config.tc_hook)));

    let own = applier.network.ports();
    let (handle, watcher, channels, receivers) = wire(&config, &pins, applier)?;
    let (closing, closed) = watch::channel(false);
    let listeners = listen(&config, &handle, &closed)?;
    let helpers = tell_names(&config, &handle, receivers.conditions);
    let owner = Owner::new(hub, store, channels, &handle);
    let mut owner = on_its_own(owner, closed.clone())?;
    let documents = tokio::spawn(documents::serve(
        documents::Configuration { used: config.clone(), file, log },
        handle.clone(),
        receivers.reloads,
        receivers.refused,
    ));
    let monitor = tokio::spawn(watch_kernel(receivers.changes, own));
    let events = Events::open(&pins, handle.snapshot.clone(), handle.tracer.deliveries())?;
    let follow = tokio::spawn(events.run(handle.events.clone()));
    let alerts = tokio::spawn(watcher.run());
    let measurer = tokio::spawn(measurer::measure(handle.clone()));
    let observer = tokio::spawn(observer::observe(handle.clone(), config.runtime_dir.clone()));

    supervise(&handle, &mut owner, &mut signals).await?;

    closing.send_replace(true);
    // It ends by itself.
    drop(owner.await);
    for task in listeners {
        // A panic in a listener was logged when it happened.
        drop(task.await);
    }
    documents.abort();
    monitor.abort();
    follow.abort();
    for helper in helpers {
        helper.abort();
    }
    alerts.abort();
    measurer.abort();
    observer.abort();
    Ok(())
}

/// Reads the documents and says when the kernel holds them. Waits for a signal or the death of the owner; reloads on
/// SIGHUP, reverts on SIGUSR1, keeps the watchdog and, as long as a start goes on, the limit of starts.
async fn supervise(
    handle: &HubHandle,
    owner: &mut oneshot::Receiver<()>,
    signals: &mut Signals,
) -> Result<(), StartError> {
    let mut ready = handle.snapshot.clone();
    let (mut read, mut told) = (false, false);
    let mut first = pin!(reload(handle));
    let watchdog = sd_notify::watchdog_enabled().map_or(Duration::from_secs(10), |period| period / 3);
    let mut alive = tokio::time::interval(watchdog);
    let mut heard = 0;
    loop {
        tokio::select! {
            () = received(&mut signals.terminate) => break,
            () = received(&mut signals.interrupt) => break,
            () = received(&mut signals.hangup) => reload(handle).await,
            () = received(&mut signals.revert) => signals::revert(handle).await,
            () = &mut first, if !read => read = true,
            result = ready.wait_for(|snapshot| snapshot.ready), if read && !told => {
                told = true;
                if result.is_ok() {
                    tracing::info!("ready");
                    notify(&[sd_notify::NotifyState::Ready]);
                }
            }
            _ = alive.tick() => {
                let beat = handle.reconcile.heartbeat.get();
                if beat != heard {
                    notify(&[sd_notify::NotifyState::Watchdog]);
                    if !told {
                        let more = u32::try_from(START.as_micros()).unwrap_or(u32::MAX);
                        notify(&[sd_notify::NotifyState::ExtendTimeoutUsec(more)]);
                    }
                }
                heard = beat;
            }
            _ = &mut *owner => {
                return Err(StartError::Runtime(io::Error::other("the owner of the hub ended")));
            }
        }
    }
    tracing::info!("ending; the data path stays");
    notify(&[sd_notify::NotifyState::Stopping]);
    Ok(())
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

async fn reload(handle: &HubHandle) {
    let (answer, answered) = oneshot::channel();
    if handle.reload.send(ReloadRequest { mode: ReloadMode::Apply, answer }).await.is_ok() {
        // The outcome is logged and in the status.
        drop(answered.await);
    }
}

struct Receivers {
    reloads: mpsc::Receiver<ReloadRequest>,
    refused: mpsc::Sender<String>,
    conditions: mpsc::Sender<(&'static str, Option<String>)>,
    changes: mpsc::Sender<monitor::Change>,
}

/// Makes the channels and starts the applier's thread.
fn wire(
    config: &Config,
    pins: &Path,
    mut applier: Applier,
) -> Result<(HubHandle, Watcher, Channels, Receivers), StartError> {
    let (command_sender, commands) = mpsc::channel(QUEUE);
    let (snapshot, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    let (events, _) = broadcast::channel(EVENTS);
    let (reload, reloads) = mpsc::channel(QUEUE);
    let (refused, refusals) = mpsc::channel(QUEUE);
    let (condition_sender, conditions) = mpsc::channel(QUEUE);
    let (attachments, attached) = watch::channel(Vec::new());
    let (change_sender, changes) = mpsc::channel(QUEUE);
    let (jobs, work) = blocking::channel();
    let (done_sender, done) = mpsc::unbounded_channel();
    let hurry = Arc::clone(&applier.hurry);
    applier.network.tell(change_sender.clone());
    std::thread::Builder::new()
        .name("applier".to_owned())
        .spawn(move || applier.work(&work, &done_sender))?;
    let reader: Arc<dyn Readable> = Arc::new(Reader::open(pins, snapshots.clone())?);
    let (watcher, alerts) =
        Watcher::new(config, snapshots.clone(), Arc::clone(&reader), events.clone(), command_sender.clone());
    let handle = HubHandle {
        commands: command_sender,
        snapshot: snapshots,
        events: events.clone(),
        datapath: reader,
        reload,
        attachments: attached,
        reconcile: Arc::new(ReconcileStats::default()),
        switches: Arc::new(SwitchLog::new(&config.state_dir)),
        alerts,
        tracer: Arc::new(Tracer::open(pins, jobs.clone())?),
        started: Timestamp::now(),
    };
    let channels = Channels {
        commands,
        changes,
        refused: refusals,
        conditions,
        done,
        jobs,
        hurry,
        snapshot,
        events,
        attachments,
    };
    let receivers = Receivers { reloads, refused, conditions: condition_sender, changes: change_sender };
    Ok((handle, watcher, channels, receivers))
}

/// Listens to the kernel; a socket that fails is opened anew, and everything is read again.
async fn watch_kernel(changes: mpsc::Sender<monitor::Change>, own: BTreeSet<u32>) {
    let mut is_anew = false;
    while !changes.is_closed() {
        let ended = match Monitor::open(monitor::BUFFER_BYTES) {
            // Only now: what happens from here on is told, and what happened before is read.
            Ok(_) if is_anew && changes.send(monitor::Change::Resync).await.is_err() => return,
            Ok(monitor) => monitor.knowing(own.clone()).run(changes.clone()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::error!(%error, "the kernel's messages cannot be read");
        }
        is_anew = true;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn listen(
    config: &Config,
    handle: &HubHandle,
    closed: &watch::Receiver<bool>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    if let Some(folder) = config.api.socket.parent() {
        fs::create_dir_all(folder)
            .map_err(|source| StartError::Folder { path: folder.to_owned(), source })?;
    }
    let api = rest::router(handle.clone());
    let mut tasks = vec![tokio::spawn(server::serve(
        server::bind_unix(&config.api.socket)?,
        api.clone(),
        closed.clone(),
    ))];
    if let Some(tcp) = &config.api.tcp {
        let options = TcpOptions {
            address: tcp.listen,
            token_file: tcp.token_file.clone(),
            tls: tcp.tls.as_ref().map(|tls| TlsOptions {
                certificate: tls.cert.clone(),
                key: tls.key.clone(),
                client_ca: tls.client_ca.clone(),
            }),
        };
        tasks.push(tokio::spawn(server::serve(server::bind_tcp(&options)?, api, closed.clone())));
    }
    let plain = server::bind_plain(config.metrics)?;
    tasks.push(tokio::spawn(server::serve(plain, metrics::router(handle.clone()), closed.clone())));
    Ok(tasks)
}

/// Keeps the hosts file and, where asked for, answers DNS.
fn tell_names(
    config: &Config,
    handle: &HubHandle,
    conditions: mpsc::Sender<(&'static str, Option<String>)>,
) -> Vec<JoinHandle<()>> {
    let path = config.runtime_dir.join("hosts");
    let mut tasks = vec![tokio::spawn(names::keep_hosts(path, handle.snapshot.clone()))];
    if let Some(address) = config.dns {
        tasks.push(tokio::spawn(names::answer_dns(address, handle.snapshot.clone(), conditions)));
    }
    tasks
}
