// SPDX-License-Identifier: GPL-2.0
//! A registry that has all versions of a series in all forms, a server of chunks beside it, and lines to both.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::super::images::LEVEL;
use super::super::packs::series::{self, Series, VERSIONS};
use super::super::record::Program;
use super::super::Bench;
use super::form::{Form, Layer};
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
        let is_wanted = |form: Form| forms.contains(&form);
        let layers = [Layer::Gzip, Layer::Zstd, Layer::Chunked];
        let layers =
            layers.map(|layer| (layer, is_wanted(Form::Skopeo(layer)) || is_wanted(Form::Podman(layer))));
        if layers.iter().any(|(_, is_wanted)| *is_wanted) {
            let layout = folder.join("layout");
            container_layout::make(&layout, tree)?;
            for (layer, _) in layers.iter().filter(|(_, is_wanted)| *is_wanted) {
                let to = format!("{}/{}:{version}", self.registry.address(), layer.repository());
                self.programs.shell(&format!(
                    "skopeo copy -q --dest-tls-verify=false --dest-compress-format {} oci:layout:{} docker://{to}",
                    layer.format(),
                    container_layout::NAME
                ))?;
            }
            std::fs::remove_dir_all(&layout).context("failed to remove a layout")?;
        }
        if is_wanted(Form::Casync) {
            self.programs.shell(&format!(
                "casync make --compression=zstd --store=chunks/chunks.castr chunks/{version}.caidx tree >&2"
            ))?;
        }
        if forms.iter().any(|form| matches!(form, Form::Own { .. })) {
            self.publish_own(folder, tree, version, forms)?;
        }
        Ok(())
    }

    /// Makes our forms of a version.
    fn publish_own(&self, folder: &Path, tree: &Path, version: usize, forms: &[Form]) -> Result<()> {
        let packs = folder.join("packs");
        std::fs::create_dir_all(&packs).context("failed to create a folder")?;
        let image = |version: usize| folder.join(format!("{version}.tess"));
        let before = (version > 1).then(|| image(version - 1));
        let mut mkfs = run::command(&self.bench.tools.mkfs);
        mkfs.args(["--quiet", "--level", &LEVEL.to_string(), "--packdir"]).arg(&packs);
        if let Some(before) = &before {
            mkfs.arg("--parent").arg(before);
        }
        run::quiet(mkfs.arg(image(version)).arg(tree))?;
        for form in forms {
            let Form::Own { has_delta } = form else { continue };
            let mut push = run::command(&self.bench.tools.store);
            push.arg("push").arg("--packdir").arg(&packs);
            if let Some(before) = before.as_ref().filter(|_| *has_delta) {
                push.arg("--delta-from").arg(before);
            }
            push.arg(image(version));
            push.arg(format!("{}/{}:{version}", self.registry.address(), form.repository()));
            run::quiet(&mut push)?;
        }
        Ok(())
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
