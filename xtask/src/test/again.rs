//! The second try of tests that failed beside others.
//!
//! Tests with a kernel, a wire and a clock can miss a deadline when a busy machine stops them for longer than it
//! leaves room. Such a test runs once more alone, and the end of the run names it. What fails alone is broken; so
//! is everything when more than a few fail, and a test program that ends without saying which test failed.

use super::pool::Ended;

/// Most tests that get a second try.
const MOST: usize = 3;

/// The package of the tests that may run again, by its folder: those against a kernel.
const KERNEL_TESTS: &str = "tests";

/// Whether those that failed may be tried again.
pub(super) fn are_few(failed: &[&Ended<'_>]) -> bool {
    let tests: usize = failed.iter().map(|ended| ended.failed.len()).sum();
    let may = |ended: &&Ended<'_>| {
        ended.program.folder.ends_with(KERNEL_TESTS) && ended.program.is_test && !ended.failed.is_empty()
    };
    tests <= MOST && failed.iter().all(may)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

    use super::*;
    use crate::build::TestProgram;

    fn program(folder: &str, is_test: bool) -> TestProgram {
        let [program, folder] = ["/target/e2e-1", folder].map(Into::into);
        TestProgram { name: "e2e".to_owned(), is_test, program, folder }
    }

    #[test]
    fn only_few_tests_against_a_kernel_are_tried_again() {
        let (kernel, library) = (program("/hub/tests", true), program("/hub/hub-daemon", false));
        let ended = |program, failed| Ended {
            program,
            status: ExitStatus::from_raw(101 << 8),
            failed: vec!["test".to_owned(); failed],
        };
        assert!(are_few(&[&ended(&kernel, 1)]));
        assert!(are_few(&[&ended(&kernel, 1), &ended(&kernel, 2)]));
        assert!(!are_few(&[&ended(&kernel, 0)]), "it ended in the middle");
        assert!(!are_few(&[&ended(&kernel, 2), &ended(&kernel, 2)]));
        assert!(!are_few(&[&ended(&kernel, 1), &ended(&library, 1)]));
    }
}
