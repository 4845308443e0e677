// SPDX-License-Identifier: GPL-2.0
//! The images of the read benchmark, and the block devices that they become.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tesserafs_guest::reading::{System, IMAGES};

use super::{build, Bench};
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
/// The same, mounted as on a backing that is authenticated already.
pub(super) const OURS_TRUSTED: &str = "tesserafs, trusted";

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
    /// What did it, as one would type it.
    pub(super) commands: Vec<String>,
}

/// Name in the guest of the block device of this number.
pub(super) fn device(index: usize) -> String {
    format!("/dev/ubd{}", ('a'..='z').nth(index).unwrap_or('?'))
}

/// Builds all images into `folder`.
pub(super) fn prepare(bench: &Bench<'_>, folder: &Path) -> Result<Images> {
    run::say("building the images to read");
    let image = |name: &str| folder.join(name);
    let (tesserafs, erofs, plain, squashfs) =
        (image("tesserafs"), image("erofs"), image("erofs-uncompressed"), image("squashfs"));
    for mut command in [
        build::tesserafs(bench, LEVEL, &tesserafs),
        build::erofs(bench, Some(LEVEL), &erofs),
        build::erofs(bench, None, &plain),
        build::squashfs(bench, LEVEL, &squashfs),
    ] {
        run::capture(&mut command)?;
    }
    let erofs_verity = verity(&erofs, &image("erofs-hashes"))?;
    let squashfs_verity = verity(&squashfs, &image("squashfs-hashes"))?;

    let size = |path: &Path| -> Result<u64> {
        Ok(std::fs::metadata(path).with_context(|| format!("there is no {}", path.display()))?.len())
    };
    let file = |name: &str| format!("{IMAGES}/{name}");
    let system = |name: &str, kind: &str, source: String| System {
        name: name.to_owned(),
        kind: kind.to_owned(),
        options: String::new(),
        source,
    };
    let systems = vec![
        system(OURS, "tesserafs", device(0)),
        // Never at the same time.
        System { options: "trusted_backing".to_owned(), ..system(OURS_TRUSTED, "tesserafs", device(0)) },
        system("EROFS", "erofs", device(1)),
        system("EROFS on dm-verity", "erofs", "/dev/dm-0".to_owned()),
        system("EROFS uncompressed", "erofs", device(4)),
        system("squashfs", "squashfs", device(5)),
        system("squashfs on dm-verity", "squashfs", "/dev/dm-1".to_owned()),
        system(OURS_FILE, "tesserafs", file("tesserafs")),
        system("EROFS, file", "erofs", file("erofs")),
    ];
    let verity_word = format!(
        "dm-mod.create=\"erofs-verity,,0,ro,{};squashfs-verity,,1,ro,{}\"",
        erofs_verity.table(2, 3),
        squashfs_verity.table(6, 7)
    );
    let sizes = [
        ("tesserafs", &tesserafs),
        ("EROFS", &erofs),
        ("its hashes", &erofs_verity.hashes),
        ("EROFS uncompressed", &plain),
        ("squashfs", &squashfs),
        ("its hashes", &squashfs_verity.hashes),
    ]
    .into_iter()
    .map(|(name, path)| Ok((name, size(path)?)))
    .collect::<Result<_>>()?;
    // A device that dm-verity lies on cannot be mounted: those images are on two.
    // A file-backed EROFS wants a file system with `read_folio`, which tmpfs has not.
    let (contents, disk) = (image("files"), image("disk"));
    std::fs::create_dir(&contents).context("failed to create a folder")?;
    for path in [&tesserafs, &erofs] {
        std::fs::hard_link(path, contents.join(path.file_name().unwrap_or_default()))
            .with_context(|| format!("failed to link {}", path.display()))?;
    }
    disk::write(&disk, &contents)?;
    let devices = vec![
        tesserafs,
        erofs.clone(),
        erofs,
        erofs_verity.hashes,
        plain,
        squashfs.clone(),
        squashfs,
        squashfs_verity.hashes,
        disk,
    ];
    for device in &devices {
        // The host holds all images in memory: what is measured is the reading kernel, not this disk.
        std::io::copy(
            &mut std::fs::File::open(device).with_context(|| format!("there is no {}", device.display()))?,
            &mut std::io::sink(),
        )
        .with_context(|| format!("failed to read {}", device.display()))?;
    }
    let commands = vec![format!("veritysetup format IMAGE HASHES {}", verity_options().join(" "))];
    Ok(Images { systems, sizes, devices, verity: verity_word, commands })
}

/// The hash tree of an image, for dm-verity.
struct Verity {
    hashes: PathBuf,
    root: String,
    blocks: u64,
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

fn verity(image: &Path, hashes: &Path) -> Result<Verity> {
    let output = run::capture(
        run::command("veritysetup")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .arg("format")
            .arg(image)
            .arg(hashes)
            .args(verity_options()),
    )?;
    let field = |name: &str| {
        field_of(&output, name).with_context(|| format!("veritysetup printed no {name}: {output}"))
    };
    let blocks = field("Data blocks")?;
    Ok(Verity {
        hashes: hashes.to_path_buf(),
        root: field("Root hash")?.to_owned(),
        blocks: blocks.parse().with_context(|| format!("{blocks:?} is no number of blocks"))?,
    })
}

/// A field of what veritysetup prints: a name, a colon, the value.
fn field_of<'o>(output: &'o str, name: &str) -> Option<&'o str> {
    output.lines().find_map(|line| Some(line.trim().strip_prefix(name)?.strip_prefix(':')?.trim()))
}

impl Verity {
    /// The table of the target, with image and hashes on these block devices.
    fn table(&self, image: u32, hashes: u32) -> String {
        let device = |index: u32| format!("{}:{}", UBD.0, UBD.1 * index);
        // Sectors of 512 bytes; the hashes follow veritysetup's own header, which takes one block.
        format!(
            "0 {} verity 1 {} {} 4096 4096 {} 1 sha256 {} {SALT}",
            self.blocks * 8,
            device(image),
            device(hashes),
            self.blocks,
            self.root
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_veritysetup_printed() {
        let output = "VERITY header information for h\nData blocks:        \t5\nRoot hash:      \tabc\n";
        assert_eq!(field_of(output, "Data blocks"), Some("5"));
        let verity = Verity { hashes: "h".into(), root: "abc".to_owned(), blocks: 5 };
        let table = verity.table(1, 2);
        assert!(table.starts_with("0 40 verity 1 98:16 98:32 4096 4096 5 1 sha256 abc "), "{table}");
    }
}
