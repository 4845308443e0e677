// SPDX-License-Identifier: GPL-2.0
//! The packages in roots of Debian that hold what they need: their scripts run, and no machine does.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use super::Packages;
use crate::cache::{key, log_of, Cache};
use crate::debian::{self, Variant};
use crate::package::list;
use crate::package::machine::disk::{self, Release};
use crate::stock::{self, Stock};
use crate::{rootfs, run, setup};

/// Runs a script in a root that stays as it is, its arguments: root, scratch folder, folder that the script sees as
/// `/given`, script, folders that it sees where they are. Everything that it makes elsewhere goes with it.
const WITHIN: &str = r#"
root=$1 scratch=$2 given=$3 script=$4
shift 4
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/tree"
mount -t overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$scratch/tree"
mount -t proc proc "$scratch/tree/proc"
mount --rbind /dev "$scratch/tree/dev"
for folder in "$@"; do
    mkdir -p "$scratch/tree$folder"
    mount --bind -o ro "$folder" "$scratch/tree$folder"
done
mkdir "$scratch/tree/given"
mount --bind "$given" "$scratch/tree/given"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    chroot "$scratch/tree" sh -euc "$script"
"#;

/// Runs a script in a root; gives what it printed.
fn within(root: &Path, given: &Path, script: &str, shared: &[&Path]) -> Result<String> {
    setup::require_root("enter a Debian root")?;
    let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
    let mut command = run::command("unshare");
    command.args(["--mount", "--", "sh", "-euc", WITHIN, "sh"]);
    let output = run::output(command.args([root, scratch.path(), given]).arg(script).args(shared))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(
        output.status.success(),
        "a script in {} ended with {}:\n{}",
        root.display(),
        output.status,
        run::tail(&said)
    );
    Ok(said)
}

/// Installs the tools, uses them as mkfs(8) and fsck(8) find them, and removes them.
const ON_DEBIAN_12: &str = "
apt-get install -y -q /given/tesserafs-tools_*.deb
mkfs -t tesserafs /root.tess /usr/share/doc/tesserafs-tools
fsck -t tesserafs -p /root.tess
fsck.tesserafs --cat examples/fstab /root.tess | cmp - /usr/share/doc/tesserafs-tools/examples/fstab
apt-get remove -y -q tesserafs-tools
! command -v mkfs.tesserafs fsck.tesserafs
";

pub(super) fn on_debian_12(cache: &Cache, packages: &Packages) -> Result<String> {
    let here = debian::codename()?;
    if here != rootfs::SUITE {
        return Ok(format!("not tried: they are built for {here}, whose libraries are newer"));
    }
    let root = rootfs::debian(cache)?;
    let given = packages.tools()?.parent().context("a package lies in no folder")?;
    within(&root, given, ON_DEBIAN_12, &[]).map(|_| String::new())
}

