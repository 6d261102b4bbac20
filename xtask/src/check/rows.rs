//! Each row of the requirements names tests, and those tests exist.
//!
//! The table is in `tests/README.md`. What stands there in backquotes and looks like a file of Rust, a folder, or
//! `FILE::TEST` is looked for, and what is found has tests; a test whose name is cut short with `…` must be the
//! beginning of one. No row is left out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::places::Places;

/// The table, from the root of the repository.
const TABLE: &str = "tests/README.md";

/// Where short paths begin.
const ROOTS: [&str; 4] = ["tests/tests", "hub-daemon/src", "hub-daemon/tests", "hub-common/src"];

/// Rows by their letter, and how many there are.
const ROWS: [(char, u32); 2] = [('P', 36), ('S', 32)];

/// What tests begin with.
const TESTS: [&str; 3] = ["#[test]", "#[tokio::test", "proptest!"];

/// A test, or several: a file or folder, and perhaps how the name of one begins.
#[derive(Debug, PartialEq)]
struct Cited<'a> {
    path: &'a str,
    test: Option<&'a str>,
    is_whole: bool,
}

pub(super) fn check(places: &Places) -> Result<()> {
    let path = places.root().join(TABLE);
    let table = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let wrong = faults(places.root(), &table);
    if !wrong.is_empty() {
        bail!("{TABLE}: {}", wrong.join(", "));
    }
    Ok(())
}

/// Rows that are missing, and tests that are.
fn faults(root: &Path, table: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut missing: BTreeSet<(char, u32)> =
        ROWS.iter().flat_map(|(letter, last)| (1..=*last).map(|number| (*letter, number))).collect();
    for (row, text) in table.lines().filter_map(row) {
        let cited: Vec<Cited<'_>> = text.split('`').skip(1).step_by(2).filter_map(cited).collect();
        if !cited.is_empty() {
            missing.remove(&row);
        }
        let lost = cited.iter().filter(|cited| !exists(root, cited));
        wrong.extend(lost.map(|cited| {
            let test = cited.test.map(|test| format!("::{test}")).unwrap_or_default();
            format!("{}{}: there is no `{}{test}`", row.0, row.1, cited.path)
        }));
    }
    wrong.extend(missing.iter().map(|(letter, number)| format!("{letter}{number}: no test is named")));
    wrong
}

/// Number and text of a line that is a row.
fn row(line: &str) -> Option<((char, u32), &str)> {
    let (name, text) = line.strip_prefix("| ")?.split_once(" | ")?;
    let letter = name.chars().next()?;
    let number = name.get(1..)?.parse().ok()?;
    ROWS.iter().any(|(known, _)| *known == letter).then_some(((letter, number), text))
}

/// What a word in backquotes cites; `None` if it is something else.
fn cited(word: &str) -> Option<Cited<'_>> {
    let (path, test) = word.split_once("::").map_or((word, None), |(path, test)| (path, Some(test)));
    let is_file = Path::new(path).extension().is_some_and(|extension| extension == "rs");
    if word.contains(' ') || !(is_file || path.ends_with('/') || test.is_some()) {
        return None;
    }
    let begins = test.and_then(|test| test.strip_suffix('…'));
    Some(Cited { path, test: begins.or(test), is_whole: begins.is_none() })
}

fn exists(root: &Path, cited: &Cited<'_>) -> bool {
    let function = match cited.test {
        Some(test) if cited.is_whole => format!("fn {test}("),
        Some(test) => format!("fn {test}"),
        None => String::new(),
    };
    ROOTS.iter().flat_map(|start| places(root, start, cited.path)).any(|path| has(&path, &function))
}

/// Whether a file has tests and this text, or one of a folder does.
fn has(path: &Path, function: &str) -> bool {
    if path.is_dir() {
        return fs::read_dir(path).into_iter().flatten().flatten().any(|entry| has(&entry.path(), function));
    }
    let is_test = |text: &str| TESTS.iter().any(|mark| text.contains(mark)) && text.contains(function);
    fs::read_to_string(path).is_ok_and(|text| is_test(&text))
}

/// Where a short path can lead below one start: as it is, or to the program of that name.
fn places(root: &Path, start: &str, path: &str) -> [PathBuf; 3] {
    let below = root.join(start);
    [below.join(path), below.join(format!("{path}.rs")), below.join(path).join("main.rs")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_from_other_lines() {
        assert_eq!(
            row("| P9 | bandwidth | `model/qos.rs` |"),
            Some((('P', 9), "bandwidth | `model/qos.rs` |"))
        );
        assert_eq!(row("| R1 | `differential` | 2 |"), None);
        assert_eq!(row("Short paths are below"), None);
    }

    #[test]
    fn rows_without_a_test_are_named() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let row = |letter: char, number: u32| format!("| {letter}{number} | asks | `model/qos.rs` (all) |\n");
        let rows = |but: (char, u32)| {
            let all = ROWS.iter().flat_map(|(letter, last)| (1..=*last).map(|number| (*letter, number)));
            all.filter(|each| *each != but).map(|(letter, number)| row(letter, number)).collect::<String>()
        };
        assert_eq!(faults(root, &rows(('P', 0))), [""; 0]);
        for (letter, last) in ROWS {
            for number in [1, last] {
                let told = faults(root, &rows((letter, number)));
                assert_eq!(told, [format!("{letter}{number}: no test is named")]);
            }
        }
        let untested = rows(('P', 7)) + "| P7 | ranges | Open. |\n";
        assert_eq!(faults(root, &untested), ["P7: no test is named"]);
        let lost = rows(('P', 7)) + "| P7 | ranges | `model/qos.rs::nobody`, `main.rs` |\n";
        assert_eq!(
            faults(root, &lost),
            ["P7: there is no `model/qos.rs::nobody`", "P7: there is no `main.rs`"]
        );
    }

    #[test]
    fn tests_are_told_from_other_words() {
        let one = Cited { path: "e2e_qos.rs", test: Some("a_flood"), is_whole: true };
        assert_eq!(cited("e2e_qos.rs::a_flood"), Some(one));
        let begun = Cited { path: "e2e_qos.rs", test: Some("a_fl"), is_whole: false };
        assert_eq!(cited("e2e_qos.rs::a_fl…"), Some(begun));
        assert_eq!(
            cited("outputs/alerts/"),
            Some(Cited { path: "outputs/alerts/", test: None, is_whole: true })
        );
        assert_eq!((cited("hub.yaml"), cited("cargo xtask soak P2")), (None, None));
    }
}
