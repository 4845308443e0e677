// SPDX-License-Identifier: GPL-2.0
//! The kernel of the test machine: source, toolchain, configuration, build.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use crate::cache::{key, log_of, Cache};
use crate::debian::Suite;
use crate::linked::{self, Linked};
use crate::{build_folder, run, setup};

/// Options that the test machine needs on top of `tinyconfig`.
const FRAGMENT: &str = include_str!("../kernel/qemu.config");

/// Options that look for defects, on top of those.
const DEBUG_FRAGMENT: &str = include_str!("../kernel/debug.config");

/// Options of an appliance, on top of the test machine's.
const APPLIANCE_FRAGMENT: &str = include_str!("../kernel/appliance.config");

/// Options of the arm64 machine, where they differ from those of the test machine.
const ARM64_FRAGMENT: &str = include_str!("../kernel/arm64.config");

/// Where the newest kernel of the archive is.
pub(crate) const SUITE: &str = "trixie-backports";
const SOURCE: &str = "linux-source-7.";

/// LLVM of this version is asked for by name, so that all suites have the same.
pub(crate) const LLVM: &str = "/usr/lib/llvm-19/bin";

/// The distribution's Rust compiler.
pub(crate) const RUSTC: &str = "/usr/bin/rustc";

/// The compilers of modules for a kernel.
pub(crate) trait Compilers {
    /// `make` in a build folder of the kernel.
    fn make(&self, build: &Path) -> Command;

    /// `nm`, whose long options LLVM and GNU spell differently.
    fn nm(&self) -> Command;

    /// `objdump`, in the same case.
    fn objdump(&self) -> Command;
}

/// The compilers of kernels of this project's own configuration, and of modules for them.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    rustc: PathBuf,
    library: PathBuf,
    bindgen: PathBuf,
    path: OsString,
    versions: String,
    arch: Arch,
}

/// The architecture that a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arch {
    /// The architecture of this machine.
    Native,
    /// arm64, with the same compilers: LLVM's and Rust's are cross compilers by nature.
    Arm64,
}

impl Toolchain {
    /// Finds the distribution's compilers; `setup` has installed them.
    pub(crate) fn find(cache: &Cache) -> Result<Self> {
        Self::find_for(cache, Arch::Native)
    }

    /// The same, for kernels of another architecture.
    pub(crate) fn find_for(cache: &Cache, arch: Arch) -> Result<Self> {
        let rustc = PathBuf::from(RUSTC);
        let version = run::capture(run::command(&rustc).arg("--version"))
            .context("the distribution's rustc is missing")?;
        let number = version.split_whitespace().nth(1).context("rustc does not say its version")?;
        let sysroot = run::capture(run::command(&rustc).args(["--print", "sysroot"]))?;
        // Where Debian's rust-src and rust-web-src put the source of exactly this compiler.
        let places = [
            PathBuf::from(format!("/usr/src/rustc-{number}/library")),
            Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library"),
        ];
        let library = places
            .into_iter()
            .find(|place| place.join("core/src/lib.rs").is_file())
            .with_context(|| format!("the source of Rust {number}'s core library is missing"))?;
        let bindgen = setup::bindgen(cache)?;
        let mut folders = vec![PathBuf::from(LLVM)];
        folders.extend(
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                // The kernel's scripts must find the same rustc everywhere.
                .filter(|folder| !folder.join("rustup").exists()),
        );
        let path = std::env::join_paths(folders).context("PATH cannot be extended")?;
        let clang = run::capture(run::command(format!("{LLVM}/clang")).arg("--version"))?;
        let clang = clang.lines().next().unwrap_or_default();
        let versions =
            format!("{}{clang}\n{}", version, run::capture(run::command(&bindgen).arg("--version"))?);
        Ok(Self { rustc, library, bindgen, path, versions, arch })
    }

    /// Fails unless a kernel was built by these compilers.
    pub(crate) fn check(&self, build: &Path) -> Result<()> {
        build_folder::check_compilers(build, self.versions.lines().next().unwrap_or_default())
    }

    /// Everything that compiles, with its version: a part of the key of what it made.
    pub(crate) fn versions(&self) -> &str {
        &self.versions
    }
}

