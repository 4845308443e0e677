// SPDX-License-Identifier: GPL-2.0
//! Images in the shared form for the guest: with one pack, with one that they share, and with as many as there can be.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use rustix::fs::{mknodat, setxattr, FileType, Mode, XattrFlags, CWD};
use tesserafs_format::limits::PACKS_MAX;
use tesserafs_format::raw::RawPack;
use tesserafs_format::{Digest, Pack, PackIndex, PackKind};
use tesserafs_guest::plan::{Image, Packed};

use crate::mutate::parts::{self, sha256, Parts};
use crate::rootfs::noise;
use crate::run;
use crate::tools::Tools;
use crate::trees;

/// Bytes of a file that is one chunk.
const FILE_BYTES: usize = 5000;

const DIRECTORY: &str = "packs";
const MANY: &str = "many-packs";

/// Builds them below `disk`, of the small tree and of one that it makes; `sign` signs the second one.
pub(crate) fn stage(tools: &Tools, disk: &Path, tree: &Path, sign: &[&str]) -> Result<Packed> {
    let directory = disk.join(DIRECTORY);
    std::fs::create_dir(&directory).context("failed to create the directory of packs")?;
    let packdir = format!("--packdir={}", directory.display());
    let base = trees::image(tools, disk, "packed-base", tree, &[&packdir])?;
    let base_pack = only_new(&directory, "")?;

    let added = tree.join("added");
    std::fs::write(&added, noise(77, 300_000)).context("failed to write a file")?;
    let parent = format!("--parent={}", trees::path(disk, &base).display());
    let options = [&[packdir.as_str(), parent.as_str()], sign].concat();
    let next = trees::image(tools, disk, "packed-next", tree, &options)?;
    let next_pack = only_new(&directory, &base_pack)?;

    let (layers, composed) = composed(tools, disk, &packdir)?;
    Ok(Packed {
        directory: DIRECTORY.to_owned(),
        base,
        base_pack,
        next,
        next_pack,
        many: many(tools, disk)?,
        many_directory: MANY.to_owned(),
        layers,
        composed,
    })
}

