// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask install`: the programs under the names that `mkfs -t` and `fsck -t` look for, and the module.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::kernel::Toolchain;
use crate::module::{self, Lint};
use crate::run;
use crate::setup::{self, Need};
use crate::tools::Tools;

/// Rules by which udev tells images, and their place in the order of rules: behind those that ask libblkid.
const UDEV_RULES: &str = "61-tesserafs.rules";

/// Where things go.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Programs go to PREFIX/sbin, rules for file(1) to PREFIX/share/tesserafs, those for udev to PREFIX/lib/udev/rules.d
    #[arg(long, default_value = "/usr/local", value_name = "DIR")]
    prefix: PathBuf,
    /// Also build the module against this kernel build folder and install it below /lib/modules
    #[arg(long, value_name = "DIR")]
    build: Option<PathBuf>,
    /// Put this in front of every path (for packagers)
    #[arg(long, default_value = "", value_name = "DIR")]
    destdir: String,
}

pub(crate) fn install(options: &Options) -> Result<ExitCode> {
    let tools = Tools::build()?;
    let programs = below(&options.destdir, &options.prefix.join("sbin"));
    copy(&tools.mkfs, &programs.join("mkfs.tesserafs"), 0o755)?;
    copy(&tools.fsck, &programs.join("fsck.tesserafs"), 0o755)?;
    let mkfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mkfs-tool");
    let magic = mkfs.join("tesserafs.magic");
    let share = below(&options.destdir, &options.prefix.join("share/tesserafs"));
    copy(&magic, &share.join("tesserafs.magic"), 0o644)?;
    let rules = mkfs.join(UDEV_RULES);
    let rules =
        std::fs::read_to_string(&rules).with_context(|| format!("failed to read {}", rules.display()))?;
    let rules = with_program(&rules, &options.prefix.join("sbin"))?;
    let folder = below(&options.destdir, &options.prefix.join("lib/udev/rules.d"));
    put(&folder.join(UDEV_RULES), 0o644, |to| std::fs::write(to, &rules))?;
    let Some(build) = &options.build else {
        return Ok(ExitCode::SUCCESS);
    };
    let build = build.canonicalize().with_context(|| format!("there is no {}", build.display()))?;
    let cache = Cache::open()?;
    setup::ensure(&cache, &[Need::Kernel])?;
    let module = module::build(&cache, &Toolchain::find(&cache)?, &build, Lint::Plain)?;
    let release = build.join("include/config/kernel.release");
    let release = std::fs::read_to_string(&release)
        .with_context(|| format!("{} is no finished kernel build", build.display()))?;
    let release = release.trim();
    let modules = Path::new("/lib/modules").join(release);
    let folder = below(&options.destdir, &modules.join("updates"));
    copy(&module, &folder.join("tesserafs.ko"), 0o644)?;
    if options.destdir.is_empty() {
        run::run(run::command("depmod").env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").arg(release))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn below(destdir: &str, path: &Path) -> PathBuf {
    if destdir.is_empty() {
        path.to_path_buf()
    } else {
        Path::new(destdir).join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The rules with the program in the folder that it is installed to: udev looks for none.
fn with_program(rules: &str, folder: &Path) -> Result<String> {
    let folder = folder.to_str().context("the prefix is not UTF-8, as udev's rules are")?;
    anyhow::ensure!(
        folder.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c)),
        "the prefix has characters that mean something in udev's rules: {folder}"
    );
    Ok(rules.replace("/usr/local/sbin/", &format!("{folder}/")))
}

pub(crate) fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    put(to, mode, |to| std::fs::copy(from, to).map(drop))
}

/// Writes under a temporary name and renames: a running program is replaced, never changed.
fn put(to: &Path, mode: u32, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = to.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let temporary = to.with_extension("new");
    write(&temporary)
        .and_then(|()| std::fs::set_permissions(&temporary, PermissionsExt::from_mode(mode)))
        .and_then(|()| std::fs::rename(&temporary, to))
        .with_context(|| format!("failed to install {}", to.display()))?;
    println!("{}", to.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udev_runs_the_program_that_is_installed() {
        let rules = include_str!("../../mkfs-tool/61-tesserafs.rules");
        let installed = with_program(rules, Path::new("/usr/sbin")).unwrap();
        assert_eq!(installed.matches("/usr/sbin/fsck.tesserafs").count(), 2);
        assert!(!installed.contains("/usr/local"));
        assert_eq!(with_program(rules, Path::new("/usr/local/sbin")).unwrap(), rules);
        assert!(with_program(rules, Path::new("/opt/$devnode")).is_err());
    }

    #[test]
    fn packagers_collect_everything_in_one_folder() {
        assert_eq!(below("", Path::new("/usr/sbin")), Path::new("/usr/sbin"));
        assert_eq!(below("/tmp/d", Path::new("/usr/sbin")), Path::new("/tmp/d/usr/sbin"));
    }
}
