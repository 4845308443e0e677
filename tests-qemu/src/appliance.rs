// SPDX-License-Identifier: GPL-2.0
//! A machine that boots from a signed image, by a kernel that has the driver and the vendor's certificates built in.
//!
//! Its root is a Debian with systemd and container runtimes; a second disk has the images of containers and the
//! tests, which systemd starts.

use std::os::unix::fs::{symlink, FileExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tesserafs_guest::message::Message;
use tesserafs_guest::plan;

use crate::cache::{key, log_of, Cache};
use crate::debian::{self, Variant};
use crate::initramfs::{self, Contents};
use crate::kernel::{self, Flavour, Toolchain};
use crate::qemu::{self, Accelerator, Boot, Outcome};
use crate::sign::{self, Signer, Vendor};
use crate::tools::{self, Tools};
use crate::{disk, rootfs, run, setup, trees};

/// The machine's own packages, on top of a minimal Debian: init, keys, container runtimes.
const MACHINE: &str = "systemd-sysv,udev,dbus,keyutils,crun,runc,podman,netavark,busybox-static,python3";

/// Those of the containers' base.
const BASE: &str = "python3";

/// Files that are put into the machine's root: path in it, bytes, permission bits.
const FILES: [(&str, &[u8], u32); 5] = [
    ("usr/sbin/overlay-init", include_bytes!("../appliance/overlay-init"), 0o755),
    ("etc/fstab", include_bytes!("../appliance/fstab"), 0o644),
    ("etc/systemd/system/srv-app.mount", include_bytes!("../appliance/srv-app.mount"), 0o644),
    (
        "etc/systemd/system/tesserafs-guest.service",
        include_bytes!("../appliance/tesserafs-guest.service"),
        0o644,
    ),
    ("etc/machine-id", b"uninitialized\n", 0o444),
];

/// Units that multi-user.target wants besides.
const WANTED: [&str; 2] = ["srv-app.mount", "tesserafs-guest.service"];

/// Units that a machine without a network and with a root in memory has no use for: they take a quarter of an emulated boot. Podman's
/// make a store in `/var`, which is an overlay: its driver `overlay` does not go there, and one that starts while another one tries
/// finds that driver's folder, and fails.
const MASKED: [&str; 27] = [
    "serial-getty@ttyS0.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-network-generator.service",
    "systemd-networkd-persistent-storage.service",
    "systemd-networkd.service",
    "systemd-random-seed.service",
    "podman.service",
    "podman-restart.service",
    "podman-auto-update.service",
    "podman-auto-update.timer",
];

/// Where things are mounted: in the image, as nothing can be made there later.
const MOUNT_POINTS: [&str; 5] = ["image", "disk", "srv/base", "srv/app", "srv/stack"];

/// A file of the machine's root that nothing needs at boot, long enough for chunks of its own.
pub(crate) const TOUCHED: &str = "usr/share/tesserafs/touched";

/// Its bytes.
const TOUCHED_BYTES: usize = 300_000;

/// The words for systemd in both machines that boot from an image: to show errors only; that the root's packages have made
/// the indexes in `/etc` and `/var`, which it would make anew at each boot, as the changes of the last one are gone; and to
/// wait for devices and services as long as an emulated machine on a busy host needs.
pub(crate) const SYSTEMD: &str = "systemd.show_status=error systemd.condition_needs_update=0 \
     systemd.default_device_timeout_sec=900 systemd.default_timeout_start_sec=900";

/// How long a boot may take on a processor.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

/// The configuration of the base image's containers, as an OCI image has it.
const OCI_CONFIG: &[u8] = include_bytes!("../appliance/oci-config.json");

/// The root of the machine, and that of the containers.
struct Roots {
    machine: PathBuf,
    base: PathBuf,
}

/// Makes both once.
fn roots(cache: &Cache) -> Result<Roots> {
    let key = key(&[include_bytes!("appliance.rs"), &FILES.map(|(_, bytes, _)| bytes).concat()]);
    let folder = cache.once(&format!("appliance-{key}"), |folder| {
        setup::require_root("make a Debian root (mmdebstrap)")?;
        run::say(format_args!("making the roots of an appliance and of containers"));
        let (machine, base) = (folder.join("machine"), folder.join("base"));
        for (root, packages) in [(&machine, MACHINE), (&base, BASE)] {
            debian::bootstrap(root, rootfs::SUITE, Variant::Minimal, packages, &log_of(folder))?;
            debian::clean(root)?;
        }
        furnish(&machine)
    })?;
    cache.forget_others(&folder, "appliance-")?;
    Ok(Roots { machine: folder.join("machine"), base: folder.join("base") })
}

/// Puts into the machine's root what makes it an appliance.
pub(crate) fn furnish(root: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for name in MOUNT_POINTS {
        std::fs::create_dir_all(root.join(name)).with_context(|| format!("failed to create {name}"))?;
    }
    for (name, bytes, mode) in FILES {
        let path = root.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).context("failed to set a mode")?;
    }
    let touched = root.join(TOUCHED);
    std::fs::create_dir_all(touched.parent().context("a file in no folder")?)
        .and_then(|()| std::fs::write(&touched, rootfs::noise(11, TOUCHED_BYTES)))
        .with_context(|| format!("failed to write {}", touched.display()))?;
    let units = root.join("etc/systemd/system");
    let wants = units.join("multi-user.target.wants");
    std::fs::create_dir_all(&wants).context("failed to create a folder")?;
    for unit in WANTED {
        symlink(Path::new("..").join(unit), wants.join(unit))
            .with_context(|| format!("failed to enable {unit}"))?;
    }
    for unit in MASKED {
        let path = units.join(unit);
        let _ = std::fs::remove_file(&path);
        symlink("/dev/null", &path).with_context(|| format!("failed to mask {unit}"))?;
    }
    Ok(())
}

