//! Debian's cloud kernels: which can be had, and how one gets below `target/vm`.
//!
//! The lists of this machine's sources are asked, and of the backports beside them. Where a source is comes
//! from apt's own configuration.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::architecture;
use crate::{
    command::{find, run, text},
    places::Places,
    say::say,
};

/// A kernel that can be downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Numbers of its version.
    version: Vec<u32>,
    /// As `uname -r` says it.
    release: String,
    /// Which of [`Lists`] has it.
    source: String,
}

impl fmt::Display for Offer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:<32} {}", self.release, self.source)
    }
}

/// A kernel that was unpacked.
#[derive(Debug)]
pub(super) struct Kernel {
    release: String,
    folder: PathBuf,
    image: PathBuf,
}

impl Kernel {
    /// As `uname -r` says it.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// The file to boot.
    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    /// A folder with `lib/modules`, unpacked and with their list.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Options of apt for one set of package lists.
struct Lists {
    name: String,
    options: Vec<String>,
}

impl Lists {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).args(["-o", "APT::Sandbox::User=root"]);
        command
    }
}

/// All cloud kernels, the oldest first; of each `major.minor` the newest.
pub(super) fn offers(places: &Places) -> Result<Vec<Offer>> {
    if find("apt-get").is_none() || find("dpkg-deb").is_none() {
        bail!("kernels come from Debian's packages: this is neither Debian nor Ubuntu");
    }
    let mut newest: BTreeMap<Vec<u32>, Offer> = BTreeMap::new();
    for lists in all_lists(places)? {
        let pattern = format!("^linux-image-[0-9].*-cloud-{}$", architecture()?);
        let found = text(lists.command("apt-cache").args(["search", "--names-only", &pattern]))?;
        for offer in found.lines().filter_map(|line| offer(line, &lists.name)) {
            let series: Vec<u32> = offer.version.iter().take(2).copied().collect();
            if newest.get(&series).is_none_or(|other| other.version < offer.version) {
                newest.insert(series, offer);
            }
        }
    }
    if newest.is_empty() {
        bail!("no source of apt has cloud kernels: run `apt-get update`");
    }
    Ok(newest.into_values().collect())
}

/// The offer that a user means.
pub(super) fn choose<'a>(offers: &'a [Offer], wanted: &str) -> Result<&'a Offer> {
    let found = if wanted == "newest" {
        offers.last()
    } else {
        offers.iter().rev().find(|offer| {
            let rest = offer.release.strip_prefix(wanted);
            rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
        })
    };
    let known = || offers.iter().map(|offer| offer.release.as_str()).collect::<Vec<_>>().join(", ");
    found.with_context(|| format!("no kernel `{wanted}`: there are newest, {}", known()))
}

/// Downloads and unpacks a kernel unless that was done.
pub(super) fn ready(places: &Places, offer: &Offer) -> Result<Kernel> {
    let folder = places.vm().join("kernels").join(&offer.release);
    if !folder.exists() {
        say("vm", &format!("getting Linux {} from {}", offer.release, offer.source));
        let lists = all_lists(places)?.into_iter().find(|lists| lists.name == offer.source);
        let partial = places.vm().join("kernels").join(format!("{}.partial", offer.release));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        unpack(&lists.context("the lists were read before")?, &offer.release, &partial)?;
        fs::rename(&partial, &folder)?;
    }
    let candidates = [
        folder.join(format!("boot/vmlinuz-{}", offer.release)),
        folder.join(format!("lib/modules/{}/vmlinuz", offer.release)),
    ];
    let image = candidates.into_iter().find(|file| file.exists());
    let image = image.with_context(|| format!("{}: no kernel image", folder.display()))?;
    Ok(Kernel { release: offer.release.clone(), folder, image })
}

/// Kernel and modules into a folder; some releases have a package for each.
fn unpack(lists: &Lists, release: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let names = ["image", "binary", "modules"].map(|part| format!("linux-{part}-{release}"));
    for name in names {
        let known =
            text(lists.command("apt-cache").args(["show", &name])).is_ok_and(|shown| !shown.is_empty());
        if known {
            text(lists.command("apt-get").args(["download", "--quiet", &name]).current_dir(folder))?;
        }
    }
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(folder))?;
            fs::remove_file(entry.path())?;
        }
    }
    // Since Debian 13 everything lies below /usr.
    let merged = folder.join("usr/lib/modules");
    if merged.exists() && !folder.join("lib").exists() {
        fs::create_dir_all(folder.join("lib"))?;
        fs::rename(&merged, folder.join("lib/modules"))?;
    }
    let modules = folder.join("lib/modules").join(release);
    if !modules.exists() {
        bail!("{release}: the packages hold no modules");
    }
    let expand = "find \"$1\" -name '*.ko.xz' -exec xz --decompress {} +";
    run(Command::new("sh").args(["-c", expand, "sh"]).arg(&modules))?;
    let depmod = Command::new("busybox").args(["depmod", "-b"]).arg(folder).arg(release).status()?;
    if !depmod.success() {
        bail!("{release}: the list of modules cannot be made");
    }
    Ok(())
}

