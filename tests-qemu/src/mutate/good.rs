// SPDX-License-Identifier: GPL-2.0
//! The image that is broken: as small as it can be with something in every table, as it is mounted thousands of times.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{FileType, Mode, XattrFlags, CWD};

use crate::rootfs::{noise, set_time};
use crate::tools::Tools;
use crate::trees;

/// Bytes of `/text`: three blocks of a zstd frame and a part of one, all of one value.
pub(crate) const TEXT: usize = 100_000;

/// The letter that `/text` consists of.
pub(crate) const LETTER: u8 = b'z';

/// Builds the image in `folder`, and gives its bytes. It needs root: there is a whiteout, and `trusted.` xattrs.
pub(crate) fn image(tools: &Tools, folder: &Path) -> Result<Vec<u8>> {
    let tree = folder.join("tree");
    make(&tree)?;
    let (first, second) = (folder.join("first"), folder.join("second"));
    std::fs::write(&first, "{\"config\":{}}").context("failed to write an annotation")?;
    std::fs::write(&second, "some value").context("failed to write an annotation")?;
    let image = folder.join("good.tess");
    let annotate = |key: &str, file: &Path| format!("--annotate={key}={}", file.display());
    let options = [
        "--level=19".to_owned(),
        "--group-size=8".to_owned(),
        "--small-max=4".to_owned(),
        annotate("first", &first),
        annotate("second", &second),
    ];
    tools.mkfs(&image, &tree, &options)?;
    std::fs::read(&image).context("failed to read the image")
}

/// Each file has an owner of its own, and with that an attribute record that can be broken for it alone.
fn make(root: &Path) -> Result<()> {
    let path = |name: &str| root.join(name);
    for name in ["", "a", "a/b", "c"] {
        std::fs::create_dir(path(name)).with_context(|| format!("failed to create /{name}"))?;
    }
    let mut holes = noise(3, 4096);
    holes.resize(4096 + (64 << 10), 0);
    holes.extend(noise(4, 300));
    for (name, bytes) in [
        ("a/copy", noise(1, 40_000)),
        ("a/small2", b"second\n".to_vec()),
        ("big", noise(1, 40_000)),
        ("c/one", b"1".to_vec()),
        ("code", code(8192)),
        ("empty", Vec::new()),
        ("holes", holes),
        ("small1", b"the first small file\n".to_vec()),
        ("text", vec![LETTER; TEXT]),
    ] {
        std::fs::write(path(name), bytes).with_context(|| format!("failed to write /{name}"))?;
    }
    std::fs::hard_link(path("small1"), path("a/hard")).context("failed to link")?;
    for (name, target) in [("link", "a/b/target"), ("a/b/link2", "/")] {
        std::os::unix::fs::symlink(target, path(name)).with_context(|| format!("failed to link /{name}"))?;
    }
    for (name, kind) in
        [("fifo", FileType::Fifo), ("sock", FileType::Socket), ("wh", FileType::CharacterDevice)]
    {
        rustix::fs::mknodat(CWD, path(name), kind, Mode::from_raw_mode(0o600), 0)
            .with_context(|| format!("failed to make /{name}"))?;
    }
    for (name, key, value) in [
        ("a", "user.one", &b"value"[..]),
        ("a", "user.two", b"another value"),
        ("big", "trusted.name", b""),
        ("text", "user.one", b"of the text"),
    ] {
        rustix::fs::lsetxattr(path(name), key, value, XattrFlags::empty())
            .with_context(|| format!("failed to set {key} of /{name}"))?;
    }
    let names = [
        "",
        "a",
        "a/b",
        "a/b/link2",
        "a/copy",
        "a/small2",
        "big",
        "c",
        "c/one",
        "code",
        "empty",
        "fifo",
        "holes",
        "link",
        "small1",
        "sock",
        "text",
        "wh",
    ];
    for (id, name) in (1000..).zip(names) {
        std::os::unix::fs::lchown(path(name), Some(id), Some(0))
            .with_context(|| format!("failed to give /{name} away"))?;
    }
    // Folders last: every change in them changed their times.
    names.iter().rev().try_for_each(|name| set_time(&path(name), 1_700_000_000, 5))
}

/// Bytes that look like machine code: calls of a few functions.
fn code(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, word) in noise(9, len).chunks_exact(8).enumerate() {
        let target = (u32::from(word[0]) % 4 * 64).wrapping_sub(out.len() as u32 + 5);
        out.push(0xe8);
        out.extend(target.to_le_bytes());
        out.extend([0x90; 8]);
        out.push(number as u8 & 0x1f);
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out
}

/// The image in a scratch folder.
pub(crate) fn scratch(tools: &Tools) -> Result<Vec<u8>> {
    let folder = trees::in_memory()?;
    image(tools, folder.path())
}
