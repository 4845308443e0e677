// SPDX-License-Identifier: GPL-2.0

//! A tar archive as the source of a tree: ustar, PAX and GNU, plain or compressed.
//!
//! Archives come in any order, an image has one, so contents are read twice over: a plain archive in a file is read in place;
//! a compressed one, or one from a pipe, is first unpacked into an unnamed file beside the image, still as one archive.
//! `header` reads the headers; here they become a tree (`FORMAT.md` 4.9).

mod header;

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use tesserafs_format::limits::BLOCK_BYTES;

use self::header::{EntryKind, Reader, Segment, TarEntry};
use super::{DeviceList, Devices, FileTask, Filter, Found, LeftOut, OpenFile, Source, Walked};
use crate::error::{path_of, Error, Result, Shown};
use crate::tree::{Attributes, Kind, TreeBuilder, TreeError};

/// The prefix by which OCI marks a name that is to disappear.
const WHITEOUT: &[u8] = b".wh.";
/// The entry by which OCI marks a directory whose lower contents are to disappear.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The xattr by which overlayfs recognises such a directory.
const OPAQUE_XATTR: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");
/// The index of the root among the nodes.
const ROOT: usize = 0;

/// An archive, indexed.
#[derive(Debug)]
pub struct TarSource {
    path: PathBuf,
    file: File,
    /// Size and times of the archive when it was indexed.
    stamp: (u64, i64, i64),
    filter: Filter,
    nodes: Vec<Node>,
    left_out_xattrs: u64,
}

#[derive(Debug)]
struct Node {
    attributes: Attributes,
    what: What,
}

/// The node that a name in the archive stands for.
#[derive(Debug)]
enum What {
    Directory {
        names: BTreeMap<Box<[u8]>, usize>,
        opaque: bool,
    },
    Regular {
        size: u64,
        segments: Box<[Segment]>,
    },
    Symlink(Vec<u8>),
    Fifo,
    /// A character device 0:0, or an OCI whiteout.
    Whiteout {
        oci: bool,
    },
    Device,
}

impl What {
    fn directory() -> Self {
        What::Directory { names: BTreeMap::new(), opaque: false }
    }
}

/// How an archive is compressed.
enum Compression {
    Plain,
    Gzip,
    Zstd,
}

/// Tells compression by the first bytes.
fn compression(start: &[u8], path: &Path) -> Result<Compression> {
    let known: [(&[u8], &str); 3] = [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x04\"M\x18", "lz4")];
    if let Some((_, program)) = known.iter().find(|(magic, _)| start.starts_with(magic)) {
        let reason =
            format!("is compressed with {program}; use {program} -dc ARCHIVE | mkfs-tesserafs --tar - IMAGE");
        return Err(Error::unsupported(path, reason));
    }
    Ok(match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or a skippable frame before it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::Plain,
    })
}

impl TarSource {
    /// Opens and indexes an archive; `-` is standard input. An archive that must be unpacked goes to an
    /// unnamed file in `spool`.
    pub fn open(path: &Path, spool: &Path, filter: Filter) -> Result<Self> {
        let input = if path.as_os_str() == "-" {
            File::from(io::stdin().as_fd().try_clone_to_owned().map_err(Error::io("open", path))?)
        } else {
            File::open(path).map_err(Error::io("open", path))?
        };
        let shown = if path.as_os_str() == "-" { Path::new("standard input") } else { path };
        let file = in_place(input, shown, spool)?;
        let stamp = stamp(&file).map_err(Error::io("stat", shown))?;
        let root =
            Node { attributes: Attributes { mode: 0o755, ..Attributes::default() }, what: What::directory() };
        let mut source =
            Self { path: shown.to_owned(), file, stamp, filter, nodes: vec![root], left_out_xattrs: 0 };
        source.index()?;
        Ok(source)
    }

    fn index(&mut self) -> Result<()> {
        let file = self.file.try_clone().map_err(Error::io("open", &self.path))?;
        let mut reader = Reader::new(file, &self.path, self.stamp.0);
        while let Some(entry) = reader.next()? {
            let offset = entry.offset;
            self.add(entry).map_err(|reason| Error::Archive { path: self.path.clone(), offset, reason })?;
        }
        self.left_out_xattrs = reader.left_out_xattrs;
        Ok(())
    }

