// SPDX-License-Identifier: GPL-2.0
//! A machine that has booted from an image: systemd runs, and has started this.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::system::{reboot, RebootCommand};
use tesserafs_guest::plan::Appliance;
use tesserafs_guest::reading::IMAGES;

use crate::boot::{self, CommandLine};
use crate::kmsg::Log;
use crate::mounts::{on_disk, Mount};
use crate::suite::Suite;
use crate::{bench, containers, demo, policy, signatures};

/// Where the image of the root is visible, below the overlay, if overlay-init has mounted it.
const IMAGE: &str = "/image";

/// Where the initramfs of Debian's own kernel has what the root is made of: `image`, `upper`, and the `disk` that the
/// image lies on as a file.
const LAYERS: &str = "/run/initramfs/tesserafs";

/// How long systemd may take, in an emulated machine, after it has started this.
const BOOT: Duration = Duration::from_secs(300);

/// Runs the group of the command line, and ends the machine.
pub(crate) fn run() -> Result<()> {
    let result = tests();
    if let Err(error) = &result {
        eprintln!("init: {error:#}");
    }
    rustix::fs::sync();
    reboot(RebootCommand::PowerOff).context("failed to power off")?;
    result
}

fn tests() -> Result<()> {
    boot::start_processors()?;
    let words = CommandLine::read()?;
    if words.says("guest.bench") {
        let disk = Path::new(IMAGES);
        let _images = Mount::new(Path::new("/dev/vdc"), disk, "ext4", MountFlags::RDONLY, "")
            .context("failed to mount the disk with images")?;
        return bench::run(disk);
    }
    let (group, mut suite) = words.suite()?;
    let plan = std::fs::read(on_disk("plan.json")).context("failed to read the plan")?;
    let plan: Appliance = serde_json::from_slice(&plan).context("the plan is damaged")?;
    suite.test("reaches-multi-user", multi_user);
    // Which is the kernel of distributions, and loads modules.
    let by_initramfs = words.says("guest.initramfs");
    if group != "demo" {
        let image = if by_initramfs { Path::new(LAYERS).join("image") } else { IMAGE.into() };
        let has_packs = group == "boot-from-file" && by_initramfs;
        let id = plan.packed_id.as_ref().filter(|_| has_packs).unwrap_or(&plan.image_id);
        booted(&mut suite, id, &image);
    }
    match group.as_str() {
        "boot" if by_initramfs => {
            guarded(&mut suite);
            policy::sealed(&mut suite);
            suite.test("programs-of-the-image-run", programs_run);
        }
        "boot" => {
            guarded(&mut suite);
            suite.test("kernel-takes-no-code", no_code);
        }
        "boot-from-file" if by_initramfs => suite.test("changes-are-on-the-disk", changes_on_disk),
        "boot-from-file" => {}
        "tampered" => suite.test("changed-block-is-an-error", || changed_block(&plan)),
        "containers" => containers::tests(&mut suite),
        "policy" => policy::tests(&mut suite, &plan),
        "demo" => demo::appliance(&mut suite),
        other => bail!("there is no group {other}"),
    }
    suite.finish()
}

/// Waits until the machine is up.
fn multi_user() -> Result<String> {
    let start = Instant::now();
    while printed("systemctl", &["is-active", "multi-user.target"])?.trim() != "active" {
        ensure!(start.elapsed() < BOOT, "{}", printed("systemctl", &["list-jobs"])?);
        std::thread::sleep(Duration::from_millis(200));
    }
    let failed = printed("systemctl", &["--failed", "--no-legend", "--plain"])?;
    if !failed.trim().is_empty() {
        let units: Vec<&str> = failed.lines().filter_map(|line| line.split_whitespace().next()).collect();
        let of_units = units.iter().flat_map(|unit| ["--unit", *unit]);
        let words: Vec<&str> = ["--no-pager", "--output=cat"].into_iter().chain(of_units).collect();
        bail!("units have failed: {failed}{}", printed("journalctl", &words)?);
    }
    let uptime = std::fs::read_to_string("/proc/uptime").context("failed to read the uptime")?;
    Ok(format!("{} s", uptime.split_whitespace().next().unwrap_or_default()))
}

