//! Round trips of small UDP packets between real stacks: a client and a server of our own on one CPU.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    bound::{bind, enter},
    lab::{FIRST_MEMBER, MEMBER_PORT, PEER, member_address},
    place::Kind,
    sample::{quantile, ratio},
    stacks::{PERSONAS, Stacks},
    stop,
};
use crate::{clock::timed, say::say};

/// Round trips of a visit.
const TRIPS: u32 = 20_000;
/// Round trips before, not looked at.
const WARM: u32 = 200;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two changes of the policy.
const CHURN_PAUSE: Duration = Duration::from_millis(5);

/// Whether the policy is replaced over and over meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Steady,
    Churning,
}

/// Runs of one contender.
#[derive(Debug)]
pub(super) struct Latency {
    pub(super) title: &'static str,
    pub(super) kind: Kind,
    pub(super) policy: Policy,
    /// Microseconds by round.
    pub(super) p50: Vec<f64>,
    pub(super) p99: Vec<f64>,
    /// Changes of the policy meanwhile.
    pub(super) changes: u32,
}

/// Measures.
pub(super) fn measure(places: &[Stacks], rounds: u32) -> Result<Vec<Latency>> {
    let mut runs: Vec<(&Stacks, Latency)> = Vec::new();
    for place in places {
        let policies: &[Policy] =
            if place.hub.is_some() { &[Policy::Steady, Policy::Churning] } else { &[Policy::Steady] };
        for &policy in policies {
            let (title, kind) = (place.title, place.kind);
            let run = Latency { title, kind, policy, p50: Vec::new(), p99: Vec::new(), changes: 0 };
            runs.push((place, run));
        }
    }
    for round in 1..=rounds {
        say("bench", &format!("latency, round {round} of {rounds}"));
        for (place, run) in &mut runs {
            stop::check()?;
            visit(place, run).with_context(|| format!("round trips through {}", place.title))?;
        }
    }
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

fn visit(place: &Stacks, run: &mut Latency) -> Result<()> {
    let (done, changes) = (AtomicBool::new(false), AtomicU32::new(run.changes));
    let trips = thread::scope(|scope| {
        let churn = scope.spawn(|| {
            while run.policy == Policy::Churning && !done.load(Ordering::Relaxed) {
                let Some(hub) = &place.hub else { break };
                hub.churn(PERSONAS, changes.fetch_add(1, Ordering::Relaxed))?;
                thread::sleep(CHURN_PAUSE);
            }
            anyhow::Ok(())
        });
        let trips = round_trips(place);
        done.store(true, Ordering::Relaxed);
        churn.join().unwrap_or_else(|_panic| Err(anyhow!("the churn panicked")))?;
        trips
    })?;
    run.changes = changes.into_inner();
    run.p50.push(quantile(&trips, 0.5));
    run.p99.push(quantile(&trips, 0.99));
    Ok(())
}

/// Microseconds of each round trip.
fn round_trips(place: &Stacks) -> Result<Vec<f64>> {
    let server: SocketAddr = (member_address(FIRST_MEMBER), MEMBER_PORT).into();
    let ready = Barrier::new(2);
    thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let socket = open(place.members(), server);
            ready.wait();
            answer(&socket?)
        });
        let asking = scope.spawn(|| {
            let socket = open(place.peer(), (PEER, 0).into());
            ready.wait();
            ask(&socket?, server)
        });
        let trips = asking.join().unwrap_or_else(|_panic| Err(anyhow!("the client panicked")));
        let answered = answering.join().unwrap_or_else(|_panic| Err(anyhow!("the server panicked")));
        let trips = trips?;
        answered?;
        Ok(trips)
    })
}

fn open(namespace: &std::path::Path, address: SocketAddr) -> Result<UdpSocket> {
    enter(namespace)?;
    bind()?;
    let socket = UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Answers until an empty packet comes.
fn answer(socket: &UdpSocket) -> Result<()> {
    let mut packet = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut packet).context("wait for a question")?;
        let Some(question) = packet.get(..length).filter(|question| !question.is_empty()) else {
            return Ok(());
        };
        socket.send_to(question, from)?;
    }
}

fn ask(socket: &UdpSocket, server: SocketAddr) -> Result<Vec<f64>> {
    socket.connect(server)?;
    let mut packet = [0; 32];
    let mut trips = Vec::new();
    for trip in 0..WARM + TRIPS {
        let (outcome, time) = timed(|| {
            socket.send(&packet)?;
            socket.recv(&mut packet)
        });
        outcome.with_context(|| format!("answer {trip} did not come"))?;
        if trip >= WARM {
            trips.push(time.as_secs_f64() * 1e6);
        }
    }
    socket.send(&[])?;
    Ok(trips)
}

impl Latency {
    /// Median and 99th percentile: medians over rounds, in microseconds.
    pub(super) fn medians(&self) -> [f64; 2] {
        [quantile(&self.p50, 0.5), quantile(&self.p99, 0.5)]
    }

    /// Median and 99th percentile as multiples of another contender's.
    pub(super) fn against(&self, other: &Self) -> [f64; 2] {
        [ratio(&self.p50, &other.p50), ratio(&self.p99, &other.p99)]
    }
}
