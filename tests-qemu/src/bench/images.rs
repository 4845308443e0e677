// SPDX-License-Identifier: GPL-2.0
//! The images of the read benchmark, and the block devices that they become.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tesserafs_guest::reading::{Loop, LoopVerity, System, IMAGES, LOOPS, LOOP_HASHES, LOOP_IMAGE};

use super::record::Program;
use super::{build, Bench};
use crate::cache::{key, sha256_of};
use crate::{disk, run};

/// The level of all that is compressed.
pub(super) const LEVEL: u32 = 3;

/// What dm-verity hashes with: any salt will do, the same one makes runs alike.
const SALT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Major number of the block devices of user-mode Linux, and minor numbers from one to the next.
const UBD: (u32, u32) = (98, 16);

/// The system that the others are measured against, and the same with the image as a file.
pub(super) const OURS: &str = "tesserafs";
pub(super) const OURS_FILE: &str = "tesserafs, file";
/// The same tree in several packs.
pub(super) const OURS_PACKS: &str = "tesserafs, packs, file";
/// The same, mounted as on a backing that is authenticated already.
pub(super) const OURS_TRUSTED: &str = "tesserafs, trusted";
/// The floor: it neither decompresses nor verifies.
pub(super) const EROFS_UNCOMPRESSED: &str = "EROFS uncompressed";
/// The others that verify what they read.
pub(super) const EROFS_VERITY: &str = "EROFS on dm-verity";
pub(super) const SQUASHFS_VERITY: &str = "squashfs on dm-verity";

