// SPDX-License-Identifier: GPL-2.0
//! The small trees of the tests, and their images.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Image;
use tesserafs_guest::tree;

use crate::rootfs::{noise, prose, set_time};
use crate::tools::Tools;
use crate::{kernel, rootfs};

/// A few megabytes with every kind of file. It is read more than a thousand times over by the tests
/// that damage it, so it is as small as it can be with something in every table.
pub(crate) fn small(folder: &Path) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).with_context(|| format!("failed to write {name}"))
    };
    for sub in ["data", "many", "special"] {
        std::fs::create_dir(folder.join(sub)).with_context(|| format!("failed to create {sub}"))?;
    }
    write("data/noise", &noise(1, 500_000))?;
    write("data/prose", &prose(2, 700_000))?;
    let mut mixed = noise(3, 120_000);
    mixed[40_000..90_000].fill(0);
    write("data/holes", &mixed)?;
    // Enough names for regions of many blocks: damage in one must leave the others readable.
    for index in 0..400u64 {
        let sub = format!("many/{}", index % 8);
        std::fs::create_dir_all(folder.join(&sub)).with_context(|| format!("failed to create {sub}"))?;
        write(&format!("{sub}/file-{index:03}"), &prose(index, 101 * (index as usize % 40)))?;
    }
    write("data/more-noise", &noise(7, 900_000))?;
    write("special/one", b"two names\n")?;
    std::fs::hard_link(folder.join("special/one"), folder.join("special/two")).context("failed to link")?;
    std::os::unix::fs::symlink("one", folder.join("special/link")).context("failed to link")?;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.join("special/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .context("failed to make a FIFO")?;
    rustix::fs::lsetxattr(
        folder.join("special/one"),
        "trusted.tesserafs",
        &noise(4, 700),
        rustix::fs::XattrFlags::empty(),
    )
    .context("failed to set an attribute")?;
    write("special/setuid", &effective_user())?;
    std::fs::set_permissions(folder.join("special/setuid"), std::fs::Permissions::from_mode(0o4755))
        .context("failed to set a mode")?;
    // Everything was made now: times must not make the image differ from run to run.
    for entry in described(folder)?.entries.iter().rev() {
        set_time(&entry.below(folder), 1_700_000_000, 5)?;
    }
    Ok(())
}

/// A program that ends with the low byte of its effective user ID, without a library: an ELF header, a program
/// header, five instructions.
pub(crate) fn effective_user() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // mov $107 (geteuid), %eax; syscall; mov %eax, %edi; mov $60 (exit), %eax; syscall
    const CODE: [u8; 16] = [0xb8, 107, 0, 0, 0, 0x0f, 0x05, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let length = HEADERS + CODE.len() as u64;
    // 64 bits, little endian; an executable for x86-64.
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    // Where it starts, where the program header is; no sections.
    for word in [BASE + HEADERS, 64, 0] {
        program.extend_from_slice(&word.to_le_bytes());
    }
    // No flags; the lengths of both headers, and how many there are.
    program.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        program.extend_from_slice(&half.to_le_bytes());
    }
    // All of the file, to be read and executed.
    for word in [1_u32, 5] {
        program.extend_from_slice(&word.to_le_bytes());
    }
    for word in [0, BASE, BASE, length, length, 0x1000] {
        program.extend_from_slice(&word.to_le_bytes());
    }
    program.extend_from_slice(&CODE);
    program
}

/// Where a file of 2^63-1 bytes can be: no disk file system holds one.
const MEMORY: &str = "/dev/shm";

/// A tree with sparse files, on tmpfs; it vanishes with the value.
pub(crate) fn sparse() -> Result<tempfile::TempDir> {
    let folder = in_memory()?;
    rootfs::sparse(folder.path())?;
    let size =
        std::fs::metadata(folder.path().join("huge")).context("failed to look at the huge file")?.len();
    anyhow::ensure!(
        size == i64::MAX as u64,
        "{MEMORY} is no tmpfs: a file of 2^63-1 bytes cannot be made, only one of {size}"
    );
    Ok(folder)
}

/// A scratch folder on tmpfs.
pub(crate) fn in_memory() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("tesserafs-")
        .tempdir_in(MEMORY)
        .with_context(|| format!("failed to make a folder in {MEMORY}"))
}

/// Builds the image of `source` and its manifest into `disk`, under `name`.
pub(crate) fn image(
    tools: &Tools,
    disk: &Path,
    name: &str,
    source: &Path,
    options: &[&str],
) -> Result<Image> {
    let image = format!("{name}.tess");
    let report = tools
        .mkfs(&disk.join(&image), source, options)
        .with_context(|| format!("failed to build {image}"))?;
    let manifest = manifest(disk, name, source)?;
    Ok(Image { image, manifest, image_id: report.image_id()?.to_owned() })
}

/// Describes `source` into `disk`.
pub(crate) fn manifest(disk: &Path, name: &str, source: &Path) -> Result<String> {
    let file = format!("{name}.manifest");
    described(source)?.save(&disk.join(&file))?;
    Ok(file)
}

/// A source tree as the guest must find it.
///
/// Nothing but what an image is asked to keep: the modes and times of whiteouts are kept, too.
pub(crate) fn described(source: &Path) -> Result<Manifest> {
    tree::scan(source, kernel::processors())
        .with_context(|| format!("failed to describe {}", source.display()))
}

/// The file of an image.
pub(crate) fn path(disk: &Path, image: &Image) -> PathBuf {
    disk.join(&image.image)
}
