//! Variants of the kernel programs: a copy of the workspace with a few texts exchanged, built like the original.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{copy, object, places::Places};

/// The variants, by name.
const LIST: &str = include_str!("variants.txt");

/// One variant.
pub(super) struct Variant {
    pub(super) name: String,
    changes: Vec<Change>,
}

struct Change {
    file: String,
    text: String,
    other: String,
}

/// All variants.
pub(super) fn all() -> Result<Vec<Variant>> {
    read(LIST)
}

impl Variant {
    /// Builds the object of this variant.
    pub(super) fn build(&self, places: &Places) -> Result<PathBuf> {
        let copy = copy::of_workspace(places, "variants")?;
        self.make(&copy).with_context(|| format!("make the variant `{}`", self.name))?;
        let path = places.object().with_file_name(format!("{}.bpf.o", self.name.replace(' ', "-")));
        object::build_copy(places, &copy, &path)?;
        Ok(path)
    }

    fn make(&self, root: &Path) -> Result<()> {
        for Change { file, text, other } in &self.changes {
            let path = root.join("hub-ebpf/src").join(file);
            let before = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            if before.matches(text).count() != 1 {
                bail!("`{text}` must occur once in {file}: the programs have changed, change the variant");
            }
            fs::write(&path, before.replacen(text, other, 1))?;
        }
        Ok(())
    }
}

fn read(list: &str) -> Result<Vec<Variant>> {
    let mut variants: Vec<Variant> = Vec::new();
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("= ") {
            variants.push(Variant { name: name.to_owned(), changes: Vec::new() });
            continue;
        }
        let found = change(line).with_context(|| format!("not a change: {line}"))?;
        variants.last_mut().with_context(|| format!("of no variant: {line}"))?.changes.push(found);
    }
    Ok(variants)
}

fn change(line: &str) -> Option<Change> {
    let (file, change) = line.split_once(": ")?;
    let (text, other) = change.split_once(" ~~>")?;
    Some(Change { file: file.to_owned(), text: text.to_owned(), other: other.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_read() {
        let variants = read("# why\n= one\na.rs: x == 1 ~~> x == 2\nb.rs: y ~~>\n\n= two\n").unwrap();
        assert_eq!(variants.len(), 2);
        let changes: Vec<_> = variants[0].changes.iter().map(|c| [&*c.file, &*c.text, &*c.other]).collect();
        assert_eq!(changes, [["a.rs", "x == 1", "x == 2"], ["b.rs", "y", ""]]);
        assert!(read("a.rs: x ~~> y").is_err() && read("= one\nx").is_err());
    }

    #[test]
    fn every_change_has_its_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for Change { file, text, .. } in all().unwrap().iter().flat_map(|variant| &variant.changes) {
            let source = fs::read_to_string(root.join("hub-ebpf/src").join(file)).unwrap();
            assert_eq!(source.matches(text.as_str()).count(), 1, "{file}: {text}");
        }
    }
}
