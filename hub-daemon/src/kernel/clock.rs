//! Ticks and time: the programs count `bpf_jiffies64`, people think in time stamps.
//!
//! User space cannot read the tick, so a tiny program does, and from then on ticks follow the clock. A tick
//! does not pass while the machine sleeps, so a value goes stale then: calibrate again after that, and where
//! precision matters. The only file that reads clocks; the arithmetic is apart from the reading.

use std::path::Path;
use std::time::Duration;

use aya::maps::{Array, MapData};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::time::ClockId;

use super::maps::{self, from_program};
use super::reader::ReadError;

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;
/// A frame for a program that does not look at it.
const FRAME: [u8; 64] = [0; 64];
/// How often the wall clock and the boot clock are read together; the closest pair counts.
const READINGS: usize = 4;

/// Which tick it was at one moment, and how long a tick is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    tick: u64,
    boot_ns: u64,
    tick_ns: u64,
}

/// The wall clock and the boot clock at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    real_ns: i128,
    boot_ns: u64,
}

/// The program that knows the tick, and where it leaves it.
pub struct TickSource {
    program: SchedClassifier,
    answer: Array<MapData, [u64; 2]>,
}

impl TickSource {
    /// Opens the pinned program `prog/hub_clock` and map `CLOCK` below `pins`.
    pub fn open(pins: &Path) -> Result<Self, ReadError> {
        Ok(Self { program: maps::program(pins, "hub_clock")?, answer: maps::array(pins, "CLOCK")? })
    }

    /// Asks which tick it is. Takes a few microseconds.
    pub fn read(&self) -> Result<Clock, ReadError> {
        let failed = |source| ReadError::Map { map: "CLOCK", source };
        let options = TestRunOptions { data_in: Some(&FRAME), ..TestRunOptions::default() };
        self.program
            .test_run(options)
            .map_err(|error| ReadError::Map { map: "hub_clock", source: from_program(error) })?;
        let [tick, boot_ns] =
            self.answer.get(&0, 0).map_err(|error| failed(super::batch::from_map(error)))?;
        let tick_ns = tick_ns().map_err(|errno| failed(errno.into()))?;
        Ok(Clock { tick, boot_ns, tick_ns })
    }
}

impl Clock {
    /// Asks the pinned program below `pins` which tick it is.
    pub fn calibrate(pins: &Path) -> Result<Self, ReadError> {
        TickSource::open(pins)?.read()
    }

    /// A clock that is at `tick` when the boot clock is at `boot_ns`, with a tick of `tick_ns`.
    pub const fn new(tick: u64, boot_ns: u64, tick_ns: u64) -> Self {
        Self { tick, boot_ns, tick_ns }
    }

    /// The tick at a time of the boot clock; the one that has begun for certain.
    pub fn tick_at(&self, boot_ns: u64) -> u64 {
        let elapsed = i128::from(boot_ns) - i128::from(self.boot_ns);
        let ticks = i128::from(self.tick) + elapsed.div_euclid(i128::from(self.tick_ns.max(1)));
        u64::try_from(ticks.max(0)).unwrap_or(u64::MAX)
    }

    /// Time of the boot clock at a tick.
    pub fn boot_ns_at(&self, tick: u64) -> u64 {
        let ahead = i128::from(tick) - i128::from(self.tick);
        let boot_ns = i128::from(self.boot_ns) + ahead * i128::from(self.tick_ns);
        u64::try_from(boot_ns.max(0)).unwrap_or(u64::MAX)
    }

    /// The tick at which the clock was read.
    pub const fn tick(&self) -> u64 {
        self.tick
    }

    /// The tick as of the moment of the call.
    pub fn now(&self) -> u64 {
        self.tick_at(boot_ns())
    }

    /// Ticks in a time, rounded up.
    pub fn ticks(&self, time: Duration) -> u64 {
        let ticks = time.as_nanos().div_ceil(u128::from(self.tick_ns.max(1)));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Seconds in a number of ticks.
    #[expect(clippy::cast_precision_loss, reason = "2^53 ticks are longer than any machine runs")]
    pub fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 * self.tick_ns as f64 / SECOND_NS as f64
    }

    /// The first tick at which nothing may pass any more, so that nothing passes after the deadline by the
    /// wall clock; `u64::MAX` without one. The last two ticks before the deadline are given away at most.
    pub fn deadline_tick(&self, deadline: Option<Timestamp>) -> u64 {
        deadline.map_or(u64::MAX, |deadline| self.deadline_tick_at(deadline, Moment::now()))
    }

