// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask bench`: tesserafs against EROFS and squashfs on the same tree, in building ([`build`], and of trees of one kind [`trees`]) and
//! in reading ([`read`], in a kernel that runs as a user-mode program, [`uml`]); in the memory that two
//! similar trees take ([`releases`]); as the root of containers ([`fleet`]); and against itself with one processor ([`scaling`]).
//! In what ten versions of a tree take, and updates from one to the next ([`packs`]), in what pulls of them from a registry take ([`pull`]), and in the verbs that read metadata alone ([`metadata`]).
//! The profiles of mkfs against each other ([`profiles`]), and what time and memory grow to with the size of the input ([`growth`]).
//! And `tesserafs mount` against other servers for FUSE, on this machine ([`fuse`]).
//!
//! Everything runs in turn, again and again, so that whatever else the machine does meets all alike.
//! Reported are medians, extremes and ratios ([`report`], [`plot`]); every sample is kept ([`record`]).

mod build;
mod faults;
mod fleet;
mod fuse;
mod growth;
mod images;
mod machine;
mod metadata;
mod packs;
mod plot;
mod profiles;
mod pull;
mod read;
mod record;
mod releases;
mod report;
mod scaling;
mod trees;
mod uml;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::setup::{self, Need};
use crate::tools::{self, Tools};
use crate::{erofs, rootfs};

use self::record::Record;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Measure one part, and keep the others' figures as BENCH.json has them
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// Runs of each builder at each level, and of each tree
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// zstd levels to build with; with `--only build`, what BENCH.json has of other levels at the same
    /// commit stays
    #[arg(long, value_delimiter = ',', default_values_t = [3, 15])]
    levels: Vec<u32>,
    /// Rounds of reading, and a quarter of the runs with one and with two processors
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only measures of reading (with `--only fault` of faults, with `--only fuse` by FUSE, with `--only pull` of pulls, e.g.
    /// `source releases: podman`, with `--only growth` of inputs, e.g. `archive: 10`) whose names begin with this; prints, and writes
    /// nothing
    #[arg(long, value_name = "NAME", default_value = "")]
    measure: String,
    /// Another argument for mkfs-tesserafs, with --measure: `--mkfs=--chunk-size=8,32,64`
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    mkfs: Vec<String>,
    /// Processor that the reading kernel is bound to
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Tree to build from, instead of the Debian root of the tests
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Folder for BENCH.md, BENCH.json and BENCH.svg [default: the repository]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Building images.
    Build,
    /// Reading them.
    Read,
    /// Reading a tree of sources.
    Sources,
    /// Page faults, and starts of programs.
    Fault,
    /// The same with two processors.
    FaultTwo,
    /// Memory after reading two releases of one distribution.
    Releases,
    /// One reader on one processor and on two.
    Scaling,
    /// A hundred containers from ten images.
    Fleet,
    /// Servers for FUSE, on this machine without a virtual one.
    Fuse,
    /// Ten versions of several trees: disk, and what is fetched.
    Packs,
    /// Fifty builds of a tree, by several rules for packs.
    Nights,
    /// Updates of those trees as files.
    Updates,
    /// Pulls of those trees from a registry, over four lines.
    Pull,
    /// Comparing and composing images of 100,000 files.
    Metadata,
    /// The profiles of mkfs: size, reads, updates, building.
    Profiles,
    /// Building images of trees of one kind each: tiny files, large ones, sources.
    Trees,
    /// Time and memory with more files, and with larger ones.
    Growth,
    /// Nothing: write the reports of BENCH.json anew.
    Report,
}

/// The one file that is left out: squashfs's builder would read its 16 TB of zeros.
const HUGE: &str = "srv/cases/sparse/huge";

/// What all parts work with.
#[derive(Clone)]
struct Bench<'a> {
    /// What everything was built from.
    commit: String,
    cache: Cache,
    tools: Tools,
    erofs: Erofs,
    source: PathBuf,
    /// The part of it that builders leave out.
    excluded: Option<&'static str>,
    /// The part of it that readers leave out.
    left_out: &'static str,
    /// The name of its images in the cache.
    images: &'static str,
    options: &'a Options,
}

impl Bench<'_> {
    /// The same, with images of another tree.
    fn of(&self, source: &Path) -> Self {
        Self { source: source.to_path_buf(), ..self.clone() }
    }
}

/// `mkfs.erofs`, and its version.
#[derive(Clone)]
struct Erofs {
    mkfs: PathBuf,
    version: String,
}

