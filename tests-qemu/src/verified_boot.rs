// SPDX-License-Identifier: GPL-2.0
//! A machine that boots Debian's own kernel from a signed image, by an initramfs that Debian's `update-initramfs` makes
//! with the hook of `packaging/initramfs-tools`.
//!
//! The steps are those of SIGNING.md: in a root of Debian the driver, the hook, the settings and a certificate are
//! installed and the initramfs is made; the image is of this root.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use tesserafs_guest::message::Message;

use crate::cache::{key, log_of, sha256_of, Cache};
use crate::chroot::Chroot;
use crate::debian::{self, Variant};
use crate::kernel::{Flavour, Kernel};
use crate::qemu::{self, Accelerator, Boot, Outcome};
use crate::sign::{self, Vendor};
use crate::tools::{self, Tools};
use crate::{appliance, disk, run, setup};

/// The suite of the machine: that which the kernel is for.
const SUITE: &str = "trixie";

/// Its packages, on top of a minimal Debian. The initramfs has no busybox: its scripts work with less.
const PACKAGES: &str =
    "crun,dbus,initramfs-tools,keyutils,kmod,openssl,python3-minimal,systemd-sysv,udev,zstd";

/// The files of the hook: path in the root, bytes, permission bits.
const HOOK: [(&str, &[u8], u32); 3] = [
    (HOOK_PATH, include_bytes!("../../packaging/initramfs-tools/hooks/tesserafs"), 0o755),
    (
        "usr/share/initramfs-tools/scripts/init-top/tesserafs",
        include_bytes!("../../packaging/initramfs-tools/scripts/init-top/tesserafs"),
        0o755,
    ),
    (
        "usr/share/initramfs-tools/scripts/tesserafs",
        include_bytes!("../../packaging/initramfs-tools/scripts/tesserafs"),
        0o644,
    ),
];

/// Where the hook itself is.
const HOOK_PATH: &str = "usr/share/initramfs-tools/hooks/tesserafs";

/// The settings as they are installed.
const SETTINGS: &str = include_str!("../../packaging/initramfs-tools/initramfs.conf");

/// Where they are.
const SETTINGS_PATH: &str = "etc/tesserafs/initramfs.conf";

/// The folder of the certificates.
const CERTIFICATES: &str = "etc/tesserafs/certificates.d";

/// The root that the machine is made from, once for all.
fn base(cache: &Cache) -> Result<PathBuf> {
    cache.once(&format!("stock/machine-{SUITE}-{}", key(&[PACKAGES.as_bytes()])), |folder| {
        setup::require_root("make a Debian root (mmdebstrap)")?;
        run::say(format_args!("making a Debian {SUITE} root with {PACKAGES}"));
        debian::bootstrap(folder, SUITE, Variant::Minimal, PACKAGES, &log_of(folder))
    })
}

/// The root of the machine, and what starts it.
struct Machine {
    root: PathBuf,
    initramfs: PathBuf,
}

/// Makes it: a kernel's modules and the driver, the hook with its settings, an initramfs.
fn machine(cache: &Cache, kernel: &Kernel, module: &Path, certificate: &Path) -> Result<Machine> {
    let base = base(cache)?;
    let release = &kernel.key;
    let digests = [sha256_of(module)?, sha256_of(certificate)?].concat();
    let inputs = [
        base.as_os_str().as_encoded_bytes(),
        release.as_bytes(),
        digests.as_bytes(),
        SETTINGS.as_bytes(),
        &HOOK.map(|(_, bytes, _)| bytes).concat(),
        include_bytes!("verified_boot.rs"),
        include_bytes!("appliance.rs"),
    ];
    let folder = cache.once(&format!("stock/verified-boot-{}", key(&inputs)), |folder| {
        run::say(format_args!("making an initramfs of {release} for verified boot"));
        let root = folder.join("root");
        run::quiet(run::command("cp").arg("-a").arg(&base).arg(&root))?;
        install_kernel(&root, kernel, module)?;
        for (path, bytes, mode) in HOOK {
            write(&root.join(path), bytes, mode)?;
        }
        let settings = SETTINGS.replace("\nTESSERAFS_BOOT=no\n", "\nTESSERAFS_BOOT=yes\n");
        ensure!(settings != SETTINGS, "the settings are on as they are installed");
        write(&root.join(SETTINGS_PATH), settings.as_bytes(), 0o644)?;
        let bytes = std::fs::read(certificate)
            .with_context(|| format!("failed to read {}", certificate.display()))?;
        write(&root.join(CERTIFICATES).join("vendor.der"), &bytes, 0o644)?;
        let chroot = Chroot::new(root.clone(), Vec::new());
        let mut update = chroot.command("update-initramfs");
        run::logged(update.args(["-c", "-k", release]), &log_of(folder))?;
        let initramfs = root.join(format!("boot/initrd.img-{release}"));
        std::fs::rename(&initramfs, folder.join("initramfs"))
            .with_context(|| format!("failed to move {}", initramfs.display()))?;
        debian::clean(&root)?;
        appliance::furnish(&root)
    })?;
    cache.forget_others(&folder, "verified-boot-")?;
    Ok(Machine { root: folder.join("root"), initramfs: folder.join("initramfs") })
}

