// SPDX-License-Identifier: GPL-2.0-or-later

//! Layers of random files, in memory and on disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    chmodat, chownat, linkat, lsetxattr, makedev, mknodat, symlinkat, utimensat, AtFlags, FileType, Gid,
    Mode, Timespec, Timestamps, Uid, XattrFlags, CWD,
};

use crate::support::noise;

/// Names that layers have in common: some begin with others, and bytes sort otherwise than letters.
const NAMES: [&[u8]; 8] =
    [b"a", b"a-", b"a.b", b"ab", b".wh.a", "\u{e9}".as_bytes(), NOT_UTF_8, &[b'n'; 255]];

/// The name of no whiteout and no directory: a pattern that leaves names out has no words for it.
const NOT_UTF_8: &[u8] = b"c\xff";

/// Levels of directories below the root.
const DEPTH: u32 = 3;

/// The marks of which overlay a set of layers has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// Those that overlayfs reads.
    Trusted,
    /// Those that it reads with the mount option `userxattr`.
    User,
    /// Both, which no mount of overlayfs reads.
    Mixed,
}

/// xorshift64*: the same numbers in each run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % limit
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// The attributes of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

/// The type of a file, and what only that type has.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    File(Rc<[u8]>),
    /// The files of it, by name.
    Directory(BTreeMap<Vec<u8>, usize>),
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    Whiteout,
    /// No image has it.
    Device,
}

/// A file.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
}

/// A tree of files; the first one is the root. Those with several names are hard links.
#[derive(Clone, Debug)]
pub(crate) struct Layer(pub(crate) Vec<Node>);

impl Layer {
    /// The files of a directory.
    pub(crate) fn entries(&self, directory: usize) -> &BTreeMap<Vec<u8>, usize> {
        match &self.0[directory].kind {
            Kind::Directory(entries) => entries,
            other => panic!("{other:?} is no directory"),
        }
    }

    pub(crate) fn insert(&mut self, directory: usize, name: &[u8], node: usize) {
        match &mut self.0[directory].kind {
            Kind::Directory(entries) => assert!(entries.insert(name.to_vec(), node).is_none()),
            other => panic!("{other:?} is no directory"),
        }
    }

    pub(crate) fn add(&mut self, directory: usize, name: &[u8], node: Node) -> usize {
        self.0.push(node);
        self.insert(directory, name, self.0.len() - 1);
        self.0.len() - 1
    }

    /// Makes the files of it in a new directory.
    pub(crate) fn write(&self, root: &Path) {
        fs::create_dir(root).expect("a folder");
        let mut made = vec![None; self.0.len()];
        self.write_directory(0, root, &mut made);
    }

    fn write_directory(&self, directory: usize, path: &Path, made: &mut [Option<PathBuf>]) {
        for (name, node) in self.entries(directory) {
            let path = path.join(OsStr::from_bytes(name));
            if let Some(other) = &made[*node] {
                linkat(CWD, other, CWD, &path, AtFlags::empty()).expect("a link");
                continue;
            }
            made[*node] = Some(path.clone());
            let special = |kind| mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), 0).expect("a file");
            match &self.0[*node].kind {
                Kind::File(bytes) => fs::write(&path, bytes).expect("a file"),
                Kind::Directory(_) => {
                    fs::create_dir(&path).expect("a folder");
                    self.write_directory(*node, &path, made);
                    continue;
                }
                Kind::Symlink(target) => symlinkat(&target[..], CWD, &path).expect("a link"),
                Kind::Fifo => special(FileType::Fifo),
                Kind::Socket => special(FileType::Socket),
                Kind::Whiteout => special(FileType::CharacterDevice),
                Kind::Device => {
                    let mode = Mode::from_raw_mode(0o600);
                    mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(1, 3)).expect("a device");
                }
            }
            self.set_attributes(*node, &path);
        }
        self.set_attributes(directory, path);
    }

    fn set_attributes(&self, node: usize, path: &Path) {
        let Node { kind, attributes: Attributes { mode, owner, mtime, xattrs } } = &self.0[node];
        for (name, value) in xattrs {
            lsetxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).expect("an owner");
        }
        if !matches!(kind, Kind::Symlink(_)) {
            chmodat(CWD, path, Mode::from_raw_mode(*mode), AtFlags::empty()).expect("a mode");
        }
        let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time");
    }

    /// Removes the devices from the directory that it was written to, and from itself, so that both have what an image of it has.
    pub(crate) fn remove_devices(&mut self, root: &Path) {
        self.remove_devices_in(0, root);
    }

    fn remove_devices_in(&mut self, directory: usize, path: &Path) {
        for (name, node) in self.entries(directory).clone() {
            let path = path.join(OsStr::from_bytes(&name));
            match &self.0[node].kind {
                Kind::Directory(_) => self.remove_devices_in(node, &path),
                Kind::Device => {
                    fs::remove_file(&path).expect("removed");
                    if let Kind::Directory(entries) = &mut self.0[directory].kind {
                        entries.remove(&name);
                    }
                }
                _ => (),
            }
        }
        // For the time, which this has changed.
        self.set_attributes(directory, path);
    }
}

