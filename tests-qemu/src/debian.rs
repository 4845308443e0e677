// SPDX-License-Identifier: GPL-2.0
//! The Debian archive that this machine uses, and packages of other suites from it.
//!
//! Mirrors are read from apt's own configuration each time: none is known to this program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use crate::{cache, run};

/// The keys that every Debian system trusts its archive by.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Names of suites that tell a Debian archive from others in apt's configuration.
const SUITES: [&str; 8] =
    ["bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"];

/// Address of the archive; `TESSERAFS_DEBIAN_MIRROR` overrides apt's configuration.
pub(crate) fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var("TESSERAFS_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    choose_site(&targets()?, "").context(
        "apt's configuration names no Debian archive; set TESSERAFS_DEBIAN_MIRROR to the address of one",
    )
}

/// The entries of apt's configuration: a line for each suite and component, with the address.
fn targets() -> Result<String> {
    run::capture(run::command("apt-get").args([
        "indextargets",
        "--format",
        "$(RELEASE) $(COMPONENT) $(SITE)",
        "Created-By: Packages",
    ]))
}

/// The site of the first main component of a Debian suite, or of its `part` (`-security`).
fn choose_site(targets: &str, part: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (release, component, site) = (words.next()?, words.next()?, words.next()?);
        let suite = release.strip_suffix(part)?;
        (SUITES.contains(&suite) && component == "main").then(|| site.to_owned())
    })
}

/// How much of a root is made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Variant {
    /// A Debian that works: the essential packages, and apt.
    Minimal,
    /// The files of the packages, with no script of theirs run: what compilers need, in a third of the time.
    Files,
}

/// Makes a Debian of a suite with more packages (separated by commas) in `folder`, which needs root.
///
/// mmdebstrap installs all packages in one run of apt: two to three times as fast as debootstrap, which unpacks and
/// configures the essential ones first.
pub(crate) fn bootstrap(
    folder: &Path,
    suite: &str,
    variant: Variant,
    packages: &str,
    log: &Path,
) -> Result<()> {
    let variant = match variant {
        Variant::Minimal => &["--variant=minbase"][..],
        // Of itself it takes what is named, and what that depends on.
        Variant::Files => &["--variant=extract", "--include=?essential"],
    };
    run::logged(
        run::command("mmdebstrap")
            .args(["--mode=root", "--format=directory"])
            .args(variant)
            .args([&format!("--include={packages}"), &format!("--keyring={KEYRING}"), suite])
            .arg(folder)
            .arg(mirror()?),
        log,
    )
}

/// Unpacks packages of another architecture, and what they depend on, into `folder`: no program of theirs is run.
pub(crate) fn extract(
    folder: &Path,
    suite: &str,
    architecture: &str,
    packages: &str,
    log: &Path,
) -> Result<()> {
    run::logged(
        run::command("mmdebstrap")
            .args(["--mode=root", "--format=directory", "--variant=extract"])
            .args([&format!("--architectures={architecture}"), &format!("--include={packages}")])
            .args([&format!("--keyring={KEYRING}"), suite])
            .arg(folder)
            .arg(mirror()?),
        log,
    )
}

/// Leftovers of apt, which a finished image does not hold.
const LEFTOVERS: [&str; 2] = ["var/cache/apt/archives", "var/lib/apt/lists"];

/// Removes files that a finished image does not hold.
pub(crate) fn clean(root: &Path) -> Result<()> {
    for folder in LEFTOVERS {
        let folder = root.join(folder);
        empty(&folder)?;
        // apt wants it, and makes it if somebody runs it.
        std::fs::create_dir(folder.join("partial"))
            .with_context(|| format!("failed to create a folder in {}", folder.display()))?;
    }
    // An image holds no devices: their numbers differ from machine to machine.
    empty(&root.join("dev"))
}

/// Makes a folder that is empty.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))
}

/// The suite that this machine runs, as `os-release` names it.
pub(crate) fn codename() -> Result<String> {
    codename_of(Path::new("/"))
}

/// The suite that a root holds.
pub(crate) fn codename_of(root: &Path) -> Result<String> {
    // The target of the link `/etc/os-release`.
    let path = root.join("usr/lib/os-release");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .with_context(|| format!("{} names no suite", path.display()))
}

/// Another suite's package lists in a folder of their own: nothing on the machine changes.
pub(crate) struct Suite {
    folder: PathBuf,
    name: String,
    /// Of which architecture its packages are; nothing for this machine's.
    architecture: Option<&'static str>,
}

impl Suite {
    /// Fetches the lists of `name` into `folder`; with `sources`, those of source packages.
    pub(crate) fn fetch(folder: &Path, name: &str, sources: bool) -> Result<Self> {
        let kind = if sources { "deb-src" } else { "deb" };
        Self::fetch_from(folder, name, kind, &[(mirror()?, name.to_owned())], None)
    }

    /// Fetches the lists of `name`, of its updates and, if apt's configuration names an archive of such, of
    /// its security updates.
    pub(crate) fn fetch_updated(folder: &Path, name: &str) -> Result<Self> {
        Self::fetch_updated_for(folder, name, None)
    }

