//! Health checks: questions to the network, asked from where an interface is.
//!
//! All checks of an interface run beside each other on a thread of their own, which enters the interface's network
//! namespace and has a runtime of its own there; no thread of the daemon's runtime ever leaves the hub's namespace.
//! A check is tried once a second until it passed twice in a row, or the phase is over.

mod dns;
mod drops;
pub mod handshake;
mod http;
mod link;
mod origin;
mod ping;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::desired::interfaces::Place;
use crate::kernel::namespace::OpenNamespace;
use crate::model::check::{Check, CheckAsked, CheckResult, INTERVAL, PASSES, PATIENCE, PHASE, TIMEOUT};

pub use origin::Origin;

/// How often and for how long checks are tried.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time between two tries.
    pub interval: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// Tries in a row that must succeed.
    pub passes: u32,
    /// When all is given up.
    pub phase: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { interval: INTERVAL, timeout: TIMEOUT, passes: PASSES, phase: PHASE }
    }
}

/// How long ago the oldest handshake of a tunnel was that counts, by name of the link, peers that must have answered,
/// and how old it may be before they are called; or who did not answer. Asked inside the interface's namespace.
pub type Handshake =
    dyn Fn(&str, &[String], Duration) -> BoxFuture<'static, Result<Duration, String>> + Send + Sync;

/// Has packets of an interface judged: what was seen, or which one is judged otherwise than its rules say.
pub type Rules = dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync;

/// Packets of an interface that were dropped for want of a connection or of rules, ever since.
pub type Drops = dyn Fn() -> BoxFuture<'static, Result<u64, String>> + Send + Sync;

/// What checks need to know that the network does not tell.
#[derive(Clone)]
pub struct Tools {
    /// How often and for how long.
    pub pace: Pace,
    /// Where questions come from.
    pub origin: Origin,
    /// Who is asked for names in URLs; without any the host's own resolver.
    pub servers: Vec<IpAddr>,
    /// How long ago the oldest handshake of a tunnel was that counts.
    pub handshake: Arc<Handshake>,
    /// Whether packets of the interface are judged as its rules say.
    pub rules: Arc<Rules>,
    /// How many packets of the interface were dropped that rules did not mean.
    pub drops: Arc<Drops>,
    /// What the hub's passes leave undone for the interface.
    pub applied: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// Asks all questions at once from where the interface is; one result for each, in the same order.
pub async fn run(asked: &[CheckAsked], place: &Place, tools: &Tools) -> Vec<CheckResult> {
    let checks = asked.to_vec();
    let failed = |reason: &str| {
        let result = |asked: &CheckAsked| CheckResult {
            check: asked.check.to_string(),
            passed: false,
            detail: reason.to_owned(),
            tries: 0,
            counted: None,
        };
        checks.iter().map(result).collect()
    };
    let (answer, answered) = oneshot::channel();
    let (inner, place, tools) = (checks.clone(), place.clone(), tools.clone());
    let started = crate::thread::start("checks", move || {
        // Who asked may have gone.
        drop(answer.send(inside(&inner, &place, &tools)));
    });
    if let Err(error) = started {
        return failed(&format!("no thread could be started: {error}"));
    }
    match answered.await {
        Ok(Ok(results)) => results,
        Ok(Err(reason)) => failed(&reason),
        Err(_) => failed("the thread of checks ended early"),
    }
}

fn inside(checks: &[CheckAsked], place: &Place, tools: &Tools) -> Result<Vec<CheckResult>, String> {
    let work = || -> io::Result<Vec<CheckResult>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let results = checks.iter().map(|check| judge(check, place, tools));
        let results = runtime.block_on(join_all(results));
        // Nothing that was left waiting is waited for.
        runtime.shutdown_background();
        Ok(results)
    };
    let worked = match &place.namespace {
        None => work(),
        Some(namespace) => {
            let namespace = OpenNamespace::open(namespace).map_err(|error| error.to_string())?;
            namespace.run(work).map_err(|error| error.to_string())?
        }
    };
    worked.map_err(|error| format!("checks cannot be run: {error}"))
}