/// Everything that a start of the reading kernel needs of images.
pub(super) struct Images {
    /// What the guest mounts.
    pub(super) systems: Vec<System>,
    /// Size of each image, in bytes.
    pub(super) sizes: Vec<(&'static str, u64)>,
    /// Block devices, in order; the last is the disk with images as files.
    pub(super) devices: Vec<PathBuf>,
    /// Word for the kernel's command line that sets up dm-verity.
    pub(super) verity: String,
}

/// Everything that a machine needs of images that has them in files of its first root.
pub(super) struct Loops {
    /// What the guest mounts.
    pub(super) systems: Vec<System>,
    /// Size of each image, in bytes.
    pub(super) sizes: Vec<(&'static str, u64)>,
    /// What the guest makes block devices of.
    pub(super) loops: Vec<Loop>,
    /// Files, by their names in the first root.
    pub(super) files: Vec<(String, PathBuf)>,
}

/// Name in the guest of the block device of this number.
pub(super) fn device(index: usize) -> String {
    format!("/dev/ubd{}", ('a'..='z').nth(index).unwrap_or('?'))
}

/// Names of the files in the folder of images; those with hashes have what veritysetup printed beside them.
const TESSERAFS: &str = "tesserafs";
const EROFS: &str = "erofs";
const EROFS_HASHES: &str = "erofs-hashes";
const PLAIN: &str = "erofs-uncompressed";
const SQUASHFS: &str = "squashfs";
const SQUASHFS_HASHES: &str = "squashfs-hashes";
const DISK: &str = "disk";
const PACKED: &str = "tesserafs-packs";
const PACKS: &str = "packs";

/// Parts of the tree, by what each leaves out: an image of each is a parent of the one in packs, whose chunks then lie in as many.
const PARTS: [&[&str]; 4] = [
    &["/usr/share", "/usr/bin", "/usr/sbin", "/var", "/srv"],
    &["/usr/lib", "/usr/bin", "/usr/sbin", "/var", "/srv"],
    &["/usr/lib", "/usr/share", "/var", "/srv"],
    &["/usr", "/srv"],
];

/// Puts images into `folder` by `make`, out of the cache if they can be kept for other runs: there they are called `name`, and
/// are made again where `sources`, the code that makes them, have changed.
pub(super) fn provide(
    bench: &Bench<'_>,
    name: &str,
    sources: &[&[u8]],
    folder: &Path,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    // A tree of the user's may change, and the images of a trial are not wanted again.
    if bench.options.source.is_some() || !bench.options.mkfs.is_empty() {
        return make(folder);
    }
    let mkfs = sha256_of(&bench.tools.mkfs)?;
    let versions: String = build::programs(bench)?.iter().map(|program| program.version.as_str()).collect();
    let inputs = [bench.source.as_os_str().as_encoded_bytes(), mkfs.as_bytes(), versions.as_bytes()];
    // Another clone may have another mkfs, and forgets these images: this run keeps links of its own.
    let _lock = bench.cache.lock(name)?;
    let kept = bench.cache.once(&format!("{name}-{}", key(&[&inputs, sources].concat())), make)?;
    bench.cache.forget_others(&kept, &format!("{name}-"))?;
    run::quiet(run::command("cp").arg("-al").arg(kept.join(".")).arg(folder))
}

/// The images of the driver's measures.
fn images_to_read(bench: &Bench<'_>, folder: &Path) -> Result<()> {
    let sources: [&[u8]; 2] = [include_bytes!("images.rs"), include_bytes!("build.rs")];
    provide(bench, bench.images, &sources, folder, |folder| {
        run::say("building the images to read");
        make(bench, folder)
    })
}

/// Builds all images into `folder`.
fn make(bench: &Bench<'_>, folder: &Path) -> Result<()> {
    let image = |name: &str| folder.join(name);
    for mut command in [
        build::tesserafs(bench, LEVEL, &image(TESSERAFS)),
        build::erofs(bench, Some(LEVEL), &image(EROFS)),
        build::erofs(bench, None, &image(PLAIN)),
        build::squashfs(bench, LEVEL, &image(SQUASHFS)),
    ] {
        run::capture(&mut command)?;
    }
    hash(&image(EROFS), &image(EROFS_HASHES))?;
    hash(&image(SQUASHFS), &image(SQUASHFS_HASHES))?;
    // A file-backed EROFS wants a file system with `read_folio`, which tmpfs has not.
    let contents = image("files");
    std::fs::create_dir(&contents).context("failed to create a folder")?;
    for name in [TESSERAFS, EROFS] {
        std::fs::hard_link(image(name), contents.join(name))
            .with_context(|| format!("failed to link {name}"))?;
    }
    packs(bench, &contents)?;
    disk::write(&image(DISK), &contents)?;
    std::fs::remove_dir_all(&contents).context("failed to remove a folder")
}

/// The image in packs, and these.
fn packs(bench: &Bench<'_>, folder: &Path) -> Result<()> {
    let packs = folder.join(PACKS);
    std::fs::create_dir(&packs).context("failed to create a folder")?;
    let mut parents = Vec::new();
    for (number, left_out) in PARTS.iter().enumerate() {
        let part = folder.join(format!("part-{number}"));
        let mut command = build::tesserafs(bench, LEVEL, &part);
        for path in *left_out {
            command.args(["--exclude", path]);
        }
        run::capture(command.arg("--packdir").arg(&packs))?;
        parents.push(part);
    }
    let mut command = build::tesserafs(bench, LEVEL, &folder.join(PACKED));
    for parent in &parents {
        command.arg("--parent").arg(parent);
    }
    run::capture(command.arg("--packdir").arg(&packs))?;
    parents.iter().try_for_each(std::fs::remove_file).context("failed to remove an image of a part")
}

/// A system with an image on a device.
pub(super) fn system(name: &str, kind: &str, source: String) -> System {
    System { name: name.to_owned(), kind: kind.to_owned(), options: String::new(), source }
}

/// The same image, mounted as on a backing that is authenticated already; never at the same time.
fn trusted(source: String) -> System {
    System { options: "trusted_backing".to_owned(), ..system(OURS_TRUSTED, "tesserafs", source) }
}

/// Provides everything that the user-mode kernel reads.
pub(super) fn prepare(bench: &Bench<'_>, folder: &Path) -> Result<Images> {
    images_to_read(bench, folder)?;
    let image = |name: &str| folder.join(name);
    let file = |name: &str| format!("{IMAGES}/{name}");
    let systems = vec![
        system(OURS, "tesserafs", device(0)),
        trusted(device(0)),
        system("EROFS", "erofs", device(1)),
        system(EROFS_VERITY, "erofs", "/dev/dm-0".to_owned()),
        system(EROFS_UNCOMPRESSED, "erofs", device(4)),
        system("squashfs", "squashfs", device(5)),
        system(SQUASHFS_VERITY, "squashfs", "/dev/dm-1".to_owned()),
        system(OURS_FILE, "tesserafs", file(TESSERAFS)),
        System {
            options: format!("packdir={}", file(PACKS)),
            ..system(OURS_PACKS, "tesserafs", file(PACKED))
        },
        system("EROFS, file", "erofs", file(EROFS)),
    ];
    let table = |hashes: &str, image: u32, number: u32| -> Result<String> {
        let device = |index: u32| format!("{}:{}", UBD.0, UBD.1 * index);
        Ok(Verity::load(&folder.join(hashes))?.table(&device(image), &device(number)))
    };
    let verity = format!(
        "dm-mod.create=\"erofs-verity,,0,ro,{};squashfs-verity,,1,ro,{}\"",
        table(EROFS_HASHES, 2, 3)?,
        table(SQUASHFS_HASHES, 6, 7)?
    );
    // A device that dm-verity lies on cannot be mounted: those images are on two.
    let devices =
        [TESSERAFS, EROFS, EROFS, EROFS_HASHES, PLAIN, SQUASHFS, SQUASHFS, SQUASHFS_HASHES, DISK].map(image);
    warm(&devices)?;
    Ok(Images { systems, sizes: sizes(folder)?, devices: devices.into(), verity })
}

/// Reads images: the host holds all of them in memory, so that the reading kernel is measured, and not this disk.
pub(super) fn warm(devices: &[PathBuf]) -> Result<()> {
    for device in devices {
        std::io::copy(
            &mut std::fs::File::open(device).with_context(|| format!("there is no {}", device.display()))?,
            &mut std::io::sink(),
        )
        .with_context(|| format!("failed to read {}", device.display()))?;
    }
    Ok(())
}

/// Provides everything that the machine with two processors reads.
pub(super) fn prepare_loops(bench: &Bench<'_>, folder: &Path) -> Result<Loops> {
    images_to_read(bench, folder)?;
    let device = |name: &str| format!("{LOOPS}/{name}");
    let systems = vec![
        system(OURS, "tesserafs", device(TESSERAFS)),
        trusted(device(TESSERAFS)),
        system("EROFS", "erofs", device(EROFS)),
        system(EROFS_VERITY, "erofs", device(EROFS_VERITY)),
        system("squashfs", "squashfs", device(SQUASHFS)),
        system(SQUASHFS_VERITY, "squashfs", device(SQUASHFS_VERITY)),
        system(OURS_FILE, "tesserafs", format!("/{TESSERAFS}")),
    ];
    let plain = |image: &str| Loop { name: image.to_owned(), image: image.to_owned(), verity: None };
    let verity = |name: &str, image: &str, hashes: &str| -> Result<Loop> {
        let verity = Verity::load(&folder.join(hashes))?;
        let table = LoopVerity {
            hashes: hashes.to_owned(),
            sectors: verity.sectors(),
            parameters: verity.parameters(LOOP_IMAGE, LOOP_HASHES),
        };
        Ok(Loop { name: name.to_owned(), image: image.to_owned(), verity: Some(table) })
    };
    let loops = vec![
        plain(TESSERAFS),
        plain(EROFS),
        verity(EROFS_VERITY, EROFS, EROFS_HASHES)?,
        plain(SQUASHFS),
        verity(SQUASHFS_VERITY, SQUASHFS, SQUASHFS_HASHES)?,
    ];
    let files = [TESSERAFS, EROFS, EROFS_HASHES, SQUASHFS, SQUASHFS_HASHES]
        .map(|name| (name.to_owned(), folder.join(name)));
    Ok(Loops { systems, sizes: sizes(folder)?, loops, files: files.into() })
}

/// Size of each image, in bytes.
fn sizes(folder: &Path) -> Result<Vec<(&'static str, u64)>> {
    [
        ("tesserafs", TESSERAFS),
        ("EROFS", EROFS),
        ("its hashes", EROFS_HASHES),
        (EROFS_UNCOMPRESSED, PLAIN),
        ("squashfs", SQUASHFS),
        ("its hashes", SQUASHFS_HASHES),
    ]
    .into_iter()
    .map(|(name, file)| {
        let metadata = std::fs::metadata(folder.join(file)).with_context(|| format!("there is no {file}"))?;
        Ok((name, metadata.len()))
    })
    .collect()
}

/// What makes the hash trees.
pub(super) fn veritysetup() -> Program {
    Program {
        name: "dm-verity".to_owned(),
        version: "veritysetup of cryptsetup".to_owned(),
        command: format!("veritysetup format IMAGE HASHES {}", verity_options().join(" ")),
    }
}

fn verity_options() -> [String; 5] {
    [
        "--hash=sha256".to_owned(),
        "--data-block-size=4096".to_owned(),
        "--hash-block-size=4096".to_owned(),
        format!("--salt={SALT}"),
        "--uuid=00000000-0000-0000-0000-000000000000".to_owned(),
    ]
}

/// Makes the hash tree of an image, for dm-verity; what veritysetup prints is written beside it.
fn hash(image: &Path, hashes: &Path) -> Result<()> {
    let output = run::capture(
        run::command("veritysetup")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .arg("format")
            .arg(image)
            .arg(hashes)
            .args(verity_options()),
    )?;
    std::fs::write(hashes.with_extension("txt"), output).context("failed to write down a root hash")
}

/// What dm-verity wants to know of a hash tree.
struct Verity {
    root: String,
    blocks: u64,
}

impl Verity {
    /// Of the tree that [`hash`] made.
    fn load(hashes: &Path) -> Result<Self> {
        let path = hashes.with_extension("txt");
        let output =
            std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        Self::parse(&output)
    }