/// Facts that hold after each boot.
fn booted(suite: &mut Suite, id: &String, image: &Path) {
    suite.test("root-is-an-overlay-of-the-image", || {
        ensure!(kind_of("/")? == "overlay", "the root is {}", kind_of("/")?);
        let shown = image.to_string_lossy();
        ensure!(kind_of(&shown)? == "tesserafs", "{shown} is {}", kind_of(&shown)?);
        let ids = image_ids()?;
        ensure!(ids.contains(id), "{id} is not among {ids:?}");
        std::fs::write("/etc/written", "after the boot\n").context("the root cannot be written")?;
        let written = std::fs::write(image.join("etc/written"), "");
        let errno = written.err().and_then(|error| Errno::from_io_error(&error));
        ensure!(errno == Some(Errno::ROFS), "a write to the image gave {errno:?}");
        Ok(String::new())
    });
    suite.test("policy-holds", || {
        ensure!(signatures::required()?, "signatures are not required");
        Ok(String::new())
    });
    suite.test("fstab-and-units-are-mounted", || {
        for unit in ["srv-base.mount", "srv-app.mount", "srv-stack.mount"] {
            let state = printed("systemctl", &["is-active", unit])?;
            ensure!(state.trim() == "active", "{unit} is {state}");
        }
        let (base, app) = ("etc/os-release", "special/one");
        for (folder, kind, files) in [
            ("/srv/base", "tesserafs", &[base][..]),
            ("/srv/app", "tesserafs", &[app]),
            ("/srv/stack", "overlay", &[base, app]),
        ] {
            ensure!(kind_of(folder)? == kind, "{folder} is {}", kind_of(folder)?);
            for file in files {
                std::fs::read(Path::new(folder).join(file))
                    .with_context(|| format!("failed to read {file} of {folder}"))?;
            }
        }
        Ok(String::new())
    });
}

/// Ways in which root might mount what nobody has signed, or get code into the kernel.
fn guarded(suite: &mut Suite) {
    const UNSIGNED: &str = "unsigned.tess";
    let unsigned = on_disk(UNSIGNED);
    suite.test("policy-cannot-be-turned-off", || {
        for off in ["0", "N", "n"] {
            ensure!(std::fs::write(signatures::POLICY, off).is_err(), "require_signatures took {off}");
        }
        ensure!(signatures::required()?, "require_signatures went back to off");
        Ok(String::new())
    });
    suite.test("unsigned-as-a-file", || refused(&["-t", "tesserafs"], &unsigned));
    suite.test("unsigned-on-a-loop-device", || refused(&["-t", "tesserafs", "-o", "loop"], &unsigned));
    suite.test("unsigned-and-trusted", || refused(&["-t", "tesserafs", "-o", "trusted_backing"], &unsigned));
    suite.test("unsigned-through-a-bind-mount", || {
        let good = Path::new("/run/good.tess");
        std::fs::copy(on_disk("app.tess"), good).context("failed to copy an image")?;
        // The name is that of a signed image; the file that it shows is not signed.
        checked("mount", &["--bind", &unsigned.to_string_lossy(), &good.to_string_lossy()], b"")?;
        let bind = Mount::adopted(good);
        let said = refused(&["-t", "tesserafs"], good)?;
        bind.unmount()?;
        Ok(said)
    });
    suite.test("remount-vouches-for-nothing", || {
        for options in ["remount,trusted_backing", "remount,private_pages"] {
            let remount = checked("mount", &["-o", options, "/srv/app"], b"");
            ensure!(remount.is_err(), "{options} was accepted");
        }
        Ok(String::new())
    });
    suite.test("changed-while-it-is-mounted", || {
        let copy = Path::new("/run/app.tess");
        std::fs::copy(on_disk("app.tess"), copy).context("failed to copy an image")?;
        let mount = Mount::by_program(&["-t", "tesserafs"], copy, Path::new("/mnt"))?;
        let file = std::fs::File::options().write(true).open(copy).context("failed to open the image")?;
        file.set_len(4096).context("failed to cut the image")?;
        let read = std::fs::read("/mnt/data/noise");
        ensure!(read.is_err(), "a file of a truncated image was read");
        mount.unmount()?;
        std::fs::remove_file(copy).context("failed to remove the image")?;
        Ok(format!("{read:?}"))
    });
}