/// Tries a check until it passed often enough in a row, or the phase is over.
async fn judge(asked: &CheckAsked, place: &Place, tools: &Tools) -> CheckResult {
    let mut origin = tools.origin.marked(asked.mark);
    origin.link = Some(place.selector.clone());
    origin.devices = asked.devices.clone().map(|devices| (place.selector.clone(), devices));
    let tools = &Tools { origin, ..tools.clone() };
    let (check, pace) = (&asked.check, &tools.pace);
    let begun = Instant::now();
    let limit = pace.timeout.max(longest(check));
    let (mut tries, mut passes, mut counted) = (0, 0, None);
    loop {
        let tried_at = Instant::now();
        tries += 1;
        let (passed, detail) = match timeout(limit, ask(check, place, tools, limit, &mut counted)).await {
            Ok(Ok(seen)) => (true, format!("{seen} in {:.1} ms", tried_at.elapsed().as_secs_f64() * 1000.0)),
            Ok(Err(reason)) => (false, reason),
            Err(_) => (false, format!("no answer within {limit:?}")),
        };
        passes = if passed { passes + 1 } else { 0 };
        // A try may take longer than what lies between two.
        let next = (tried_at + pace.interval).max(Instant::now());
        let is_hopeless = !asked.waits && passes == 0 && tries >= PATIENCE;
        if passes >= pace.passes || is_hopeless || next.duration_since(begun) >= pace.phase {
            let passed = passes >= pace.passes;
            let detail = if passed || passes == 0 {
                detail
            } else {
                format!("passed {passes} of {} times in a row when time was over", pace.passes)
            };
            return CheckResult { check: check.to_string(), passed, detail, tries, counted };
        }
        sleep(next.saturating_duration_since(Instant::now())).await;
    }
}

/// How long a try takes of those checks that try several times themselves.
fn longest(check: &Check) -> Duration {
    if matches!(check, Check::Dns { .. }) {
        dns::LONGEST
    } else if matches!(check, Check::Handshake { .. }) {
        handshake::LONGEST
    } else {
        Duration::ZERO
    }
}

/// One try: what was seen, or why the check does not pass.
async fn ask(
    check: &Check,
    place: &Place,
    tools: &Tools,
    limit: Duration,
    counted: &mut Option<u64>,
) -> Result<String, String> {
    match check {
        Check::Carrier => link::carrier(&place.selector),
        Check::Addresses(wanted) => link::addresses(&place.selector, wanted),
        Check::Applied => (tools.applied)().map(|()| "nothing left to do".to_owned()),
        Check::Rules => (tools.rules)().await,
        Check::Drops { before } => {
            let rate = drops::rate(&*tools.drops).await?;
            *counted = (*counted).max(Some(rate));
            drops::judge(rate, *before)
        }
        Check::Neighbour(address) => link::neighbour(&place.selector, *address, limit).await,
        Check::Ping(address) => ping::ping(*address, &tools.origin).await,
        Check::Route { target, device } => {
            link::route(&place.selector, *target, device.as_deref(), &tools.origin)
        }
        Check::Dns { server, name } => dns::check(*server, name, &tools.origin).await,
        Check::Handshake { link, peers, within } => {
            let age = (tools.handshake)(link, peers, *within).await?;
            Ok(format!("handshake {} s ago, seen", age.as_secs()))
        }
        Check::Tcp(to) => match tools.origin.connect(*to).await {
            Ok(_) => Ok("connected".to_owned()),
            Err(error) => Err(format!("{to} does not take connections: {error}")),
        },
        Check::Http(page) => http::get(page, &tools.servers, &tools.origin).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::interfaces::Selector;

    #[tokio::test(start_paused = true)]
    async fn who_never_answers_is_given_up_when_the_phase_is_over() {
        let silent = |_: &str, _: &[String], _: Duration| -> BoxFuture<'static, Result<Duration, String>> {
            Box::pin(async {
                sleep(Duration::from_secs(6)).await;
                Err("nobody".to_owned())
            })
        };
        let tools = Tools {
            pace: Pace::default(),
            origin: Origin::default(),
            servers: Vec::new(),
            handshake: Arc::new(silent),
            rules: Arc::new(|| Box::pin(async { Ok(String::new()) })),
            drops: Arc::new(|| Box::pin(async { Ok(0) })),
            applied: Arc::new(|| Ok(())),
        };
        let place = Place { namespace: None, selector: Selector::Name("eth0".into()) };
        let check =
            Check::Handshake { link: "wg0".into(), peers: Vec::new(), within: Duration::from_mins(3) };
        let begun = Instant::now();
        let result = judge(&CheckAsked::new(check.clone(), true), &place, &tools).await;
        assert_eq!((result.passed, result.detail.as_str(), result.tries), (false, "nobody", 4));
        assert!(begun.elapsed() < PHASE + handshake::LONGEST, "{:?}", begun.elapsed());
        let result = judge(&CheckAsked::new(check, false), &place, &tools).await;
        assert_eq!(result.tries, PATIENCE, "nobody depends on it");
    }
}
