//! Makes mistakes in a copy of the model, one at a time: the comparison with the kernel must find them.
//!
//! The copy is a workspace below `target` whose members are links, except for the tests themselves.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{command::cargo, places::Places, say::say};

/// Random hubs that a mistake may hide in.
const WORLDS: &str = "400";
/// At least this part of the mistakes is found, in percent.
const FOUND_PERCENT: usize = 95;
/// What a comparison without a mismatch says.
const NOTHING_FOUND: &str = ", 0 kinds of mismatches";

/// One mistake.
struct Mutant<'a> {
    file: &'a str,
    text: &'a str,
    mistake: &'a str,
}

/// Whether enough of the mistakes are found.
pub(super) fn run(places: &Places) -> Result<bool> {
    let list = fs::read_to_string(places.root().join("tests/mutants/model.txt"))?;
    let mutants = read(&list)?;
    let copy = Copy::new(places)?;
    // Without a mistake nothing may be found, or the rest says nothing.
    if copy.is_found(places)? {
        bail!("the comparison finds a mismatch where no mistake was made");
    }
    let mut found = 0;
    for mutant in &mutants {
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
        let is_found = copy.is_found(places).with_context(|| format!("mistake `{}`", mutant.mistake));
        fs::write(&file, right)?;
        if is_found? {
            found += 1;
        } else {
            say("soak", &format!("not found: {}: {} ~~> {}", mutant.file, mutant.text, mutant.mistake));
        }
    }
    say("soak", &format!("mutants: {found} of {} found", mutants.len()));
    Ok(found * 100 >= mutants.len() * FOUND_PERCENT)
}

fn read(list: &str) -> Result<Vec<Mutant<'_>>> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| mutant(line).with_context(|| format!("not a mutant: {line}"))).collect()
}

fn mutant(line: &str) -> Option<Mutant<'_>> {
    let (file, change) = line.split_once(": ")?;
    let (text, mistake) = change.split_once(" ~~> ")?;
    Some(Mutant { file, text, mistake })
}

/// A workspace with tests of its own.
struct Copy {
    folder: PathBuf,
}

impl Copy {
    fn new(places: &Places) -> Result<Self> {
        let folder = places.target().join("mutants");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(places.root())? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str() {
                Some("tests" | "target" | ".git") | None => {}
                Some(_) => symlink(entry.path(), folder.join(&name))?,
            }
        }
        symlink(places.target(), folder.join("target"))?;
        copy(&places.root().join("tests"), &folder.join("tests"))?;
        Ok(Self { folder })
    }

    /// Whether the comparison finds a mismatch.
    fn is_found(&self, places: &Places) -> Result<bool> {
        let words = ["test", "--quiet", "-p", "hub-tests", "--test", "differential"];
        let mut build = self.cargo(places);
        build.args(words).arg("--no-run");
        let built = build.stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
        if !built.status.success() {
            bail!("it does not compile: {}", String::from_utf8_lossy(&built.stderr));
        }
        let mut test = self.cargo(places);
        test.args(words).args(["--", "--nocapture"]);
        test.env("HUB_TEST_ROOT", "1").env("HUB_DIFFERENTIAL_WORLDS", WORLDS);
        let output = test.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(!said.contains(NOTHING_FOUND))
    }

    fn cargo(&self, places: &Places) -> Command {
        let mut cargo = cargo(places);
        cargo.current_dir(&self.folder).env("RUST_BACKTRACE", "0");
        if let Some(flags) = env::var_os("RUSTFLAGS") {
            cargo.env("RUSTFLAGS", flags);
        }
        cargo
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_are_read() {
        let mutants = read("# why\n\na.rs: x == 1 ~~> x == 2\n").unwrap();
        assert_eq!(mutants.len(), 1);
        assert_eq!((mutants[0].file, mutants[0].text, mutants[0].mistake), ("a.rs", "x == 1", "x == 2"));
        assert!(read("a.rs: nothing").is_err());
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