fn is_whiteout_mark(name: &str) -> bool {
    ["trusted.overlay.whiteout", "user.overlay.whiteout"].contains(&name)
}

/// Makes layers.
pub(crate) struct Generator {
    random: Random,
    marks: Marks,
    is_root: bool,
    /// Whether the layer gets whiteouts.
    has_whiteouts: bool,
    /// Bytes that files of several layers have.
    contents: Vec<Rc<[u8]>>,
}

impl Generator {
    pub(crate) fn new(seed: u64, marks: Marks, is_root: bool) -> Self {
        let large = noise(seed % 5, 300_000);
        let mut contents: Vec<Vec<u8>> = (0..6).map(|n| noise(seed ^ n, 1 << (2 * n))).collect();
        // Other bytes before and behind, and the chunks between are the same.
        contents.push([&b"before"[..], &large, b"behind"].concat());
        contents.push([&large[..200_000], &[0; 100_000], b"behind zeros"].concat());
        contents.extend([large, vec![0; 150_000], Vec::new(), Vec::new()]);
        let contents = contents.into_iter().map(Rc::from).collect();
        Self { random: Random::new(seed), marks, is_root, has_whiteouts: true, contents }
    }

    /// A layer; some have nothing.
    pub(crate) fn layer(&mut self) -> Layer {
        let root = self.directory();
        // A builder takes the mark of a root at its word and leaves out the whiteouts (4.9), overlayfs does not: this is not about that.
        self.has_whiteouts = root.attributes.xattrs.values().all(|value| value != b"y");
        let mut layer = Layer(vec![root]);
        if !self.random.percent(8) {
            self.fill(&mut layer, 0, 0);
        }
        layer
    }