impl Compilers for Toolchain {
    fn make(&self, folder: &Path) -> Command {
        let mut command = run::command("make");
        command
            .env("PATH", &self.path)
            .env("KBUILD_BUILD_USER", "tesserafs")
            .env("KBUILD_BUILD_HOST", "tesserafs")
            // Cargo's settings are for this workspace, not for the kernel's crates.
            .env_remove("RUSTFLAGS")
            .env_remove("MAKEFLAGS")
            .arg("-C")
            .arg(folder)
            .arg(format!("-j{}", processors()))
            .arg("LLVM=1")
            .arg(format!("RUSTC={}", self.rustc.display()))
            .arg(format!("RUST_LIB_SRC={}", self.library.display()))
            .arg(format!("BINDGEN={}", self.bindgen.display()));
        if self.arch == Arch::Arm64 {
            command.arg("ARCH=arm64");
        }
        command
    }

    fn nm(&self) -> Command {
        run::command(Path::new(LLVM).join("llvm-nm"))
    }

    fn objdump(&self) -> Command {
        run::command(Path::new(LLVM).join("llvm-objdump"))
    }
}

/// Processors that builds may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Which kernel of the test machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// As users have it, but for checks that cost little.
    Plain,
    /// With everything that looks for defects.
    Debug,
    /// With the driver and the vendor's certificates built in, for a machine that boots from an image.
    Appliance,
    /// Debian's own, as it comes out of its packages.
    Stock,
    /// As [`Self::Plain`], for arm64, and without what the groups that run there do not need.
    Arm64,
}

impl Flavour {
    /// How it is built; nothing for one that is not.
    fn recipe(self) -> Option<Recipe> {
        let fragment = |more: &str| format!("{FRAGMENT}\n{more}");
        match self {
            Self::Plain => Some(Recipe {
                fragment: FRAGMENT.to_owned(),
                key: FRAGMENT.to_owned(),
                folder: "build",
                time: "5 to 12 minutes",
            }),
            Self::Debug => Some(Recipe::new(fragment(DEBUG_FRAGMENT), "debug", "10 to 20 minutes")),
            Self::Appliance => Some(Recipe::new(fragment(APPLIANCE_FRAGMENT), "appliance", "1 to 4 minutes")),
            Self::Stock => None,
            Self::Arm64 => Some(Recipe::new(fragment(ARM64_FRAGMENT), "arm64", "5 to 12 minutes")),
        }
    }

    /// Words for it on the guest's command line.
    pub(crate) fn parameters(self) -> &'static str {
        match self {
            Self::Plain | Self::Appliance | Self::Arm64 => "",
            // As the configuration of the others has it: a machine with one defect must not go on.
            Self::Stock => "oops=panic",
            // The first report of KASAN need not be the worst one. With page tables of five levels KASAN takes all
            // addresses for wild ones while the kernel finds out what its processor has: an interrupt at that
            // moment, which only a slow machine gets, is nothing but reports. SLUB keeps no traces: unwinding stacks
            // is what costs most, and KASAN and kmemleak do it already.
            Self::Debug => "page_poison=1 slab_debug=FZP kasan_multi_shot no5lvl guest.leaks",
        }
    }

    /// Memory that the guest needs, in MiB: KASAN takes an eighth, and pads and describes each object.
    pub(crate) fn memory(self) -> u32 {
        match self {
            Self::Plain | Self::Appliance | Self::Stock | Self::Arm64 => 3072,
            Self::Debug => 4096,
        }
    }

    /// How many times as long everything may take on it.
    pub(crate) fn slowness(self) -> u32 {
        match self {
            Self::Plain | Self::Appliance | Self::Stock | Self::Arm64 => 1,
            Self::Debug => 8,
        }
    }

    /// The prefix of its logs' names: a run on one kernel leaves those of a run on the other.
    pub(crate) fn log_prefix(self) -> &'static str {
        match self {
            Self::Plain | Self::Appliance => "",
            Self::Debug => "debug-",
            Self::Stock => "stock-",
            Self::Arm64 => "arm64-",
        }
    }
}

/// How a kernel of this project's own is built.
struct Recipe {
    /// Its configuration on top of `tinyconfig`.
    fragment: String,
    /// The lines of that which decide about the build.
    key: String,
    /// The name of its build folder.
    folder: &'static str,
    /// How long a build takes on two processors.
    time: &'static str,
}

impl Recipe {
    fn new(fragment: String, folder: &'static str, time: &'static str) -> Self {
        // Nobody should wait a quarter of an hour for a comment.
        let key = options(&fragment).collect::<Vec<_>>().join("\n");
        Self { fragment, key, folder, time }
    }
}