/// The kernel's modules with the driver among them, and what its package has in `/boot`.
fn install_kernel(root: &Path, kernel: &Kernel, module: &Path) -> Result<()> {
    let release = &kernel.key;
    let from = kernel.modules.as_ref().context("the kernel has no modules")?;
    let to = root.join("usr/lib/modules").join(release);
    std::fs::create_dir_all(to.join("updates"))
        .with_context(|| format!("failed to create {}", to.display()))?;
    run::quiet(run::command("cp").arg("-a").arg(from.join("kernel")).arg(&to))?;
    let copy = |from: &Path, to: &Path| {
        std::fs::copy(from, to).with_context(|| format!("failed to copy {}", from.display())).map(|_| ())
    };
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        copy(&from.join(name), &to.join(name))?;
    }
    copy(&from.join("config"), &root.join(format!("boot/config-{release}")))?;
    copy(module, &to.join("updates/tesserafs.ko"))?;
    run::capture(run::command("depmod").arg("-b").arg(root).arg(release)).map(|_| ())
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let folder = path.parent().context("a file in no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    std::fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).context("failed to set a mode")
}

/// The words of `/sys/kernel/security/lockdown` on most machines.
const NO_LOCKDOWN: &str = "[none] integrity confidentiality";

/// Certificates for the hook: name and bytes of each.
type Certificates<'a> = &'a [(&'a str, &'a [u8])];

/// A boot that the initramfs must stop.
pub(crate) struct Stopped {
    /// The fault.
    pub(crate) name: &'static str,
    /// The disks.
    disks: Vec<PathBuf>,
    /// Words for the command line.
    words: &'static str,
    /// A part of the sentence that tells why.
    says: &'static str,
}

/// The root with packs, and the directory of these, on the data disk.
const PACKED: &str = "packed.tess";
const PACKS: &str = "packs";

/// The beginning of the name of the folder of the images.
const IMAGES: &str = "images-";

/// The images and disks of the machine, in a folder of their own.
struct Images {
    root: PathBuf,
    unsigned: PathBuf,
    data: PathBuf,
    upper: PathBuf,
    stranger: PathBuf,
    prefix: PathBuf,
    tampered: PathBuf,
}

impl Images {
    /// The folder that the data disk is made from.
    const DISK: &'static str = "disk";

    fn at(folder: &Path) -> Self {
        let disk = folder.join(Self::DISK);
        Self {
            root: disk.join("root.tess"),
            unsigned: disk.join("unsigned.tess"),
            data: folder.join("data.ext4"),
            upper: folder.join("upper.ext4"),
            stranger: folder.join("stranger.tess"),
            prefix: folder.join("prefix.tess"),
            tampered: folder.join("tampered.tess"),
        }
    }