/// This machine's lists, then those of the backports that its sources have.
fn all_lists(places: &Places) -> Result<Vec<Lists>> {
    let mut lists = vec![Lists { name: "this machine's sources".to_owned(), options: Vec::new() }];
    let keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
    let Some((codename, uri)) = release()?.filter(|_| keyring.exists()) else {
        return Ok(lists);
    };
    for suite in [format!("{codename}-backports"), "stable-backports".to_owned()] {
        let folder = places.vm().join("apt").join(&suite);
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let source = format!("deb [signed-by={}] {uri} {suite} main\n", keyring.display());
        fs::write(folder.join("sources.list"), source)?;
        let option = |name: &str, file: &str| format!("{name}={}", folder.join(file).display());
        let options = [
            option("Dir::Etc::SourceList", "sources.list"),
            "Dir::Etc::SourceParts=-".to_owned(),
            option("Dir::State::Lists", "lists"),
            option("Dir::Cache", "cache"),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
        let backports = Lists { name: suite, options };
        let is_known = folder.join("lists").read_dir()?.count() > 2;
        if is_known || text(backports.command("apt-get").args(["update", "--quiet"])).is_ok() {
            lists.push(backports);
        }
    }
    Ok(lists)
}

/// Name of this machine's release, and where it comes from.
pub(super) fn release() -> Result<Option<(String, String)>> {
    let targets = text(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    let codename = codename(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    Ok(codename.and_then(|codename| Some((codename.clone(), main_source(&targets, &codename)?))))
}

/// Where the release itself comes from.
fn main_source(targets: &str, codename: &str) -> Option<String> {
    let rows = targets.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?, words.next()?))
    });
    rows.filter(|(_, release, component)| *release == codename && *component == "main")
        .map(|(uri, ..)| uri.to_owned())
        .next()
}

fn codename(os_release: &str) -> Option<String> {
    os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(str::to_owned)
}

/// A line of `apt-cache search`.
fn offer(line: &str, source: &str) -> Option<Offer> {
    let release = line.split_whitespace().next()?.strip_prefix("linux-image-")?;
    let (version, flavour) = release.split_once("-cloud-").unwrap_or((release, ""));
    let numbers = |text: &str| text.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect();
    let version: Vec<u32> = numbers(version);
    // Meta packages like linux-image-6.12-cloud-amd64 have no patch level.
    (version.len() > 2 && !flavour.contains('-')).then(|| Offer {
        version,
        release: release.to_owned(),
        source: source.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_from_meta_packages() {
        let read = |name: &str| offer(&format!("{name} - Linux"), "here").map(|offer| offer.version);
        assert_eq!(read("linux-image-6.1.0-56-cloud-amd64"), Some(vec![6, 1, 0, 56]));
        assert_eq!(read("linux-image-6.12.117+deb12-cloud-amd64"), Some(vec![6, 12, 117]));
        assert_eq!(read("linux-image-6.12-cloud-amd64"), None);
        assert_eq!(read("linux-image-6.1.0-56-cloud-amd64-dbg"), None);
    }

    #[test]
    fn a_version_means_its_newest_release() {
        let offers: Vec<Offer> = ["6.1.0-56-cloud-amd64", "6.12.117+deb12-cloud-amd64"]
            .iter()
            .filter_map(|release| offer(&format!("linux-image-{release} - x"), "here"))
            .collect();
        assert_eq!(choose(&offers, "6.1").unwrap().release, "6.1.0-56-cloud-amd64");
        assert_eq!(choose(&offers, "6.12").unwrap().release, "6.12.117+deb12-cloud-amd64");
        assert_eq!(choose(&offers, "newest").unwrap().release, "6.12.117+deb12-cloud-amd64");
        assert!(choose(&offers, "5.10").unwrap_err().to_string().contains("6.1.0-56"));
    }

    #[test]
    fn the_release_itself_names_the_source() {
        let targets = "one:/debian/ bookworm-updates main\ntwo:/debian/ bookworm main\n";
        assert_eq!(main_source(targets, "bookworm").as_deref(), Some("two:/debian/"));
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
    }
}
