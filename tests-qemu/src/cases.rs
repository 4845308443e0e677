// SPDX-License-Identifier: GPL-2.0
//! The tree that the cases of xfstests find: an image has to hold the files that those make before they look
//! at them.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{chown, lchown, symlink, FileExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{lsetxattr, makedev, mknodat, FileType, Mode, XattrFlags, CWD};
use tesserafs_guest::cases::{self, acl, For, ACL_ACCESS, ACL_DEFAULT, OWNER};

use crate::rootfs::set_time;
use crate::trees;

/// Makes the tree. The guest's `fstests` says what each part is for.
pub(crate) fn tree(folder: &Path) -> Result<()> {
    let tree = Tree(folder);
    // A scratch folder is for its owner alone.
    tree.owner(".", 0, 0, 0o755)?;
    tree.links()?;
    tree.data()?;
    tree.attributes()?;
    tree.kinds()?;
    tree.owned()?;
    tree.listed()?;
    tree.directories()?;
    // Everything was made now: times must not make the image differ from run to run.
    for entry in trees::described(folder)?.entries.iter().rev() {
        set_time(&entry.below(folder), 1_700_000_000, 5)?;
    }
    set_time(&folder.join("data/1960"), cases::YEAR_1960, 0)
}

struct Tree<'a>(&'a Path);