/// Where the machine finds its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// On a disk, which is the image.
    Disk,
    /// In a file, which an initramfs mounts.
    File,
}

/// A root that the kernel must not boot.
pub(crate) struct Refused {
    /// The fault of it.
    pub(crate) name: &'static str,
    /// The disk.
    pub(crate) disk: PathBuf,
    /// The kernel's words about it.
    pub(crate) says: &'static str,
}

/// Everything that boots.
pub(crate) struct Appliance {
    kernel: PathBuf,
    accelerator: Accelerator,
    logs: PathBuf,
    initramfs: PathBuf,
    root: PathBuf,
    data: PathBuf,
    /// The root of containers, unpacked.
    pub(crate) base: PathBuf,
    /// The signer of the images that this machine mounts.
    pub(crate) vendor: Vendor,
    /// Root whose data was changed where nothing looks at boot.
    tampered: PathBuf,
    /// Roots that are no good.
    pub(crate) refused: Vec<Refused>,
    _folder: tempfile::TempDir,
}

impl Appliance {
    /// Builds kernel, roots, images and disks.
    pub(crate) fn prepare(cache: &Cache, toolchain: &Toolchain, tools: &Tools) -> Result<Self> {
        let vendor = sign::vendor(cache)?;
        let kernel = kernel::build_appliance(cache, toolchain, &vendor.trusted, &vendor.retired.certificate)?;
        let roots = roots(cache)?;
        let guest = tools::guest()?;
        let folder = tempfile::Builder::new()
            .prefix("appliance-")
            .tempdir_in(cache.folder("scratch")?)
            .context("failed to make a scratch folder")?;
        let at = |name: &str| folder.path().join(name);
        run::say("building the images of the appliance");

        let initramfs = at("initramfs.cpio");
        let init = at("init");
        std::fs::write(&init, include_bytes!("../appliance/initramfs-init"))
            .context("failed to write the init")?;
        let busybox = ("bin/busybox".to_owned(), roots.machine.join("bin/busybox"));
        let contents = Contents { init: &init, module: None, debian: None, files: &[busybox] };
        initramfs::write(&initramfs, &contents)?;

        let disk = at("disk");
        std::fs::create_dir(&disk).context("failed to create a folder")?;
        let root = disk.join("root.tess");
        let image_id = signed(tools, &root, &roots.machine, &vendor.current, &[])?;
        write_disk(tools, &disk, &roots.base, &vendor, image_id, None)?;
        let data = at("data.ext4");
        disk::write(&data, &disk)?;
        let tampered = tampered(tools, &root, &at("tampered.tess"))?;
        let refused = refused(tools, &folder, &root, &roots, &vendor)?;
        Ok(Self {
            accelerator: qemu::accelerator(&kernel.image, &guest)?,
            kernel: kernel.image,
            logs: cache.folder("logs")?,
            initramfs,
            root,
            data,
            base: roots.base,
            vendor,
            tampered,
            refused,
            _folder: folder,
        })
    }

    /// Boots, and runs one group of tests.
    pub(crate) fn run(
        &self,
        group: &str,
        filter: Option<&str>,
        show: impl FnMut(&Message),
    ) -> Result<Outcome> {
        let (root, from) = match group {
            "boot-from-file" => (&self.root, From::File),
            "tampered" => (&self.tampered, From::Disk),
            _ => (&self.root, From::Disk),
        };
        let filter = filter.map(|filter| format!(" guest.filter={filter}")).unwrap_or_default();
        let arguments = format!("{} guest.group={group}{filter}", self.arguments(from));
        let disks = [root.clone(), self.data.clone()];
        qemu::boot(&self.machine(from, &disks, &arguments, &self.logs.join(format!("{group}.log"))), show)
    }

