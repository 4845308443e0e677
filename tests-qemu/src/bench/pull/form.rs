// SPDX-License-Identifier: GPL-2.0
//! The forms of a version in a registry, and the programs that pull each.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::images::LEVEL;
use super::site::Lines;
use super::Line;
use crate::run;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Layer {
    Gzip,
    Zstd,
    /// At [`PUBLISHED`], where skopeo takes 3.
    ZstdPublished,
    Chunked,
}

/// A form, with the program that pulls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Form {
    /// Ours.
    Own(Own),
    /// A layer, kept as it is.
    Skopeo(Layer),
    /// A layer, of which podman fetches files that the versions before lack, and unpacks them.
    Podman,
    /// Chunks of an archive of the tree, by HTTP.
    Casync,
}

/// Our forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Own {
    /// At [`PUBLISHED`].
    Chunks,
    /// The same, with a delta from the version before in the registry.
    Deltas,
    /// At the level that mkfs takes by itself.
    Fast,
    /// As small as mkfs makes them: `--profile small`, at [`SMALLEST`].
    Small,
}

/// The level of zstd for that which is made once, and pulled often.
pub(in super::super) const PUBLISHED: u32 = 9;

/// The highest level that is not called ultra.
const SMALLEST: u32 = 19;

/// All of them.
pub(in super::super) const FORMS: [Form; 9] = [
    Form::Own(Own::Chunks),
    Form::Own(Own::Deltas),
    Form::Own(Own::Fast),
    Form::Own(Own::Small),
    Form::Skopeo(Layer::Gzip),
    Form::Skopeo(Layer::Zstd),
    Form::Skopeo(Layer::ZstdPublished),
    Form::Podman,
    Form::Casync,
];

/// podman asks for control groups, and the root has none. A kernel without them is podman's to complain of.
const CONTROL_GROUPS: &str = "mount -t sysfs sysfs /sys\n\
     if grep -qw cgroup2 /proc/filesystems; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; fi\n";

/// Longer than any of them takes.
const LIMIT: Duration = Duration::from_secs(3600);

impl Layer {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Gzip, Self::Zstd, Self::ZstdPublished, Self::Chunked];

    /// Arguments of `skopeo copy`.
    pub(super) fn format(self) -> String {
        let name = match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::ZstdPublished => return format!("zstd --dest-compress-level {PUBLISHED}"),
            Self::Chunked => "zstd:chunked",
        };
        name.to_owned()
    }

    /// The repository of images with such layers.
    pub(super) fn repository(self) -> &'static str {
        match self {
            Self::Gzip => "bench/gzip",
            Self::Zstd => "bench/zstd",
            Self::ZstdPublished => "bench/zstd-published",
            Self::Chunked => "bench/chunked",
        }
    }
}

impl Own {
    /// The level of zstd.
    pub(super) fn level(self) -> u32 {
        match self {
            Self::Chunks | Self::Deltas => PUBLISHED,
            Self::Fast => LEVEL,
            Self::Small => SMALLEST,
        }
    }

    /// The profile of mkfs.
    pub(super) fn profile(self) -> &'static str {
        match self {
            Self::Chunks | Self::Deltas | Self::Fast => "default",
            Self::Small => "small",
        }
    }
}

impl Form {
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::Own(Own::Chunks) => "tesserafs pull",
            Self::Own(Own::Deltas) => "tesserafs pull, with deltas",
            Self::Own(Own::Fast) => "tesserafs pull, level 3",
            Self::Own(Own::Small) => "tesserafs pull, small, level 19",
            Self::Skopeo(Layer::Gzip) => "skopeo, tar.gz",
            Self::Skopeo(Layer::Zstd) => "skopeo, tar.zst",
            Self::Skopeo(Layer::ZstdPublished) => "skopeo, tar.zst, level 9",
            Self::Skopeo(Layer::Chunked) => "skopeo, zstd:chunked",
            Self::Podman => "podman, zstd:chunked",
            Self::Casync => "casync",
        }
    }

    /// The layer that is pulled, if it is one.
    pub(super) fn layer(self) -> Option<Layer> {
        match self {
            Self::Skopeo(layer) => Some(layer),
            Self::Podman => Some(Layer::Chunked),
            Self::Own(_) | Self::Casync => None,
        }
    }

    /// The repository that it is in.
    pub(super) fn repository(self) -> &'static str {
        match self {
            Self::Own(Own::Chunks) => "bench/own",
            Self::Own(Own::Deltas) => "bench/own-deltas",
            Self::Own(Own::Fast) => "bench/own-fast",
            Self::Own(Own::Small) => "bench/own-small",
            Self::Skopeo(_) | Self::Podman | Self::Casync => self.layer().map_or("", Layer::repository),
        }
    }

    /// Whether it takes so long that it runs less often: casync starts a program for each chunk, podman unpacks.
    pub(super) fn is_slow(self) -> bool {
        matches!(self, Self::Podman | Self::Casync)
    }

    /// Whether it is one of ours.
    pub(super) fn is_own(self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Whether it is pulled over a line: over the narrowest one times are those of its bytes, and casync's programs take as long over each.
    pub(super) fn is_on(self, line: &Line) -> bool {
        match self {
            Self::Own(Own::Chunks | Own::Deltas) | Self::Podman | Self::Skopeo(Layer::Zstd) => true,
            Self::Casync => line.has_all || line.milliseconds == 0,
            Self::Own(Own::Fast | Own::Small) | Self::Skopeo(_) => line.has_all || line.megabits.is_none(),
        }
    }

    /// Whether ten versions in turn, and many pulls at once, are measured: of those that differ in level alone they say nothing new.
    pub(super) fn has_all(self) -> bool {
        matches!(self, Self::Own(Own::Chunks | Own::Deltas) | Self::Skopeo(Layer::Zstd) | Self::Podman)
    }

    /// Whether pulls at once share what they have.
    pub(super) fn shares(self) -> bool {
        matches!(self, Self::Own(_) | Self::Podman)
    }

    /// Pulls a version to a host that has the versions before; the seconds that it took.
    pub(super) fn pull(self, lines: &Lines<'_>, host: &Path, version: usize) -> Result<f64> {
        let at = host.display();
        let name = format!("{}/{}:{version}", lines.registry(), self.repository());
        let script = match self {
            Self::Own(_) => {
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
            Self::Podman => {
                let configuration = storage(host)?;
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
        let before = if self == Self::Podman { CONTROL_GROUPS } else { "" };
        timed(lines, before, &script)
    }
}

/// Writes where podman keeps what it unpacks, and that it fetches parts of layers.
fn storage(host: &Path) -> Result<String> {
    let path = host.join("storage.conf");
    let at = host.display();
    let text = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{at}/graph\"\nrunroot = \"{at}/run\"\n\
         [storage.options]\npull_options = {{ enable_partial_images = \"true\" }}\n"
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
    // Without the command, as notes of the report have errors, and it has paths of this machine.
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
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
