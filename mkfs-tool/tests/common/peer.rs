// SPDX-License-Identifier: GPL-2.0-or-later

//! Programs that read archives, and what they make of one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::common::Item;

/// The facts that the programs must agree on: kind, mode, mtime, links, and bytes or target.
pub(crate) type Facts = (char, u32, i64, u64, Vec<u8>);

/// A tree by its paths.
pub(crate) type Tree = BTreeMap<String, Facts>;

/// The program, and its arguments before those of the archive and the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    GnuTar,
    BsdTar,
    Python,
}

pub(crate) const ALL: [Peer; 3] = [Peer::GnuTar, Peer::BsdTar, Peer::Python];

/// Extracts, and keeps modes as they are.
const PYTHON: &str = "\
import sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    if hasattr(tarfile, 'fully_trusted_filter'):
        archive.extraction_filter = staticmethod(tarfile.fully_trusted_filter)
    archive.extractall(sys.argv[2])
";

impl Peer {
    fn command(self) -> Command {
        match self {
            Peer::GnuTar => Command::new("tar"),
            Peer::BsdTar => Command::new("bsdtar"),
            Peer::Python => Command::new("python3"),
        }
    }

    /// Those that are here.
    pub(crate) fn installed() -> Vec<Peer> {
        let is_here = |peer: &Peer| {
            let version = peer.command().arg("--version").output();
            let text = version.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into());
            let found = match peer {
                Peer::GnuTar => text.contains("GNU tar"),
                Peer::BsdTar => text.contains("libarchive"),
                Peer::Python => text.contains("Python 3"),
            };
            if !found {
                eprintln!("{peer:?} is not here; this test compares without it");
            }
            found
        };
        ALL.into_iter().filter(is_here).collect()
    }

    /// The tree that it makes of an archive; `None` where it fails.
    pub(crate) fn extract(self, archive: &Path, to: &Path) -> Option<Tree> {
        fs::create_dir(to).unwrap();
        let mut command = self.command();
        match self {
            Peer::GnuTar | Peer::BsdTar => {
                command.args(["-x", "-p", "--no-same-owner", "-f"]).arg(archive).arg("-C").arg(to)
            }
            Peer::Python => command.args(["-c", PYTHON]).arg(archive).arg(to),
        };
        let output = command.output().unwrap();
        let mut tree = Tree::new();
        scan(to, "", &mut tree);
        let said = String::from_utf8_lossy(&output.stderr);
        // That is an error to some versions of GNU tar only.
        let is_good = output.status.success()
            || !said.is_empty() && said.lines().all(|line| line.contains("extracted as normal file"));
        if !is_good {
            eprintln!("{self:?}: {}: {said}", output.status);
        }
        is_good.then_some(tree)
    }
}

/// Reads a folder.
fn scan(dir: &Path, path: &str, tree: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if path.is_empty() { name } else { format!("{path}/{name}") };
        let metadata = entry.metadata().unwrap();
        let file_type = metadata.file_type();
        let (kind, bytes) = if file_type.is_symlink() {
            ('l', fs::read_link(entry.path()).unwrap().into_os_string().into_string().unwrap().into_bytes())
        } else if file_type.is_dir() {
            ('d', Vec::new())
        } else if file_type.is_file() {
            ('f', fs::read(entry.path()).unwrap())
        } else {
            ('p', Vec::new())
        };
        tree.insert(
            path.clone(),
            facts(kind, metadata.mode() & 0o7777, metadata.mtime(), metadata.nlink(), bytes),
        );
        if kind == 'd' {
            scan(&entry.path(), &path, tree);
        }
    }
}

/// Of symlinks few programs set the time, of directories not all do once they have left them; filesystems differ in the links of these.
pub(crate) fn facts(kind: char, mode: u32, mtime: i64, nlink: u64, bytes: Vec<u8>) -> Facts {
    match kind {
        'l' => (kind, 0, 0, nlink, bytes),
        'd' => (kind, mode, 0, 0, bytes),
        // Python gives a file the attributes in the header of each link.
        _ if nlink > 1 => (kind, 0, 0, nlink, bytes),
        _ => (kind, mode, mtime, nlink, bytes),
    }
}

pub(crate) fn of_item(item: &Item) -> Facts {
    let bytes = item.bytes.clone();
    facts(item.kind, item.mode.into(), item.mtime.0, item.nlink.into(), bytes)
}

/// Without the bytes.
pub(crate) fn shown(facts: &Facts) -> (char, u32, i64, u64, usize) {
    (facts.0, facts.1, facts.2, facts.3, facts.4.len())
}