    fn make(&self, tools: &Tools, root: &Path, vendor: &Vendor) -> Result<()> {
        let disk = self.root.parent().context("an image in no folder")?;
        std::fs::create_dir(disk).with_context(|| format!("failed to create {}", disk.display()))?;
        let image_id = appliance::signed(tools, &self.root, root, &vendor.current, &[])?;
        // Containers have the root of the machine, too.
        let packs = disk.join(PACKS);
        std::fs::create_dir(&packs).with_context(|| format!("failed to create {}", packs.display()))?;
        let packdir = format!("--packdir={}", packs.display());
        let packed_id = appliance::signed(tools, &disk.join(PACKED), root, &vendor.current, &[packdir])?;
        appliance::write_disk(tools, disk, root, vendor, image_id, Some(packed_id))?;
        disk::write(&self.data, disk)?;
        let empty = tempfile::tempdir().context("failed to make a scratch folder")?;
        disk::write(&self.upper, empty.path())?;
        // Another one needs no more than a file.
        let base = tempfile::tempdir().context("failed to make a scratch folder")?;
        write(&base.path().join("etc/os-release"), b"ID=base\n", 0o644)?;
        appliance::signed(tools, &self.stranger, base.path(), &vendor.stranger, &[])?;
        appliance::changed_prefix(&self.root, &self.prefix)?;
        appliance::tampered(tools, &self.root, &self.tampered).map(|_| ())
    }
}

/// Everything that boots.
pub(crate) struct VerifiedBoot {
    kernel: PathBuf,
    /// The driver, and the program that signs modules.
    module: PathBuf,
    sign_file: PathBuf,
    machine: Machine,
    accelerator: Accelerator,
    logs: PathBuf,
    root: PathBuf,
    data: PathBuf,
    /// Room for changes.
    upper: PathBuf,
    /// The root, whose data was changed where nothing looks at boot.
    tampered: PathBuf,
    /// Boots that the initramfs must stop.
    pub(crate) stopped: Vec<Stopped>,
    vendor: Vendor,
}

impl VerifiedBoot {
    /// Makes the root, its initramfs, images and disks.
    pub(crate) fn prepare(cache: &Cache, tools: &Tools, kernel: &Kernel, module: &Path) -> Result<Self> {
        let vendor = sign::vendor(cache)?;
        let machine = machine(cache, kernel, module, &vendor.current.der)?;
        let inputs = [
            machine.root.as_os_str().as_encoded_bytes(),
            // The programs that make them, and the one that is on a disk.
            &[tools.digest()?, sha256_of(&tools::guest()?)?].concat().into_bytes(),
            &[sha256_of(&vendor.current.der)?, sha256_of(&vendor.stranger.der)?].concat().into_bytes(),
        ]
        .map(<[u8]>::to_vec);
        let images = cache.once(
            &format!("stock/{IMAGES}{}", key(&inputs.each_ref().map(Vec::as_slice))),
            |folder| {
                run::say("building the images of the verified boot");
                Images::at(folder).make(tools, &machine.root, &vendor)
            },
        )?;
        cache.forget_others(&images, IMAGES)?;
        let Images { root, unsigned, data, upper, stranger, prefix, tampered } = Images::at(&images);
        let device = "root=/dev/vda";
        let stopped = |name, disks: &[&PathBuf], words, says| Stopped {
            name,
            disks: disks.iter().map(|disk| (*disk).clone()).collect(),
            words,
            says,
        };
        let stopped = vec![
            stopped("an-unsigned-image", &[&unsigned], device, "not signed, and signatures are required"),
            stopped(
                "an-image-signed-by-a-stranger",
                &[&stranger],
                device,
                "signed by an unknown key, and signatures are required",
            ),
            stopped("a-change-in-what-is-signed", &[&prefix], device, "prefix-digest"),
            stopped(
                "an-unsigned-file",
                &[&data],
                "root=/dev/vda tesserafs_file=/unsigned.tess",
                "refuses /unsigned.tess on /dev/vda as the root: found: ",
            ),
            stopped(
                "a-file-that-is-missing",
                &[&data],
                "root=/dev/vda tesserafs_file=/images/root.tess",
                "found no file /images/root.tess on /dev/vda",
            ),
            stopped(
                "packs-and-no-file",
                &[&root],
                "root=/dev/vda tesserafs_packdir=/packs",
                "found tesserafs_packdir=/packs and no tesserafs_file=",
            ),
            stopped(
                "packs-and-an-option",
                &[&data],
                "root=/dev/vda tesserafs_file=/packed.tess tesserafs_packdir=/packs,private_pages",
                "found tesserafs_packdir=/packs,private_pages, expected a path without a comma",
            ),
            stopped(
                "packs-that-are-missing",
                &[&data],
                "root=/dev/vda tesserafs_file=/packed.tess tesserafs_packdir=/images",
                "refuses /packed.tess on /dev/vda as the root: found: ",
            ),
            stopped(
                "a-disk-for-changes-with-no-filesystem",
                &[&root, &root],
                "root=/dev/vda tesserafs_upper=/dev/vdb",
                "the device /dev/vdb is not mounted for the changes",
            ),
            stopped(
                "a-device-that-is-missing",
                &[&data],
                "root=PARTLABEL=none",
                "found no device PARTLABEL=none within 30 s, expected that of the root",
            ),
            stopped("another-way-to-boot", &[&data], "root=/dev/vda boot=local", "found boot=local"),
            stopped("lockdown", &[&root], "root=/dev/vda lockdown=integrity", "Operation not permitted"),
        ];
        Ok(Self {
            accelerator: qemu::accelerator(&kernel.image, &tools::guest()?)?,
            kernel: kernel.image.clone(),
            module: module.to_path_buf(),
            sign_file: kernel.build.join("scripts/sign-file"),
            machine,
            logs: cache.folder("logs")?,
            root,
            data,
            upper,
            tampered,
            stopped,
            vendor,
        })
    }