pub(crate) fn bench(options: &Options) -> Result<ExitCode> {
    // What is written down is of the defaults.
    anyhow::ensure!(options.mkfs.is_empty() || !options.measure.is_empty(), "--mkfs needs --measure");
    anyhow::ensure!(
        options.measure.is_empty()
            || matches!(
                options.only,
                None | Some(
                    Part::Read | Part::Sources | Part::Fault | Part::FaultTwo | Part::Fuse | Part::Pull | Part::Growth
                )
            ),
        "--measure names measures of reading, or with `--only sources`, `fault`, `fault-two`, `fuse`, `pull` or `growth` of that part"
    );
    let cache = Cache::open()?;
    setup::ensure(&cache, needs(options.only))?;
    let (mkfs, version) = erofs::mkfs(&cache)?;
    let source = match &options.source {
        Some(folder) => folder.canonicalize().with_context(|| format!("no {}", folder.display()))?,
        None => rootfs::debian(&cache)?,
    };
    let commit = record::commit()?;
    let (tools, erofs, excluded) = (Tools::build()?, Erofs { mkfs, version }, Some(HUGE));
    let (left_out, images) = (read::LEAVE_OUT, "bench-images");
    let bench = Bench { commit, tools, erofs, cache, source, excluded, left_out, images, options };
    let output = options.output.clone().unwrap_or_else(tools::repository);
    // Now, and not when an hour of measuring has to be written down.
    std::fs::create_dir_all(&output).with_context(|| format!("failed to create {}", output.display()))?;
    let json = output.join("BENCH.json");

    let mut record = match options.only {
        Some(_) if options.measure.is_empty() => Record::load(&json)?,
        _ => Record::default(),
    };
    let mut text = String::new();
    // Each part is written when it is done: an interrupted run keeps what it has.
    let mut save = |record: &Record| -> Result<()> {
        text = report::markdown(record)?;
        if options.measure.is_empty() {
            write(&json, &record.to_json()?)?;
            write(&output.join("BENCH.svg"), plot::svg(record).as_bytes())?;
            if let Some(drawing) = plot::packs(record) {
                write(&output.join("BENCH-packs.svg"), drawing.as_bytes())?;
            }
            if let Some(drawing) = plot::growth(record) {
                write(&output.join("BENCH-growth.svg"), drawing.as_bytes())?;
            }
            write(&output.join("BENCH.md"), text.as_bytes())?;
            quote(&output.join("README.md"), record)?;
        }
        Ok(())
    };
    let wants = |part| options.only.is_none_or(|only| only == part);
    // Reading comes first: it is the shorter one.
    if wants(Part::Read) {
        record.read = Some(read::measure(&bench)?);
        save(&record)?;
    }
    // With --measure and no part, only reading is meant.
    let wants_by_name = |part| options.only == Some(part) || wants(part) && options.measure.is_empty();
    if wants_by_name(Part::Sources) {
        record.sources = Some(read::sources(&bench)?);
        save(&record)?;
    }
    if wants_by_name(Part::Fault) {
        record.fault = Some(read::faults(&bench)?);
        save(&record)?;
    }
    if wants_by_name(Part::Fuse) {
        record.fuse = Some(fuse::measure(&bench)?);
        save(&record)?;
    }
    if wants_by_name(Part::FaultTwo) {
        record.fault_two = Some(faults::measure(&bench)?);
        save(&record)?;
    }
    if wants_by_name(Part::Pull) {
        record.pull = Some(pull::measure(&bench)?);
        save(&record)?;
    }
    if wants_by_name(Part::Growth) {
        record.growth = Some(growth::measure(&bench)?);
        save(&record)?;
    }
    if !options.measure.is_empty() {
        println!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    if wants(Part::Releases) {
        record.releases = Some(releases::measure(&bench)?);
        save(&record)?;
    }
    if wants(Part::Scaling) {
        record.scaling = Some(scaling::measure(&bench)?);
        save(&record)?;
    }
    if wants(Part::Fleet) {
        record.fleet = Some(fleet::measure(&bench)?);
        save(&record)?;
    }
    if wants(Part::Packs) {
        record.packs = Some(packs::measure(&bench)?);
        save(&record)?;
    }
    if wants(Part::Nights) {
        record.nights = Some(packs::nights(&bench)?);
        save(&record)?;
    }
    if wants(Part::Updates) {
        record.updates = Some(packs::updates(&bench)?);
        save(&record)?;
    }
    if wants(Part::Metadata) {
        record.metadata = Some(metadata::measure(&bench)?);
        save(&record)?;
    }
    if wants(Part::Profiles) {
        record.profiles = Some(profiles::measure(&bench)?);
        save(&record)?;
    }
    if wants(Part::Trees) {
        record.trees = Some(trees::measure(&bench)?);
        save(&record)?;
    }
    if wants(Part::Build) {
        let old = record.build.take();
        record.build = Some(build::measure(&bench)?.with_levels_of(old));
        save(&record)?;
    }
    if wants(Part::Report) {
        save(&record)?;
    }
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// What the machine must have for a part. Where nothing is emulated no kernel is built.
fn needs(part: Option<Part>) -> &'static [Need] {
    match part {
        Some(Part::Fuse) => &[Need::Machine, Need::Bench, Need::Fuse],
        Some(Part::Packs | Part::Nights | Part::Updates | Part::Pull | Part::Metadata) => {
            &[Need::Machine, Need::Bench]
        }
        None => &[Need::Kernel, Need::Machine, Need::Bench, Need::Fuse],
        Some(_) => &[Need::Kernel, Need::Machine, Need::Bench],
    }
}

/// Writes the figures into the README, where there is one.
fn quote(path: &Path, record: &Record) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    write(path, report::quoted(&text, record)?.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))
}
