// SPDX-License-Identifier: GPL-2.0
//! The registry, and the clients of others: programs of a root that sees the scratch folder at its place.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cache::{key, log_of, Cache};
use crate::chroot::Chroot;
use crate::debian::{self, Variant};
use crate::{run, setup};

/// The suite: the first one that has oras.
const SUITE: &str = "trixie";

/// A registry, passwords for it, and programs that fetch from it; casync does so by HTTP alone.
const PACKAGES: &str = "apache2-utils,ca-certificates,casync,docker-registry,oras,podman,skopeo";

/// The cache of blobs in registries that skopeo and podman have: another form of a layer that they have met is taken for the one that
/// is wanted. Each script begins with nothing.
const CACHE: &str = "/var/lib/containers/cache";

/// The root with the programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    chroot: Chroot,
    scratch: PathBuf,
}

impl Programs {
    pub(crate) fn prepare(cache: &Cache, scratch: &Path) -> Result<Self> {
        let key = key(&[PACKAGES.as_bytes(), SUITE.as_bytes()]);
        let root = cache.once(&format!("registry-programs-{key}"), |folder| {
            setup::require_root("make a Debian root (mmdebstrap)")?;
            run::say(format_args!("making a Debian {SUITE} root with {PACKAGES}"));
            debian::bootstrap(folder, SUITE, Variant::Minimal, PACKAGES, &log_of(folder))
        })?;
        cache.forget_others(&root, "registry-programs-")?;
        Ok(Self { chroot: Chroot::new(root, vec![scratch.to_owned()]), scratch: scratch.to_owned() })
    }

    /// A program of the root.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.chroot.command(format!("/usr/bin/{program}"))
    }

    /// Runs a script in the scratch folder, with the programs.
    pub(crate) fn shell(&self, script: &str) -> Result<String> {
        run::capture(&mut self.script(script))
    }

    /// That script, to be run.
    pub(crate) fn script(&self, script: &str) -> Command {
        let mut command = self.command("env");
        // oras wants one.
        command.arg("HOME=/root");
        // Layers that are being written go with the scratch folder.
        command.arg(format!("TMPDIR={}", self.scratch.display())).arg("bash");
        let cache = format!("mkdir -p {CACHE} && mount -t tmpfs cache {CACHE}");
        command.args(["-euc", &format!("{cache}\ncd {}\n{script}", self.scratch.display())]);
        command
    }
}