/// Three layers in which names are added, replaced, hidden, and hidden with all that is below; and the image that they make.
fn composed(tools: &Tools, disk: &Path, packdir: &str) -> Result<(Vec<Image>, String)> {
    let scratch = tempfile::tempdir_in(disk).context("failed to make a scratch folder")?;
    let path = |name: &str| -> Result<PathBuf> {
        let path = scratch.path().join(name);
        std::fs::create_dir_all(path.parent().context("a file in no folder")?)
            .context("failed to create a folder")?;
        Ok(path)
    };
    let write = |name: &str, bytes: &[u8]| -> Result<()> {
        std::fs::write(path(name)?, bytes).with_context(|| format!("failed to write {name}"))
    };
    let whiteout = |name: &str| -> Result<()> {
        let (kind, mode) = (FileType::CharacterDevice, Mode::empty());
        mknodat(CWD, path(name)?, kind, mode, 0).with_context(|| format!("failed to make {name}"))
    };
    for number in 0..50 {
        write(&format!("0/many/{number:02}"), &noise(number + 900, 100 * number as usize + 1))?;
    }
    for name in [
        "0/kept/deep/file",
        "0/hidden/old",
        "0/opaque/old",
        "0/opaque/deep/old",
        "0/file",
        "0/becomes-file/old",
    ] {
        write(name, name.as_bytes())?;
    }
    std::fs::hard_link(path("0/file")?, path("0/kept/link")?).context("failed to link")?;
    symlink("file", path("0/symlink")?).context("failed to link")?;
    write("1/opaque/new", b"new")?;
    write("1/opaque/deep/new", b"new")?;
    setxattr(path("1/opaque")?, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .context("failed to set an xattr")?;
    setxattr(path("1/opaque/new")?, "user.own", b"value", XattrFlags::empty())
        .context("failed to set an xattr")?;
    for number in (0..50).step_by(7) {
        whiteout(&format!("1/many/{number:02}"))?;
    }
    whiteout("1/hidden")?;
    whiteout("1/never-there")?;
    write("1/becomes-file", b"a file")?;
    write("1/file/in-a-directory-now", b"a directory")?;
    write("2/many/07", b"back again")?;
    write("2/hidden/new", b"another directory")?;
    write("2/becomes-file/again", b"a directory again")?;
    whiteout("2/kept/link")?;
    write("2/symlink", b"a file")?;
    let mut compose = run::command(&tools.store);
    let composed = "composed.tess";
    compose.args(["compose", "--quiet"]).arg(disk.join(composed));
    let mut layers = Vec::new();
    for number in 0..3 {
        let image =
            trees::image(tools, disk, &format!("layer-{number}"), &path(&number.to_string())?, &[packdir])?;
        compose.arg(trees::path(disk, &image));
        layers.push(image);
    }
    run::capture(&mut compose)?;
    Ok((layers, composed.to_owned()))
}

/// The name of the file in a directory that has no other but `known`.
fn only_new(directory: &Path, known: &str) -> Result<String> {
    let mut names = Vec::new();
    for entry in directory.read_dir().context("failed to list packs")? {
        let name = entry.context("failed to list packs")?.file_name();
        names.push(name.into_string().ok().context("a pack whose name is no text")?);
    }
    names.retain(|name| name != known);
    ensure!(names.len() == 1, "{names:?} are new, expected one pack");
    names.pop().context("no pack")
}

/// An image each of whose chunks is a pack, of a tree with as many chunks as there can be packs beside pack 0.
fn many(tools: &Tools, disk: &Path) -> Result<Image> {
    let tree = trees::in_memory()?;
    let files = usize::try_from(PACKS_MAX)? - 1;
    for number in 0..files {
        let bytes = noise(number as u64 + 5000, FILE_BYTES);
        std::fs::write(tree.path().join(format!("{number:04}")), bytes).context("failed to write a file")?;
    }
    let image = trees::image(tools, disk, MANY, tree.path(), &["--small-max=0"])?;
    let path = trees::path(disk, &image);
    let bytes = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut parts = Parts::read(&bytes)?;
    ensure!(parts.chunks.len() == files, "{} chunks of {files} files", parts.chunks.len());

    let directory = disk.join(MANY);
    std::fs::create_dir(&directory).context("failed to create the directory of packs")?;
    let embedded = std::mem::take(&mut parts.pack);
    parts.packs = vec![to_raw(0, PackKind::Embedded, &[])];
    for (index, chunk) in (1..).zip(&mut parts.chunks) {
        let start = usize::try_from(chunk.offset())?;
        let stored =
            embedded.get(start..start + chunk.stored_len() as usize).context("a chunk beyond its pack")?;
        let pack = to_raw(index, PackKind::File, stored);
        let name = Digest(pack.digest).to_string();
        std::fs::write(directory.join(name), stored).context("failed to write a pack")?;
        parts.packs.push(pack);
        chunk.place = tesserafs_format::Chunk::place(PackIndex(index), 0).context("no such place")?.into();
    }
    let (mut whole, layout) = parts.lay_out()?;
    parts::digest(&mut whole, &layout)?;
    std::fs::write(&path, &whole).with_context(|| format!("failed to write {}", path.display()))?;
    let prefix = whole.get(..tesserafs_format::limits::SIGNED_PREFIX).context("no superblock")?;
    Ok(Image { image_id: Digest(sha256(prefix)).to_string(), ..image })
}

fn to_raw(index: u16, kind: PackKind, bytes: &[u8]) -> RawPack {
    let digest = Digest(sha256(bytes));
    Pack { index: PackIndex(index), kind, digest, bytes: bytes.len() as u64 }.to_raw()
}
