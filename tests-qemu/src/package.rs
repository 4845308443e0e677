// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask package`: the Debian packages.
//!
//! debhelper makes them, by the files of `packaging/debian`. This verb puts those files beside the source as git knows
//! it, fills in version and kernel release, builds the driver, and lets it be signed.

pub(crate) mod checks;
mod machine;

use std::fs::{self, File};
use std::os::unix::fs::{symlink, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, ensure, Context, Result};

use crate::cache::{log_of, Cache};
use crate::install;
use crate::module::{self, Lint};
use crate::setup::{self, Need};
use crate::stock::{self, Stock};
use crate::{run, tools};

/// The parts to build, and their place.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
                  cargo xtask package\n  \
                  cargo xtask package --only tools --output /tmp\n  \
                  KERNEL_RELEASE=7.3.4+deb13-cloud-amd64 cargo xtask package --only modules\n  \
                  cargo xtask package --only modules --sign-key mok.key --sign-cert mok.pem\n\n\
                  The version and all times are those of the last commit: the same commit gives the same bytes.\n\n\
                  Exit status: 0 the packages are complete; 1 something failed, and none was written; \
                  2 the command line makes no sense.")]
pub(crate) struct Options {
    /// Where the packages go, in place of other versions of them
    #[arg(long, value_name = "DIR", default_value = "target/packages")]
    output: PathBuf,
    /// Build this package; repeatable [default: all]
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Sign the driver with this key (PEM), such as a machine owner key, by the kernel's scripts/sign-file
    #[arg(long, value_name = "PEM", requires = "sign_cert")]
    sign_key: Option<PathBuf>,
    /// The certificate of the key
    #[arg(long, value_name = "PEM", requires = "sign_key")]
    sign_cert: Option<PathBuf>,
}

/// A package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The programs: tesserafs-tools
    Tools,
    /// The driver for one release of Debian's kernel: tesserafs-modules-RELEASE (as root)
    Modules,
    /// The driver's source: tesserafs-dkms
    Dkms,
}

impl Part {
    const ALL: [Self; 3] = [Self::Tools, Self::Modules, Self::Dkms];

    /// The file with its stanza of `debian/control`.
    fn stanza(self) -> &'static str {
        match self {
            Self::Tools => "control.tools",
            Self::Modules => "control.modules",
            Self::Dkms => "control.dkms",
        }
    }
}

/// Builds the packages, and copies them to their place when all are complete.
pub(crate) fn package(options: &Options) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let parts = if options.only.is_empty() { Part::ALL.to_vec() } else { options.only.clone() };
    let signer = match (&options.sign_key, &options.sign_cert) {
        (Some(key), Some(cert)) => Some(Signer { key, cert }),
        _ => None,
    };
    ensure!(
        signer.is_none() || parts.contains(&Part::Modules),
        "--sign-key signs the driver: it goes with --only modules, or with all packages"
    );
    setup::ensure(&cache, &[Need::Packages])?;
    let stock = if parts.contains(&Part::Modules) { Some(kernel(&cache)?) } else { None };
    let source = Source::find(&tools::repository())?;
    let built = source.build(&cache, FOLDER, &parts, stock.as_ref(), signer.as_ref())?;
    let places = built
        .iter()
        .map(|package| package.file_name().map(|name| options.output.join(name)))
        .collect::<Option<Vec<_>>>()
        .context("a package without a name")?;
    let files: Vec<(&Path, &Path)> =
        built.iter().map(PathBuf::as_path).zip(places.iter().map(PathBuf::as_path)).collect();
    install::copy_all(&files, 0o644)?;
    places.iter().try_for_each(|place| forget_other_versions(place))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes the other versions of a package beside it: `apt install ./*.deb` is to find one.
fn forget_other_versions(package: &Path) -> Result<()> {
    let name = |path: &Path| -> Option<String> {
        let file = path.file_name()?.to_str()?.strip_suffix(".deb")?;
        Some(file.split_once('_')?.0.to_owned())
    };
    let folder = package.parent().context("a package lies in no folder")?;
    for other in packages(folder)? {
        if other.file_name() != package.file_name() && name(&other) == name(package) {
            fs::remove_file(&other).with_context(|| format!("failed to remove {}", other.display()))?;
        }
    }
    Ok(())
}

/// Where in the cache the packages are built.
const FOLDER: &str = "package/build";

/// The kernel that the driver is built for.
fn kernel(cache: &Cache) -> Result<Stock> {
    setup::ensure(cache, &[Need::Stock])?;
    stock::prepare(cache)
}

/// A key that kernel modules are signed with.
struct Signer<'a> {
    key: &'a Path,
    cert: &'a Path,
}

