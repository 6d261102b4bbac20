//! Makes mistakes in a copy of the model, one at a time: the comparison with the kernel must find them.
//!
//! The copy is a workspace below `target` of its own, so that nothing changes under it in the meantime, and is
//! built in a folder of its own, which stays for the next time.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{command::cargo, copy, places::Places, say::say};

/// Random hubs that a mistake may hide in.
const WORLDS: &str = "400";
/// At least this part of the mistakes is found, in percent.
const FOUND_PERCENT: usize = 95;
/// What a comparison without a mismatch says.
const NOTHING_FOUND: &str = ", 0 kinds of mismatches";

/// What became of a mistake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Found,
    Missed,
    /// The compiler refuses it: it says nothing about the tests.
    DoesNotCompile,
}

/// One mistake.
struct Mutant<'a> {
    file: &'a str,
    text: &'a str,
    mistake: &'a str,
    /// Why nobody could notice it, for those that change nothing.
    equivalent: Option<&'a str>,
}

/// Whether enough of the mistakes are found.
pub(super) fn run(places: &Places) -> Result<bool> {
    let list = fs::read_to_string(places.root().join("tests/mutants/model.txt"))?;
    let mutants = read(&list)?;
    let copy = Copy::new(places)?;
    // Without a mistake nothing may be found, or the rest says nothing.
    match copy.fate(places)? {
        Fate::Missed => {}
        Fate::Found => bail!("the comparison fails where no mistake was made"),
        Fate::DoesNotCompile => bail!("the copy of the tests below `target/mutants` does not compile"),
    }
    let (mut found, mut wrong) = (0, 0);
    for (number, mutant) in (1..).zip(&mutants) {
        let file = copy.folder.join("tests/src/model").join(mutant.file);
        let right = fs::read_to_string(&file)?;
        if right.matches(mutant.text).count() != 1 {
            bail!(
                "`{}` must occur once in {}: the model has changed, change the mutant",
                mutant.text,
                mutant.file
            );
        }
        fs::write(&file, right.replacen(mutant.text, mutant.mistake, 1))?;
        let fate = copy.fate(places).with_context(|| format!("mistake `{}`", mutant.mistake));
        fs::write(&file, right)?;
        let (is_right, word) = match (fate?, mutant.equivalent) {
            (Fate::Found, None) => (true, "found"),
            (Fate::Missed, None) => (false, "not found"),
            (Fate::Missed, Some(_why)) => (true, "equivalent"),
            (Fate::Found, Some(_why)) => (false, "found, but said to be equivalent"),
            (Fate::DoesNotCompile, _) => (false, "does not compile"),
        };
        found += usize::from(word == "found");
        wrong += usize::from(!is_right);
        let total = mutants.len();
        say(
            "soak",
            &format!("{number}/{total} {word}: {}: {} ~~> {}", mutant.file, mutant.text, mutant.mistake),
        );
    }
    let counted = mutants.iter().filter(|mutant| mutant.equivalent.is_none()).count();
    say(
        "soak",
        &format!(
            "mutants: {found} of {counted} found, {} equivalent, {wrong} not as expected",
            mutants.len() - counted
        ),
    );
    Ok(found * 100 >= counted * FOUND_PERCENT)
}

fn read(list: &str) -> Result<Vec<Mutant<'_>>> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| mutant(line).with_context(|| format!("not a mutant: {line}"))).collect()
}

fn mutant(line: &str) -> Option<Mutant<'_>> {
    let (line, equivalent) = match line.split_once(" ~~ equivalent: ") {
        Some((line, why)) => (line, Some(why)),
        None => (line, None),
    };
    let (file, change) = line.split_once(": ")?;
    let (text, mistake) = change.split_once(" ~~> ")?;
    Some(Mutant { file, text, mistake, equivalent })
}

/// A copy of this workspace.
struct Copy {
    folder: PathBuf,
}

impl Copy {
    fn new(places: &Places) -> Result<Self> {
        let folder = copy::of_workspace(places, "mutants")?;
        // The tests look there for the kernel programs.
        symlink(places.target(), folder.join("target"))?;
        Ok(Self { folder })
    }

    /// Whether the comparison finds a mismatch, or else the tests of the model.
    fn fate(&self, places: &Places) -> Result<Fate> {
        let words = ["test", "--quiet", "--test"];
        let mut build = self.cargo(places);
        build.args(words).args(["differential", "--no-run"]);
        if !build.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
            return Ok(Fate::DoesNotCompile);
        }
        let mut test = self.cargo(places);
        test.args(words).args(["differential", "--", "--nocapture"]);
        test.env("HUB_TEST_ROOT", "1")
            .env("HUB_DIFFERENTIAL_WORLDS", WORLDS)
            .env("HUB_DIFFERENTIAL_FIRST", "1");
        let said = test.output()?;
        if !String::from_utf8_lossy(&said.stderr).contains(NOTHING_FOUND) {
            return Ok(Fate::Found);
        }
        let mut test = self.cargo(places);
        let models = test.args(words).arg("model").output()?;
        Ok(if models.status.success() { Fate::Missed } else { Fate::Found })
    }

    fn cargo(&self, places: &Places) -> Command {
        let mut cargo = cargo(places);
        cargo.current_dir(&self.folder).env("RUST_BACKTRACE", "0");
        // To cargo both are the same packages: in one folder each would be built anew after the other.
        cargo.env("CARGO_TARGET_DIR", places.target().join("mutants-build"));
        cargo.env("HUB_EBPF_OBJECT", places.object());
        if let Some(flags) = env::var_os("RUSTFLAGS") {
            cargo.env("RUSTFLAGS", flags);
        }
        cargo
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn mutants_are_read() {
        let mutants = read("# why\n\na.rs: x == 1 ~~> x == 2\n").unwrap();
        assert_eq!(mutants.len(), 1);
        assert_eq!((mutants[0].file, mutants[0].text, mutants[0].mistake), ("a.rs", "x == 1", "x == 2"));
        assert!(read("a.rs: nothing").is_err());
        let mutants = read("a.rs: x ~~> y ~~ equivalent: nobody looks").unwrap();
        assert_eq!((mutants[0].mistake, mutants[0].equivalent), ("y", Some("nobody looks")));
    }

    #[test]
    fn every_mutant_has_its_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let list = fs::read_to_string(root.join("tests/mutants/model.txt")).unwrap();
        for mutant in read(&list).unwrap() {
            let model = fs::read_to_string(root.join("tests/src/model").join(mutant.file)).unwrap();
            assert_eq!(model.matches(mutant.text).count(), 1, "{}: {}", mutant.file, mutant.text);
        }
    }
}
