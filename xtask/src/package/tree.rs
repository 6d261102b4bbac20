//! The files of the package, each where Debian has its place for it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    command::{run, text},
    places::Places,
};

/// Files of the repository that go in as they are: from, to.
const FILES: [(&str, &str); 16] = [
    ("config/hub.yaml", "etc/hub/hub.yaml"),
    ("config/rt_protos.d/hub.conf", "etc/iproute2/rt_protos.d/hub.conf"),
    ("config/hubd.service", "usr/lib/systemd/system/hubd.service"),
    ("config/debian/sysusers.conf", "usr/lib/sysusers.d/hub.conf"),
    ("config/debian/endpoints-by-pid.conf", "usr/share/doc/hub/examples/endpoints-by-pid.conf"),
    ("config/debian/dns.conf", "usr/share/doc/hub/examples/dns.conf"),
    ("config/debian/personalities.conf", "usr/share/doc/hub/examples/personalities.conf"),
    ("config/debian/resolved.rules", "usr/share/doc/hub/examples/resolved.rules"),
    ("config/bird/hub.conf", "usr/share/doc/hub/examples/bird/hub.conf"),
    ("README.md", "usr/share/doc/hub/README.md"),
    ("LICENSE-MIT", "usr/share/doc/hub/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/hub/LICENSE-APACHE"),
    ("config/schema/hub.json", "usr/share/hub/schema/hub.json"),
    ("config/schema/persona.json", "usr/share/hub/schema/persona.json"),
    ("config/schema/personality.json", "usr/share/hub/schema/personality.json"),
    ("config/schema/interface.json", "usr/share/hub/schema/interface.json"),
];

/// Files that an upgrade asks about before it replaces what an administrator changed.
const CONFFILES: &str = "/etc/hub/hub.yaml\n/etc/iproute2/rt_protos.d/hub.conf\n";

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Writes the tree.
pub(super) fn stage(places: &Places, binaries: &Path, root: &Path, architecture: &str) -> Result<()> {
    for (from, to) in FILES {
        put(&places.root().join(from), &root.join(to), 0o644)?;
    }
    fs::create_dir_all(root.join("etc/hub/documents"))?;
    for entry in fs::read_dir(places.root().join("config/examples"))?.flatten() {
        put(&entry.path(), &root.join("usr/share/doc/hub/examples").join(entry.file_name()), 0o644)?;
    }
    for (name, folder) in [("hubd", "usr/sbin"), ("hubctl", "usr/bin"), ("hub-wg", "usr/libexec/hub")] {
        let target = root.join(folder).join(name);
        fs::create_dir_all(root.join(folder))?;
        run(Command::new("strip").arg("-o").arg(&target).arg(binaries.join(name)))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
    }
    generated(&binaries.join("hubctl"), &binaries.join("hubd"), root)?;
    let documents = root.join("usr/share/doc/hub");
    compressed(&fs::read_to_string(places.root().join("CHANGELOG.md"))?, &documents.join("changelog"))?;
    fs::write(documents.join("copyright"), copyright(places)?)?;
    control(places, root, architecture)
}

/// What the programs say of themselves: man pages and completions.
fn generated(hubctl: &Path, hubd: &Path, root: &Path) -> Result<()> {
    let pages = root.join("man");
    fs::create_dir_all(&pages)?;
    run(Command::new(hubctl).arg("man").arg(&pages))?;
    run(Command::new(hubd).arg("man").arg(&pages))?;
    for page in fs::read_dir(&pages)?.flatten() {
        let name = page.file_name().to_string_lossy().into_owned();
        let section = if name.starts_with("hubd") { "8" } else { "1" };
        let (stem, _) = name.rsplit_once('.').context("a man page's name ends in its section")?;
        let folder = root.join("usr/share/man").join(format!("man{section}"));
        fs::create_dir_all(&folder)?;
        let title = |section: &str| format!("\n.TH {stem} {section} ");
        let text = fs::read_to_string(page.path())?.replacen(&title("1"), &title(section), 1);
        compressed(&text, &folder.join(format!("{stem}.{section}")))?;
    }
    fs::remove_dir_all(&pages)?;
    for (shell, to) in [
        ("bash", "usr/share/bash-completion/completions/hubctl"),
        ("zsh", "usr/share/zsh/vendor-completions/_hubctl"),
        ("fish", "usr/share/fish/vendor_completions.d/hubctl.fish"),
    ] {
        let script = text(Command::new(hubctl).args(["completions", shell]))?;
        let target = root.join(to);
        fs::create_dir_all(target.parent().context("a file lies in a folder")?)?;
        fs::write(target, script)?;
    }
    Ok(())
}