    /// Adds an entry of the archive; the error says what is wrong with it.
    fn add(&mut self, entry: TarEntry) -> std::result::Result<(), String> {
        let mut names = components(&entry.path)?;
        let Some(name) = names.pop() else {
            // The root, `.` or `/`.
            if !matches!(entry.kind, EntryKind::Directory) {
                return Err("the root of the archive is not a directory".into());
            }
            self.nodes[ROOT].attributes = entry.attributes;
            return Ok(());
        };
        let parent = self.parent(&names)?;
        if name == OPAQUE {
            if let What::Directory { opaque, .. } = &mut self.nodes[parent].what {
                *opaque = true;
            }
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if hidden.is_empty() {
                return Err("an OCI whiteout without a name".into());
            }
            let attributes = Attributes { mtime: entry.attributes.mtime, ..Attributes::default() };
            let node = Node { attributes, what: What::Whiteout { oci: true } };
            self.insert(parent, hidden, node);
            return Ok(());
        }
        let what = match entry.kind {
            EntryKind::Directory => What::directory(),
            EntryKind::Regular { size, segments } => What::Regular { size, segments },
            EntryKind::Symlink(target) => What::Symlink(target),
            EntryKind::Fifo => What::Fifo,
            EntryKind::Device { whiteout: true } => What::Whiteout { oci: false },
            EntryKind::Device { whiteout: false } => What::Device,
            EntryKind::HardLink(target) => {
                let shown = || Shown(path_of(&target));
                let found = components(&target).ok().and_then(|names| self.find(&names));
                let node = found.ok_or_else(|| {
                    format!("a hard link to {}, which is not in the archive before it", shown())
                })?;
                match self.nodes[node].what {
                    What::Directory { .. } => {
                        return Err(format!("a hard link to the directory {}", shown()));
                    }
                    // A mark on what lower layers have, and no file; it may become a directory yet.
                    What::Whiteout { oci: true } => {
                        return Err(format!("a hard link to {}, which is a whiteout", shown()));
                    }
                    _ => {}
                }
                self.link(parent, name, node);
                return Ok(());
            }
        };
        self.insert(parent, name, Node { attributes: entry.attributes, what });
        Ok(())
    }

    /// The names of a directory that is known to be one.
    fn names(&mut self, dir: usize) -> Option<&mut BTreeMap<Box<[u8]>, usize>> {
        match &mut self.nodes[dir].what {
            What::Directory { names, .. } => Some(names),
            _ => None,
        }
    }

    /// Puts a new node where `name` is.
    fn insert(&mut self, parent: usize, name: &[u8], mut node: Node) {
        let old = self.find_in(parent, name);
        let old_what = old.map(|old| &mut self.nodes[old]);
        match (old_what, &mut node.what) {
            // A whiteout hides what lower layers have, never what this one has.
            (Some(Node { what: What::Whiteout { oci: true }, .. }), What::Directory { opaque, .. }) => {
                *opaque = true;
            }
            (Some(Node { what: What::Directory { opaque, .. }, .. }), What::Whiteout { oci: true }) => {
                *opaque = true;
                return;
            }
            (Some(Node { what: What::Whiteout { oci: true }, .. }), What::Whiteout { oci: true }) => {}
            (Some(_), What::Whiteout { oci: true }) => return,
            (Some(old @ Node { what: What::Directory { .. }, .. }), What::Directory { .. }) => {
                old.attributes = node.attributes;
                return;
            }
            _ => {}
        }
        self.nodes.push(node);
        self.link(parent, name, self.nodes.len() - 1);
    }

    fn link(&mut self, parent: usize, name: &[u8], node: usize) {
        if let Some(names) = self.names(parent) {
            names.insert(name.into(), node);
        }
    }

    fn find_in(&self, dir: usize, name: &[u8]) -> Option<usize> {
        match &self.nodes[dir].what {
            What::Directory { names, .. } => names.get(name).copied(),
            _ => None,
        }
    }

    fn find(&self, names: &[&[u8]]) -> Option<usize> {
        names.iter().try_fold(ROOT, |dir, name| self.find_in(dir, name))
    }

