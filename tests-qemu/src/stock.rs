// SPDX-License-Identifier: GPL-2.0
//! Debian's own kernel: out of its packages, with the build folder that a Rust module for it is built
//! against.
//!
//! The packages have no metadata of the kernel's crates. It is made again here, from the same source and configuration
//! with the same compiler, in a root of the suite that the kernel is for; no kernel is compiled. Names of symbols hold
//! hashes of their crates: the symbols of the kernel itself tell whether it was built from the metadata that
//! was made.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::cache::{key, log_of, Cache};
use crate::chroot::Chroot;
use crate::debian::{self, Suite, Variant};
use crate::kernel::{processors, Compilers, Flavour, Kernel, SUITE};
use crate::{run, setup, tools};

/// The kernel for virtual machines: the same source, and fewer modules.
const VARIANT: &str = "-cloud-amd64";

/// The suite that the kernels of [`SUITE`] are compiled in.
pub(crate) const COMPILED_IN: &str = "trixie";

/// The packages that compile there: the kernel's own compilers, those for its tools, and `pahole`, which its
/// configuration asks for.
pub(crate) const PACKAGES: &str =
    "bc,bindgen,bison,flex,gcc-14,libelf-dev,libssl-dev,make,mawk,openssl,pahole,python3,rust-src,rustc,xz-utils";

/// Debian's kernel, and the compilers that build modules for it.
pub(crate) struct Stock {
    pub(crate) kernel: Kernel,
    pub(crate) builder: Builder,
    /// The version of the kernel's packages.
    pub(crate) version: String,
}

/// Finds the kernel, and makes the folder that modules are built against, unless it is in the cache.
pub(crate) fn prepare(cache: &Cache) -> Result<Stock> {
    prepare_release(cache, &release(cache)?)
}

/// The same for this release.
pub(crate) fn prepare_release(cache: &Cache, release: &str) -> Result<Stock> {
    setup::require_root("make a Debian root, and enter it")?;
    ensure!(
        is_supported(release),
        "the kernel {release} is too old: the driver needs {NEEDS} or a later one"
    );
    // One waits for the network while the other unpacks.
    let (packages, root) = run::both(|| Packages::fetch(cache, release), || root(cache))?;
    let (packages, root) = (packages?, root?);
    run::say(format_args!("kernel {release}, packages of version {}", packages.version));
    let builder = Builder::new(cache, root, &packages.config)?;
    run::say(format_args!("compiled by {}; {}", builder.rustc_version, builder.cc_version));
    let build = build(cache, &packages, &builder)?;
    let kernel = Kernel {
        flavour: Flavour::Stock,
        image: packages.modules.join("vmlinuz"),
        build,
        modules: Some(packages.modules),
        key: release.to_owned(),
    };
    Ok(Stock { kernel, builder, version: packages.version })
}

/// The release that `KERNEL_RELEASE` names, else the newest of the archive.
fn release(cache: &Cache) -> Result<String> {
    if let Ok(release) = std::env::var("KERNEL_RELEASE") {
        ensure!(is_release(&release), "KERNEL_RELEASE={release} is no release of a kernel");
        return Ok(release);
    }
    let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
    let find = || {
        let suite = Suite::fetch(scratch.path(), SUITE, false)?;
        let names = suite.names(&format!("{HEADERS}7."))?;
        newest(&names).with_context(|| format!("{SUITE} has no package {HEADERS}7.*{VARIANT}"))
    };
    find().with_context(|| {
        let known = cached(cache).unwrap_or_default();
        let instead = known.last().map_or(String::new(), |release| {
            format!("; one is in the cache, so type KERNEL_RELEASE={release} cargo xtask ...")
        });
        format!("the newest kernel of {SUITE} is not known{instead}")
    })
}

/// Whether this can be a release. It becomes a part of names of packages and folders.
fn is_release(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_digit())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
}

/// The name of the headers' package, before the release.
const HEADERS: &str = "linux-headers-";

/// The words about a release that the archive does not have, as its packages' names tell.
fn gone(release: &str, names: &str) -> String {
    format!("{SUITE} has no kernel {release} any more; {}", instead(names))
}

/// The advice for a release that the archive has.
fn instead(names: &str) -> String {
    newest(names).map_or("it has none of this kind".to_owned(), |newest| {
        format!("type KERNEL_RELEASE={newest} cargo xtask ..., or leave KERNEL_RELEASE out")
    })
}