/// A kernel that can be started, and that modules can be built for.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// Which one.
    pub(crate) flavour: Flavour,
    /// The file that QEMU starts.
    pub(crate) image: PathBuf,
    /// Output folder of the build, against which modules are built.
    pub(crate) build: PathBuf,
    /// Folder of its own modules, if the test machine needs any that are not built in.
    pub(crate) modules: Option<PathBuf>,
    /// Short name of source, compilers and configuration together.
    pub(crate) key: String,
}

/// The source tree: `KERNEL_SRC`, else the newest of the archive.
pub(crate) fn source(cache: &Cache) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("KERNEL_SRC") {
        let folder = PathBuf::from(folder);
        let folder = folder.canonicalize().with_context(|| {
            format!(
                "there is no folder KERNEL_SRC={}; leave it out for the source of {SUITE}",
                folder.display()
            )
        })?;
        if !folder.join("Kconfig").is_file() {
            bail!(
                "KERNEL_SRC={} is no kernel source: found no Kconfig; leave it out for the source of {SUITE}",
                folder.display()
            );
        }
        return Ok(folder);
    }
    let folder = cache.once("kernel/source", |folder| {
        let temporary = tempfile::tempdir_in(folder).context("failed to make a scratch folder")?;
        let suite = Suite::fetch(temporary.path(), SUITE, false)?;
        let package = suite.download_newest(SOURCE)?;
        let contents = temporary.path().join("contents");
        run::quiet(run::command("dpkg-deb").arg("-x").arg(&package).arg(&contents))?;
        let archive = only_entry(&contents.join("usr/src"), ".tar.xz")?;
        run::say(format_args!("unpacking {}", archive.display()));
        run::quiet(run::command("tar").arg("-xf").arg(&archive).arg("-C").arg(folder))
    })?;
    only_entry(&folder, "")
}

/// The one entry of a folder whose name begins like the source package and ends in `suffix`.
fn only_entry(folder: &Path, suffix: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))? {
        let path = entry.with_context(|| format!("failed to list {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("linux-source-") && name.ends_with(suffix) {
            found.push(path.clone());
        }
    }
    match &found[..] {
        [one] => Ok(one.clone()),
        _ => bail!("expected one linux-source-*{suffix} in {}, found {}", folder.display(), found.len()),
    }
}

/// Builds a kernel of the test machine that loads the driver, unless one of the same input is in the cache.
pub(crate) fn build(cache: &Cache, toolchain: &Toolchain, flavour: Flavour) -> Result<Kernel> {
    compile(cache, toolchain, flavour, &linked::source(cache)?, None)
}

/// Builds the kernel of an appliance, with the driver of this clone.
///
/// It trusts the certificates of one file, and none of another (both PEM), from its first instruction on.
pub(crate) fn build_appliance(
    cache: &Cache,
    toolchain: &Toolchain,
    trusted: &Path,
    revoked: &Path,
) -> Result<Kernel> {
    let linked = linked::source(cache)?;
    let plain = compile(cache, toolchain, Flavour::Plain, &linked, None)?;
    let keys = format!(
        "CONFIG_SYSTEM_TRUSTED_KEYS=\"{}\"\nCONFIG_SYSTEM_REVOCATION_KEYS=\"{}\"\n",
        trusted.display(),
        revoked.display()
    );
    let changes = Changes { of: &plain, more: &keys };
    let kernel = compile(cache, toolchain, Flavour::Appliance, &linked, Some(&changes))?;
    // The kernel in the cache may have another driver.
    let mut make = toolchain.make(&linked.source);
    run::logged(make.arg(format!("O={}", kernel.build.display())), &log_of(&kernel.build))?;
    Ok(kernel)
}

/// The difference to a kernel that has been built.
struct Changes<'a> {
    of: &'a Kernel,
    /// The end of its configuration.
    more: &'a str,
}

