// SPDX-License-Identifier: GPL-2.0
//! The disk of a clean Debian with a kernel of the archive, and what a boot loader reads from it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{key, log_of, Cache};
use crate::chroot::Chroot;
use crate::debian::{self, Suite, Variant};
use crate::kernel::SUITE;
use crate::stock::COMPILED_IN;
use crate::{run, setup};

/// Packages on which ours depend, which they recommend, and which their examples call: the machine has no network.
const ROOT: &str = "dbus,dkms,file,initramfs-tools,keyutils,kmod,libssl3t64,openssl,systemd-sysv,udev,zstd";

/// The kernel's packages: names before the release.
const KERNEL: [&str; 4] = ["linux-base-", "linux-binary-", "linux-modules-", "linux-image-"];

/// Installs the kernel as apt does. Its initramfs needs the disk's driver and no other: by default it has all of them,
/// and is made and unpacked slowly where the processor is emulated.
const INSTALL_KERNEL: &str = r#"
echo MODULES=list >/etc/initramfs-tools/conf.d/tests
grep -qx virtio_blk /etc/initramfs-tools/modules || echo virtio_blk >>/etc/initramfs-tools/modules
apt-get install -y -q --no-install-recommends /packages/*.deb
"#;

/// Services that run for minutes on an emulated processor, and test nothing here.
const MASKED: [&str; 7] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "serial-getty@ttyS0.service",
    "systemd-firstboot.service",
];

/// A release of the kernel in the archive, and the version of its packages.
pub(in crate::package) struct Release<'a> {
    pub(in crate::package) name: &'a str,
    pub(in crate::package) version: &'a str,
}

/// Bytes of a disk, most of which are a hole.
const SIZE: &str = "3G";

/// The root of every machine, without a kernel, made once.
pub(in crate::package) fn root(cache: &Cache) -> Result<PathBuf> {
    let name = format!("package-root-{COMPILED_IN}-{}", key(&[ROOT.as_bytes()]));
    let folder = cache.once(&name, |folder| {
        setup::require_root("make a Debian root (mmdebstrap)")?;
        run::say(format_args!("making a Debian {COMPILED_IN} root with {ROOT}"));
        debian::bootstrap(folder, COMPILED_IN, Variant::Minimal, ROOT, &log_of(folder))
    })?;
    cache.forget_others(&folder, "package-root-")?;
    Ok(folder)
}

/// A folder with a kernel's packages, and nothing else.
pub(in crate::package) fn kernel(cache: &Cache, release: &Release<'_>) -> Result<PathBuf> {
    let Release { name, version } = *release;
    let folder = cache.once(&format!("package-kernel-{name}-{}", key(&[version.as_bytes()])), |folder| {
        run::say(format_args!("fetching the packages of the kernel {name}"));
        let scratch = tempfile::tempdir_in(folder).context("failed to make a scratch folder")?;
        let suite = Suite::fetch(scratch.path(), SUITE, false)?;
        let of_release = KERNEL.map(|start| (format!("{start}{name}"), Some(version)));
        for (package, version) in [("linux-base".to_owned(), None)].into_iter().chain(of_release) {
            let package = suite.download(&package, version)?;
            let to = folder.join(package.file_name().context("a package without a name")?);
            fs::copy(&package, &to).with_context(|| format!("failed to copy {}", package.display()))?;
        }
        Ok(())
    })?;
    cache.forget_others(&folder, &format!("package-kernel-{name}-"))?;
    Ok(folder)
}

/// The disk of a clean machine with a kernel, made once.
pub(super) fn clean(cache: &Cache, release: &Release<'_>) -> Result<PathBuf> {
    let (root, kernel) = (root(cache)?, kernel(cache, release)?);
    let inputs = [include_bytes!("disk.rs"), root.as_os_str().as_encoded_bytes(), release.version.as_bytes()];
    let name = release.name;
    let folder = cache.once(&format!("package-disk-{name}-{}", key(&inputs)), |folder| {
        run::say(format_args!("making the disk of a clean machine with the kernel {name}"));
        let tree = folder.join("root");
        run::run(run::command("cp").arg("-a").arg(&root).arg(&tree))?;
        // A copy: a folder of this machine's, shown in the root, would leave its path there.
        let packages = tree.join("packages");
        run::run(run::command("cp").arg("-r").arg(&kernel).arg(&packages))?;
        let chroot = Chroot::new(tree.clone(), Vec::new());
        let mut install = chroot.command("sh");
        install.env("DEBIAN_FRONTEND", "noninteractive").args(["-euc", INSTALL_KERNEL]);
        run::logged(&mut install, &log_of(folder))?;
        fs::remove_dir_all(&packages).with_context(|| format!("failed to remove {}", packages.display()))?;
        furnish(&tree)?;
        let mut format = ext2("mkfs.ext4");
        format.args(["-q", "-F", "-d"]).args([&tree, &folder.join(DISK)]).arg(SIZE);
        run::capture(&mut format).context("failed to make the disk")?;
        fs::remove_dir_all(&tree).with_context(|| format!("failed to remove {}", tree.display()))
    })?;
    cache.forget_others(&folder, &format!("package-disk-{name}-"))?;
    Ok(folder.join(DISK))
}

/// The name of the disk in its folder.
const DISK: &str = "disk";

/// Makes a root one that boots.
fn furnish(root: &Path) -> Result<()> {
    let write = |name: &str, text: &str| {
        fs::write(root.join(name), text).with_context(|| format!("failed to write {name}"))
    };
    write("etc/fstab", "/dev/vda / ext4 defaults 0 0\n")?;
    write("etc/hostname", "clean\n")?;
    let units = root.join("etc/systemd/system");
    for unit in MASKED {
        let path = units.join(unit);
        let _ = fs::remove_file(&path);
        symlink("/dev/null", &path).with_context(|| format!("failed to mask {unit}"))?;
    }
    debian::clean(root)
}

/// A program of the filesystem's, which root finds and others do not.
fn ext2(program: &str) -> std::process::Command {
    let mut command = run::command(program);
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    command
}

/// The links to the newest kernel and its initramfs, which the kernel's packages keep for boot loaders.
const LINKS: [&str; 2] = ["vmlinuz", "initrd.img"];

/// Copies kernel and initramfs out of a disk, as a boot loader does.
pub(super) fn load(disk: &Path, folder: &Path) -> Result<[PathBuf; 2]> {
    let debugfs = |request: &str| {
        run::capture(ext2("debugfs").args(["-R", request]).arg(disk))
            .with_context(|| format!("failed to look into {}", disk.display()))
    };
    let copy = |link: &str| -> Result<PathBuf> {
        let target = link_target(&debugfs(&format!("stat /{link}"))?)
            .with_context(|| format!("found no link /{link} on the disk"))?;
        let to = folder.join(link);
        // It fails without saying so in its exit status.
        let _ = fs::remove_file(&to);
        debugfs(&format!("dump /{target} {}", to.display()))?;
        let size = fs::metadata(&to).map(|metadata| metadata.len()).unwrap_or_default();
        anyhow::ensure!(size > 0, "found no /{target} on the disk, where /{link} points to");
        Ok(to)
    };
    let [kernel, initramfs] = LINKS.map(copy);
    Ok([kernel?, initramfs?])
}

/// Where a link points to, as debugfs says it.
fn link_target(stat: &str) -> Option<String> {
    let target = stat.lines().find_map(|line| line.strip_prefix("Fast link dest: "))?;
    Some(target.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::link_target;

    #[test]
    fn a_link_is_read_from_what_debugfs_says() {
        let stat = "Inode: 12427   Type: symlink\nFast link dest: \"boot/vmlinuz-7.3.4+deb13-cloud-amd64\"\n";
        assert_eq!(link_target(stat).as_deref(), Some("boot/vmlinuz-7.3.4+deb13-cloud-amd64"));
        assert_eq!(link_target("Inode: 12   Type: regular\n"), None);
    }
}
