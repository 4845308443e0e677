// SPDX-License-Identifier: GPL-2.0
//! Definitions that host and guest of the benchmark share: what is mounted, what is read, what was measured.
//!
//! The task lies as `plan.json` in the first root. Every sample is one line of the console, behind a
//! mark of its own: the machine of the benchmark has nothing but a console.

use serde::{Deserialize, Serialize};

/// Begins each line of the console that holds a [`Line`].
pub const MARK: &str = "@bench ";

/// Where the task lies in the first root.
pub const PLAN: &str = "plan.json";

/// Where the disk with images is mounted.
pub const IMAGES: &str = "/mnt/images";

/// Where the image of [`Scaling`] lies in the first root.
pub const IMAGE: &str = "image";

/// The two cases of [`Scaling`], as samples name them.
pub const ONE_CPU: &str = "one CPU";
/// See [`ONE_CPU`].
pub const TWO_CPUS: &str = "two CPUs";

/// The measures of one start of a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Reading one tree.
    Read(Plan),
    /// Page faults in the same tree, and starts of programs.
    Faults(Plan),
    /// The same as `Faults`, in a machine that makes its block devices itself.
    FaultsTwo(FaultsTwo),
    /// Memory after reading two trees that have much in common.
    Releases(Releases),
    /// One reader, with one processor and with two.
    Scaling(Scaling),
    /// Many containers at once.
    Fleet(Fleet),
}

/// Everything the guest needs to know of reading.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The candidates to compare, in the order of the tables.
    pub systems: Vec<System>,
    /// Block device with an ext4 that holds the images which are mounted as files, if there are any.
    pub images: Option<String>,
    /// Rounds; each measures everything once, on every system in turn.
    pub rounds: usize,
    /// Only the measures whose names begin with this.
    pub filter: String,
    /// Folder with special cases below the root, which walks leave out.
    pub leave_out: String,
    /// Directory with a great many entries, below the root; empty where the tree has none.
    pub big_directory: String,
    /// The largest file.
    pub large: String,
    /// The largest program, or that file where the tree has none.
    pub program: String,
    /// Places of single pages in it.
    pub program_pages: Vec<Page>,
    /// Places of single pages, drawn from all data by size.
    pub pages: Vec<Page>,
    /// Small files, in random order.
    pub small: Vec<String>,
}

/// One page to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Path below the root.
    pub path: String,
    /// Position in the file, a multiple of the page size.
    pub offset: u64,
}

/// A file system with an image of the tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct System {
    /// Name in the tables.
    pub name: String,
    /// Type, as `mount -t` takes it.
    pub kind: String,
    /// Mount options.
    pub options: String,
    /// The source of the mount: a block device, or a file of the disk with images.
    pub source: String,
}

/// Everything the guest needs to know of page faults with two processors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FaultsTwo {
    /// The systems to compare, and the files to read.
    pub plan: Plan,
    /// Block devices to make first.
    pub loops: Vec<Loop>,
}

/// Where the block devices of [`FaultsTwo`] are found.
pub const LOOPS: &str = "/dev/bench";

/// A loop device with a file of the first root, or dm-verity over two of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Loop {
    /// Name below [`LOOPS`].
    pub name: String,
    /// File with the image.
    pub image: String,
    /// How it is verified, if it is.
    pub verity: Option<LoopVerity>,
}

/// How dm-verity verifies an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoopVerity {
    /// File with the hashes.
    pub hashes: String,
    /// Length of the image, in sectors.
    pub sectors: u64,
    /// Parameters of the target; [`LOOP_IMAGE`] and [`LOOP_HASHES`] stand for the loop devices.
    pub parameters: String,
}

/// Stands for the loop device with the image in the parameters of a [`LoopVerity`].
pub const LOOP_IMAGE: &str = "IMAGE";
/// Stands for the loop device with the hashes there.
pub const LOOP_HASHES: &str = "HASHES";

/// Everything the guest needs to know of two releases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Releases {
    /// The candidates to compare, in the order of the tables.
    pub pairs: Vec<Pair>,
    /// The device with those that are files.
    pub disk: String,
    /// Rounds; each measures every pair once.
    pub rounds: usize,
}

/// A file system with images of two trees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pair {
    /// With the first tree.
    pub system: System,
    /// The source of the second mount, which is made in the same way.
    pub second: String,
}

/// Everything the guest needs to know of one reader on several processors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scaling {
    /// The files to read, below the root of the image: the name of the measure and the file.
    pub files: Vec<(String, String)>,
    /// How often, with each number of processors, on a host that has both to spare.
    pub runs: usize,
}

/// Everything the guest needs to know of many containers that run at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fleet {
    /// The candidates to compare, in the order of the tables.
    pub stores: Vec<Store>,
    /// Containers; the images get as many each.
    pub containers: usize,
    /// The program that a container runs (in Python); it writes `/ready`, and waits to be killed.
    pub program: String,
    /// Rounds; each measures every store once.
    pub rounds: usize,
}

/// How images are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Store {
    /// Name in the tables.
    pub name: String,
    /// Type of the layers' images, as `mount -t` takes it; empty if the layers are folders.
    pub kind: String,
    /// The layers of each image, on the disk with images, the uppermost first.
    pub images: Vec<Vec<String>>,
}

/// One line from guest to host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// Something was measured.
    Sample(Sample),
    /// Everything was.
    Done,
}

/// What a reader of a tree that is mounted already says when everything is open, and it waits for a line.
pub const WAITS: &str = "waits";

/// The name of the helper that reads such a tree: `HELPER PLAN MEASURE ROOT`.
pub const HELPER: &str = "measure";

/// The work of such a reader.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// From the line that it waited for to the end of its work.
    pub seconds: f64,
    /// Seconds of processors that it took for it, and the programs that it started.
    pub processor: f64,
    /// How many things were done, how many bytes were read, and how much was found in them.
    pub count: u64,
    /// See `count`.
    pub bytes: u64,
    /// See `count`.
    pub found: u64,
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// The name of the measure.
    pub measure: String,
    /// On which system.
    pub system: String,
    /// In which round, from 1.
    pub round: usize,
    /// Seconds, or bytes of memory.
    pub value: f64,
    /// How many things were done, and how many bytes were read: the same on every system.
    pub count: u64,
    /// See `count`.
    pub bytes: u64,
    /// Bytes that tesserafs decoded for it, where that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoded: Option<u64>,
}
