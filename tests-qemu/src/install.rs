// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask install`: the programs under the names that `mkfs -t` and `fsck -t` look for, and the module.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use tempfile::TempPath;

use crate::build_folder;
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
    // A driver that cannot be built is refused before anything is installed.
    let module = options.build.as_deref().map(module_for).transpose()?;
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
    let Some((module, release)) = module else {
        return Ok(ExitCode::SUCCESS);
    };
    let modules = Path::new("/lib/modules").join(&release);
    let folder = below(&options.destdir, &modules.join("updates"));
    copy(&module, &folder.join("tesserafs.ko"), 0o644)?;
    if options.destdir.is_empty() {
        run::run(run::command("depmod").env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").arg(release))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The module for a kernel build folder, and the release of that kernel.
fn module_for(build: &Path) -> Result<(PathBuf, String)> {
    let build = build_folder::find(build)?;
    let release = build.join("include/config/kernel.release");
    let release = std::fs::read_to_string(&release)
        .with_context(|| format!("{} is no finished kernel build", build.display()))?;
    let cache = Cache::open()?;
    setup::ensure(&cache, &[Need::Kernel])?;
    let toolchain = Toolchain::find(&cache)?;
    toolchain.check(&build)?;
    let module = module::build(&cache, &toolchain, &build, Lint::Plain)?;
    Ok((module, release.trim().to_owned()))
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
    copy_all(&[(from, to)], mode)
}

/// Copies files, and gives them their names when all are written.
pub(crate) fn copy_all(files: &[(&Path, &Path)], mode: u32) -> Result<()> {
    let written = files
        .iter()
        .map(|(from, to)| written(to, mode, |temporary| std::fs::copy(from, temporary).map(drop)))
        .collect::<Result<Vec<_>>>()?;
    written.into_iter().zip(files).try_for_each(|(written, (_, to))| rename(written, to))
}

fn put(to: &Path, mode: u32, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    rename(written(to, mode, write)?, to)
}

/// Writes under a temporary name, which goes with a failure: a running program is replaced, never changed.
fn written(to: &Path, mode: u32, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<TempPath> {
    // The folder of a name alone is the current one.
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let temporary = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(folder)
        .with_context(|| format!("failed to create a file in {}", folder.display()))?
        .into_temp_path();
    write(&temporary)
        .and_then(|()| std::fs::set_permissions(&temporary, PermissionsExt::from_mode(mode)))
        .with_context(|| format!("failed to write {}", to.display()))?;
    Ok(temporary)
}

fn rename(written: TempPath, to: &Path) -> Result<()> {
    written
        .persist(to)
        .map_err(|error| error.error)
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
    fn all_files_are_written_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("from"), "bytes").unwrap();
        let (from, absent, one, two) = (at("from"), at("absent"), at("to/one"), at("to/two"));
        assert!(copy_all(&[(&from, &one), (&absent, &two)], 0o755).is_err());
        assert_eq!(std::fs::read_dir(at("to")).unwrap().count(), 0, "something is left");
        copy_all(&[(&from, &one), (&from, &two)], 0o755).unwrap();
        assert_eq!(std::fs::metadata(&two).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn packagers_collect_everything_in_one_folder() {
        assert_eq!(below("", Path::new("/usr/sbin")), Path::new("/usr/sbin"));
        assert_eq!(below("/tmp/d", Path::new("/usr/sbin")), Path::new("/tmp/d/usr/sbin"));
    }
}