    /// The directory of these names; those that the archive does not name are made.
    fn parent(&mut self, names: &[&[u8]]) -> std::result::Result<usize, String> {
        let mut dir = ROOT;
        for name in names {
            dir = match self.find_in(dir, name) {
                Some(next) => next,
                None => {
                    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
                    self.insert(dir, name, Node { attributes, what: What::directory() });
                    self.nodes.len() - 1
                }
            };
            if let What::Whiteout { oci: true } = self.nodes[dir].what {
                // Hidden below, and there again.
                self.nodes[dir].attributes = Attributes { mode: 0o755, ..Attributes::default() };
                self.nodes[dir].what = What::Directory { names: BTreeMap::new(), opaque: true };
            }
            if !matches!(self.nodes[dir].what, What::Directory { .. }) {
                return Err(format!("lies below {}, which is no directory", Shown(path_of(name))));
            }
        }
        Ok(dir)
    }

    fn attributes(&self, node: &Node) -> Attributes {
        let mut attributes = node.attributes.clone();
        let (opaque_name, opaque_value) = OPAQUE_XATTR;
        if matches!(node.what, What::Directory { opaque: true, .. }) {
            attributes.xattrs.retain(|(name, _)| name != opaque_name);
            attributes.xattrs.push((opaque_name.to_vec(), opaque_value.to_vec()));
        }
        self.filter.attributes.apply(&mut attributes);
        attributes
    }
}

/// The error for a name that cannot be in a tree.
fn refused(path: &[u8]) -> impl FnOnce(TreeError) -> Error + '_ {
    move |error| Error::unsupported(path_of(path), error.to_string())
}

/// Size and times of a file.
fn stamp(file: &File) -> io::Result<(u64, i64, i64)> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

/// A file that holds the archive and nothing but it, plain.
fn in_place(input: File, path: &Path, spool: &Path) -> Result<File> {
    let is_file = input.metadata().map_err(Error::io("stat", path))?.is_file();
    let at_start = is_file && (&input).stream_position().map_err(Error::io("seek in", path))? == 0;
    let mut reader = BufReader::with_capacity(1 << 18, &input);
    let start = reader.fill_buf().map_err(Error::io("read", path))?;
    let mut decoded: Box<dyn io::Read + '_> = match compression(start, path)? {
        Compression::Plain if at_start => return Ok(input),
        Compression::Plain => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(reader).map_err(Error::io("decompress", path))?;
            // As `zstd -d --long=31` would.
            decoder.window_log_max(31).map_err(Error::io("decompress", path))?;
            Box::new(decoder)
        }
    };
    let unpacked = tempfile::tempfile_in(spool).map_err(Error::io("create a file in", spool))?;
    let mut writer = BufWriter::with_capacity(1 << 18, &unpacked);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = match decoded.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        writer.write_all(&buffer[..read]).map_err(Error::io("unpack the archive into", spool))?;
    }
    writer.flush().map_err(Error::io("unpack the archive into", spool))?;
    drop(writer);
    Ok(unpacked)
}

/// The names of a path. Leading slashes and `.` say nothing; `..` is refused.
fn components(path: &[u8]) -> std::result::Result<Vec<&[u8]>, String> {
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    if names.contains(&&b".."[..]) {
        return Err("its path leaves the archive by way of ..".into());
    }
    Ok(names)
}

/// The directories of a walk: their parents' places here, and their names.
///
/// A path is put together only where it is shown or matched: those of directories in directories without end would take
/// a time that is the square of their depth.
struct Trail<'a>(Vec<(usize, &'a [u8])>);

impl<'a> Trail<'a> {
    /// Adds a directory; its place.
    fn add(&mut self, parent: usize, name: &'a [u8]) -> usize {
        self.0.push((parent, name));
        self.0.len() - 1
    }