    /// Boots, and runs one group of tests.
    pub(crate) fn run(
        &self,
        group: &str,
        filter: Option<&str>,
        show: impl FnMut(&Message),
    ) -> Result<Outcome> {
        // The first disk is `/dev/vda`; those that the machine may write to come last.
        let image = if group == "tampered" { &self.tampered } else { &self.root };
        let (words, scratch) = match group {
            "boot-from-file" => (
                "root=/dev/vdb tesserafs_file=/packed.tess tesserafs_packdir=/packs tesserafs_upper=/dev/vdc",
                std::slice::from_ref(&self.upper),
            ),
            _ => ("root=/dev/vda", &[][..]),
        };
        let filter = filter.map(|filter| format!(" guest.filter={filter}")).unwrap_or_default();
        let words = format!("{words} guest.initramfs guest.group={group}{filter}");
        let (disks, arguments) = ([image.clone(), self.data.clone()], self.arguments(&words));
        let log = self.log(group);
        qemu::boot(&Boot { scratch, ..self.boot(&disks, &arguments, &log) }, show)
    }

    /// Starts a machine that the initramfs must stop, and gives its sentence.
    pub(crate) fn stop(&self, stopped: &Stopped) -> Result<String> {
        let log = self.log(&format!("boot-{}", stopped.name));
        let arguments = self.arguments(stopped.words);
        let console = qemu::console_of(&self.boot(&stopped.disks, &arguments, &log))?;
        judge(&console, stopped.says).with_context(|| format!("whole console: {}", log.display()))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{}{name}.log", Flavour::Stock.log_prefix()))
    }

    /// The kernel's command line.
    fn arguments(&self, words: &str) -> String {
        let kernel = self.accelerator.kernel_parameters(Flavour::Stock.slowness());
        let flavour = Flavour::Stock.parameters();
        format!("{kernel} {flavour} loglevel=5 {} {words}", appliance::SYSTEMD)
    }

    fn boot<'a>(&'a self, disks: &'a [PathBuf], arguments: &'a str, log: &'a Path) -> Boot<'a> {
        Boot {
            kernel: &self.kernel,
            initramfs: Some(&self.machine.initramfs),
            disks,
            scratch: &[],
            arguments,
            memory: Flavour::Stock.memory(),
            limit: appliance::LIMIT * self.accelerator.patience(),
            log,
            accelerator: self.accelerator,
        }
    }