/// The newest release among the names of packages.
fn newest(names: &str) -> Option<String> {
    names
        .lines()
        .filter_map(|name| name.strip_prefix(HEADERS))
        .filter(|release| release.ends_with(VARIANT))
        .max_by_key(|release| numbers(release))
        .map(ToOwned::to_owned)
}

/// The version that a release begins with, as numbers.
fn numbers(release: &str) -> Vec<u32> {
    upstream(release).split('.').map(|number| number.parse().unwrap_or(0)).collect()
}

/// The kernel's own version: `7.3.4` of `7.3.4+deb13-cloud-amd64`.
fn upstream(release: &str) -> &str {
    release.split(['+', '-']).next().unwrap_or_default()
}

/// The kernels that the driver is for.
pub(crate) const NEEDS: &str = "Linux 7.3";

/// Whether the driver is for this release.
pub(crate) fn is_supported(release: &str) -> bool {
    numbers(release) >= vec![7, 3]
}

/// The release of the archive that comes before this one, if there is one, and the version of its packages.
pub(crate) fn before(release: &str) -> Result<Option<(String, String)>> {
    let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
    let suite = Suite::fetch(scratch.path(), SUITE, false)?;
    let names = suite.names(HEADERS)?;
    let older: Vec<&str> = names
        .lines()
        .filter(|name| name.strip_prefix(HEADERS).is_some_and(|name| numbers(name) < numbers(release)))
        .collect();
    newest(&older.join("\n"))
        .map(|older| suite.version(&format!("{HEADERS}{older}")).map(|version| (older, version)))
        .transpose()
}

/// The name of a release's folder, before the release.
const FOLDER: &str = "packages-";

/// The releases whose packages are there.
fn cached(cache: &Cache) -> Result<Vec<String>> {
    let folder = cache.folder("stock")?;
    let entries = folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))?;
    Ok(entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some(name.strip_prefix(FOLDER)?.strip_suffix(".done")?.to_owned())
        })
        .collect())
}

/// The content of a release's packages, unpacked.
struct Packages {
    release: String,
    version: String,
    /// Folder of the kernel and its modules.
    modules: PathBuf,
    /// Folder of the headers.
    headers: PathBuf,
    /// The tree that the kernel was built from.
    source: PathBuf,
    /// The configuration that the kernel was built with.
    config: String,
}

impl Packages {
    /// Downloads and unpacks them.
    fn fetch(cache: &Cache, release: &str) -> Result<Self> {
        let series = upstream(release).rsplit_once('.').map_or(release, |(series, _)| series);
        let folder = cache.once(&format!("stock/{FOLDER}{release}"), |folder| {
            let scratch = tempfile::tempdir_in(folder).context("failed to make a scratch folder")?;
            let suite = Suite::fetch(scratch.path(), SUITE, false)?;
            let names = suite.names(HEADERS)?;
            ensure!(
                names.lines().any(|name| name.strip_prefix(HEADERS) == Some(release)),
                "{}",
                gone(release, &names)
            );
            let version = suite.version(&format!("{HEADERS}{release}"))?;
            let parts =
                ["binary", "modules", "base", "headers"].map(|part| format!("linux-{part}-{release}"));
            run::say(format_args!("fetching the packages of {release} {version}"));
            for package in parts {
                unpack(&suite.download(&package, Some(&version))?, folder)?;
            }
            let source =
                suite.download(&format!("linux-source-{series}"), Some(&version)).with_context(|| {
                    format!("the source of {release} is not in {SUITE} any more; {}", instead(&names))
                })?;
            unpack(&source, folder)?;
            let archive = folder.join(format!("usr/src/linux-source-{series}.tar.xz"));
            run::say(format_args!("unpacking {}", archive.display()));
            let unused = UNUSED.map(|pattern| format!("--exclude=linux-source-{series}/{pattern}"));
            run::quiet(run::command("tar").args(unused).arg("-xf").arg(&archive).arg("-C").arg(folder))?;
            std::fs::remove_file(&archive)
                .with_context(|| format!("failed to remove {}", archive.display()))?;
            // As the installation of the packages would do it: the list of which module needs which.
            std::os::unix::fs::symlink("usr/lib", folder.join("lib")).context("failed to link lib")?;
            run::capture(run::command("depmod").arg("-b").arg(folder).arg(release))?;
            write(&folder.join("version"), &version)
        })?;
        let headers = folder.join(format!("usr/src/{HEADERS}{release}"));
        let config = read(&headers.join(".config"))?;
        ensure!(
            set(&config, "CONFIG_RUST") == Some("y"),
            "the kernel {release} has no Rust: found no CONFIG_RUST=y in its configuration; leave KERNEL_RELEASE out \
             for the newest one, which has it"
        );
        Ok(Self {
            release: release.to_owned(),
            version: read(&folder.join("version"))?,
            modules: folder.join("usr/lib/modules").join(release),
            headers,
            source: folder.join(format!("linux-source-{series}")),
            config,
        })
    }
}