    /// The same, for packages of an architecture, if one is given.
    pub(crate) fn fetch_updated_for(
        folder: &Path,
        name: &str,
        architecture: Option<&'static str>,
    ) -> Result<Self> {
        let mirror = mirror()?;
        let mut suites = vec![(mirror.clone(), name.to_owned()), (mirror, format!("{name}-updates"))];
        let security = "-security";
        suites.extend(choose_site(&targets()?, security).map(|site| (site, format!("{name}{security}"))));
        Self::fetch_from(folder, name, "deb", &suites, architecture)
    }

    /// Fetches the lists of these suites, each with the address of its archive.
    fn fetch_from(
        folder: &Path,
        name: &str,
        kind: &str,
        suites: &[(String, String)],
        architecture: Option<&'static str>,
    ) -> Result<Self> {
        for sub in ["lists/partial", "archives/partial"] {
            std::fs::create_dir_all(folder.join(sub))
                .with_context(|| format!("failed to create {sub} in {}", folder.display()))?;
        }
        let lines: String = suites
            .iter()
            .map(|(site, suite)| format!("{kind} [signed-by={KEYRING}] {site} {suite} main\n"))
            .collect();
        std::fs::write(folder.join("sources.list"), lines)
            .with_context(|| format!("failed to write a source list in {}", folder.display()))?;
        let suite = Self { folder: folder.to_path_buf(), name: name.to_owned(), architecture };
        cache::room(folder)?;
        // The folder goes with its owner, and a log in it with the folder: what apt says is in the error.
        run::capture(suite.apt("apt-get").arg("update"))
            .with_context(|| format!("failed to read the package lists of {name}"))?;
        Ok(suite)
    }

    /// An apt command that sees this suite only.
    pub(crate) fn apt(&self, program: &str) -> Command {
        let mut command = run::command(program);
        let folder = self.folder.display();
        command.current_dir(&self.folder).args([
            format!("-oDir::Etc::SourceList={folder}/sources.list"),
            "-oDir::Etc::SourceParts=-".to_owned(),
            format!("-oDir::State::Lists={folder}/lists"),
            format!("-oDir::Cache={folder}"),
            // The unprivileged user of apt cannot enter a cache in somebody's home folder.
            "-oAPT::Sandbox::User=root".to_owned(),
            // Else it counts as a success that no list could be fetched.
            "-oAPT::Update::Error-Mode=any".to_owned(),
        ]);
        if let Some(architecture) = self.architecture {
            command.args([
                format!("-oAPT::Architecture={architecture}"),
                format!("-oAPT::Architectures={architecture}"),
            ]);
        }
        command
    }

    /// Downloads the newest package whose name is `prefix` and a version, e.g. `linux-source-7.`.
    pub(crate) fn download_newest(&self, prefix: &str) -> Result<PathBuf> {
        let name = newest(&self.names(prefix)?, prefix)
            .with_context(|| format!("{} has no package {prefix}* any more", self.name))?;
        run::say(format_args!("fetching {name} of {}", self.name));
        self.download(&name, None)
    }

    /// The names of packages that begin with `prefix`, one in a line.
    pub(crate) fn names(&self, prefix: &str) -> Result<String> {
        run::capture(self.apt("apt-cache").args(["pkgnames", prefix]))
    }

    /// The newest version of a package.
    pub(crate) fn version(&self, package: &str) -> Result<String> {
        let about = run::capture(self.apt("apt-cache").args(["show", "--no-all-versions", package]))
            .with_context(|| format!("{} has no package {package}", self.name))?;
        about
            .lines()
            .find_map(|line| line.strip_prefix("Version: "))
            .map(ToOwned::to_owned)
            .with_context(|| format!("apt tells no version of {package}"))
    }

    /// Downloads a package, of this version if one is given.
    pub(crate) fn download(&self, package: &str, version: Option<&str>) -> Result<PathBuf> {
        let wanted = version.map_or(package.to_owned(), |version| format!("{package}={version}"));
        cache::room(&self.folder)?;
        run::capture(self.apt("apt-get").args(["download", &wanted]))?;
        let start = format!("{package}_");
        for entry in self.folder.read_dir().context("failed to list downloads")? {
            let path = entry.context("failed to list downloads")?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            if file.starts_with(&start) && file.ends_with(".deb") {
                return Ok(path);
            }
        }
        bail!("apt downloaded no file of {package}")
    }
}

/// Of the names that are `prefix` and a number, the one with the highest.
fn newest(names: &str, prefix: &str) -> Option<String> {
    names
        .lines()
        .filter_map(|name| {
            let number: u32 = name.strip_prefix(prefix)?.parse().ok()?;
            Some((number, name))
        })
        .max()
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_told_from_its_neighbours() {
        let targets = "nodistro main http://elsewhere.example/node\n\
                       bookworm-security main http://one.example/debian-security\n\
                       bookworm contrib http://two.example/debian\n\
                       bookworm main http://two.example/debian\n";
        assert_eq!(choose_site(targets, "").as_deref(), Some("http://two.example/debian"));
        let security = choose_site(targets, "-security");
        assert_eq!(security.as_deref(), Some("http://one.example/debian-security"));
        assert_eq!(choose_site("noble main http://x.example", ""), None);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let names = "linux-source-7.9\nlinux-source-7.10\nlinux-source-7.10-rt\nlinux-source-6.12\n";
        assert_eq!(newest(names, "linux-source-7.").as_deref(), Some("linux-source-7.10"));
    }
}
