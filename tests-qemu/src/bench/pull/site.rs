// SPDX-License-Identifier: GPL-2.0
//! A registry that has all versions of a series in all forms, a server of chunks beside it, and lines to both.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::super::packs::series::{self, Series, VERSIONS};
use super::super::record::Program;
use super::super::Bench;
use super::form::{Form, Layer, Own};
use super::program;
use crate::http::{self, Server};
use crate::proxy::{Proxy, Speed};
use crate::registry::{Access, Programs, Registry};
use crate::{container_layout, run};

/// The servers.
pub(super) struct Site<'a> {
    bench: &'a Bench<'a>,
    programs: Programs,
    registry: Registry,
    chunks: Server,
}

/// The lines to both servers, of one speed.
pub(super) struct Lines<'a> {
    site: &'a Site<'a>,
    registry: Proxy,
    chunks: Proxy,
}

impl<'a> Site<'a> {
    /// Makes all versions in these forms; none where the machine has not what the versions are fetched with.
    pub(super) fn make(
        bench: &'a Bench<'a>,
        series: &Series,
        folder: &Path,
        forms: &[Form],
    ) -> Result<Option<Self>> {
        let Some(mut versions) = series::open(bench, series)? else { return Ok(None) };
        let programs = Programs::prepare(&bench.cache, folder)?;
        let registry = Registry::start(&programs, &folder.join("registry"), None, Access::Open)?;
        let served = folder.join("chunks");
        std::fs::create_dir(&served).context("failed to create a folder")?;
        let chunks = http::files(served)?;
        let site = Self { bench, programs, registry, chunks };
        let tree = folder.join("tree");
        for version in 1..=VERSIONS {
            versions.fill(&tree, version)?;
            run::say(format_args!("{}: version {version} goes to the registry", series.name));
            site.publish(folder, &tree, version, forms).with_context(|| format!("version {version}"))?;
        }
        Ok(Some(site))
    }

    /// Makes a version.
    fn publish(&self, folder: &Path, tree: &Path, version: usize, forms: &[Form]) -> Result<()> {
        let is_wanted = |layer: &Layer| {
            let with_it = |form: &Form| form.layer() == Some(*layer) && (version <= 2 || form.has_all());
            forms.iter().any(with_it)
        };
        let layers: Vec<_> = Layer::ALL.into_iter().filter(is_wanted).collect();
        if !layers.is_empty() {
            let layout = folder.join("layout");
            container_layout::make(&layout, tree)?;
            for layer in layers {
                let to = format!("{}/{}:{version}", self.registry.address(), layer.repository());
                self.programs.shell(&format!(
                    "skopeo copy -q --dest-tls-verify=false --dest-compress-format {} oci:layout:{} docker://{to}",
                    layer.format(),
                    container_layout::NAME
                ))?;
            }
            std::fs::remove_dir_all(&layout).context("failed to remove a layout")?;
        }
        if version <= 2 && forms.contains(&Form::Casync) {
            self.programs.shell(&format!(
                "casync make --compression=zstd --store=chunks/chunks.castr chunks/{version}.caidx tree >&2"
            ))?;
        }
        for form in forms {
            match form {
                Form::Own(own) if version <= 2 || form.has_all() => {
                    self.publish_own(folder, tree, version, *form, *own)?;
                }
                _ => (),
            }
        }
        Ok(())
    }

    /// Makes our forms of a version: those of one level are one image.
    fn publish_own(&self, folder: &Path, tree: &Path, version: usize, form: Form, own: Own) -> Result<()> {
        let level = own.level();
        let packs = folder.join(format!("packs-{level}"));
        std::fs::create_dir_all(&packs).context("failed to create a folder")?;
        let image = |version: usize| folder.join(format!("{version}-{level}.tess"));
        let before = (version > 1).then(|| image(version - 1));
        if !image(version).exists() {
            let mut mkfs = run::command(&self.bench.tools.mkfs);
            mkfs.args(["--quiet", "--level", &level.to_string(), "--profile", own.profile()]);
            mkfs.arg("--packdir").arg(&packs);
            if let Some(before) = &before {
                mkfs.arg("--parent").arg(before);
            }
            run::quiet(mkfs.arg(image(version)).arg(tree))?;
        }
        let mut push = run::command(&self.bench.tools.store);
        push.arg("push").arg("--packdir").arg(&packs);
        if let Some(before) = before.filter(|_| own == Own::Deltas) {
            push.arg("--delta-from").arg(before);
        }
        push.arg(image(version));
        push.arg(format!("{}/{}:{version}", self.registry.address(), form.repository()));
        run::quiet(&mut push)
    }

    /// Both servers, at the end of lines of this speed.
    pub(super) fn behind(&self, speed: Speed) -> Result<Lines<'_>> {
        let registry = Proxy::start(self.registry.address(), speed)?;
        let chunks = Proxy::start(self.chunks.address(), speed)?;
        Ok(Lines { site: self, registry, chunks })
    }

    /// The programs of others, and how they are called.
    pub(super) fn programs(&self) -> Result<Vec<Program>> {
        let version = |script: &str| -> Result<String> {
            let said = self.programs.shell(script)?;
            Ok(said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned())
        };
        Ok(vec![
            program("docker-registry", version("docker-registry --version")?, "docker-registry serve CONFIG"),
            program("skopeo", version("skopeo --version")?, "skopeo copy docker://IMAGE dir:HOST/VERSION"),
            program("podman", version("podman --version")?, "podman pull IMAGE"),
            program(
                "casync",
                version("casync --version")?,
                "casync extract --seed=HOST/BEFORE --store=http://SERVER/chunks.castr http://SERVER/VERSION.caidx HOST/VERSION",
            ),
        ])
    }
}

impl Lines<'_> {
    /// The registry, as a client sees it.
    pub(super) fn registry(&self) -> SocketAddr {
        self.registry.address()
    }

    /// The server of chunks, as a client sees it.
    pub(super) fn chunks(&self) -> SocketAddr {
        self.chunks.address()
    }

    pub(super) fn own_program(&self) -> &PathBuf {
        &self.site.bench.tools.store
    }

    /// A script for the programs of others.
    pub(super) fn script(&self, script: &str) -> Command {
        self.site.programs.script(script)
    }

    /// Counts anew.
    pub(super) fn forget(&self) {
        self.passed();
    }

    /// Bytes to the client, and requests, since the last call.
    pub(super) fn passed(&self) -> (u64, u64) {
        let all = [self.registry.take(), self.chunks.take()];
        (
            all.iter().map(|traffic| traffic.down).sum(),
            all.iter().map(|traffic| traffic.requests.len() as u64).sum(),
        )
    }
}