/// Builds the driver for Debian's kernel, without what only a debugger reads, and signs it.
fn driver(cache: &Cache, source: &Path, stock: &Stock, signer: Option<&Signer<'_>>) -> Result<Vec<u8>> {
    let Stock { kernel, builder, .. } = stock;
    let built = module::build_from(source, cache, builder, &kernel.build, Lint::Plain)?;
    module::check_panic_free(builder, &built)?;
    // The programs are of the kernel's suite, and see nothing but the cache. The folder is this user's alone.
    let scratch = tempfile::Builder::new()
        .prefix("driver-")
        .tempdir_in(cache.folder("scratch")?)
        .context("failed to make a scratch folder")?;
    let module = scratch.path().join("tesserafs.ko");
    // The build ID is the digest of what the linker wrote, with the paths in debugging symbols that are not shipped.
    let strip = ["--strip-debug", "--remove-section=.note.gnu.build-id", "-o"];
    run::capture(builder.command("strip").args(strip).arg(&module).arg(&built))?;
    if let Some(signer) = signer {
        let program = kernel.build.join("scripts/sign-file");
        ensure!(program.is_file(), "the kernel {} has no scripts/sign-file, which signs modules", kernel.key);
        let (key, cert) = (scratch.path().join("key"), scratch.path().join("cert"));
        for (from, to) in [(signer.key, &key), (signer.cert, &cert)] {
            fs::copy(from, to).with_context(|| format!("failed to read {}", from.display()))?;
        }
        run::capture(builder.command(&program).arg("sha256").args([&key, &cert, &module]))
            .with_context(|| format!("failed to sign by {}", signer.key.display()))?;
    }
    fs::read(&module).with_context(|| format!("failed to read {}", module.display()))
}

/// The source at the last commit of a checkout, with what is changed since.
struct Source {
    repository: PathBuf,
    /// Names of all files that git knows.
    files: Vec<PathBuf>,
    /// Version of the packages.
    version: String,
    commit: String,
    /// Time of the commit, in seconds.
    epoch: String,
    /// The same as a changelog has it.
    date: String,
}

/// The maintainer of packages that were built without `DEBFULLNAME` and `DEBEMAIL`.
const MAINTAINER: &str = "The tesserafs authors <tesserafs@localhost>";

impl Source {
    /// Asks git.
    fn find(repository: &Path) -> Result<Self> {
        let git = |arguments: &[&str]| {
            run::capture(run::command("git").env("TZ", "UTC").arg("-C").arg(repository).args(arguments))
                .with_context(|| {
                    format!("packages are built from a git checkout, and {} is none", repository.display())
                })
        };
        let commit = |format: &str, date: &str| {
            git(&["log", "-1", &format!("--format={format}"), &format!("--date=format-local:{date}")])
                .map(|text| text.trim().to_owned())
        };
        let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
        let tag = format!("v{}", env!("CARGO_PKG_VERSION"));
        let is_release = changed.is_empty() && git(&["tag", "--points-at", "HEAD", &tag])?.trim() == tag;
        let stamp = commit("%cd", "%Y%m%d%H%M%S")?;
        Ok(Self {
            version: version(env!("CARGO_PKG_VERSION"), &stamp, is_release, !changed.is_empty()),
            commit: commit("%H", "%s")?,
            epoch: commit("%ct", "%s")?,
            date: commit("%cd", "%a, %d %b %Y %H:%M:%S +0000")?,
            files: git(&["ls-files", "-z"])?.split_terminator('\0').map(PathBuf::from).collect(),
            repository: repository.to_path_buf(),
        })
    }