    /// The path of the directory at that place; the root's, at 0, is empty.
    fn path(&self, mut place: usize) -> Vec<u8> {
        let mut names = Vec::new();
        while place != 0 {
            let (parent, name) = self.0[place];
            names.push(name);
            place = parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}

impl Source for TarSource {
    /// Index of the node.
    type File = usize;
    type Open<'a> = OpenTarFile<'a>;

    fn walk(&self, found: Found<'_, usize>) -> Result<Walked> {
        let mut left_out = LeftOut { xattrs: self.left_out_xattrs, ..LeftOut::new(self.filter.verbose) };
        let mut devices = DeviceList::default();
        let mut builder = TreeBuilder::new(self.attributes(&self.nodes[ROOT])).map_err(refused(b"/"))?;
        builder.configure(&self.filter).map_err(refused(b"/"))?;
        let mut links: HashMap<usize, u32> = HashMap::new();
        let mut trail = Trail(vec![(0, b"")]);
        let mut queue = VecDeque::from([(1_u32, ROOT, 0)]);
        while let Some((dir_ino, dir, place)) = queue.pop_front() {
            builder.open_directory(dir_ino).map_err(|error| refused(&trail.path(place))(error))?;
            let What::Directory { names, .. } = &self.nodes[dir].what else { continue };
            for (name, index) in names {
                let path = || super::join(&trail.path(place), name);
                if !self.filter.exclude.is_empty() && self.filter.exclude.is_match(path_of(&path())) {
                    left_out.excluded += 1;
                    left_out.names.push(path, "excluded");
                    continue;
                }
                let node = &self.nodes[*index];
                let kind = match &node.what {
                    What::Directory { .. } => Kind::Directory,
                    What::Regular { size, .. } => Kind::Regular { size: *size },
                    What::Symlink(target) => Kind::Symlink(target.clone()),
                    What::Fifo => Kind::Fifo,
                    What::Whiteout { .. } => Kind::Whiteout,
                    What::Device => {
                        match self.filter.devices {
                            Devices::Refuse => devices.push(path_of(&path()).to_owned()),
                            Devices::Skip => {
                                left_out.devices += 1;
                                left_out.names.push(path, "a device");
                            }
                        }
                        continue;
                    }
                };
                let link = match links.entry(*index) {
                    MapEntry::Occupied(ino) => {
                        builder.add_link(name, *ino.get()).map_err(|error| refused(&path())(error))?;
                        continue;
                    }
                    MapEntry::Vacant(link) => link,
                };
                let ino = builder.add(name, &kind, self.attributes(node));
                let ino = ino.map_err(|error| refused(&path())(error))?;
                link.insert(ino);
                match kind {
                    Kind::Directory => queue.push_back((ino, *index, trail.add(place, name))),
                    Kind::Regular { size } if size > 0 => found(FileTask { ino, size, file: *index })?,
                    _ => {}
                }
            }
        }
        devices.refuse()?;
        Ok(Walked { tree: builder.finish().map_err(refused(b"/"))?, left_out })
    }

    fn open<'a>(&'a self, task: &'a FileTask<usize>) -> Result<OpenTarFile<'a>> {
        let segments = match &self.nodes[task.file].what {
            What::Regular { segments, .. } => segments,
            _ => &[][..],
        };
        Ok(OpenTarFile { source: self, segments, size: task.size })
    }
}

/// A file in an archive.
#[derive(Debug)]
pub struct OpenTarFile<'a> {
    source: &'a TarSource,
    segments: &'a [Segment],
    size: u64,
}

impl OpenTarFile<'_> {
    /// The segments from the one that ends behind `pos`.
    fn from(&self, pos: u64) -> &[Segment] {
        let first = self.segments.partition_point(|segment| segment.end() <= pos);
        &self.segments[first..]
    }
}

impl OpenFile for OpenTarFile<'_> {
    fn data(&mut self, pos: u64) -> Result<Range<u64>> {
        let Some(segment) = self.from(pos).first() else { return Ok(self.size..self.size) };
        let start = segment.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = segment.end().checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX).min(self.size);
        Ok(start.max(pos)..end)
    }

    fn read(&mut self, range: Range<u64>, buf: &mut Vec<u8>) -> Result<()> {
        let before = buf.len();
        buf.resize(before + (range.end - range.start) as usize, 0);
        let bytes = &mut buf[before..];
        for segment in self.from(range.start) {
            if segment.start >= range.end {
                break;
            }
            let start = segment.start.max(range.start);
            let end = segment.end().min(range.end);
            let part = &mut bytes[(start - range.start) as usize..(end - range.start) as usize];
            self.source
                .file
                .read_exact_at(part, segment.offset + (start - segment.start))
                .map_err(Error::io("read", &self.source.path))?;
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        let path = &self.source.path;
        if stamp(&self.source.file).map_err(Error::io("stat", path))? != self.source.stamp {
            return Err(Error::Changed { path: path.clone(), what: "its size or mtime is different" });
        }
        Ok(())
    }
}