    /// The hook fails with a sentence where its settings cannot be followed, and does nothing where they are off.
    pub(crate) fn check_hook(&self) -> Result<String> {
        let der = std::fs::read(&self.vendor.current.der).context("failed to read a certificate")?;
        let pem = std::fs::read(&self.vendor.current.certificate).context("failed to read a certificate")?;
        let (on, off) = ("TESSERAFS_BOOT=yes", "TESSERAFS_BOOT=no");
        let with = "TESSERAFS_BOOT=yes\nTESSERAFS_CERTIFICATES=/etc/tesserafs/certificates.d";
        let nowhere = "TESSERAFS_BOOT=yes\nTESSERAFS_CERTIFICATES=/etc/tesserafs/none";
        let cases: [(&str, Certificates<'_>, &str); 11] = [
            (off, &[], ""),
            (on, &[], ""),
            (with, &[("a.der", &der), ("b.der", &der)], ""),
            ("TESSERAFS_BOOT=maybe", &[], "E: found TESSERAFS_BOOT=maybe, expected yes or no"),
            ("", &[], "E: found TESSERAFS_BOOT=, expected yes or no"),
            ("if", &[], "E: expected lines of NAME=value"),
            (nowhere, &[], "E: found no folder /etc/tesserafs/none"),
            (with, &[], "E: found no certificate, expected at least one"),
            (with, &[("a.der", &pem)], "E: a.der: found something else, expected a certificate in DER"),
            (with, &[("a.der", &der[..der.len() / 2])], "E: a.der: found something else"),
            (with, &[("a.der", &der), ("b.pem", &pem)], "E: b.pem: found a name that does not end in .der"),
        ];
        let release = self.machine.release()?;
        for (settings, certificates, says) in cases {
            let names: Vec<&str> = certificates.iter().map(|(name, _)| *name).collect();
            self.hook(settings, certificates, &release, NO_LOCKDOWN, says)
                .with_context(|| format!("with {settings:?} and {names:?}"))?;
        }
        self.hook(
            on,
            &[],
            "6.1.0-none",
            NO_LOCKDOWN,
            "W: found no module tesserafs for the kernel 6.1.0-none",
        )?;
        let locked_down = "none [integrity] confidentiality";
        self.hook(on, &[], &release, locked_down, "W: found no signature on the module tesserafs")?;
        Ok(format!("{} cases", cases.len() + 2))
    }

    /// Signs the driver with a key of the machine's owner, as SIGNING.md says.
    pub(crate) fn sign_module(&self) -> Result<String> {
        const SIGN: &str = r#"
set -e
cd "$1"
openssl req -new -x509 -newkey rsa:2048 -nodes -sha256 -days 3650 -subj '/CN=modules of Example' \
    -addext extendedKeyUsage=codeSigning -outform DER -keyout mok.key -out mok.der 2>/dev/null
./sign-file sha256 mok.key mok.der tesserafs.ko
modinfo -F signer ./tesserafs.ko
modinfo -F sig_hashalgo ./tesserafs.ko
"#;
        let folder = tempfile::tempdir().context("failed to make a scratch folder")?;
        for file in [&self.module, &self.sign_file] {
            let name = file.file_name().context("a file without a name")?;
            std::fs::copy(file, folder.path().join(name))
                .with_context(|| format!("failed to copy {}", file.display()))?;
        }
        let unsigned = run::capture(run::command("modinfo").args(["-F", "signer"]).arg(&self.module))?;
        ensure!(unsigned.is_empty(), "the driver has been signed by {unsigned}");
        let signed = run::capture(self.machine.shell(SIGN).arg(folder.path()))?;
        ensure!(signed == "modules of Example\nsha256\n", "modinfo says {signed:?}");
        Ok(String::new())
    }

    /// Runs the hook by itself with these settings, for this kernel, on a machine that is locked down so. `says` begins with `E: ` for a failure, with `W: ` for
    /// a warning.
    fn hook(
        &self,
        settings: &str,
        certificates: Certificates<'_>,
        release: &str,
        lockdown: &str,
        says: &str,
    ) -> Result<()> {
        const RUN: &str = r#"
set -e
mount -t tmpfs tmpfs /sys
mkdir -p /sys/kernel/security
echo "$4" >/sys/kernel/security/lockdown
mkdir -p "$1/made/conf/conf.d" /etc/tesserafs
mount --bind "$1/tesserafs" /etc/tesserafs
export DESTDIR="$1/made" version="$2" verbose=n __MODULES_TO_ADD="$1/modules"
exec "/$3"
"#;
        let folder = tempfile::tempdir().context("failed to make a scratch folder")?;
        let own = folder.path().join("tesserafs");
        write(&own.join("initramfs.conf"), settings.as_bytes(), 0o644)?;
        std::fs::create_dir(own.join("certificates.d")).context("failed to create a folder")?;
        for (name, bytes) in certificates {
            write(&own.join("certificates.d").join(name), bytes, 0o644)?;
        }
        let mut command = self.machine.shell(RUN);
        command.arg(folder.path());
        command.args([release, HOOK_PATH, lockdown]);
        let output = run::output(&mut command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let (kind, text) = says.split_at(says.len().min("E: ".len()));
        let right = said.is_empty() == says.is_empty() && said.starts_with(kind) && said.contains(text);
        ensure!(right, "the hook said {said:?}");
        let accepted = kind != "E: ";
        ensure!(output.status.success() == accepted, "the hook ended with {}: {said}", output.status);
        let made = |name: &str| folder.path().join("made").join(name).exists();
        let wanted = accepted && !settings.ends_with("no");
        for name in ["conf/conf.d/tesserafs", SETTINGS_PATH] {
            ensure!(made(name) == wanted, "{name} in the initramfs: {}", made(name));
        }
        for (name, _) in certificates.iter().filter(|_| accepted) {
            let name = format!("{CERTIFICATES}/{name}");
            ensure!(made(&name), "{name} is not in the initramfs");
        }
        Ok(())
    }
}

impl Machine {
    /// A shell in the root, which sees this machine's scratch folders: it leaves nothing in the root, of which the image
    /// is made.
    fn shell(&self, script: &str) -> Command {
        let chroot = Chroot::new(self.root.clone(), vec![std::env::temp_dir()]);
        let mut command = chroot.command("sh");
        command.args(["-c", script, "sh"]);
        command
    }

    /// The release of its only kernel.
    fn release(&self) -> Result<String> {
        let folder = self.root.join("usr/lib/modules");
        let mut entries =
            folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))?;
        let entry = entries.next().with_context(|| format!("{} is empty", folder.display()))?;
        let name = entry.with_context(|| format!("failed to list {}", folder.display()))?.file_name();
        Ok(name.to_string_lossy().into_owned())
    }
}