    /// Builds packages in a folder of the cache, which keeps what cargo has made.
    fn build(
        &self,
        cache: &Cache,
        name: &str,
        parts: &[Part],
        stock: Option<&Stock>,
        signer: Option<&Signer<'_>>,
    ) -> Result<Vec<PathBuf>> {
        let _lock = cache.lock(name)?;
        let folder = cache.folder(name)?;
        let source = folder.join("source");
        if source.exists() {
            fs::remove_dir_all(&source).with_context(|| format!("failed to remove {}", source.display()))?;
        }
        for package in packages(&folder)? {
            fs::remove_file(&package).with_context(|| format!("failed to remove {}", package.display()))?;
        }
        self.export(&source)?;
        self.fill_in(&source, parts, stock)?;
        if let Some(stock) = stock {
            let driver = driver(cache, &source, stock, signer)?;
            write(&source.join("debian/tesserafs.ko"), &driver, 0o644)?;
        }
        run::say(format_args!("building packages of version {}", self.version));
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        run::logged(
            run::command("dpkg-buildpackage")
                .current_dir(&source)
                .args(["--build=binary", "--no-sign"])
                .env("CARGO", std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .env("CARGO_HOME", home.context("neither CARGO_HOME nor HOME is set")?)
                .env("CARGO_TARGET_DIR", folder.join("target"))
                .env("SOURCE_DATE_EPOCH", &self.epoch)
                .env("LC_ALL", "C.UTF-8")
                .env_remove("DEB_BUILD_OPTIONS")
                .env_remove("RUSTFLAGS"),
            &log_of(&folder),
        )?;
        let built = packages(&folder)?;
        ensure!(built.len() == parts.len(), "{} packages were built of {}", built.len(), parts.len());
        Ok(built)
    }

    /// Copies the files that git knows, with their times: cargo compiles what is newer than it has made.
    fn export(&self, to: &Path) -> Result<()> {
        for name in &self.files {
            let (from, to) = (self.repository.join(name), to.join(name));
            let Ok(metadata) = fs::symlink_metadata(&from) else {
                // Removed since the commit.
                continue;
            };
            let copy = || -> std::io::Result<()> {
                fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
                if metadata.is_symlink() {
                    return symlink(fs::read_link(&from)?, &to);
                }
                // With times of now: cargo takes a file for unchanged that is older than its last build here.
                fs::copy(&from, &to).map(drop)
            };
            copy().with_context(|| format!("failed to copy {}", from.display()))?;
        }
        Ok(())
    }

    /// Makes the folder `debian` of the source.
    fn fill_in(&self, source: &Path, parts: &[Part], stock: Option<&Stock>) -> Result<()> {
        let templates = source.join("packaging/debian");
        let debian = source.join("debian");
        let release = stock.map_or("", |stock| &stock.kernel.key);
        let maintainer = maintainer(std::env::var("DEBFULLNAME").ok(), std::env::var("DEBEMAIL").ok());
        let filled = |text: &str| -> String {
            [
                ("@VERSION@", &*self.version),
                ("@COMMIT@", &self.commit),
                ("@DATE@", &self.date),
                ("@MAINTAINER@", &maintainer),
                ("@RELEASE@", release),
                ("@KERNEL_VERSION@", stock.map_or("", |stock| &stock.version)),
            ]
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
        };
        let mut control = String::new();
        for entry in list(&templates)? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if entry.is_dir() || name.starts_with("control") {
                continue;
            }
            let name = match name.strip_prefix("modules.") {
                Some(_) if stock.is_none() => continue,
                Some(rest) => format!("tesserafs-modules-{release}.{rest}"),
                None => name,
            };
            write(&debian.join(name), filled(&read(&entry)?).as_bytes(), mode(&entry)?)?;
        }
        write(&debian.join("source/format"), read(&templates.join("source/format"))?.as_bytes(), 0o644)?;
        control += &read(&templates.join("control"))?;
        for part in parts {
            control += &read(&templates.join(part.stanza()))?;
        }
        write(&debian.join("control"), filled(&control).as_bytes(), 0o644)
    }
}

/// The version of packages: that of a release, or one before it that grows with each commit.
fn version(release: &str, stamp: &str, is_release: bool, is_changed: bool) -> String {
    match (is_release, is_changed) {
        (true, _) => release.to_owned(),
        (false, false) => format!("{release}~git{stamp}"),
        (false, true) => format!("{release}~git{stamp}+changed"),
    }
}

/// Name and address, from what Debian's own tools take them from.
fn maintainer(name: Option<String>, address: Option<String>) -> String {
    match (name, address) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        _ => MAINTAINER.to_owned(),
    }
}

/// The packages that lie in a folder, sorted.
fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = list(folder)?;
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.sort();
    Ok(packages)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    folder
        .read_dir()
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("failed to list {}", folder.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

fn mode(path: &Path) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(path).with_context(|| format!("failed to look at {}", path.display()))?;
    Ok(metadata.permissions().mode() & 0o777)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    let Some(folder) = path.parent() else {
        bail!("{} lies in no folder", path.display());
    };
    fs::create_dir_all(folder)
        .and_then(|()| File::options().write(true).create(true).truncate(true).mode(mode).open(path))
        .and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_up_to_the_release() {
        let stamp = "20261126214155";
        let versions = [
            version("0.1.0", stamp, false, false),
            version("0.1.0", stamp, false, true),
            version("0.1.0", "20261126214156", false, false),
            version("0.1.0", stamp, true, false),
        ];
        for pair in versions.windows(2) {
            let mut dpkg = run::command("dpkg");
            dpkg.args(["--compare-versions", &pair[0], "lt", &pair[1]]);
            assert!(run::output(&mut dpkg).unwrap().status.success(), "{pair:?}");
        }
    }

    #[test]
    fn one_version_of_a_package_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let names = ["a_1_all.deb", "a_2_all.deb", "a-b_1_all.deb", "a_1_all.changes"];
        for name in names {
            fs::write(at(name), "").unwrap();
        }
        forget_other_versions(&at("a_2_all.deb")).unwrap();
        assert_eq!(names.map(|name| at(name).exists()), [false, true, true, true]);
    }

    #[test]
    fn a_maintainer_needs_name_and_address() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(maintainer(some("A"), some("a@b.org")), "A <a@b.org>");
        assert_eq!(maintainer(some("A"), None), MAINTAINER);
    }
}
