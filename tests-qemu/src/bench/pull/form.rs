// SPDX-License-Identifier: GPL-2.0
//! The forms of a version in a registry, and the programs that pull each.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::site::Lines;
use crate::run;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Layer {
    Gzip,
    Zstd,
    Chunked,
}

/// A form, with the program that pulls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Form {
    /// Ours; with a delta from the version before in the registry, or without.
    Own { has_delta: bool },
    /// A layer, kept as it is.
    Skopeo(Layer),
    /// A layer, unpacked.
    Podman(Layer),
    /// Chunks of an archive of the tree, by HTTP.
    Casync,
}

/// All of them.
pub(in super::super) const FORMS: [Form; 8] = [
    Form::Own { has_delta: false },
    Form::Own { has_delta: true },
    Form::Skopeo(Layer::Gzip),
    Form::Skopeo(Layer::Zstd),
    Form::Podman(Layer::Gzip),
    Form::Podman(Layer::Zstd),
    Form::Podman(Layer::Chunked),
    Form::Casync,
];

/// podman asks for control groups, and the root has none. A kernel without them is podman's to complain of.
const CONTROL_GROUPS: &str = "mount -t sysfs sysfs /sys\n\
     if grep -qw cgroup2 /proc/filesystems; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; fi\n";

/// Longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(3600);

impl Layer {
    /// As skopeo names it, and as the repository does.
    pub(super) fn format(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Chunked => "zstd:chunked",
        }
    }

    /// The repository of images with such layers.
    pub(super) fn repository(self) -> &'static str {
        match self {
            Self::Gzip => "bench/gzip",
            Self::Zstd => "bench/zstd",
            Self::Chunked => "bench/chunked",
        }
    }
}

impl Form {
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::Own { has_delta: false } => "tesserafs pull",
            Self::Own { has_delta: true } => "tesserafs pull, with deltas",
            Self::Skopeo(Layer::Gzip) => "skopeo, tar.gz",
            Self::Skopeo(Layer::Zstd) => "skopeo, tar.zst",
            Self::Skopeo(Layer::Chunked) => "skopeo, zstd:chunked",
            Self::Podman(Layer::Gzip) => "podman, tar.gz",
            Self::Podman(Layer::Zstd) => "podman, tar.zst",
            Self::Podman(Layer::Chunked) => "podman, zstd:chunked",
            Self::Casync => "casync",
        }
    }

    /// The repository that it is in.
    pub(super) fn repository(self) -> &'static str {
        match self {
            Self::Own { has_delta: false } => "bench/own",
            Self::Own { has_delta: true } => "bench/own-deltas",
            Self::Skopeo(layer) | Self::Podman(layer) => layer.repository(),
            Self::Casync => "",
        }
    }

    /// Whether pulls at once share what they have.
    pub(super) fn shares(self) -> bool {
        matches!(self, Self::Own { .. } | Self::Podman(_))
    }

    /// Pulls a version to a host that has the versions before; the seconds that it took.
    pub(super) fn pull(self, lines: &Lines<'_>, host: &Path, version: usize) -> Result<f64> {
        let at = host.display();
        let name = format!("{}/{}:{version}", lines.registry(), self.repository());
        let script = match self {
            Self::Own { .. } => {
                let mut pull = run::command(lines.own_program());
                pull.args(["pull", "--plain-http", "--store"]).arg(host.join("store")).arg(name);
                let begin = Instant::now();
                let output = run::output_within(&mut pull, LIMIT)?;
                let seconds = begin.elapsed().as_secs_f64();
                anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                return Ok(seconds);
            }
            Self::Skopeo(_) => {
                format!("skopeo copy -q --src-tls-verify=false docker://{name} dir:{at}/{version}")
            }
            Self::Podman(layer) => {
                let configuration = storage(host, layer)?;
                format!("CONTAINERS_STORAGE_CONF={configuration} podman pull -q --tls-verify=false {name}")
            }
            Self::Casync => {
                let seed = match version {
                    1 => String::new(),
                    _ => format!("--seed={at}/{}", version - 1),
                };
                let server = lines.chunks();
                format!(
                    "casync extract {seed} --store=http://{server}/chunks.castr http://{server}/{version}.caidx {at}/{version}"
                )
            }
        };
        let before = if matches!(self, Self::Podman(_)) { CONTROL_GROUPS } else { "" };
        timed(lines, before, &script)
    }
}

/// Writes where podman keeps what it unpacks, and that it fetches parts of layers.
fn storage(host: &Path, layer: Layer) -> Result<String> {
    let path = host.join("storage.conf");
    let at = host.display();
    let is_partial = layer == Layer::Chunked;
    let text = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{at}/graph\"\nrunroot = \"{at}/run\"\n\
         [storage.options]\npull_options = {{ enable_partial_images = \"{is_partial}\" }}\n"
    );
    // Pulls at once have the same one.
    if !path.exists() {
        std::fs::write(&path, text).context("failed to write a configuration")?;
    }
    Ok(path.display().to_string())
}

/// Runs a command of the root's programs; the seconds between its start and its end, without those for the root and for what
/// is done before.
fn timed(lines: &Lines<'_>, before: &str, command: &str) -> Result<f64> {
    let script =
        format!("{before}begin=$(date +%s%N)\n{command} >&2\nend=$(date +%s%N)\necho $((end - begin))");
    let output = run::output_within(&mut lines.script(&script), LIMIT)?;
    anyhow::ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let nanoseconds: u64 = text.trim().parse().with_context(|| format!("{text:?} is no number"))?;
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// Bytes of a disk that a folder takes; a file with several names counts once.
pub(super) fn disk(folder: &Path) -> Result<u64> {
    let (mut sum, mut seen, mut todo) = (0, HashSet::new(), vec![folder.to_owned()]);
    while let Some(folder) = todo.pop() {
        for entry in folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))? {
            let entry = entry.context("failed to list a folder")?;
            let metadata = entry.metadata().context("failed to stat a file")?;
            if metadata.is_dir() {
                todo.push(entry.path());
            }
            if seen.insert(metadata.ino()) {
                sum += metadata.blocks() * 512;
            }
        }
    }
    Ok(sum)
}
