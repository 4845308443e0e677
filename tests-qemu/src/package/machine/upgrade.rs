// SPDX-License-Identifier: GPL-2.0
//! A newer release of the kernel, with its driver, on a machine that has an older one.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::disk::{self, Release};
use super::steps::Line::{Fails, Runs};
use super::steps::{Boots, Step, POWER_OFF, REBOOT};
use super::Installed;
use crate::cache::Cache;
use crate::package::checks::Packages;
use crate::package::{Part, Source};
use crate::report::Report;
use crate::setup::{self, Need};
use crate::stock::{self, Stock};

/// The group of these tests.
const GROUP: &str = "packages/upgrade";

/// The test of the driver for the older release, as its result line has it.
const OLDER_DRIVER: &str = "packages/upgrade/driver-of-the-older-kernel";

/// From the release before that of `stock` to this one. Where the archive has none before it, or the driver is not for
/// that one, the result line says what was not tried.
pub(in crate::package) fn test(
    cache: &Cache,
    report: &mut Report,
    source: &Source,
    packages: &Packages,
    stock: &Stock,
) -> Result<()> {
    if !report.wants_group(GROUP) {
        return Ok(());
    }
    setup::ensure(cache, &[Need::Machine])?;
    let newer = Release { name: &stock.kernel.key, version: &stock.version };
    let Some((name, version)) = stock::before(newer.name)? else {
        let note = format!("NOT TRIED, nor any upgrade: the archive has no release before {}", newer.name);
        report.test(OLDER_DRIVER, || Ok(note));
        return Ok(());
    };
    let older = Release { name: &name, version: &version };
    let mut downloads = packages.all.clone();
    downloads.extend(super::list(&disk::kernel(cache, &newer)?)?);
    let has_driver = stock::is_supported(older.name);
    if has_driver {
        let stock = stock::prepare_release(cache, older.name)?;
        downloads.extend(source.build(cache, "package/older", &[Part::Modules], Some(&stock), None)?);
    } else {
        let note =
            format!("NOT TRIED: there is none for {}, as the driver needs {}", older.name, stock::NEEDS);
        report.test(OLDER_DRIVER, || Ok(note));
    }
    let downloads: Vec<&Path> = downloads.iter().map(PathBuf::as_path).collect();
    let machine = Installed::new(cache, &older, &downloads)?;
    let names = format!("older={} newer={}", older.name, newer.name);
    let boot = |name: &str| {
        let mut machine = machine.boot(name)?;
        machine.runs(&names)?;
        Ok(machine)
    };
    let (first, last) = if has_driver { (&WITH_DRIVER, &BOTH_DRIVERS[..]) } else { (&WITHOUT, &[][..]) };
    let mut boots = Boots::new(GROUP, report);
    boots.run(|| boot("older"), &[first, &UPGRADE], REBOOT);
    let steps: Vec<&Step> = std::iter::once(&UPGRADED).chain(last).collect();
    boots.run(|| boot("newer"), &steps, POWER_OFF);
    Ok(())
}

/// An older release with its driver.
const WITH_DRIVER: Step = Step {
    name: "driver-of-the-older-kernel",
    lines: &[
        Runs("test \"$(uname -r)\" = \"$older\""),
        Runs("mkdir /downloads && mount -o ro /dev/vdb /downloads && cd /downloads"),
        Runs("DEBIAN_FRONTEND=noninteractive apt install -y ./tesserafs-tools_*.deb ./tesserafs-modules-\"$older\"_*.deb"),
        Runs("modprobe tesserafs && modinfo -F vermagic tesserafs | grep \"^$older \""),
    ],
};

/// One that the driver is not for.
const WITHOUT: Step = Step {
    name: "tools-without-a-driver",
    lines: &[
        Runs("test \"$(uname -r)\" = \"$older\""),
        Runs("mkdir /downloads && mount -o ro /dev/vdb /downloads && cd /downloads"),
        Runs("DEBIAN_FRONTEND=noninteractive apt install -y ./tesserafs-tools_*.deb"),
        Fails("modprobe tesserafs", "not found"),
    ],
};

/// The driver of the newer release, which brings its kernel.
const UPGRADE: Step = Step {
    name: "apt-installs-the-newer-driver-with-its-kernel",
    lines: &[
        Runs("mkdir -p /images /srv/base /tree && echo base >/tree/name && mkfs -t tesserafs /images/base.tess /tree"),
        Runs("grep -w /srv/base /usr/share/doc/tesserafs-tools/examples/fstab | grep ^/images >>/etc/fstab"),
        Runs("DEBIAN_FRONTEND=noninteractive apt install -y ./linux-*.deb ./tesserafs-modules-\"$newer\"_*.deb"),
        Runs("cd / && test -z \"$(dpkg --audit)\" && readlink /vmlinuz | grep -e \"-$newer$\""),
    ],
};

/// After the reboot, in which nobody has chosen the kernel.
const UPGRADED: Step = Step {
    name: "driver-of-the-newer-kernel-mounts-the-image",
    lines: &[
        Runs("test \"$(uname -r)\" = \"$newer\""),
        Runs("test \"$(cat /srv/base/name)\" = base && findmnt -n -t tesserafs /srv/base"),
        Runs("modinfo -F vermagic tesserafs | grep \"^$newer \""),
        Runs("test \"$(systemctl is-system-running)\" = running || { systemctl --failed; false; }"),
    ],
};

/// Each kernel has its driver, until one is removed.
const BOTH_DRIVERS: [Step; 1] = [Step {
    name: "older-driver-stays-until-it-is-removed",
    lines: &[
        Runs("modinfo -k \"$older\" -F vermagic tesserafs | grep \"^$older \""),
        Runs("DEBIAN_FRONTEND=noninteractive apt remove -y \"tesserafs-modules-$older\""),
        Fails("modinfo -k \"$older\" tesserafs", "not found"),
        Runs("umount /srv/base && rmmod tesserafs && mount /srv/base && cat /srv/base/name"),
    ],
}];