/// Downloads dkms, with what the root lacks of it.
const FETCH_DKMS: &str = "
apt-get clean
apt-get update -q
apt-get install -y -q --no-install-recommends --download-only dkms
cp /var/cache/apt/archives/*.deb /given/
";

/// Installs the source beside a kernel that was built here, and one without Rust; then breaks the source, and installs
/// the first kernel anew.
const DKMS: &str = r##"
mkdir -p "/lib/modules/$release" /lib/modules/6.1.0/build
ln -s "$build" "/lib/modules/$release/build"
echo "# CONFIG_RUST is not set" >/lib/modules/6.1.0/build/.config
apt-get install -y -q --no-install-recommends /given/*.deb
dkms status | grep ': installed'
modinfo "/lib/modules/$release/updates/dkms/tesserafs.ko" | grep "vermagic:  *$release "
version=$(dpkg-query -W -f '${Version}' tesserafs-dkms)
echo 'This is not Rust.' >>"/usr/src/tesserafs-$version/kernel-module/main.rs"
dkms unbuild "tesserafs/$version" -k "$release"
run-parts --exit-on-error --arg="$release" /etc/kernel/postinst.d
apt-get remove -y -q tesserafs-dkms
! dkms status | grep tesserafs
"##;

pub(super) fn dkms(cache: &Cache, packages: &Packages, stock: &Stock) -> Result<String> {
    // That of the compilers has no apt, and packages that are only unpacked.
    let key = key(&[stock::PACKAGES.as_bytes()]);
    let root = cache.once(&format!("package-dkms-root-{key}"), |folder| {
        run::say(format_args!("making a Debian {} root with {}", stock::COMPILED_IN, stock::PACKAGES));
        let log = log_of(folder);
        debian::bootstrap(folder, stock::COMPILED_IN, Variant::Minimal, stock::PACKAGES, &log)
    })?;
    let fetched = cache.once("package-dkms", |folder| within(&root, folder, FETCH_DKMS, &[]).map(|_| ()))?;
    let given = tempfile::tempdir().context("failed to make a scratch folder")?;
    let mut files = list(&fetched)?;
    files.push(packages.named("tesserafs-dkms_")?.to_path_buf());
    for file in files {
        let to = given.path().join(file.file_name().context("a package without a name")?);
        fs::copy(&file, &to).with_context(|| format!("failed to copy {}", file.display()))?;
    }
    let release = &packages.release;
    let script = format!("release={release}\nbuild={}\n{DKMS}", stock.kernel.build.display());
    let said = within(&root, given.path(), &script, &[&cache.folder("stock")?])?;
    for sentence in [
        "not built for 6.1.0: that kernel has no Rust (CONFIG_RUST)".to_owned(),
        format!("the driver could not be built for {release}"),
    ] {
        ensure!(said.contains(&sentence), "nobody said {sentence:?}:\n{}", run::tail(&said));
    }
    Ok(String::new())
}

/// Installs a kernel and the packages, first as on most machines, then on one that is locked down, then on one that boots from an image. The removal of
/// the driver leaves its initramfs as it is: without the driver it would stop at boot.
const INITRAMFS: &str = r##"
image=/boot/initrd.img-$release
not() { if "$@"; then echo "not expected: $*"; exit 1; fi; }
has() { lsinitramfs "$image" | grep "$1"; }
updated() { [ "$image" -nt /before ] && sleep 1 && touch /before; }

echo MODULES=list >/etc/initramfs-tools/conf.d/tests
apt-get install -y -q --no-install-recommends /given/linux-*.deb
touch /before
apt-get install -y -q /given/tesserafs-tools_*.deb /given/tesserafs-modules-*.deb
not updated

mkdir -p /sys/kernel/security
echo 'none [integrity] confidentiality' >/sys/kernel/security/lockdown
apt-get install -y -q --reinstall /given/tesserafs-modules-*.deb
not updated
echo '[none] integrity confidentiality' >/sys/kernel/security/lockdown

sed -i 's/^TESSERAFS_BOOT=no$/TESSERAFS_BOOT=yes/' /etc/tesserafs/initramfs.conf
openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -days 1 -subj /CN=images -outform DER \
    -out /etc/tesserafs/certificates.d/images.der
apt-get install -y -q --reinstall /given/tesserafs-modules-*.deb
updated
has '/tesserafs\.ko'
has 'certificates\.d/images\.der'
has 'bin/keyctl'
apt-get remove -y -q 'tesserafs-modules-*'
not updated

apt-get install -y -q --reinstall /given/tesserafs-tools_*.deb
updated
not has '/tesserafs\.ko'
apt-get remove -y -q tesserafs-tools
updated
not has 'conf/conf\.d/tesserafs'
"##;

/// The scripts of the packages make a new initramfs where a machine boots from an image, and nowhere else.
pub(super) fn initramfs(cache: &Cache, packages: &Packages) -> Result<String> {
    let release = Release { name: &packages.release, version: &packages.kernel_version };
    let given = tempfile::tempdir().context("failed to make a scratch folder")?;
    let of_kernel = list(&disk::kernel(cache, &release)?)?;
    for file in of_kernel
        .iter()
        .map(PathBuf::as_path)
        .chain([packages.tools()?, packages.named("tesserafs-modules-")?])
    {
        let to = given.path().join(file.file_name().context("a package without a name")?);
        fs::copy(file, &to).with_context(|| format!("failed to copy {}", file.display()))?;
    }
    let script = format!("release={}\n{INITRAMFS}", packages.release);
    let said = within(&disk::root(cache)?, given.path(), &script, &[])?;
    // Of the installations, that on the machine that is locked down.
    let warnings = said.matches("this machine is locked down, and will not load the driver").count();
    ensure!(warnings == 1, "found {warnings} warnings of lockdown, expected 1:\n{}", run::tail(&said));
    Ok(String::new())
}