/// The kernel of an appliance loads nothing and starts no other one.
fn no_code() -> Result<String> {
    let image = std::fs::File::open("/proc/self/exe").context("failed to open this program")?;
    let module = rustix::system::finit_module(&image, c"", 0);
    ensure!(module == Err(Errno::PERM), "finit_module gave {module:?}");
    let again = std::fs::write("/proc/sys/kernel/modules_disabled", "0");
    ensure!(again.is_err(), "modules can be allowed again");
    let kexec = crate::sys::kexec_nothing();
    ensure!(
        kexec.as_ref().err().and_then(Errno::from_io_error) == Some(Errno::NOSYS),
        "kexec_load gave {kexec:?}"
    );
    ensure!(!Path::new("/dev/mem").exists(), "there is a /dev/mem");
    Ok(String::new())
}

/// Programs of the image do something that needs a good part of it.
fn programs_run() -> Result<String> {
    let printed =
        checked("python3", &["-c", "import re, sys; print(re.sub('a', 'b', sys.argv[1]))", "aha"], b"")?;
    ensure!(printed.trim() == "bhb", "python3 printed {printed}");
    checked("dpkg", &["--audit"], b"")?;
    let listed = checked("dpkg-query", &["--list", "initramfs-tools"], b"")?;
    ensure!(listed.contains("ii  initramfs-tools"), "dpkg-query printed {listed}");
    Ok(String::new())
}

/// With a disk for the changes, a file that [`booted`] has written is on it, and the image is a file on another disk.
fn changes_on_disk() -> Result<String> {
    let layers = Path::new(LAYERS);
    for disk in ["disk", "upper"] {
        let folder = layers.join(disk);
        let kind = kind_of(&folder.to_string_lossy())?;
        ensure!(kind == "ext4", "{} is {kind}", folder.display());
    }
    let written = layers.join("upper/upper/etc/written");
    let text =
        std::fs::read_to_string(&written).with_context(|| format!("failed to read {}", written.display()))?;
    ensure!(text == "after the boot\n", "{} holds {text:?}", written.display());
    let removed = std::fs::remove_file(layers.join("disk/root.tess"));
    ensure!(removed.is_err(), "the image of the root was removed from its disk");
    Ok(String::new())
}

/// The first touch of a changed block is an error, said in the log; the machine goes on.
fn changed_block(plan: &Appliance) -> Result<String> {
    let mut log = Log::from_now()?;
    let error = match std::fs::read(&plan.touched) {
        Ok(_) => bail!("{} was read", plan.touched),
        Err(error) => error,
    };
    let errno = Errno::from_io_error(&error);
    ensure!(matches!(errno, Some(Errno::IO | Errno::BADMSG | Errno::UCLEAN)), "the read gave {error}");
    let line = log.expect_line("chunk-digest")?;
    Ok(format!("{error}: {line}"))
}

/// Fails unless `mount` with these arguments is refused, for want of a signature.
fn refused(arguments: &[&str], image: &Path) -> Result<String> {
    let mut log = Log::from_now()?;
    match Mount::by_program(arguments, image, Path::new("/mnt")) {
        Ok(_) => bail!("{} was mounted", image.display()),
        Err(_) => log.expect_line("not signed"),
    }
}

/// The output of a program, with any exit status.
pub(crate) fn printed(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The output of a program that must succeed; `input` is its standard input.
pub(crate) fn checked(program: &str, arguments: &[&str], input: &[u8]) -> Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).with_context(|| format!("failed to write to {program}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("failed to wait for {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "`{program} {}` ended with {}: {text}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// The type of the filesystem that is mounted at `path`.
fn kind_of(path: &str) -> Result<String> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("failed to read /proc/mounts")?;
    // The last one covers those before it.
    mounts
        .lines()
        .rev()
        .find_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            (words.next()? == path).then(|| words.next().map(ToOwned::to_owned))?
        })
        .with_context(|| format!("nothing is mounted at {path}"))
}

/// The IDs of all mounted images, in hexadecimal.
fn image_ids() -> Result<Vec<String>> {
    let folder = Path::new("/sys/fs/tesserafs");
    let mut ids = Vec::new();
    for entry in folder.read_dir().context("failed to list the mounted images")? {
        let path = entry.context("failed to list the mounted images")?.path().join("image_id");
        if let Ok(id) = std::fs::read_to_string(path) {
            ids.push(id.trim().trim_start_matches("sha256:").to_owned());
        }
    }
    Ok(ids)
}

/// A tmpfs for the files that a test makes.
pub(crate) fn scratch(path: &Path) -> Result<Mount> {
    Mount::new(Path::new("tmpfs"), path, "tmpfs", MountFlags::empty(), "").context("failed to mount a tmpfs")
}