impl Tree<'_> {
    fn folder(&self, name: &str) -> Result<()> {
        std::fs::create_dir(self.0.join(name)).with_context(|| format!("failed to create {name}"))
    }

    fn write(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> Result<()> {
        let path = self.0.join(name.as_ref());
        std::fs::write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))
    }

    fn link(&self, target: impl AsRef<Path>, name: &str) -> Result<()> {
        symlink(target, self.0.join(name)).with_context(|| format!("failed to make symlink {name}"))
    }

    fn attribute(&self, file: &str, name: impl AsRef<OsStr>, value: &[u8]) -> Result<()> {
        let name = name.as_ref();
        lsetxattr(self.0.join(file), name, value, XattrFlags::empty())
            .with_context(|| format!("failed to set {name:?} on {file}"))
    }

    /// Owner, group and mode, in the order that keeps the bits of set-ID.
    fn owner(&self, name: &str, user: u32, group: u32, mode: u32) -> Result<()> {
        let path = self.0.join(name);
        chown(&path, Some(user), Some(group)).with_context(|| format!("failed to give {name} away"))?;
        std::fs::set_permissions(&path, Permissions::from_mode(mode))
            .with_context(|| format!("failed to set the mode of {name}"))
    }

    fn links(&self) -> Result<()> {
        self.folder("links")?;
        self.write("links/target", b"the end of the chain\n")?;
        for number in 0..cases::CHAIN {
            let before = number.checked_sub(1).map_or("target".to_owned(), |n| format!("chain-{n:02}"));
            self.link(before, &format!("links/chain-{number:02}"))?;
        }
        self.link("self", "links/self")?;
        let part = "a".repeat(254);
        self.link([&part[..]; 4].join("/"), "links/long")?;
        self.link("/tmp/fstests-target", "links/to-tmp")?;
        self.write("links/bind", b"what a bind mount hides\n")?;
        self.write("links/name-01", b"one file\n")?;
        for number in 2..=cases::LINKS {
            std::fs::hard_link(self.0.join("links/name-01"), self.0.join(format!("links/name-{number:02}")))
                .context("failed to link")?;
        }
        Ok(())
    }

    fn data(&self) -> Result<()> {
        self.folder("data")?;
        self.write("data/file", &cases::bytes(0, cases::FILE))?;
        self.write("data/eof", &cases::bytes(2, cases::EOF))?;
        self.write("data/other", b"another file\n")?;
        self.write("data/1960", b"older than it can be\n")?;
        let sparse = File::create(self.0.join("data/sparse")).context("failed to create a sparse file")?;
        let bytes = cases::sparse();
        for (number, part) in bytes.chunks(cases::STRIDE).enumerate() {
            let run = part.len().min(cases::RUN);
            let position = (number * cases::STRIDE) as u64;
            sparse.write_all_at(&part[..run], position).context("failed to write between holes")?;
        }
        self.folder("names")?;
        for (number, name) in cases::ALIKE.iter().enumerate() {
            let name = [&b"names/"[..], name].concat();
            self.write(OsString::from_vec(name), format!("{number}\n").as_bytes())?;
        }
        self.write(format!("names/{}", "n".repeat(255)), b"255\n")
    }

    fn attributes(&self) -> Result<()> {
        self.folder("attributes")?;
        for name in ["none", "three", "five", "alike", "slash", "both"] {
            self.write(format!("attributes/{name}"), name.as_bytes())?;
        }
        for (name, value) in cases::THREE {
            self.attribute("attributes/three", name, value)?;
        }
        for (name, value) in cases::FIVE {
            self.attribute("attributes/five", name, value)?;
        }
        for (number, name) in cases::ALIKE.iter().enumerate() {
            let name = [&b"user."[..], name].concat();
            self.attribute("attributes/alike", OsStr::from_bytes(&name), number.to_string().as_bytes())?;
        }
        self.attribute("attributes/slash", "user.boo/hoo", b"woof")?;
        self.attribute("attributes/both", "user.colour", b"beige")?;
        self.attribute("attributes/both", "user.empty", b"")?;
        self.attribute("attributes/both", "trusted.colour", b"maroon")
    }

    /// A file of each kind, with an attribute that all kinds can have.
    fn kinds(&self) -> Result<()> {
        self.folder("kinds")?;
        self.write("kinds/f", b"a regular file\n")?;
        self.folder("kinds/d")?;
        self.link("f", "kinds/l")?;
        let node = |name: &str, kind: FileType, device: u64| {
            mknodat(CWD, self.0.join(name), kind, Mode::from_raw_mode(0o600), device)
                .with_context(|| format!("failed to make {name}"))
        };
        node("kinds/p", FileType::Fifo, 0)?;
        node("kinds/s", FileType::Socket, 0)?;
        for kind in ["f", "d", "l", "p", "s"] {
            self.attribute(&format!("kinds/{kind}"), "trusted.kind", kind.as_bytes())?;
        }
        // Without an attribute: overlayfs tells whiteouts by what they are.
        node("kinds/w", FileType::CharacterDevice, makedev(0, 0))
    }

    fn owned(&self) -> Result<()> {
        self.folder("modes")?;
        for mode in cases::MODES {
            let name = format!("modes/{mode:03o}");
            self.write(&name, &trees::effective_user())?;
            self.owner(&name, OWNER, OWNER, mode)?;
        }
        self.folder("owned")?;
        for (name, user, group, mode) in [
            ("root", 0, 0, 0o644),
            ("user", 1000, 1000, 0o644),
            ("set-ids", 1000, 1000, 0o6755),
            ("writable-set-ids", 1000, 1000, 0o6777),
            ("allocated-set-ids", 1000, 1000, 0o6777),
            ("for-owner", OWNER, OWNER, 0o600),
            ("for-group", OWNER, OWNER, 0o660),
            ("set-group-id", 100, 100, 0o2755),
            ("secret", 0, 0, 0o600),
        ] {
            let name = format!("owned/{name}");
            self.write(&name, &cases::bytes(5, 10_000))?;
            self.owner(&name, user, group, mode)?;
        }
        std::fs::hard_link(self.0.join("owned/secret"), self.0.join("owned/secret-too"))
            .context("failed to link")?;
        self.write("owned/program", &trees::effective_user())?;
        self.owner("owned/program", 0, 0, 0o755)?;
        self.folder("owned/closed")?;
        self.write("owned/closed/file", b"behind a closed door\n")?;
        self.owner("owned/closed", OWNER, OWNER, 0)?;
        self.folder("sticky")?;
        self.owner("sticky", 0, 0, 0o1777)?;
        self.link("../kinds/f", "sticky/link")?;
        lchown(self.0.join("sticky/link"), Some(1000), Some(1000)).context("failed to give a link away")
    }

    fn listed(&self) -> Result<()> {
        use For::{Mask, Other, OwnGroup, Owner, User};
        self.folder("acl")?;
        for listed in cases::LISTED {
            let name = format!("acl/{}", listed.name);
            self.write(&name, b"for some\n")?;
            self.owner(&name, OWNER, OWNER, 0)?;
            self.attribute(&name, ACL_ACCESS, &acl(listed.entries))?;
        }
        // Nobody may search it.
        self.folder("acl/not-searched")?;
        self.write("acl/not-searched/file", b"data\n")?;
        self.owner("acl/not-searched", 100, 100, 0o600)?;
        let list = acl(&[(Owner, 6), (User(100), 4), (OwnGroup, 0), (Mask, 4), (Other, 0)]);
        self.attribute("acl/not-searched", ACL_ACCESS, &list)?;

        self.folder("acl/default")?;
        self.attribute("acl/default", ACL_DEFAULT, &acl(&[(Owner, 7), (OwnGroup, 7), (Other, 0)]))?;
        self.folder("acl/default-set-group-id")?;
        let list = acl(&[(Owner, 7), (User(101), 7), (OwnGroup, 5), (Mask, 7), (Other, 5)]);
        self.attribute("acl/default-set-group-id", ACL_DEFAULT, &list)?;
        self.owner("acl/default-set-group-id", 100, 100, 0o2755)
    }

    fn directories(&self) -> Result<()> {
        self.folder("crowd")?;
        for number in 0..cases::CROWD {
            self.write(format!("crowd/{number}"), b"")?;
        }
        for name in ["moved", "moved/aa", "moved/ab", "moved/ab/aa", "moved/empty", "set-group-id"] {
            self.folder(name)?;
        }
        self.write("moved/aa/1", b"1\n")?;
        self.write("moved/ab/aa/2", b"2\n")?;
        self.owner("set-group-id", 1000, 12345, 0o2775)?;
        let deep = (0..60).fold(String::from("deep"), |path, level| format!("{path}/level-{level}"));
        std::fs::create_dir_all(self.0.join(&deep)).context("failed to create deep folders")?;
        self.write(format!("{deep}/bottom"), b"bottom\n")
    }
}