    /// A machine that measures: the task is on its third disk.
    pub(crate) fn bench(&self, disk: &Path) -> Command {
        let disks = [self.root.clone(), self.data.clone(), disk.to_path_buf()];
        let arguments = format!("{} guest.bench", self.arguments(From::Disk));
        let log = self.logs.join("bench");
        self.machine(From::Disk, &disks, &arguments, &log).command()
    }

    /// Starts a machine with `refused` as its root, and gives what the kernel said.
    pub(crate) fn refuse(&self, refused: &Refused) -> Result<String> {
        let disks = [refused.disk.clone(), self.data.clone()];
        let arguments = self.arguments(From::Disk);
        let log = self.logs.join(format!("boot-{}.log", refused.name));
        let console = qemu::console_of(&self.machine(From::Disk, &disks, &arguments, &log))?;
        judge(&console, refused.says).with_context(|| format!("whole console: {}", log.display()))
    }

    fn machine<'a>(
        &'a self,
        from: From,
        disks: &'a [PathBuf],
        arguments: &'a str,
        log: &'a Path,
    ) -> Boot<'a> {
        Boot {
            kernel: &self.kernel,
            initramfs: (from == From::File).then_some(&*self.initramfs),
            disks,
            scratch: &[],
            arguments,
            memory: Flavour::Appliance.memory(),
            limit: LIMIT * self.accelerator.patience(),
            log,
            accelerator: self.accelerator,
        }
    }

    /// The kernel's command line: the policy holds from the first instruction on, and no module is loaded from the first process
    /// on.
    fn arguments(&self, from: From) -> String {
        let root = match from {
            From::Disk => "root=/dev/vda rootfstype=tesserafs ro init=/usr/sbin/overlay-init",
            From::File => "root.disk=/dev/vdb root.file=root.tess",
        };
        format!(
            "{} {root} tesserafs.require_signatures=1 sysctl.kernel.modules_disabled=1 loglevel=5 {SYSTEMD}",
            self.accelerator.kernel_parameters(Flavour::Appliance.slowness())
        )
    }
}

/// Looks at the kernel's words about a root: fails unless it is `says`, and no process was started.
fn judge(console: &str, says: &str) -> Result<String> {
    let line = console
        .lines()
        .find(|line| line.contains("tesserafs: ") && line.contains(says))
        .with_context(|| format!("the kernel did not say {says:?}"))?;
    anyhow::ensure!(
        console.contains("Kernel panic - not syncing: VFS: Unable to mount root fs"),
        "the kernel did not give up"
    );
    Ok(line.split_once("tesserafs: ").map_or(line, |(_, said)| said).trim().to_owned())
}

/// An image, signed; gives its ID.
pub(crate) fn signed(
    tools: &Tools,
    image: &Path,
    tree: &Path,
    signer: &Signer,
    more: &[String],
) -> Result<String> {
    let options = [&sign::options(signer)?[..], more].concat();
    Ok(tools.mkfs(image, tree, &options)?.image_id()?.to_owned())
}

/// The images of containers and of keys, on the second disk, with the programs and the plan of the tests; `base` is the
/// root of containers.
pub(crate) fn write_disk(
    tools: &Tools,
    disk: &Path,
    base: &Path,
    vendor: &Vendor,
    image_id: String,
    packed_id: Option<String>,
) -> Result<()> {
    let plan = plan::Appliance { image_id, packed_id, ..contents_of_disk(tools, disk, base, vendor)? };
    let text = serde_json::to_vec_pretty(&plan).context("the plan cannot be written down")?;
    std::fs::write(disk.join("plan.json"), text).context("failed to write the plan")?;
    for (name, program) in [("guest", &tools::guest()?), ("fsck.tesserafs", &tools.fsck)] {
        std::fs::copy(program, disk.join(name))
            .with_context(|| format!("failed to copy {}", program.display()))?;
    }
    Ok(())
}