fn control(places: &Places, root: &Path, architecture: &str) -> Result<()> {
    let folder = root.join("DEBIAN");
    fs::create_dir_all(&folder)?;
    for script in SCRIPTS {
        put(&places.root().join("config/debian").join(script), &folder.join(script), 0o755)?;
    }
    fs::write(folder.join("conffiles"), CONFFILES)?;
    let symbols = text(Command::new("objdump").arg("-T").arg(root.join("usr/sbin/hubd")))?;
    let libc = newest_glibc(&symbols).context("hubd needs no glibc: packages are made for Debian")?;
    let bytes = text(Command::new("du").args(["-sk", "--exclude=DEBIAN"]).arg(root))?;
    let kibibytes = bytes.split_whitespace().next().unwrap_or("0");
    let control = format!(
        "Package: hub
Version: {version}
Architecture: {architecture}
Section: net
Priority: optional
Maintainer: Hub developers <hub@example.net>
Installed-Size: {kibibytes}
Depends: libc6 (>= {libc}), libgcc-s1, systemd | systemd-standalone-sysusers
Recommends: iproute2
Description: virtual traffic hub
 Makes network personas: temporary network segments with an address range,
 permitted protocols, ordered rules, routes and an end. A daemon takes them from
 YAML files and over REST; eBPF programs judge every packet to and from them.
",
        version = env!("CARGO_PKG_VERSION"),
    );
    fs::write(folder.join("control"), control)?;
    let sums = "cd \"$1\" && find . -type f -not -path './DEBIAN/*' -printf '%P\\0' | sort -z | \
                xargs -0 md5sum >DEBIAN/md5sums";
    run(Command::new("sh").args(["-c", sums, "sh"]).arg(root))
}

/// The newest version among `GLIBC_…` symbols.
fn newest_glibc(symbols: &str) -> Option<String> {
    let version = |word: &str| {
        let numbers = word.trim_matches(['(', ')']).strip_prefix("GLIBC_")?;
        numbers.split('.').map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
    };
    let newest = symbols.split_whitespace().filter_map(version).max()?;
    Some(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

/// Both licences; Debian has the long one at hand.
fn copyright(places: &Places) -> Result<String> {
    let mit = fs::read_to_string(places.root().join("LICENSE-MIT"))?;
    let holder =
        mit.lines().find(|line| line.starts_with("Copyright")).unwrap_or("Copyright: see LICENSE-MIT");
    let body = mit.lines().map(|line| if line.is_empty() { " .".to_owned() } else { format!(" {line}") });
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: {holder}
License: MIT or Apache-2.0

License: MIT
{}

License: Apache-2.0
 The full text is in /usr/share/common-licenses/Apache-2.0 on Debian.
",
        body.collect::<Vec<_>>().join("\n"),
        holder = holder.trim_start_matches("Copyright").trim_start_matches(" (c)").trim(),
    ))
}

/// Writes a text as `FILE.gz`, equal for equal texts.
fn compressed(text: &str, file: &Path) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    run(Command::new("gzip").args(["--no-name", "--best", "--force"]).arg(file))
}

fn put(from: &PathBuf, to: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(|| format!("set {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_decides() {
        let symbols = "DF *UND* (GLIBC_2.9)  getpid\nDF *UND* (GLIBC_2.34) main\nDF (GCC_3.0) unwind";
        assert_eq!(newest_glibc(symbols).as_deref(), Some("2.34"));
        assert_eq!(newest_glibc("(GCC_3.0)"), None);
    }
}