    fn fill(&mut self, layer: &mut Layer, directory: usize, depth: u32) {
        let has_whiteout_files = layer.0[directory].attributes.xattrs.iter().any(|(name, value)| {
            ["trusted.overlay.opaque", "user.overlay.opaque"].contains(&&name[..]) && value == b"x"
        });
        for name in NAMES {
            if !self.random.percent(50) {
                continue;
            }
            let links: Vec<usize> =
                (1..layer.0.len()).filter(|n| !matches!(layer.0[*n].kind, Kind::Directory(_))).collect();
            let mut can_be = self.random.below(100);
            if name == NOT_UTF_8 {
                can_be = 40 + can_be % 40;
            }
            if has_whiteout_files && can_be < 30 && name != NOT_UTF_8 {
                let whiteout = self.mark("whiteout");
                let mut node = self.node(Kind::File(Rc::from([])));
                node.attributes.xattrs.insert(whiteout, b"y".to_vec());
                layer.add(directory, name, node);
                continue;
            }
            let kind = match can_be {
                ..40 if depth < DEPTH => {
                    let node = self.directory();
                    let below = layer.add(directory, name, node);
                    self.fill(layer, below, depth + 1);
                    continue;
                }
                40..50 if !links.is_empty() => {
                    let other = links[self.random.below(links.len())];
                    let is_whiteout = matches!(layer.0[other].kind, Kind::Whiteout);
                    let is_whiteout_file =
                        layer.0[other].attributes.xattrs.keys().any(|name| is_whiteout_mark(name));
                    // Where the directory does not say that there are such, overlayfs shows the name and not the file: FORMAT.md has a file.
                    let is_sound = !is_whiteout_file || has_whiteout_files || self.marks == Marks::Mixed;
                    if is_sound && (name != NOT_UTF_8 || !is_whiteout && !is_whiteout_file) {
                        layer.insert(directory, name, other);
                    }
                    continue;
                }
                ..65 => Kind::File(self.contents[self.random.below(self.contents.len())].clone()),
                65..72 => {
                    let target = [&b"a"[..], b"../abc", b"/nowhere", b"\xfe", &[b't'; 1000]];
                    Kind::Symlink(target[self.random.below(target.len())].to_vec())
                }
                72..76 => Kind::Fifo,
                76..79 => Kind::Socket,
                79..83 if self.is_root => Kind::Device,
                _ if name == NOT_UTF_8 || !self.has_whiteouts => Kind::Fifo,
                _ => Kind::Whiteout,
            };
            let node = self.node(kind);
            layer.add(directory, name, node);
        }
    }

    /// The name of a mark.
    fn mark(&mut self, name: &str) -> String {
        let is_user = match self.marks {
            Marks::Trusted => false,
            Marks::User => true,
            Marks::Mixed => !self.is_root || self.random.percent(50),
        };
        format!("{}.overlay.{name}", if is_user { "user" } else { "trusted" })
    }

    fn directory(&mut self) -> Node {
        let mut node = self.node(Kind::Directory(BTreeMap::new()));
        let value = ["y", "y", "y", "x", "x", "n", "yes"][self.random.below(7)];
        if self.random.percent(35) {
            let opaque = self.mark("opaque");
            node.attributes.xattrs.insert(opaque, value.into());
        }
        node
    }

    fn node(&mut self, kind: Kind) -> Node {
        let random = &mut self.random;
        let (is_directory, is_file) = (matches!(kind, Kind::Directory(_)), matches!(kind, Kind::File(_)));
        let owner = [(0, 0), (1000, 1000), (0, 5), (4_000_000_000, 1)][random.below(4)];
        let mode = [0o755, 0o644, 0o700, 0o1777, 0o4751, 0o2750, 0o777][random.below(7)];
        // A directory can be looked into, also by a user who is not root.
        let mode = mode | if is_directory { 0o700 } else { 0o600 };
        let mtime = (random.below(1 << 31) as i64, random.below(3) as i64 * 499_999_999);
        let mut xattrs = BTreeMap::new();
        if (is_directory || is_file) && random.percent(30) {
            xattrs.insert("user.own".to_owned(), noise(7, random.below(3) * 20));
        }
        if self.is_root && self.random.percent(15) {
            xattrs.insert("trusted.own".to_owned(), b"value".to_vec());
        }
        let can_have_marks = self.is_root && self.marks == Marks::Trusted || is_directory || is_file;
        if can_have_marks && self.random.percent(20) {
            // Marks that hide nothing, and marks of an overlay in the layer.
            let names =
                ["origin", "impure", "overlay.opaque", "overlay.whiteout", "overlay.overlay.redirect"];
            let name = names[self.random.below(names.len())];
            let name = self.mark(name);
            xattrs.insert(name, b"y".to_vec());
        }
        Node { kind, attributes: Attributes { mode, owner, mtime, xattrs } }
    }
}