fn contents_of_disk(tools: &Tools, disk: &Path, base: &Path, vendor: &Vendor) -> Result<plan::Appliance> {
    let config = disk.join("oci-config.json");
    std::fs::write(&config, OCI_CONFIG).context("failed to write the configuration")?;
    let annotate = ["--annotate".to_owned(), format!("{}={}", plan::OCI_CONFIG, config.display())];
    signed(tools, &disk.join("base.tess"), base, &vendor.current, &annotate)?;

    let tree = tempfile::tempdir().context("failed to make a scratch folder")?;
    trees::small(tree.path())?;
    signed(tools, &disk.join("app.tess"), tree.path(), &vendor.current, &[])?;
    let signers = [
        ("retired", &vendor.retired),
        ("fleet", &vendor.fleet),
        ("expired", &vendor.expired),
        ("blacklisted", &vendor.blacklisted),
        ("stranger", &vendor.stranger),
    ];
    for (name, signer) in signers {
        signed(tools, &disk.join(format!("{name}.tess")), tree.path(), signer, &[])?;
        std::fs::copy(&signer.der, disk.join(format!("{name}.der")))
            .with_context(|| format!("failed to copy {}", signer.der.display()))?;
    }
    tools.mkfs::<&str>(&disk.join("unsigned.tess"), tree.path(), &[])?;

    // The owner of a built-in key may add to the blacklist: the description of the entry, signed.
    let entry = format!("tbs:{}", sign::tbs_digest(&vendor.blacklisted)?);
    let description = tree.path().join("entry");
    std::fs::write(&description, &entry).context("failed to write an entry of the blacklist")?;
    sign::detached(&vendor.current, &description, &disk.join("blacklist.p7s"))?;
    let touched = format!("/{TOUCHED}");
    Ok(plan::Appliance { image_id: String::new(), packed_id: None, touched, blacklist_entry: entry })
}

/// A copy of an image with one bit changed in the stored bytes of [`TOUCHED`].
pub(crate) fn tampered(tools: &Tools, image: &Path, copy: &Path) -> Result<PathBuf> {
    std::fs::copy(image, copy).with_context(|| format!("failed to copy {}", image.display()))?;
    // Bytes that cannot be compressed are stored as they are.
    let wanted = rootfs::noise(11, TOUCHED_BYTES);
    let wanted = &wanted[TOUCHED_BYTES / 2..][..64];
    let pack = tools
        .regions(image)?
        .into_iter()
        .find(|region| region.name == "pack")
        .context("the image has no pack")?;
    let bytes = std::fs::read(image).with_context(|| format!("failed to read {}", image.display()))?;
    let place = memchr::memmem::find(&bytes, wanted).context("the file's bytes are not in the image")?;
    anyhow::ensure!((place as u64) < pack.offset + pack.length, "the file's bytes are in no pack");
    let file = std::fs::File::options().write(true).open(copy).context("failed to open the copy")?;
    file.write_all_at(&[bytes[place] ^ 1], place as u64).context("failed to change the copy")?;
    Ok(copy.to_path_buf())
}

/// A copy of an image with some bits changed in the tree ID, which the signature covers.
pub(crate) fn changed_prefix(image: &Path, copy: &Path) -> Result<PathBuf> {
    std::fs::copy(image, copy).with_context(|| format!("failed to copy {}", image.display()))?;
    let file = std::fs::File::options().write(true).open(copy).context("failed to open the copy")?;
    file.write_all_at(&[0xff; 4], 0x100).context("failed to change the copy")?;
    Ok(copy.to_path_buf())
}

/// Roots that the policy must keep out.
fn refused(
    tools: &Tools,
    folder: &tempfile::TempDir,
    root: &Path,
    roots: &Roots,
    vendor: &Vendor,
) -> Result<Vec<Refused>> {
    let at = |name: &str| folder.path().join(name);
    let (unsigned, stranger, retired) = (at("unsigned.tess"), at("stranger.tess"), at("retired.tess"));
    tools.mkfs::<&str>(&unsigned, &roots.base, &[])?;
    signed(tools, &stranger, &roots.base, &vendor.stranger, &[])?;
    signed(tools, &retired, &roots.base, &vendor.retired, &[])?;
    let prefix = changed_prefix(root, &at("prefix.tess"))?;
    let ext4 = at("ext4");
    let tree = tempfile::tempdir().context("failed to make a scratch folder")?;
    std::fs::create_dir(tree.path().join("sbin")).context("failed to create a folder")?;
    disk::write(&ext4, tree.path())?;
    Ok(vec![
        Refused { name: "unsigned", disk: unsigned, says: "not signed, and signatures are required" },
        Refused {
            name: "signed-by-a-stranger",
            disk: stranger,
            says: "signed by an unknown key, and signatures are required",
        },
        Refused {
            name: "signed-by-a-revoked-key",
            disk: retired,
            says: "(rule: the signature is over this image and by a trusted key)",
        },
        Refused { name: "changed-in-the-signed-prefix", disk: prefix, says: "prefix-digest" },
        Refused { name: "another-filesystem", disk: ext4, says: "magic" },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_refused_when_the_kernel_says_so_and_gives_up() {
        let refused = "[ 1.0] tesserafs: sha256:12: not signed, and signatures are required\n\
                       [ 1.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(254,0)\n";
        assert_eq!(
            judge(refused, "not signed").unwrap(),
            "sha256:12: not signed, and signatures are required"
        );
        assert!(judge(refused, "ENOKEY").is_err());
        assert!(judge("tesserafs: not signed\nsystemd[1]: hello\n", "not signed").is_err());
    }
}
