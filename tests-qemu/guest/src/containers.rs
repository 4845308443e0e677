// SPDX-License-Identifier: GPL-2.0
//! Containers that run from an image: real runtimes, an overlay over a mount, the image's own configuration.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use serde::Deserialize;
use serde_json::{json, Value};
use tesserafs_guest::plan::OCI_CONFIG;

use crate::api::shifted_namespace;
use crate::appliance::{checked, scratch};
use crate::mounts::{on_disk, Mount};
use crate::suite::Suite;
use crate::sys;

/// Where fstab has the base image.
const BASE: &str = "/srv/base";

/// Ids that a container of its own user namespace has.
const IDS: u32 = 65536;

pub(crate) fn tests(suite: &mut Suite) {
    for runtime in ["crun", "runc"] {
        suite.test(&format!("{runtime}-runs-what-the-image-says"), || {
            let tmpfs = scratch(Path::new("/mnt"))?;
            let bundle = Bundle::new(tmpfs.path(), "one", BASE, 0)?;
            bundle.configure(&Process::of_image()?, None)?;
            let said = checked(runtime, &["run", "--bundle", &bundle.path(), "one"], b"")?;
            ensure!(said == "hello from 1000 1000 in /srv\n", "the container said {said:?}");
            bundle.end()?;
            tmpfs.unmount()?;
            Ok(said.trim_end().to_owned())
        });
    }
    suite.test("podman-runs-a-rootfs", || {
        let script = "import json, os; open('/etc/motd', 'w').write('changed'); print('podman', os.getpid())";
        let rootfs = format!("{BASE}:O");
        let arguments = [
            &["--root", "/run/podman/store", "--runroot", "/run/podman/run", "--cgroup-manager", "cgroupfs"]
                [..],
            &["--storage-driver", "vfs", "--events-backend", "none", "run", "--rm", "--network", "none"],
            &["--rootfs", &rootfs, "/usr/bin/python3", "-c", script],
        ]
        .concat();
        let said = checked("podman", &arguments, b"")?;
        ensure!(said == "podman 1\n", "the container said {said:?}");
        Ok(said.trim_end().to_owned())
    });
    suite.test("three-mappings-of-one-image", three_mappings);
}

/// Three containers whose root is another user each, over one mount.
fn three_mappings() -> Result<String> {
    const SCRIPT: &str = "id -u; stat -c '%u:%g' / /etc/passwd /usr/bin/su; \
                          echo changed > /etc/motd; chown 33:33 /etc/motd; stat -c '%u:%g' /etc/motd";
    let tmpfs = scratch(Path::new("/mnt"))?;
    for shift in [100_000, 200_000, 300_000] {
        let name = format!("shifted-{shift}");
        let mapped = tmpfs.path().join(format!("mapped-{shift}"));
        std::fs::create_dir(&mapped).context("failed to create a folder")?;
        let namespace = shifted_namespace(shift).context("failed to make a user namespace")?;
        sys::idmapped_clone(Path::new(BASE), &mapped, &namespace)
            .context("failed to make an idmapped mount")?;
        let mapped = Mount::adopted(&mapped);
        let bundle = Bundle::new(tmpfs.path(), &name, &mapped.path().to_string_lossy(), shift)?;
        bundle.configure(&Process::root(&["/bin/sh", "-c", SCRIPT]), Some(shift))?;
        let said = checked("crun", &["run", "--bundle", &bundle.path(), &name], b"")?;
        ensure!(said == "0\n0:0\n0:0\n0:0\n33:33\n", "the container with {shift} said {said:?}");
        let written = bundle.upper().join("etc/motd");
        let owner = std::fs::metadata(&written).context("the change is not in the upper layer")?.uid();
        ensure!(owner == shift + 33, "outside, {owner} owns what 33 + {shift} wrote");
        bundle.end()?;
        mapped.unmount()?;
    }
    tmpfs.unmount()?;
    Ok(String::new())
}

/// The process that a container runs.
pub(crate) struct Process {
    arguments: Vec<String>,
    environment: Vec<String>,
    folder: String,
    uid: u32,
    gid: u32,
}

