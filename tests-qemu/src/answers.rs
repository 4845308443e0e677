// SPDX-License-Identifier: GPL-2.0
//! The tree on which the guest makes every request that programs make of files: one tree, in three file
//! systems.

use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{lsetxattr, mknodat, FileType, Mode, XattrFlags, CWD};
use tesserafs_guest::cases::{acl, For, ACL_ACCESS};
use tesserafs_guest::plan::{Answers, ANSWERS_LARGE};

use crate::rootfs::{prose, set_time};
use crate::tools::Tools;
use crate::{run, trees};

/// Names in the folder with many: the memory that they take is measured.
const NAMES: usize = 3000;

/// Makes the tree in `folder`, and its images in `contents`.
pub(crate) fn stage(tools: &Tools, contents: &Path, folder: &Path) -> Result<Answers> {
    tree(folder)?;
    let image = trees::image(tools, contents, "answers", folder, &[])?;
    let (ext4, erofs) = ("answers.ext4", "answers.erofs");
    run::capture(
        run::command("mkfs.ext4")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .args(["-q", "-F", "-b4096", "-O^has_journal", "-d"])
            .arg(folder)
            .arg(contents.join(ext4))
            .arg("64M"),
    )
    .context("failed to make an ext4 image")?;
    // Every kernel that knows compressed EROFS knows LZ4.
    run::capture(run::command("mkfs.erofs").args(["-zlz4", "-C65536"]).arg(contents.join(erofs)).arg(folder))
        .context("failed to make an EROFS image")?;
    Ok(Answers { image, ext4: ext4.to_owned(), erofs: erofs.to_owned() })
}

fn tree(folder: &Path) -> Result<()> {
    let at = |name: &str| folder.join(name);
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(at(name), bytes).with_context(|| format!("failed to write {name}"))
    };
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
        .context("failed to set a mode")?;
    write("large", &prose(11, ANSWERS_LARGE))?;
    write("small", b"a few bytes\n")?;
    write("empty", b"")?;
    write("program", &trees::effective_user())?;
    std::fs::set_permissions(at("program"), std::fs::Permissions::from_mode(0o755))
        .context("failed to set a mode")?;
    std::fs::File::create_new(at("sparse"))
        .and_then(|file| {
            use std::os::unix::fs::FileExt;
            file.set_len(1 << 20)?;
            file.write_all_at(&prose(12, 65536), 0)?;
            file.write_all_at(&prose(13, 65536), 512 << 10)
        })
        .context("failed to write a sparse file")?;
    std::fs::create_dir(at("folder")).context("failed to create a folder")?;
    for number in 0..NAMES {
        let name = format!("folder/a-name-of-some-length-{number:04}");
        write(&name, name.as_bytes())?;
    }
    symlink("small", at("link")).context("failed to link")?;
    symlink("loop", at("loop")).context("failed to link")?;
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .context("failed to make a FIFO")?;
    for (name, value) in [("user.note", &b"value"[..]), ("trusted.note", b"secret"), ("user.empty", b"")] {
        lsetxattr(at("small"), name, value, XattrFlags::empty())
            .with_context(|| format!("failed to set {name}"))?;
    }
    let list =
        acl(&[(For::Owner, 6), (For::User(1000), 4), (For::OwnGroup, 4), (For::Mask, 4), (For::Other, 0)]);
    lsetxattr(at("empty"), ACL_ACCESS, &list, XattrFlags::empty()).context("failed to set an ACL")?;
    // Everything was made now: times must not make the image differ from run to run.
    for entry in trees::described(folder)?.entries.iter().rev() {
        set_time(&entry.below(folder), 1_700_000_000, 5)?;
    }
    Ok(())
}
