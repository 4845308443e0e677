// SPDX-License-Identifier: GPL-2.0
//! The targets: what is compared with what, what is wanted, and what was found.

use std::fmt::Write as _;

use anyhow::Result;
use tesserafs_guest::reading::{Sample, ONE_CPU, TWO_CPUS};

use super::super::build::{MKSQUASHFS, OURS as MKFS};
use super::super::growth::{Kind, Measure, MILLION};
use super::super::images::{EROFS_VERITY, OURS, OURS_FILE, OURS_PACKS, OURS_TRUSTED, SQUASHFS_VERITY};
use super::super::profiles::IMAGE;
use super::super::pull::Pull;
use super::super::record::{Built, Measured, Record, Summary};
use super::super::releases::EROFS_SHARED;
use super::super::scaling::PROGRAM;
use super::super::trees::{LARGE, ORDINARY, SOURCES, STATIC, TINY};
use super::super::{fuse, metadata};
use super::trees::{bytes, of_tree, seconds};
use super::{decoded_of, floor, growth, names, of, of_builder, packs, pulls, updates};

/// What is compared with what, and what is wanted. `None` as a figure: nothing has measured it.
struct Target {
    what: &'static str,
    against: &'static str,
    wanted: Wanted,
    figure: Figure,
}

/// How a target's figure is found.
#[derive(Clone, Copy)]
enum Figure {
    /// In its own way.
    Own(fn(&Figures<'_>) -> Option<f64>),
    /// The time of a measure, as a multiple of that of the faster one of [`FASTER`].
    Fault(&'static str),
    /// The time of a measure by FUSE, as a multiple of that of the faster one of [`FASTER_FUSE`].
    Fuse(&'static str),
    /// Bytes that are decoded for each page of a measure, as a multiple of [`TWO_CHUNKS`].
    Decoded(&'static str),
    /// The time in which an image of a tree is built, as a multiple of that of mksquashfs.
    TreeTime(&'static str),
    /// The size of that image, as a multiple of that of squashfs.
    TreeImage(&'static str),
}

/// Which side of a number is the good one.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

/// Who has to be beaten in page faults and in starts of programs: whoever is faster.
const FASTER: [&str; 2] = [EROFS_VERITY, SQUASHFS_VERITY];

/// The same, as the table of targets names it.
pub(super) const THE_FASTER: &str = "the faster of EROFS and squashfs on dm-verity";

/// The rival of FUSE: the faster of the two.
const FASTER_FUSE: [&str; 2] = [fuse::EROFS, fuse::SQUASHFS];

/// The same, as the table of targets names it.
pub(super) const THE_FASTER_FUSE: &str = "the faster of erofsfuse and squashfuse_ll";

/// The memory that the server for FUSE may take, besides the page cache.
const FUSE_MEMORY: f64 = (64 << 20) as f64;

/// The rivals of bundles, on archives of the whole trees.
const PATCH_9: &str = "zstd -9 --patch-from";
const PATCH_19: &str = "zstd -19 --patch-from";

/// The rivals of packs: the image that takes less, and the layer that does, each of its better compressor.
const SMALLER_IMAGE: &str = "the smaller one of squashfs and EROFS";
const LAYER: &str = "a layer built again";

/// The rivals of pulls: skopeo, podman with and without partial pulls, casync.
const PULL_RIVAL: &str = "the best rival";

/// What grows: files of a tree, and bytes of a file.
const FILES: &str = "the files";
const BYTES: &str = "the bytes";

/// What a page may cost that lies across the border of two chunks: both, of the largest size that
/// mkfs.tesserafs makes by default.
const TWO_CHUNKS: f64 = 2.0 * 131_072.0;

const TARGETS: [Target; 93] = [
    target("mount to first stat, time", "EROFS", Wanted::AtMost(1.0), |f| {
        f.time("mount to first stat", "EROFS")
    }),
    target("stat of all, cold, time", "EROFS", Wanted::AtMost(1.0), |f| f.time("stat of all", "EROFS")),
    target("stat of all, warm, time", "EROFS", Wanted::AtMost(1.0), |f| f.time("stat of all, warm", "EROFS")),
    target("sequential, all files, verified, throughput", EROFS_VERITY, Wanted::AtLeast(1.3), |f| {
        f.throughput("sequential, all files", EROFS_VERITY)
    }),
    target("sequential, all files, trusted backing, throughput", "EROFS", Wanted::AtLeast(1.1), |f| {
        Some(1.0 / f.ratio("sequential, all files", OURS_TRUSTED, "EROFS")?)
    }),
    target("random 4 KiB, verified, time", EROFS_VERITY, Wanted::AtMost(0.6), |f| {
        f.time("random 4 KiB", EROFS_VERITY)
    }),
    target("random 4 KiB, verified, time", "EROFS", Wanted::AtMost(1.0), |f| f.time("random 4 KiB", "EROFS")),
    target("small files, verified, time", EROFS_VERITY, Wanted::AtMost(0.8), |f| {
        f.time("small files", EROFS_VERITY)
    }),
    target("small files, verified, time", "squashfs", Wanted::AtMost(0.3), |f| {
        f.time("small files", "squashfs")
    }),
    target("small files above the floor, time", EROFS_VERITY, Wanted::AtMost(1.0), |f| {
        floor::ratio(&f.record.read.as_ref()?.samples, "small files", OURS, f.value)
    }),
    target("sources: small files above the floor, time", EROFS_VERITY, Wanted::AtMost(1.0), |f| {
        floor::ratio(&f.record.sources.as_ref()?.samples, "small files", OURS, f.value)
    }),
    target("sources: random 4 KiB, verified, time", EROFS_VERITY, Wanted::AtMost(0.6), |f| {
        f.of(&f.record.sources, "random 4 KiB", OURS, EROFS_VERITY)
    }),
    target("sources: image size", "EROFS", Wanted::AtMost(0.93), |f| {
        f.of(&f.record.sources, IMAGE, OURS, "EROFS")
    }),
    target("sources: image size", "squashfs", Wanted::AtMost(1.0), |f| {
        f.of(&f.record.sources, IMAGE, OURS, "squashfs")
    }),
    target("image size", "squashfs", Wanted::AtMost(0.97), |f| f.size(MKSQUASHFS)),
    target("image size", "EROFS", Wanted::AtMost(0.88), |f| f.size("mkfs.erofs")),
    target("mkfs, time", MKSQUASHFS, Wanted::AtMost(0.5), |f| f.building(MKSQUASHFS)),
    tree_time(ORDINARY, 0.5),
    tree_image(ORDINARY),
    tree_time(LARGE, 0.5),
    tree_image(LARGE),
    tree_time(STATIC, 0.5),
    tree_image(STATIC),
    tree_time(SOURCES, 0.5),
    tree_image(SOURCES),
    tree_time(TINY, 0.8),
    target("memory, one release read", "EROFS", Wanted::AtMost(1.0), |f| f.time("memory: all", "EROFS")),
    target("memory, two releases read", EROFS_SHARED, Wanted::AtMost(0.8), |f| {
        f.of(&f.record.releases, "memory: all", OURS, EROFS_SHARED)
    }),
    target("memory, two releases read, images in a store", EROFS_SHARED, Wanted::AtMost(0.8), |f| {
        f.of(&f.record.releases, "memory: all", OURS_PACKS, EROFS_SHARED)
    }),
    target("memory, slab, one release read", "EROFS", Wanted::AtMost(1.3), |f| {
        f.of(&f.record.read, "memory: slab", OURS, "EROFS")
    }),
    target("two CPUs, one sequential reader, throughput", "itself on one", Wanted::AtLeast(1.6), |f| {
        f.of(&f.record.scaling, PROGRAM, ONE_CPU, TWO_CPUS)
    }),
    target("cold start of python3, time", EROFS_VERITY, Wanted::AtMost(1.0), |f| {
        f.of(&f.record.fault, "start of python3", OURS, EROFS_VERITY)
    }),
    fault("fault: 1 page of a large program"),
    fault("fault: 8 pages of a large program"),
    fault("fault: 32 pages of a large program"),
    fault("fault: 200 pages of all files"),
    fault("fault: 2000 pages of all files"),
    fault("fault: a large program, in order"),
    fault("start of cc1 --version"),
    fault("start of bash"),
    fault("start of python3"),
    fault("start of python3, ssl and json"),
    fault("start of perl"),
    fault("start of gcc, compiling a file"),
    fault("start of apt-get --version"),
    target(
        "faults and starts with two CPUs, the worst of all rows, time",
        THE_FASTER,
        Wanted::AtMost(1.0),
        |f| f.worst(&f.record.fault_two),
    ),
    fuse("sequential, all files"),
    fuse("random 4 KiB"),
    fuse("random 4 KiB, four readers"),
    fuse("small files"),
    fuse("small files, four readers"),
    fuse("stat of all"),
    fuse("start of python3"),
    target("FUSE: memory of the server at most", "64 MiB", Wanted::AtMost(1.0), |f| f.fuse_memory()),
    target("in packs: random 4 KiB, time", "the same in one file", Wanted::AtMost(1.02), |f| {
        f.ratio("random 4 KiB", OURS_PACKS, OURS_FILE)
    }),
    target("in packs: sequential, all files, time", "the same in one file", Wanted::AtMost(1.02), |f| {
        f.ratio("sequential, all files", OURS_PACKS, OURS_FILE)
    }),
    target("in packs: memory, two releases read", "the same in one file", Wanted::AtMost(1.0), |f| {
        f.of(&f.record.releases, "memory: all", OURS_PACKS, OURS_FILE)
    }),
    target("ten versions on one disk, median series", SMALLER_IMAGE, Wanted::AtMost(0.5), |f| {
        Some(packs::disk_ratios(&f.record.packs.as_ref()?.samples)?.median)
    }),
    target("ten versions on one disk, worst series", SMALLER_IMAGE, Wanted::AtMost(0.5), |f| {
        Some(packs::disk_ratios(&f.record.packs.as_ref()?.samples)?.max)
    }),
    target("chunks to fetch of the next version, median series", LAYER, Wanted::AtMost(0.35), |f| {
        Some(packs::fetched_ratios(&f.record.packs.as_ref()?.samples)?.median)
    }),
    target("chunks to fetch of the next version, worst series", LAYER, Wanted::AtMost(0.35), |f| {
        Some(packs::fetched_ratios(&f.record.packs.as_ref()?.samples)?.max)
    }),
    target("an update as a bundle, level 9, median series", PATCH_9, Wanted::AtMost(0.75), |f| {
        Some(updates::of_patch(&f.record.updates.as_ref()?.samples, 9)?.median)
    }),
    target("an update as a bundle, level 9, worst series", PATCH_9, Wanted::AtMost(0.75), |f| {
        Some(updates::of_patch(&f.record.updates.as_ref()?.samples, 9)?.max)
    }),
    target("an update as a bundle, level 19, median series", PATCH_19, Wanted::AtMost(0.9), |f| {
        Some(updates::of_patch(&f.record.updates.as_ref()?.samples, 19)?.median)
    }),
    target("an update as a bundle, level 19, worst series", PATCH_19, Wanted::AtMost(0.9), |f| {
        Some(updates::of_patch(&f.record.updates.as_ref()?.samples, 19)?.max)
    }),
    target("an update as a bundle, level 9, median series", LAYER, Wanted::AtMost(0.1), |f| {
        Some(updates::of_layer(&f.record.updates.as_ref()?.samples)?.median)
    }),
    target("an update as a bundle, level 9, worst step", "the portable one", Wanted::AtMost(1.0), |f| {
        updates::of_portable(&f.record.updates.as_ref()?.samples)
    }),
    target("pull of the first version, bytes, median series", PULL_RIVAL, Wanted::AtMost(1.05), |f| {
        Some(f.pulls(pulls::first_bytes)?.median)
    }),
    target("pull of the first version, bytes, worst series", PULL_RIVAL, Wanted::AtMost(1.05), |f| {
        Some(f.pulls(pulls::first_bytes)?.max)
    }),
    target(
        "pull of the first version, bytes at one level, median series",
        "a layer of zstd, level 9",
        Wanted::AtMost(1.05),
        |f| Some(f.pulls(pulls::first_bytes_at_one_level)?.median),
    ),
    target(
        "pull of the first version, bytes, small at level 19, worst series",
        PULL_RIVAL,
        Wanted::AtMost(1.05),
        |f| Some(f.pulls(pulls::first_bytes_small)?.max),
    ),
    target(
        "pull of the first version, time, median series and line",
        PULL_RIVAL,
        Wanted::AtMost(1.05),
        |f| Some(f.pulls(pulls::first_seconds)?.median),
    ),
    target("pull of the first version, time, worst series and line", PULL_RIVAL, Wanted::AtMost(1.05), |f| {
        Some(f.pulls(pulls::first_seconds)?.max)
    }),
    target("pull of the next version with a delta, bytes, median series", LAYER, Wanted::AtMost(0.1), |f| {
        Some(f.pulls(pulls::next_bytes_with_delta)?.median)
    }),
    target("pull of the next version with a delta, bytes, worst series", LAYER, Wanted::AtMost(0.1), |f| {
        Some(f.pulls(pulls::next_bytes_with_delta)?.max)
    }),
    target("pull of the next version without, bytes, median series", LAYER, Wanted::AtMost(0.35), |f| {
        Some(f.pulls(pulls::next_bytes)?.median)
    }),
    target("pull of the next version without, bytes, worst series", LAYER, Wanted::AtMost(0.35), |f| {
        Some(f.pulls(pulls::next_bytes)?.max)
    }),
    target("twenty pulls at once, bytes, median series", "one pull", Wanted::AtMost(1.05), |f| {
        Some(f.pulls(pulls::at_once)?.median)
    }),
    target("twenty pulls at once, bytes, worst series", "one pull", Wanted::AtMost(1.05), |f| {
        Some(f.pulls(pulls::at_once)?.max)
    }),
    target("diff of two images of 100,000 files, seconds", "0.1", Wanted::AtMost(0.1), |f| {
        f.seconds(metadata::DIFF)
    }),
    target("compose of 100,000 files, seconds", "1", Wanted::AtMost(1.0), |f| f.seconds(metadata::COMPOSE)),
    target("sbom --check of 100,000 files, seconds", "1", Wanted::AtMost(1.0), |f| {
        f.seconds(metadata::CHECK)
    }),
    target("growth, ten times the files: the largest factor of time", FILES, Wanted::AtMost(10.0), |f| {
        f.growth(true, &growth::TIMES)
    }),
    target("growth, ten times the files: the largest factor of memory", FILES, Wanted::AtMost(10.0), |f| {
        f.growth(true, &growth::MEMORY)
    }),
    target("growth, ten times the bytes: the largest factor of time", BYTES, Wanted::AtMost(10.0), |f| {
        f.growth(false, &growth::TIMES)
    }),
    target("growth, ten times the bytes: the largest factor of memory", BYTES, Wanted::AtMost(10.0), |f| {
        f.growth(false, &growth::MEMORY)
    }),
    target(
        "mkfs from a directory, bytes of memory an inode, 1 million files",
        "200",
        Wanted::AtMost(200.0),
        |f| f.bytes_an_inode(Kind::Directory, MILLION),
    ),
    target(
        "mkfs from an archive, bytes of memory an inode, 1 million files",
        "200",
        Wanted::AtMost(200.0),
        |f| f.bytes_an_inode(Kind::Archive, MILLION),
    ),
    target(
        "mkfs from an archive, bytes of memory an inode, 5 million files",
        "200",
        Wanted::AtMost(200.0),
        |f| f.bytes_an_inode(Kind::Archive, 5 * MILLION),
    ),
    decoded("fault: 1 page of a large program"),
    decoded("fault: 8 pages of a large program"),
    decoded("fault: 32 pages of a large program"),
    decoded("fault: 200 pages of all files"),
];

const fn target(
    what: &'static str,
    against: &'static str,
    wanted: Wanted,
    figure: fn(&Figures<'_>) -> Option<f64>,
) -> Target {
    Target { what, against, wanted, figure: Figure::Own(figure) }
}

const fn fault(measure: &'static str) -> Target {
    let (against, wanted) = (THE_FASTER, Wanted::AtMost(1.0));
    Target { what: measure, against, wanted, figure: Figure::Fault(measure) }
}

const fn fuse(measure: &'static str) -> Target {
    let (against, wanted) = (THE_FASTER_FUSE, Wanted::AtMost(1.0));
    Target { what: measure, against, wanted, figure: Figure::Fuse(measure) }
}

const fn decoded(measure: &'static str) -> Target {
    let (against, wanted) = ("two chunks of 128 KiB", Wanted::AtMost(1.0));
    Target { what: measure, against, wanted, figure: Figure::Decoded(measure) }
}

const fn tree_time(tree: &'static str, limit: f64) -> Target {
    Target { what: tree, against: MKSQUASHFS, wanted: Wanted::AtMost(limit), figure: Figure::TreeTime(tree) }
}

const fn tree_image(tree: &'static str) -> Target {
    Target { what: tree, against: "squashfs", wanted: Wanted::AtMost(1.0), figure: Figure::TreeImage(tree) }
}

impl Target {
    /// The things that are compared, and which property of them.
    fn what(&self) -> String {
        match self.figure {
            Figure::Own(_) => self.what.to_owned(),
            Figure::Fault(measure) => format!("{measure}, time"),
            Figure::Fuse(measure) => format!("FUSE: {measure}, time"),
            Figure::Decoded(measure) => format!("{measure}, bytes decoded for each"),
            Figure::TreeTime(tree) => format!("build, {tree}, time"),
            Figure::TreeImage(tree) => format!("build, {tree}, image"),
        }
    }

    /// The figures.
    fn figure(&self, figures: &Figures<'_>) -> Option<f64> {
        match self.figure {
            Figure::Own(figure) => figure(figures),
            Figure::Fault(measure) => figures.of_faster(&figures.record.fault, measure, FASTER),
            Figure::Fuse(measure) => figures.of_faster(&figures.record.fuse, measure, FASTER_FUSE),
            Figure::Decoded(measure) => figures.decoded(measure),
            Figure::TreeTime(tree) => figures.tree(tree, seconds),
            Figure::TreeImage(tree) => figures.tree(tree, bytes),
        }
    }
}

/// Level of the targets.
const LEVEL: u32 = 3;

/// Ratios of medians; or of minima, which other work on the machine disturbs least.
struct Figures<'r> {
    record: &'r Record,
    value: fn(&Summary) -> f64,
}

impl Figures<'_> {
    /// Of the driver against another system, where less is better.
    fn time(&self, measure: &str, other: &str) -> Option<f64> {
        self.ratio(measure, OURS, other)
    }

    fn ratio(&self, measure: &str, ours: &str, other: &str) -> Option<f64> {
        self.of(&self.record.read, measure, ours, other)
    }

    /// How many times that of `other` something is in a part.
    fn of(&self, part: &Option<Measured<Sample>>, measure: &str, one: &str, other: &str) -> Option<f64> {
        let samples = &part.as_ref()?.samples;
        Some((self.value)(&of(samples, measure, one)?) / (self.value)(&of(samples, measure, other)?))
    }

    /// How many times that of the faster one of two others something is; both must have been measured.
    fn of_faster(&self, part: &Option<Measured<Sample>>, measure: &str, others: [&str; 2]) -> Option<f64> {
        let [one, other] = others.map(|system| self.of(part, measure, OURS, system));
        Some(one?.max(other?))
    }

    /// Ratios of pulls.
    fn pulls(&self, ratios: fn(&[Pull]) -> Option<Summary>) -> Option<Summary> {
        ratios(&self.record.pull.as_ref()?.samples)
    }

    /// Seconds of a measure of metadata alone.
    fn seconds(&self, measure: &str) -> Option<f64> {
        Some((self.value)(&of(&self.record.metadata.as_ref()?.samples, measure, OURS)?))
    }

    /// The largest factor of these measures for ten times the input.
    fn growth(&self, trees: bool, measures: &[Measure]) -> Option<f64> {
        growth::largest(&self.record.growth.as_ref()?.samples, trees, measures, self.value)
    }

    /// Memory of mkfs for an inode.
    fn bytes_an_inode(&self, kind: Kind, files: u64) -> Option<f64> {
        growth::bytes_an_inode(&self.record.growth.as_ref()?.samples, kind, files, self.value)
    }

    /// The largest of these figures of a part.
    fn worst(&self, part: &Option<Measured<Sample>>) -> Option<f64> {
        let measures = names(&part.as_ref()?.samples, |sample| &sample.measure);
        measures.into_iter().filter_map(|measure| self.of_faster(part, measure, FASTER)).reduce(f64::max)
    }

    /// Memory of the server for FUSE in the measure in which it takes most, as a part of what it may take.
    fn fuse_memory(&self) -> Option<f64> {
        let samples = &self.record.fuse.as_ref()?.samples;
        let measures = names(samples, |sample| &sample.measure);
        let memory = measures.into_iter().filter(|measure| measure.starts_with(fuse::MEMORY));
        let most = memory.filter_map(|measure| of(samples, measure, OURS)).map(|all| (self.value)(&all));
        Some(most.reduce(f64::max)? / FUSE_MEMORY)
    }

    /// Bytes that were decoded for each page, in pairs of chunks.
    fn decoded(&self, measure: &str) -> Option<f64> {
        let samples = &self.record.fault.as_ref()?.samples;
        Some((self.value)(&decoded_of(samples, measure, OURS)?) / TWO_CHUNKS)
    }

    fn throughput(&self, measure: &str, other: &str) -> Option<f64> {
        Some(1.0 / self.time(measure, other)?)
    }

    fn size(&self, other: &str) -> Option<f64> {
        self.built(other, |built| built.bytes as f64)
    }

    fn building(&self, other: &str) -> Option<f64> {
        self.built(other, |built| built.seconds)
    }

    /// How many times that of mksquashfs something is of a tree.
    fn tree(&self, tree: &str, value: fn(&Built) -> Option<f64>) -> Option<f64> {
        let samples = &self.record.trees.as_ref()?.samples;
        let of = |builder| Some((self.value)(&of_tree(samples, tree, builder, value)?));
        Some(of(MKFS)? / of(MKSQUASHFS)?)
    }

    fn built(&self, other: &str, value: fn(&Built) -> f64) -> Option<f64> {
        let samples = &self.record.build.as_ref()?.samples;
        Some(
            of_builder(samples, LEVEL, MKFS, value)?.median
                / of_builder(samples, LEVEL, other, value)?.median,
        )
    }
}

pub(super) fn targets(out: &mut String, record: &Record) -> Result<()> {
    writeln!(out, "\n## Targets\n")?;
    writeln!(
        out,
        "| tesserafs | against | wanted | of medians | met | of minima |\n|---|---|---|---|---|---|"
    )?;
    for target in &TARGETS {
        let (sign, limit) = match target.wanted {
            Wanted::AtMost(limit) => ("≤", limit),
            Wanted::AtLeast(limit) => ("≥", limit),
        };
        let minima = target
            .figure(&Figures { record, value: |all| all.min })
            .map_or_else(String::new, |figure| format!("{figure:.3}"));
        let (figure, met) = match target.figure(&Figures { record, value: |all| all.median }) {
            None => ("not measured".to_owned(), ""),
            Some(figure) => {
                let met = match target.wanted {
                    Wanted::AtMost(limit) => figure <= limit,
                    Wanted::AtLeast(limit) => figure >= limit,
                };
                (format!("{figure:.3}"), if met { "yes" } else { "**no**" })
            }
        };
        writeln!(
            out,
            "| {} | {} | {sign} {limit} | {figure} | {met} | {minima} |",
            target.what(),
            target.against
        )?;
    }
    Ok(())
}

/// Lines of the README between which the figures stand.
pub(super) const QUOTED: [&str; 2] =
    ["<!-- Written by `cargo xtask bench`: -->", "<!-- (end of what it writes) -->"];

/// The figures of the targets, as they stand there.
pub(super) fn table(record: &Record) -> Result<String> {
    let mut out = String::from("| tesserafs | against | times |\n|---|---|---|\n");
    // The decoded bytes explain the times: they stand in BENCH.md.
    for target in TARGETS.iter().filter(|target| !matches!(target.figure, Figure::Decoded(_))) {
        if let Some(figure) = target.figure(&Figures { record, value: |all| all.median }) {
            writeln!(out, "| {} | {} | {figure:.2} |", target.what(), target.against)?;
        }
    }
    Ok(out)
}