/// The part of an OCI image configuration that says what to run.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageConfig {
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    cmd: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    user: String,
    working_dir: Option<String>,
}

impl Process {
    /// The process that the base image's annotation describes, as the checker prints it.
    pub(crate) fn of_image() -> Result<Self> {
        #[derive(Deserialize)]
        struct Annotation {
            config: ImageConfig,
        }
        let image = on_disk("base.tess");
        let text =
            checked("/disk/fsck.tesserafs", &["--annotation", OCI_CONFIG, &image.to_string_lossy()], b"")?;
        let Annotation { config } =
            serde_json::from_str(&text).with_context(|| format!("the annotation is {text}"))?;
        let (uid, gid) = config.user.split_once(':').unwrap_or((&config.user, "0"));
        let number = |id: &str| id.parse().with_context(|| format!("the user is {}", config.user));
        Ok(Self {
            arguments: [config.entrypoint.clone(), config.cmd.clone()].concat(),
            environment: config.env.clone(),
            folder: config.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
            uid: number(uid)?,
            gid: number(gid)?,
        })
    }

    /// A command that root runs.
    pub(crate) fn root(command: &[&str]) -> Self {
        Self {
            arguments: command.iter().map(|word| (*word).to_owned()).collect(),
            environment: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            folder: "/".to_owned(),
            uid: 0,
            gid: 0,
        }
    }
}

/// An OCI bundle: a configuration, and a root that is an overlay.
pub(crate) struct Bundle {
    folder: PathBuf,
    root: Mount,
}

impl Bundle {
    /// Makes the folder `name` in `parent`, which can have upper layers, with an overlay over `lower` (folders,
    /// separated by colons) whose changes belong to `owner`.
    pub(crate) fn new(parent: &Path, name: &str, lower: &str, owner: u32) -> Result<Self> {
        let folder = parent.join(name);
        let (root, upper) = (folder.join("rootfs"), folder.join("upper"));
        for folder in [&root, &upper] {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("failed to create {}", folder.display()))?;
        }
        std::os::unix::fs::chown(&upper, Some(owner), Some(owner))
            .context("failed to give the upper layer away")?;
        let root = Mount::overlay(Path::new(lower), &folder, &root, "")?;
        Ok(Self { folder, root })
    }

    /// Where it is, as an argument.
    pub(crate) fn path(&self) -> String {
        self.folder.to_string_lossy().into_owned()
    }

    /// Where its changes are.
    pub(crate) fn upper(&self) -> PathBuf {
        self.folder.join("upper")
    }

    /// Writes the configuration; with `shift`, root of the container is that user outside.
    pub(crate) fn configure(&self, process: &Process, shift: Option<u32>) -> Result<()> {
        let config = runtime_config(process, shift);
        std::fs::write(self.folder.join("config.json"), config.to_string())
            .context("failed to write the configuration")
    }

    /// Takes it apart, and fails where that fails.
    pub(crate) fn end(self) -> Result<()> {
        self.root.unmount()
    }
}

/// The configuration that a runtime takes.
fn runtime_config(process: &Process, shift: Option<u32>) -> Value {
    let mount = |kind: &str, target: &str, options: &[&str]| json!({ "type": kind, "source": kind, "destination": target, "options": options });
    let mut namespaces = vec!["pid", "ipc", "uts", "mount", "network"];
    let mut linux = json!({});
    if let Some(shift) = shift {
        namespaces.push("user");
        let mapping = json!([{ "containerID": 0, "hostID": shift, "size": IDS }]);
        linux["uidMappings"] = mapping.clone();
        linux["gidMappings"] = mapping;
    }
    linux["namespaces"] = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "hostname": "container",
        "process": {
            "terminal": false,
            "user": { "uid": process.uid, "gid": process.gid },
            "args": process.arguments,
            "env": process.environment,
            "cwd": process.folder,
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "noNewPrivileges": true,
        },
        "mounts": [
            mount("proc", "/proc", &[]),
            mount("tmpfs", "/dev", &["nosuid", "mode=755"]),
            mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
            mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev"]),
            mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
            mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": linux,
    })
}

/// The capabilities of root of a container, as container engines have them by default.
const CAPABILITIES: [&str; 6] =
    ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"];
