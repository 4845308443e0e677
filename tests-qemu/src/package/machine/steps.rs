// SPDX-License-Identifier: GPL-2.0
//! Commands of a user, and their results.

use anyhow::{anyhow, Result};

use super::shell::Machine;
use crate::report::Report;

/// A test: lines in the order in which they are typed.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) lines: &'static [Line],
}

/// A line, and what comes of it.
pub(super) enum Line {
    /// It succeeds.
    Runs(&'static str),
    /// It fails, and says this.
    Fails(&'static str, &'static str),
}

use Line::{Fails, Runs};

impl Step {
    fn take(&self, machine: &mut Machine) -> Result<()> {
        self.lines.iter().try_for_each(|line| match line {
            Runs(command) => machine.runs(command).map(drop),
            Fails(command, says) => machine.fails(command, says),
        })
    }
}

/// A machine's boots, one after the other: each step stands on all before it, so that the filter chooses what is
/// reported, and a step that failed is the last.
pub(super) struct Boots<'r> {
    group: &'static str,
    report: &'r mut Report,
    /// The step that failed.
    failed: Option<&'static str>,
}

impl<'r> Boots<'r> {
    pub(super) fn new(group: &'static str, report: &'r mut Report) -> Self {
        Self { group, report, failed: None }
    }

    /// Reports a step, unless one before it has failed.
    fn report<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        let start = std::time::Instant::now();
        let result = match self.failed {
            Some(failed) => Err(anyhow!("not reached: {failed} failed")),
            None => work(),
        };
        let full = format!("{}/{name}", self.group);
        let wanted = self.report.wants(&full);
        match result {
            Ok(value) => {
                if wanted {
                    self.report.passed(&full, start.elapsed().as_secs_f64(), "");
                }
                Some(value)
            }
            Err(error) => {
                // The step that was asked for cannot pass if one before it has failed, wanted or not.
                if wanted || self.failed.is_none() {
                    self.report.failed(&full, &format!("{error:#}"));
                }
                self.failed = self.failed.or(Some(name));
                None
            }
        }
    }

    /// A boot, its steps, and its end by the last of them.
    pub(super) fn run(&mut self, boot: impl FnOnce() -> Result<Machine>, steps: &[&Step], end: End) {
        let mut machine = self.report(end.boots, boot);
        for step in steps {
            let take = || machine.as_mut().map_or(Ok(()), |machine| step.take(machine));
            self.report(step.name, take);
        }
        self.report(end.name, || machine.map_or(Ok(()), |machine| machine.ends(end.command)));
    }
}

/// How a boot begins and ends: names of two more tests, and the command.
#[derive(Clone, Copy)]
pub(super) struct End {
    boots: &'static str,
    name: &'static str,
    command: &'static str,
}

/// The machine is started once more afterwards.
pub(super) const REBOOT: End =
    End { boots: "clean-machine-boots", name: "machine-reboots", command: "systemctl reboot" };

/// The last boot.
pub(super) const POWER_OFF: End =
    End { boots: "machine-boots-again", name: "machine-powers-off", command: "systemctl poweroff" };

/// The first boot. The lines of fstab and the unit are those of the examples; both name the image of the application,
/// and systemd prefers the unit.
pub(super) const INSTALLATION: [Step; 3] = [
    Step {
        name: "apt-installs-all-packages",
        lines: &[
            Runs("mkdir /downloads && mount -o ro /dev/vdb /downloads && cd /downloads"),
            Runs("DEBIAN_FRONTEND=noninteractive apt install -y ./*.deb"),
            Runs("cd / && test -z \"$(dpkg --audit)\""),
        ],
    },
    Step {
        name: "driver-loads-at-once",
        lines: &[
            Runs("modprobe tesserafs && grep -w tesserafs /proc/filesystems"),
            Runs("modprobe -r tesserafs"),
        ],
    },
    Step {
        name: "images-go-into-fstab-and-a-unit",
        lines: &[
            Runs("mkdir -p /images /srv/base /srv/app /srv/stack /tree"),
            Runs("echo base >/tree/name && cp /tree/name /tree/base && mkfs -t tesserafs /images/base.tess /tree"),
            Runs("rm /tree/base && echo app >/tree/name && mkfs -t tesserafs /images/app.tess /tree"),
            Runs("fsck -t tesserafs -p /images/base.tess && fsck -t tesserafs -p /images/app.tess"),
            Runs("cat /usr/share/doc/tesserafs-tools/examples/fstab >>/etc/fstab"),
            Runs("cp /usr/share/doc/tesserafs-tools/examples/srv-app.mount /etc/systemd/system/"),
            Runs("systemctl daemon-reload && systemctl enable srv-app.mount"),
        ],
    },
];

/// The second one: nobody has loaded the driver.
pub(super) const USE: [Step; 5] = [
    Step {
        name: "images-are-mounted-at-boot",
        lines: &[
            Runs("test \"$(systemctl is-system-running)\" = running || { systemctl --failed; false; }"),
            Runs("test \"$(cat /srv/base/name /srv/app/name)\" = \"$(printf 'base\\napp')\""),
            Runs("findmnt -n -t tesserafs /srv/base && findmnt -n -t tesserafs /srv/app"),
            Runs("systemctl show -p FragmentPath srv-app.mount | grep -x FragmentPath=/etc/systemd/system/srv-app.mount"),
            Runs("test \"$(cat /srv/stack/name /srv/stack/base)\" = \"$(printf 'app\\nbase')\""),
        ],
    },
    Step {
        name: "image-is-known-to-file",
        lines: &[Runs(
            "file -m /usr/share/tesserafs/tesserafs.magic /images/app.tess | grep 'tesserafs filesystem image'",
        )],
    },
    Step {
        name: "signed-image-where-it-is-required",
        lines: &[
            Runs("openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 365 -subj /CN=images"),
            Runs("mkfs.tesserafs --sign-key key.pem --sign-cert cert.pem /images/signed.tess /tree"),
            Runs("echo 1 >/sys/module/tesserafs/parameters/require_signatures"),
            Fails("mount -t tesserafs /images/signed.tess /mnt", "signed by an unknown key, and signatures are required"),
            Runs("openssl x509 -in cert.pem -outform DER | keyctl padd asymmetric '' %keyring:.tesserafs"),
            Runs("mount -t tesserafs /images/signed.tess /mnt && cmp /mnt/name /tree/name && umount /mnt"),
            Fails("mount -t tesserafs /images/base.tess /mnt", "not signed, and signatures are required"),
        ],
    },
    Step {
        name: "removal-with-an-image-mounted",
        lines: &[
            Runs("DEBIAN_FRONTEND=noninteractive apt remove -y 'tesserafs-modules-*'"),
            Runs("cmp /srv/app/name /tree/name && echo 3 >/proc/sys/vm/drop_caches && cmp /srv/app/name /tree/name"),
            Runs("umount /srv/stack /srv/app /srv/base && rmmod tesserafs"),
            Fails("modprobe tesserafs", "not found"),
            Fails("mount -t tesserafs /images/app.tess /mnt", "unknown filesystem type"),
        ],
    },
    Step {
        name: "purge-leaves-nothing",
        lines: &[
            Runs("DEBIAN_FRONTEND=noninteractive apt purge -y tesserafs-tools tesserafs-dkms 'tesserafs-modules-*'"),
            // Of this filesystem only: the downloads are on another. apt's log has the name in it, and not in its own.
            Runs("test -z \"$(find / -xdev -name '*tesserafs*' -print | tee /dev/stderr)\""),
        ],
    },
];