/// Parts of the source that nothing is made from, nine tenths of it, as patterns of tar: no kernel is compiled.
///
/// All that `Kconfig` reads stays, and so do the headers of drivers/android and drivers/base: the bindings are made
/// from them, too.
const UNUSED: [&str; 9] = [
    "Documentation/*/*.[rty]*",
    "arch/[!x]*/*.[chS]",
    "arch/*.dts*",
    "drivers/[!ab]*.[ch]",
    "fs/*.c",
    "net/*.c",
    "sound/*.[ch]",
    "tools/perf/*/*",
    "tools/testing/*/*",
];

/// Unpacks a package.
fn unpack(package: &Path, folder: &Path) -> Result<()> {
    run::quiet(run::command("dpkg-deb").arg("-x").arg(package).arg(folder))
}

/// The root with the compilers, made once.
fn root(cache: &Cache) -> Result<PathBuf> {
    cache.once(&format!("stock/root-{COMPILED_IN}-{}", key(&[PACKAGES.as_bytes()])), |folder| {
        run::say(format_args!("making a Debian {COMPILED_IN} root with {PACKAGES}"));
        debian::bootstrap(folder, COMPILED_IN, Variant::Files, PACKAGES, &log_of(folder))?;
        // The script of the package would do it.
        std::os::unix::fs::symlink("mawk", folder.join("usr/bin/awk")).context("failed to link awk")
    })
}

/// The compilers of the root.
pub(crate) struct Builder {
    chroot: Chroot,
    cc: String,
    library: String,
    rustc_version: String,
    cc_version: String,
    bindgen_version: String,
}

impl Builder {
    /// Finds the compilers that the configuration names.
    fn new(cache: &Cache, root: PathBuf, config: &str) -> Result<Self> {
        let chroot = Chroot::new(root, vec![cache.folder("")?, tools::repository()]);
        let version = |program: &str| {
            run::capture(chroot.command(program).arg("--version"))
                .map(|text| text.lines().next().unwrap_or_default().to_owned())
                .with_context(|| format!("the root of {COMPILED_IN} has no {program} that works"))
        };
        let rustc_version = version("rustc")?;
        let wanted = set(config, "CONFIG_RUSTC_VERSION_TEXT").context("the kernel names no Rust compiler")?;
        ensure!(
            rustc_version == wanted,
            "the kernel was compiled by {wanted:?}, and {COMPILED_IN} has {rustc_version:?}: hashes would differ"
        );
        let number = rustc_version.split_whitespace().nth(1).context("rustc does not say its version")?;
        let cc = set(config, "CONFIG_CC_VERSION_TEXT").and_then(|text| text.split_whitespace().next());
        let cc = cc.context("the kernel names no C compiler")?.to_owned();
        Ok(Self {
            library: format!("/usr/src/rustc-{number}/library"),
            cc_version: version(&cc)?,
            bindgen_version: version("bindgen")?,
            cc,
            rustc_version,
            chroot,
        })
    }

    /// A program of the root, which sees the cache and the repository.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.chroot.command(program)
    }
}

impl Compilers for Builder {
    fn make(&self, build: &Path) -> Command {
        let mut command = self.chroot.command("make");
        command.env("KBUILD_BUILD_USER", "tesserafs").env("KBUILD_BUILD_HOST", "tesserafs");
        command.arg("-C").arg(build).arg(format!("-j{}", processors())).args([
            format!("CC={}", self.cc),
            format!("HOSTCC={}", self.cc),
            "RUSTC=rustc".to_owned(),
            "BINDGEN=bindgen".to_owned(),
            format!("RUST_LIB_SRC={}", self.library),
        ]);
        command
    }

    fn nm(&self) -> Command {
        self.chroot.command("nm")
    }

