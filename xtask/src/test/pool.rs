//! Test programs, several at once: most of them wait for a kernel, a wire or a clock most of the time.
//!
//! A program runs where `cargo test` would run it, in the folder of its package. What it says is shown whole when
//! it ends, so that the words of two do not mix.

use std::{
    io::{Read as _, Write as _, pipe},
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use crate::{build::TestProgram, clock::timed, command, say::say};

/// Programs at once. Two keep two CPUs busy; more make tests late that look at a clock.
const AT_ONCE: usize = 2;

/// Files whose tests measure times and bandwidths: nothing else runs meanwhile.
const ALONE: [&str; 4] = ["e2e_load", "e2e_qos", "e2e_switch_load", "e2e_switch_times"];

/// A program that ended.
pub(super) struct Ended<'a> {
    pub(super) program: &'a TestProgram,
    pub(super) status: ExitStatus,
    /// Names of the tests that failed.
    pub(super) failed: Vec<String>,
}

impl Ended<'_> {
    /// Which tests failed, and where.
    pub(super) fn describe(&self) -> String {
        match self.failed.as_slice() {
            [] => format!("{} ended with {}", self.program.full_name(), self.status),
            tests => format!("{} of {}", tests.join(", "), self.program.full_name()),
        }
    }
}

/// Runs all programs: first several at once, then one by one those that measure.
pub(super) fn run<'a>(
    programs: &'a [TestProgram],
    command: &(impl Fn(&TestProgram) -> Command + Sync),
) -> Result<Vec<Ended<'a>>> {
    let is_alone = |program: &&TestProgram| ALONE.contains(&program.name.as_str());
    let (alone, beside): (Vec<_>, Vec<_>) = programs.iter().partition(is_alone);
    let mut ended = at_once(&beside, AT_ONCE, command)?;
    ended.extend(at_once(&alone, 1, command)?);
    Ok(ended)
}

fn at_once<'a>(
    programs: &[&'a TestProgram],
    most: usize,
    command: &(impl Fn(&TestProgram) -> Command + Sync),
) -> Result<Vec<Ended<'a>>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut ended = Vec::new();
        while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
            ended.push(one(program, command(program))?);
        }
        Ok(ended)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..most).map(|_| scope.spawn(work)).collect();
        let mut ended = Vec::new();
        for thread in threads {
            let part: Result<Vec<_>> =
                thread.join().map_err(|_panic| anyhow!("a thread that ran tests panicked"))?;
            ended.extend(part?);
        }
        Ok(ended)
    })
}

/// Runs one program to its end, and shows what it said.
pub(super) fn one(program: &TestProgram, mut command: Command) -> Result<Ended<'_>> {
    let (ended, took) = timed(|| listen(&mut command));
    let (status, said) = ended.with_context(|| format!("run `{}`", command::line(&command)))?;
    let failed = failures(&said);
    show(program, &said, status, took)?;
    Ok(Ended { program, status, failed })
}

/// Both outputs of a program, in the order of its words.
fn listen(command: &mut Command) -> Result<(ExitStatus, String)> {
    let (mut reader, writer) = pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // This side's ends of the pipe go with the command's settings: else reading never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut said = Vec::new();
    reader.read_to_end(&mut said)?;
    Ok((child.wait()?, String::from_utf8_lossy(&said).into_owned()))
}

fn show(program: &TestProgram, said: &str, status: ExitStatus, took: Duration) -> Result<()> {
    let verdict = if status.success() { "passed" } else { "FAILED" };
    let mut output = std::io::stdout().lock();
    output.write_all(said.as_bytes())?;
    output.flush()?;
    say("test", &format!("{} {verdict} in {:.1} s", program.full_name(), took.as_secs_f64()));
    Ok(())
}

/// Names of the tests that a program says failed.
fn failures(said: &str) -> Vec<String> {
    let name = |line: &str| line.trim().strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned);
    said.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_read() {
        let said = "running 2 tests\ntest a::slow ... FAILED\ntest fast ... ok\n\nfailures:\n    a::slow\n";
        assert_eq!(failures(said), ["a::slow"]);
    }

    #[test]
    fn both_outputs_are_heard_until_the_program_ends() {
        let (status, said) =
            listen(Command::new("sh").args(["-c", "echo out; echo bad >&2; exit 3"])).unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(3), "out\nbad\n"));
    }
}