/// The sentence that the initramfs ended the boot with: fails unless `says` is in it, and no more came of the boot.
fn judge(console: &str, says: &str) -> Result<String> {
    const STOPS: &str = "tesserafs: the boot stops: ";
    let mut sentences = console.lines().filter_map(|line| Some(line.split_once(STOPS)?.1.trim()));
    let sentence = sentences.next().context("the initramfs did not stop the boot")?;
    ensure!(sentences.next().is_none(), "the initramfs stopped the boot, and went on");
    ensure!(sentence.contains(says) && sentence.contains("expected"), "the initramfs said: {sentence}");
    ensure!(console.contains("Rebooting automatically due to panic="), "the initramfs did not give up");
    ensure!(!console.contains("systemd["), "systemd was started");
    Ok(sentence.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_stopped_when_the_initramfs_says_so_once_and_nothing_follows() {
        let stopped = "tesserafs: the boot stops: found no device /dev/vda, expected that of the root\r\n\
                       Rebooting automatically due to panic= boot argument\r\n";
        assert_eq!(
            judge(stopped, "/dev/vda").unwrap(),
            "found no device /dev/vda, expected that of the root"
        );
        assert!(judge(stopped, "/dev/vdb").is_err());
        assert!(judge(&stopped.repeat(2), "/dev/vda").is_err());
        assert!(judge(&format!("{stopped}systemd[1]: hello\n"), "/dev/vda").is_err());
        assert!(judge(stopped.lines().next().unwrap(), "/dev/vda").is_err());
    }

    #[test]
    fn settings_name_what_the_scripts_read() {
        let set: Vec<&str> = SETTINGS
            .lines()
            .filter(|line| line.starts_with("TESSERAFS_"))
            .filter_map(|line| line.split('=').next())
            .collect();
        assert!(set.len() > 5);
        let scripts: String = HOOK.iter().map(|(_, bytes, _)| std::str::from_utf8(bytes).unwrap()).collect();
        for name in &set {
            assert!(scripts.contains(&format!("\n{name}=\n")) || scripts.contains(&format!("\t{name}=\n")));
        }
        for line in scripts.lines() {
            if let Some(name) = line.trim().strip_suffix('=').filter(|name| name.starts_with("TESSERAFS_")) {
                assert!(set.contains(&name), "{name} is no setting");
            }
        }
    }
}