    fn objdump(&self) -> Command {
        self.chroot.command("objdump")
    }
}

/// Makes the build folder that modules are built against: the kernel's tools, headers and Rust metadata.
fn build(cache: &Cache, packages: &Packages, builder: &Builder) -> Result<PathBuf> {
    let release = &packages.release;
    let compilers =
        [&builder.rustc_version, &builder.cc_version, &builder.bindgen_version].map(|text| text.as_bytes());
    let name = format!("stock/build-{release}-{}", key(&compilers));
    cache.once(&name, |build| {
        run::say(format_args!("making the Rust metadata of {release} (2 to 5 minutes, once)"));
        let config = build.join(".config");
        write(&config, &packages.config)?;
        let log = log_of(build);
        let version = upstream(release);
        let make = |target: &str| {
            let mut make = builder.make(&packages.source);
            make.arg(format!("O={}", build.display()));
            // Else the module would be for a kernel of another name.
            make.arg(format!("LOCALVERSION={}", release.strip_prefix(version).unwrap_or_default()));
            make.arg(target);
            run::logged(&mut make, &log)
        };
        make("olddefconfig")?;
        let made = read(&config)?;
        let changed = changed(&packages.config, &made);
        ensure!(
            changed.is_empty(),
            "the source or its compilers are not the kernel's: {}",
            changed.join(", ")
        );
        make("modules_prepare")?;
        let made = read(&build.join("include/config/kernel.release"))?;
        ensure!(made.trim() == release, "the source makes a kernel {}, not {release}", made.trim());
        let symbols = packages.headers.join("Module.symvers");
        compare(&exports(build)?, &exported(&read(&symbols)?))?;
        std::fs::copy(&symbols, build.join("Module.symvers"))
            .with_context(|| format!("failed to copy {}", symbols.display()))
            .map(|_| ())
    })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

/// The value of an option, without quotes.
fn set<'c>(config: &'c str, option: &str) -> Option<&'c str> {
    config
        .lines()
        .find_map(|line| line.strip_prefix(option)?.strip_prefix('='))
        .map(|value| value.trim_matches('"'))
}

/// The lines in which two configurations differ.
fn changed<'c>(one: &'c str, other: &'c str) -> Vec<&'c str> {
    let lines = |config: &'c str| -> BTreeSet<&'c str> {
        config.lines().filter(|line| line.contains("CONFIG_")).collect()
    };
    lines(one).symmetric_difference(&lines(other)).copied().collect()
}

/// The symbols that the Rust metadata of a build folder goes with.
fn exports(build: &Path) -> Result<BTreeSet<String>> {
    let folder = build.join("rust");
    let mut symbols = BTreeSet::new();
    for entry in folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))? {
        let path = entry.with_context(|| format!("failed to list {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("exports_") && name.ends_with("_generated.h") {
            let text = read(&path)?;
            symbols.extend(
                text.lines()
                    .filter_map(|line| line.strip_prefix("EXPORT_SYMBOL_RUST_GPL(")?.strip_suffix(");"))
                    .map(ToOwned::to_owned),
            );
        }
    }
    ensure!(!symbols.is_empty(), "{} exports nothing", folder.display());
    Ok(symbols)
}

/// The symbols of `Module.symvers`, whose lines are `checksum, symbol, module, kind`.
fn exported(symvers: &str) -> BTreeSet<String> {
    symvers.lines().filter_map(|line| line.split('\t').nth(1)).map(ToOwned::to_owned).collect()
}

/// Fails unless the kernel has every symbol that was made, and names the crates for which it has others.
fn compare(made: &BTreeSet<String>, kernel: &BTreeSet<String>) -> Result<()> {
    let missing: Vec<&String> = made.difference(kernel).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (made, kernel) = (crates(made), crates(kernel));
    let differing: Vec<String> = made
        .iter()
        .filter_map(|(name, hash)| {
            let other = kernel.get(name)?;
            (hash != other).then(|| format!("{name}: made {hash:?}, the kernel has {other:?}"))
        })
        .collect();
    bail!(
        "the kernel was not built from what is here: it lacks {} of the symbols of its crates, {} first; \
         crates with another hash: {}",
        missing.len(),
        missing[0],
        if differing.is_empty() { "none".to_owned() } else { differing.join("; ") }
    )
}