/// Builds the kernel in `linked`, unless one of the same input is in the cache.
///
/// One that is made from another one begins with its objects: make compiles only those that see a difference.
fn compile(
    cache: &Cache,
    toolchain: &Toolchain,
    flavour: Flavour,
    linked: &Linked,
    changes: Option<&Changes<'_>>,
) -> Result<Kernel> {
    let recipe = flavour.recipe().context("this kernel comes from packages, and is not built")?;
    let Linked { source, version, .. } = linked;
    let more = changes.map_or("", |changes| changes.more);
    let configuration = recipe.key + more;
    let inputs =
        [source.as_os_str().as_encoded_bytes(), toolchain.versions.as_bytes(), configuration.as_bytes()];
    let key = format!("{version}-{}", key(&inputs));
    let build = cache.once(&format!("kernel/{}-{key}", recipe.folder), |build| {
        run::say(format_args!("building Linux {version} ({} on two processors, once)", recipe.time));
        let make = || {
            let mut make = toolchain.make(source);
            make.arg(format!("O={}", build.display()));
            make
        };
        let log = log_of(build);
        match changes {
            Some(Changes { of, .. }) => {
                let all = of.build.join(".");
                run::quiet(run::command("cp").args(["-a", "--reflink=auto"]).arg(all).arg(build))?;
            }
            None => run::logged(make().arg("tinyconfig"), &log)?,
        }
        let fragment = format!("{}\n{more}", recipe.fragment);
        configure(build, &fragment, || run::logged(make().arg("olddefconfig"), &log))?;
        run::logged(&mut make(), &log)
    })?;
    let image = match toolchain.arch {
        Arch::Native => "arch/x86/boot/bzImage",
        Arch::Arm64 => "arch/arm64/boot/Image",
    };
    Ok(Kernel { flavour, image: build.join(image), build, modules: None, key })
}

/// The version of a source tree.
pub(crate) fn version(source: &Path) -> Result<String> {
    let version = run::capture(
        run::command("make").env_remove("MAKEFLAGS").args(["-s", "-C"]).arg(source).arg("kernelversion"),
    )?;
    Ok(version.trim().to_owned())
}

/// Adds `fragment` to the configuration and checks that every line of it was accepted.
pub(crate) fn configure(
    build: &Path,
    fragment: &str,
    olddefconfig: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let path = build.join(".config");
    let read =
        || std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()));
    let config = read()? + "\n" + fragment;
    std::fs::write(&path, config).with_context(|| format!("failed to write {}", path.display()))?;
    olddefconfig()?;
    let lost = lost_options(fragment, &read()?);
    if !lost.is_empty() {
        bail!("the kernel's configuration did not accept {}: a dependency is missing", lost.join(", "));
    }
    Ok(())
}

/// Lines of `fragment` that set an option, or say that it is not set.
fn options(fragment: &str) -> impl Iterator<Item = &str> {
    fragment.lines().filter(|line| {
        line.starts_with("CONFIG_") || (line.starts_with("# CONFIG_") && line.ends_with(" is not set"))
    })
}

/// The option that a line sets, or says that it is not set.
fn option(line: &str) -> &str {
    let line = line.strip_prefix("# ").unwrap_or(line);
    line.split(['=', ' ']).next().unwrap_or_default()
}

/// Lines of `fragment` that `config` does not hold; of those about one option the last one counts.
fn lost_options<'f>(fragment: &'f str, config: &str) -> Vec<&'f str> {
    let lines: HashSet<&str> = config.lines().collect();
    let last: HashMap<&str, &str> = options(fragment).map(|line| (option(line), line)).collect();
    options(fragment)
        .filter(|line| last.get(option(line)) == Some(line))
        .filter(|line| match line.strip_prefix("# CONFIG_") {
            Some(off) => {
                // An option that does not exist is as good as one that is off.
                let name = off.split_whitespace().next().unwrap_or_default();
                lines.iter().any(|line| line.starts_with(&format!("CONFIG_{name}=")))
            }
            None => !lines.contains(line),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_in_the_debug_fragment_makes_no_other_kernel() {
        let fragment = "# CONFIG_A is why\nCONFIG_B=y\n\n# CONFIG_C is not set\n";
        assert_eq!(options(fragment).collect::<Vec<_>>(), ["CONFIG_B=y", "# CONFIG_C is not set"]);
        let key = |flavour: Flavour| flavour.recipe().unwrap().key;
        assert_ne!(key(Flavour::Plain), key(Flavour::Debug));
    }

    #[test]
    fn of_two_lines_about_one_option_the_last_one_counts() {
        let fragment = "CONFIG_A=y\n# CONFIG_A is not set\n# CONFIG_B is not set\nCONFIG_B=y\n";
        assert!(lost_options(fragment, "# CONFIG_A is not set\nCONFIG_B=y\n").is_empty());
        assert_eq!(lost_options(fragment, "CONFIG_A=y\n"), ["# CONFIG_A is not set", "CONFIG_B=y"]);
    }

    #[test]
    fn a_refused_option_is_noticed() {
        let fragment =
            "# why\nCONFIG_A=y\nCONFIG_N=8\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\n";
        let config = "CONFIG_A=y\nCONFIG_N=4\n# CONFIG_B is not set\nCONFIG_D=y\n";
        assert_eq!(lost_options(fragment, config), ["CONFIG_N=8", "CONFIG_B=y", "# CONFIG_D is not set"]);
    }
}