    fn parse(output: &str) -> Result<Self> {
        let field = |name: &str| {
            field_of(output, name).with_context(|| format!("veritysetup printed no {name}: {output}"))
        };
        let blocks = field("Data blocks")?;
        Ok(Self {
            root: field("Root hash")?.to_owned(),
            blocks: blocks.parse().with_context(|| format!("{blocks:?} is no number of blocks"))?,
        })
    }

    /// Length of the device, in sectors of 512 bytes.
    fn sectors(&self) -> u64 {
        self.blocks * 8
    }

    /// The parameters of the target, with image and hashes on these block devices.
    fn parameters(&self, image: &str, hashes: &str) -> String {
        // The hashes follow veritysetup's own header, which takes one block.
        format!("1 {image} {hashes} 4096 4096 {} 1 sha256 {} {SALT}", self.blocks, self.root)
    }

    /// The whole table.
    fn table(&self, image: &str, hashes: &str) -> String {
        format!("0 {} verity {}", self.sectors(), self.parameters(image, hashes))
    }
}

/// A field of what veritysetup prints: a name, a colon, the value.
fn field_of<'o>(output: &'o str, name: &str) -> Option<&'o str> {
    output.lines().find_map(|line| Some(line.trim().strip_prefix(name)?.strip_prefix(':')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_veritysetup_printed() {
        let output = "VERITY header information for h\nData blocks:        \t5\nRoot hash:      \tabc\n";
        assert_eq!(field_of(output, "Data blocks"), Some("5"));
        let table = Verity::parse(output).unwrap().table("98:16", "98:32");
        assert!(table.starts_with("0 40 verity 1 98:16 98:32 4096 4096 5 1 sha256 abc "), "{table}");
        assert!(Verity::parse("Data blocks: 5\n").is_err());
    }
}