/// The hashes of each crate in mangled names: `Cs`, the hash, `_`, the length of the name, the name.
fn crates(symbols: &BTreeSet<String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for symbol in symbols.iter().filter(|symbol| symbol.starts_with("_R")) {
        for (place, _) in symbol.match_indices("Cs") {
            if let Some((hash, name)) = crate_of(&symbol[place + 2..]) {
                found.entry(name).or_default().insert(hash);
            }
        }
    }
    found
}

/// Hash and name, after `Cs`.
fn crate_of(mangled: &str) -> Option<(&str, &str)> {
    let (hash, rest) = mangled.split_once('_')?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
    let length: usize = rest[..digits].parse().ok()?;
    // A name that begins like a number has one more underscore in front.
    let name = rest[digits..].get(..length)?;
    let hash_like = !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (hash_like && name.starts_with(|letter: char| letter.is_ascii_alphabetic())).then_some((hash, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_release_is_found_by_its_numbers() {
        let names = "linux-headers-7.3.4+deb13-amd64\nlinux-headers-7.2.12+deb13-cloud-amd64\n\
                     linux-headers-7.3.4+deb13-cloud-amd64\nlinux-headers-7.3.10+deb13-cloud-amd64\n\
                     linux-headers-7.3.11+deb13-common\n";
        assert_eq!(newest(names).as_deref(), Some("7.3.10+deb13-cloud-amd64"));
        assert_eq!(newest("linux-headers-7.3.4+deb13-amd64\n"), None);
        assert_eq!(upstream("7.3.4+deb13-cloud-amd64"), "7.3.4");
        assert!(["7.3.4+deb13-cloud-amd64", "7.10.1", "8.0"].iter().all(|release| is_supported(release)));
        assert!(["7.2.12+deb13-cloud-amd64", "6.12.9"].iter().all(|release| !is_supported(release)));
        assert!(is_release("7.0.4+deb13-cloud-amd64"));
        assert!(!is_release("../7.3.4") && !is_release("7.3.4/x") && !is_release(""));
    }

    #[test]
    fn for_a_release_that_is_gone_another_one_is_named() {
        let names = "linux-headers-7.3.4+deb13-cloud-amd64\nlinux-headers-7.3.10+deb13-cloud-amd64\n";
        let said = gone("7.0.4+deb13-cloud-amd64", names);
        assert!(said.contains("no kernel 7.0.4+deb13-cloud-amd64 any more"), "{said}");
        assert!(said.contains("type KERNEL_RELEASE=7.3.10+deb13-cloud-amd64 cargo"), "{said}");
    }

    #[test]
    fn options_are_read_without_their_quotes() {
        let config =
            "CONFIG_RUSTC_VERSION=108501\nCONFIG_RUSTC_VERSION_TEXT=\"rustc 1.85.1 (x)\"\nCONFIG_RUST=y\n";
        assert_eq!(set(config, "CONFIG_RUSTC_VERSION_TEXT"), Some("rustc 1.85.1 (x)"));
        assert_eq!(set(config, "CONFIG_RUST"), Some("y"));
        assert_eq!(set(config, "CONFIG_RUS"), None);
    }

    #[test]
    fn configurations_are_compared_without_their_comments() {
        let one = "# Linux/x86 7.3.4\nCONFIG_A=y\n# CONFIG_B is not set\n";
        let other = "# Linux/x86 7.3.5\nCONFIG_A=y\nCONFIG_B=m\n";
        assert_eq!(changed(one, other), ["# CONFIG_B is not set", "CONFIG_B=m"]);
        assert!(changed(one, one).is_empty());
    }

    #[test]
    fn a_crate_with_another_hash_is_named() {
        let kernel = exported(
            "0x00000000\t_RNvCsb5MLIFMWygY_6kernel4init\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
             0x00000000\t_RNvMCsabc_4coreCsb5MLIFMWygY_6kernel3one\tvmlinux\tEXPORT_SYMBOL_GPL\t\n",
        );
        assert!(compare(&symbols(&["_RNvCsb5MLIFMWygY_6kernel4init"]), &kernel).is_ok());
        let other = symbols(&["_RNvMCsabc_4coreCsdifferent_6kernel3one"]);
        let error = compare(&other, &kernel).unwrap_err().to_string();
        assert!(error.contains("kernel: made {\"different\"}, the kernel has {\"b5MLIFMWygY\"}"), "{error}");
        assert!(!error.contains("core: made"), "{error}");
    }
}