    fn deadline_tick_at(&self, deadline: Timestamp, now: Moment) -> u64 {
        let left = deadline.as_nanosecond() - now.real_ns;
        let boot_ns = (i128::from(now.boot_ns) + left).max(0);
        // One tick less, because the kernel counts a tick late where interrupts are off.
        self.tick_at(u64::try_from(boot_ns).unwrap_or(u64::MAX)).saturating_sub(1)
    }
}

/// How far the wall clock is before the boot clock, in nanoseconds; changes only when somebody sets it.
pub fn wall_before_boot() -> i128 {
    let now = Moment::now();
    now.real_ns - i128::from(now.boot_ns)
}

/// The wall clock's time at a time of the boot clock.
pub fn wall_time(boot_ns: u64) -> Timestamp {
    Moment::now().wall_time(boot_ns)
}

impl Moment {
    /// The closest of a few readings, so that deadlines do not jump when the thread is held up between two.
    fn now() -> Self {
        let reading = || {
            let before = boot_ns();
            let real_ns = i128::from(read(ClockId::CLOCK_REALTIME).unwrap_or_default());
            let after = boot_ns();
            (after.saturating_sub(before), Self { real_ns, boot_ns: before })
        };
        let mut best = reading();
        for _ in 1..READINGS {
            let next = reading();
            if next.0 < best.0 {
                best = next;
            }
        }
        best.1
    }

    fn wall_time(self, boot_ns: u64) -> Timestamp {
        let real_ns = self.real_ns + i128::from(boot_ns) - i128::from(self.boot_ns);
        Timestamp::from_nanosecond(real_ns).unwrap_or_default()
    }
}

/// The boot clock in nanoseconds.
pub(crate) fn boot_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME).unwrap_or_default()
}

/// Length of a tick: the resolution of the clock that moves with ticks.
fn tick_ns() -> Result<u64, Errno> {
    let resolution = ClockId::CLOCK_MONOTONIC_COARSE.res()?;
    Ok(nanoseconds(resolution.tv_sec(), resolution.tv_nsec()))
}

fn read(clock: ClockId) -> Result<u64, Errno> {
    let time = clock.now()?;
    Ok(nanoseconds(time.tv_sec(), time.tv_nsec()))
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    seconds.max(0).cast_unsigned() * SECOND_NS + nanoseconds.max(0).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK_NS: u64 = 4_000_000;

    fn clock() -> Clock {
        Clock::new(1_000, 50 * SECOND_NS, TICK_NS)
    }

    #[test]
    fn ticks_follow_the_boot_clock_both_ways() {
        let at = |offset: i64| clock().tick_at((50 * SECOND_NS).saturating_add_signed(offset));
        assert_eq!([at(0), at(3_999_999), at(4_000_000), at(-1)], [1_000, 1_000, 1_001, 999]);
        assert_eq!(clock().tick_at(0), 0, "before the first tick");
    }

    #[test]
    fn durations_round_up_and_come_back() {
        assert_eq!(clock().ticks(Duration::from_secs(30)), 7_500);
        assert_eq!(clock().ticks(Duration::from_nanos(1)), 1);
        assert!((clock().seconds(7_500) - 30.0).abs() < 1e-9);
    }

    #[test]
    fn no_deadline_is_never() {
        assert_eq!(clock().deadline_tick(None), u64::MAX);
    }

    #[test]
    fn deadline_before_the_machine_started_is_past() {
        let now = Moment { real_ns: 1_000_000_000, boot_ns: 50 * SECOND_NS };
        assert!(clock().deadline_tick_at(Timestamp::MIN, now) < 1_000);
    }

    proptest! {
        // The kernel's tick changes at any phase within the calibrated one.
        #[test]
        fn nothing_passes_after_a_deadline(phase in 0..TICK_NS, left in -3_000_000_000i64..100_000_000_000) {
            let now = Moment { real_ns: 1_700_000_000_000_000_000, boot_ns: 51 * SECOND_NS };
            let deadline = Timestamp::from_nanosecond(now.real_ns + i128::from(left)).unwrap();
            let tick = clock().deadline_tick_at(deadline, now);
            let deadline_boot_ns = (51 * SECOND_NS).saturating_add_signed(left);
            let began_ns = 50 * SECOND_NS - phase;
            let kernel = 1_000i64 + (deadline_boot_ns.cast_signed() - began_ns.cast_signed()).div_euclid(TICK_NS.cast_signed());
            let early = kernel - tick.cast_signed();
            prop_assert!((1..=2).contains(&early), "{early} ticks early");
        }
    }
}
