// SPDX-License-Identifier: GPL-2.0
//! The verbs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::cache::Cache;
use crate::kernel::{self, Compilers, Flavour, Toolchain};
use crate::module::{self, Lint};
use crate::setup::{self, Need};
use crate::stock::{self, Stock};
use crate::{audit, bench, build_folder, demo, fuzz, install, package, run, test};

/// Kernels, virtual machines and everything else that is more than `cargo test`
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    after_help = "Builds are kept in $TESSERAFS_CACHE, else $XDG_CACHE_HOME/tesserafs, else ~/.cache/tesserafs.\n\
                  KERNEL_SRC=<dir> names a kernel source tree to use instead of the newest of Debian's archive."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show it all once: build a signed image of a Debian root and mount it in a virtual machine
    Demo,
    /// Run every check; the last line is `N passed, N failed`
    Test {
        /// Only tests whose names begin with this, e.g. `compare` or `source/format`
        #[arg(long)]
        filter: Option<String>,
        /// On a kernel that looks for defects: KASAN, lockdep, UBSAN, kmemleak and more; an hour or two under emulation
        #[arg(long)]
        debug_kernel: bool,
        /// On Debian's own kernel, as `module --stock`
        #[arg(long, conflicts_with = "debug_kernel")]
        stock_kernel: bool,
        /// On an emulated machine of another architecture, cross-built: the groups compare, signatures, mutants, tools
        #[arg(long, value_name = "ARCH", conflicts_with_all = ["debug_kernel", "stock_kernel"])]
        arch: Option<Foreign>,
    },
    /// Mount, read, unmount, load and unload at once, for a long time
    Soak {
        /// How long
        #[arg(long, default_value_t = 20)]
        minutes: u64,
        /// On a kernel that looks for defects, as `test --debug-kernel`
        #[arg(long)]
        debug_kernel: bool,
    },
    /// List each unsafe block of the module with its reason, in Markdown
    Unsafe,
    /// Feed the parsers, the checker and the builder with bytes that try to break them
    Fuzz(fuzz::Options),
    /// Build tesserafs.ko
    Module {
        /// Finished kernel build folder to build against, instead of the test machine's kernel
        #[arg(long, value_name = "DIR")]
        build: Option<PathBuf>,
        /// For Debian's own kernel, out of its packages; KERNEL_RELEASE= names another one than the newest
        #[arg(long, conflicts_with_all = ["build", "clippy"])]
        stock: bool,
        /// With the kernel's clippy lints
        #[arg(long)]
        clippy: bool,
        /// Copy the module here
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Install mkfs.tesserafs and fsck.tesserafs, and the module for a given kernel
    Install(install::Options),
    /// Build Debian packages: tesserafs-tools, tesserafs-modules-RELEASE, tesserafs-dkms
    Package(package::Options),
    /// Compare with EROFS and squashfs, in building and in reading; write BENCH.md and every sample
    Bench(bench::Options),
}

/// An architecture that is not this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Foreign {
    /// arm64, as `qemu-system-aarch64` has it
    Aarch64,
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Demo => demo::demo(),
        Verb::Test { filter, arch: Some(Foreign::Aarch64), .. } => test::arm64::test(filter),
        Verb::Test { filter, stock_kernel: true, .. } => test::test(filter, Flavour::Stock),
        Verb::Test { filter, debug_kernel, .. } => test::test(filter, flavour(debug_kernel)),
        Verb::Soak { minutes, debug_kernel } => {
            test::soak(Duration::from_secs(minutes * 60), flavour(debug_kernel))
        }
        Verb::Unsafe => {
            print!("{}", audit::list()?);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Fuzz(options) => fuzz::fuzz(&options),
        Verb::Module { build, stock, clippy, output } => module(build, stock, clippy, output),
        Verb::Install(options) => install::install(&options),
        Verb::Package(options) => package::package(&options),
        Verb::Bench(options) => bench::bench(&options),
    }
}

fn flavour(debug_kernel: bool) -> Flavour {
    if debug_kernel {
        Flavour::Debug
    } else {
        Flavour::Plain
    }
}

fn module(build: Option<PathBuf>, stock: bool, clippy: bool, output: Option<PathBuf>) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let lint = if clippy { Lint::Clippy } else { Lint::Plain };
    let module = if stock {
        setup::ensure(&cache, &[Need::Stock])?;
        let Stock { kernel, builder, .. } = stock::prepare(&cache)?;
        checked_module(&cache, &builder, &kernel.build, lint)?
    } else {
        // Before compilers are installed for it.
        let build = build.map(|folder| build_folder::find(&folder)).transpose()?;
        setup::ensure(&cache, &[Need::Kernel])?;
        let toolchain = Toolchain::find(&cache)?;
        let build = match build {
            Some(folder) => {
                toolchain.check(&folder)?;
                folder
            }
            None => kernel::build(&cache, &toolchain, Flavour::Plain)?.build,
        };
        checked_module(&cache, &toolchain, &build, lint)?
    };
    let module = match output {
        Some(output) => {
            install::copy(&module, &output, 0o644)?;
            output
        }
        None => module,
    };
    run::say("no warning, and no path to a panic");
    println!("{}", module.display());
    Ok(ExitCode::SUCCESS)
}

/// The module for this kernel, which cannot panic.
fn checked_module(cache: &Cache, compilers: &dyn Compilers, build: &Path, lint: Lint) -> Result<PathBuf> {
    let module = module::build(cache, compilers, build, lint)?;
    module::check_panic_free(compilers, &module)?;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Verb;
    use crate::readme;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn readme_types_nothing_that_this_command_line_refuses() {
        let text = readme::text().unwrap();
        let mut count = 0;
        for heading in ["Look at it", "Install it", "Hack on it", "Five minutes"] {
            let section = readme::section(&text, heading).unwrap();
            let mut lines = readme::commands(section);
            lines.extend(readme::mentioned(section, "cargo xtask "));
            for line in lines.iter().filter(|line| line.starts_with("cargo xtask ")) {
                // A number, where the sentence says N.
                let words = line.split_whitespace().skip(1).map(|word| if word == "N" { "1" } else { word });
                let cli = super::Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
                if let Verb::Test { filter: Some(filter), .. } = cli.verb {
                    assert!(crate::test::is_group(&filter), "no test is named {filter}: {line}");
                }
                count += 1;
            }
        }
        assert!(count >= 10, "{count} commands");
    }
}
